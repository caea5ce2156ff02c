"""An output that posts to a receiver process and reports what that one says: for shippers that get killed."""

from __future__ import annotations

import http.client
import json
import threading
from urllib.parse import urlsplit

from shipper.hookspecs import hookimpl
from shipper.output import Batch, Failure, Held, Outcome, Output, OutputSettings, Report, Unknown


class RigSettings(OutputSettings):
    url: str


class RigOutput(Output[RigSettings]):
    Settings = RigSettings

    def connect(self, bookmark: bytes | None) -> None:
        self._address = urlsplit(self.settings.url)
        self._local = threading.local()
        self._connections: list[http.client.HTTPConnection] = []

    def send(self, batch: Batch) -> Report:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection(self._address.netloc, timeout=60)
            self._local.connection = connection
            self._connections.append(connection)
        try:
            connection.request("POST", f"/{self.name}", body=b"\n".join(batch.events))
            answer = json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            connection.close()
            raise Unknown(type(error).__name__) from error
        if "held" in answer:
            raise Held("refused", answer["held"])
        failed = {
            int(index): Failure(Outcome(outcome), reason=outcome, detail="the rig says so")
            for index, outcome in answer.get("failed", {}).items()
        }
        return Report(failed=failed, already_stored=answer.get("already_stored", ()))

    def close(self) -> None:
        for connection in getattr(self, "_connections", ()):
            connection.close()


@hookimpl
def shipper_output() -> type[RigOutput]:
    return RigOutput
