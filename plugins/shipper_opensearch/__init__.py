"""An output that stores events in OpenSearch, each under its own id: what is sent twice is there once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from isal import igzip

from shipper.clock import Clock, SystemClock
from shipper.errors import Held
from shipper.hookspecs import hookimpl
from shipper.output import Batch, Check, Failure, Field, Limits, Outcome, Output, Report, Target, Text, Unknown
from shipper.values import Value
from shipper_opensearch import bulk, verdict
from shipper_opensearch.long_values import fitted
from shipper_opensearch.settings import OpenSearchSettings

if TYPE_CHECKING:
    from shipper_opensearch.connection import Cluster

#: isal's levels 0 to 3; 1 costs a fifth of a microsecond per event.
GZIP_LEVEL = 1
#: Bytes of a request before compression. The smaller instances of Amazon OpenSearch Service take 10 MiB ("Network
#: limits" in its quotas); whether that counts the compressed bytes is not said.
MAX_BYTES = 9_000_000
#: Bytes that an event gets in front of it: its action line with id, index (255 at most) and routing, and the timestamp.
OVERHEAD = 450


class OpenSearchOutput(Output[OpenSearchSettings]):
    """Sends batches as ``_bulk`` requests with the action ``create``.

    A 409 on an event's own id says that an earlier attempt stored it. Where several nodes are named, what fails on one
    goes to another when the engine sends it again.
    """

    Settings = OpenSearchSettings
    requires = ("opensearchpy",)
    limits = Limits(max_bytes=MAX_BYTES, overhead=OVERHEAD)

    def __init__(self, name: str, settings: OpenSearchSettings, clock: Clock | None = None) -> None:
        super().__init__(name, settings)
        self._clock = clock or SystemClock()
        self._cluster: Cluster | None = None
        in_path = "{" not in settings.place
        self._path = f"/{quote(settings.place)}/_bulk" if in_path else "/_bulk"
        self._write = bulk.BodyWriter(
            timestamp_field=settings.timestamp_field,
            in_path=in_path,
            routed=settings.routing is not None,
            identified=settings.document_id == "event",
        )
        self._params = {"filter_path": bulk.FILTER} | ({"pipeline": settings.pipeline} if settings.pipeline else {})
        self._headers = {"content-type": "application/x-ndjson"}
        if settings.compression == "gzip":
            self._headers["content-encoding"] = "gzip"
        self._managed = settings.template == "manage" and settings.format.type == "native"
        self._known = frozenset(filter(None, [settings.pipeline]))

    def values(self) -> Sequence[Value]:
        place = Target(self.settings.place, lower=True)
        wanted: list[Value] = [Field("id"), Field("time"), place]
        return [*wanted, Text(self.settings.routing)] if self.settings.routing else wanted

    def connect(self, bookmark: bytes | None) -> None:
        from shipper_opensearch import management  # noqa: PLC0415 - as _open

        self.close()
        self._cluster = self._open()
        if self.settings.template == "manage":
            management.install(self._cluster, self.settings, self.name)

    def check(self) -> Iterator[Check]:
        from shipper_opensearch import checks  # noqa: PLC0415 - as _open

        cluster = self._open()
        try:
            yield from checks.ask(cluster, self.settings, self._clock)
        finally:
            cluster.close()

    def send(self, batch: Batch) -> Report:
        assert self._cluster is not None
        events, rows = batch.events, batch.values
        if self._managed and batch.size > len(events) * 100 and max(map(len, events)) > 32_000:
            events = [fitted(event) for event in events]
        refused = bulk.refused_ids(rows) if self.settings.document_id == "event" else []
        if refused:
            return self._without(batch, refused)
        body = self._write(events, rows)
        if "content-encoding" in self._headers:
            body = igzip.compress(body, GZIP_LEVEL, mtime=0)
        reply = self._cluster.request("POST", self._path, body, params=self._params, headers=self._headers)
        if not reply.ok:
            places = self._known.union(row[2] or "" for row in rows)
            raise verdict.of_request(reply.status, reply.headers, reply.content, len(rows), places, self._clock)
        if reply.content == bulk.all_created(len(rows)):
            return Report()
        try:
            items = bulk.items_of(reply.content, len(rows))
        except ValueError as error:
            raise Unknown(f"HTTP {reply.status} with something else than an answer: {error}", reason="answer") from None
        return self._report(items, rows)

    def close(self) -> None:
        if self._cluster is not None:
            self._cluster.close()
            self._cluster = None

    # -- what became of the events -----------------------------------------------------------------------------------

    def _report(self, items: Sequence[Any], rows: Sequence[bulk.Row]) -> Report:
        failed: dict[int, Failure] = {}
        already: list[int] = []
        for index, item in enumerate(items):
            status = item.create.status
            if status == 201:
                continue
            if status == 409:
                already.append(index)
                continue
            places = self._known.union([rows[index][2] or "", rows[index][0] or ""])
            failure = verdict.of_item(item.create, places)
            if failure is not None:
                failed[index] = failure
        held = [failure for failure in failed.values() if failure.outcome is Outcome.HELD]
        if held and len(held) == len(items):
            raise Held(held[0].reason, held[0].detail, verdict.mend_of(held[0].reason, held[0].detail))
        if held:
            failed = _passing(failed)
        return Report(failed=failed, already_stored=already)

    def _without(self, batch: Batch, refused: Sequence[int]) -> Report:
        """Sends a batch without the events that would have the whole request refused."""
        failure = Failure(Outcome.REJECTED, "rejected", f"its id is empty or has more than {bulk.MAX_ID_BYTES} bytes")
        failed = dict.fromkeys(refused, failure)
        kept = [index for index in range(len(batch)) if index not in failed]
        if not kept:
            return Report(failed=failed)
        events = [batch.events[index] for index in kept]
        rest = Batch(events, [batch.values[index] for index in kept], sum(map(len, events)))
        report = self.send(rest)
        return Report(
            failed=failed | {kept[index]: each for index, each in report.failed.items()},
            already_stored=[kept[index] for index in report.already_stored],
        )

    def _open(self) -> Cluster:
        """The client library is imported here, so that ``check`` and ``schema`` work without it."""
        from shipper_opensearch.connection import Cluster  # noqa: PLC0415

        return Cluster(self.settings)


def _passing(failed: Mapping[int, Failure]) -> dict[int, Failure]:
    """Full disks while other events pass: that passes too, and is no reason to refuse a target for good."""
    return {
        index: Failure(Outcome.THROTTLED, "disk_full", each.detail, verdict.FLOODED)
        if each.outcome is Outcome.HELD and each.reason == "disk_full"
        else each
        for index, each in failed.items()
    }


@hookimpl
def shipper_output() -> type[OpenSearchOutput]:
    return OpenSearchOutput
