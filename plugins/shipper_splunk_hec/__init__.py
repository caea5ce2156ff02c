"""An output that sends events to Splunk's HTTP Event Collector (HEC), with or without indexer acknowledgement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from shipper.clock import Clock, SystemClock
from shipper.errors import Held
from shipper.hookspecs import hookimpl
from shipper.output import Batch, Check, DeliveryError, Failure, Limits, Outcome, Output, Report, Unknown
from shipper.values import Value
from shipper_splunk_hec import envelope
from shipper_splunk_hec.settings import SplunkHecSettings

if TYPE_CHECKING:
    from shipper_splunk_hec.client import Client

#: ``max_content_length`` of ``[http_input]`` in limits.conf, where nobody has changed it (bytes, not compressed).
MAX_BYTES = 838_860_800

_NOT_TRIED = Failure(Outcome.NOT_TRIED, "not_tried", "the request ended at an event before it")


class SplunkHecOutput(Output[SplunkHecSettings]):
    """One request per batch; the raw endpoint needs one for each combination of index, sourcetype, source and host.

    HEC has no idempotency: whatever ends without an answer may be stored, and is sent again. Without ``ack``, delivered
    means that Splunk has it in a queue in memory.
    """

    Settings = SplunkHecSettings
    requires = ("urllib3",)
    limits = Limits(max_bytes=MAX_BYTES, overhead=envelope.OVERHEAD)

    def __init__(self, name: str, settings: SplunkHecSettings, clock: Clock | None = None) -> None:
        super().__init__(name, settings)
        self._clock = clock or SystemClock()
        self._client: Client | None = None

    def values(self) -> Sequence[Value]:
        return envelope.values(self.settings)

    def connect(self, bookmark: bytes | None) -> None:
        self.close()
        self._client = self._new_client()

    def check(self) -> Iterator[Check]:
        try:
            client = self._new_client()
        except Held as held:
            yield Check("connection", ok=False, detail=held.detail, mend=held.mend)
            return
        try:
            yield from client.check()
        finally:
            client.close()

    def send(self, batch: Batch) -> Report:
        assert self._client is not None, "send before connect"
        failed: dict[int, Failure] = {}
        slow_down = False
        waiting = self._requests(batch)
        while waiting:
            indices = waiting.pop(0)
            try:
                taken = self._client.deliver(batch, indices)
            except (Held, DeliveryError) as error:
                if len(indices) == len(batch):
                    raise
                failed |= dict.fromkeys(indices, _failure(error))
                failed |= dict.fromkeys([index for group in waiting for index in group], _NOT_TRIED)
                break
            slow_down = slow_down or taken.slow_down
            if taken.count:
                try:
                    self._client.wait_until_indexed(taken)
                except Unknown as error:
                    failed |= dict.fromkeys(indices[: taken.count], error.failure)
            if taken.refusal is not None:
                failed |= self._refused(batch, indices[taken.count :], taken.refusal, waiting)
        return Report(failed, slow_down=slow_down)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _new_client(self) -> Client:
        from shipper_splunk_hec.client import Client  # noqa: PLC0415 - it imports what ``requires`` names

        return Client(self.name, self.settings, self._clock)

    def _requests(self, batch: Batch) -> list[Sequence[int]]:
        """The events of each request."""
        if self.settings.endpoint == "event":
            return [range(len(batch))]
        groups: dict[tuple[str | None, ...], list[int]] = {}
        for index, values in enumerate(batch.values):
            groups.setdefault(values[envelope.HOST :], []).append(index)
        return [*groups.values()]

    def _refused(
        self, batch: Batch, indices: Sequence[int], refusal: Failure, waiting: list[Sequence[int]]
    ) -> dict[int, Failure]:
        """What becomes of the event that a request ended at, and of those after it.

        Where its index is refused, those for the same index are too; those for others go out in a request of their own
        now: who may log in to a database may name an index, but must not stop what goes to the others.
        """
        refused, *left = indices
        if refusal.outcome is not Outcome.HELD:
            return {refused: refusal} | dict.fromkeys(left, _NOT_TRIED)
        index = batch.values[refused][envelope.INDEX]
        if others := [one for one in left if batch.values[one][envelope.INDEX] != index]:
            waiting.insert(0, others)
        same = [one for one in left if batch.values[one][envelope.INDEX] == index]
        return dict.fromkeys([refused, *same], refusal)


def _failure(error: Held | DeliveryError) -> Failure:
    if isinstance(error, Held):
        return Failure(Outcome.HELD, error.reason, str(error))
    return error.failure


@hookimpl
def shipper_output() -> type[SplunkHecOutput]:
    return SplunkHecOutput
