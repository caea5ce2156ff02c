"""An output that posts to a receiver process and reports what that one says: for shippers that get killed.

The reply is JSON: ``failed`` has, by index, an outcome or a table with outcome, reason, detail and retry_after;
``already_stored`` and ``slow_down`` are as in a report; ``raise`` is a table about the whole batch; ``held`` holds.
A reply that makes no sense becomes a report that makes none: this plugin is as careless as some will be.
"""

from __future__ import annotations

import http.client
import json
import threading
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field

from shipper.hookspecs import hookimpl
from shipper.output import (
    Batch,
    Check,
    DeliveryError,
    Failure,
    Held,
    NotTried,
    Outcome,
    Output,
    OutputSettings,
    Rejected,
    Report,
    Throttled,
    TooLarge,
    Unknown,
)
from shipper.units import Duration

_ERRORS: dict[Outcome, type[DeliveryError]] = {
    error.outcome: error for error in (NotTried, Rejected, Throttled, TooLarge, Unknown)
}


class RigSettings(OutputSettings):
    url: str = Field(description="where the receiver listens")
    timeout: Duration = Field(60.0, gt=0, description="how long to wait for its answer")


class RigOutput(Output[RigSettings]):
    Settings = RigSettings

    def __init__(self, name: str, settings: RigSettings) -> None:
        super().__init__(name, settings)
        self._address = urlsplit(settings.url)
        self._local = threading.local()
        self._connections: list[http.client.HTTPConnection] = []

    def check(self) -> Any:
        connection = self._new_connection()
        try:
            connection.connect()
        except OSError as error:
            yield Check(self.settings.url, ok=False, detail=str(error), mend="start the receiver")
        else:
            yield Check(self.settings.url, ok=True)
        finally:
            connection.close()

    def send(self, batch: Batch) -> Report:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._new_connection()
            self._connections.append(connection)
        try:
            if connection.sock is None:
                connection.connect()
        except OSError as error:
            raise NotTried(type(error).__name__, reason="refused") from error
        try:
            connection.request("POST", f"/{self.name}", body=b"\n".join(batch.events))
            answer = json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            connection.close()
            raise Unknown(type(error).__name__) from error
        return _report(answer)

    def close(self) -> None:
        for connection in self._connections:
            connection.close()

    def _new_connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._address.netloc, timeout=self.settings.timeout)


def _report(answer: Any) -> Report:
    if "held" in answer:
        raise Held(answer.get("reason", "refused"), answer["held"], "tell the receiver to behave")
    if "raise" in answer:
        failure = _failure(answer["raise"])
        error = _ERRORS[failure.outcome]
        raise error(failure.detail, reason=failure.reason, retry_after=failure.retry_after)
    return Report(
        failed={int(index): _failure(told) for index, told in answer.get("failed", {}).items()},
        already_stored=answer.get("already_stored", ()),
        slow_down=answer.get("slow_down", False),
    )


def _failure(told: Any) -> Failure:
    if isinstance(told, str):
        return Failure(Outcome(told), reason=told, detail="the rig says so")
    return Failure(Outcome(told["outcome"]), told.get("reason", ""), told.get("detail", ""), told.get("retry_after"))


@hookimpl
def shipper_output() -> type[RigOutput]:
    return RigOutput
