"""A source whose records, partitions and troubles are under a test's control: nothing leaves the process."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from shipper.clock import Clock, SystemClock
from shipper.errors import Held
from shipper.settings import SourceSettings
from shipper.source import END, Check, Partition, Position, Read, Record, Source, Start, StopSignal

#: Records are numbered like Kinesis's sequence numbers: far beyond what SQLite or a float can hold, with holes.
FIRST = 49_671_113_845_230_000_000_000_000_000_000_000_000_000_000_000_000_000_000
STEP = 1_000_003


@dataclass(slots=True)
class _Line:
    """One partition: its records, and what its readers run into."""

    parents: tuple[str, ...] = ()
    records: list[Record] = field(default_factory=list)
    ended: bool = False
    listed: bool = True
    troubles: list[Exception] = field(default_factory=list)


class NastySource(Source[SourceSettings]):
    """Reads what ``add`` was given, at most ``at_once`` records in one read (``None``: all there is).

    ``follow``: it grows, and a reader at its tip waits for more, looking every ``poll`` seconds of ``clock``; otherwise
    reading ends with the last record. ``keeps``: seconds of retention. ``begun`` records each call of ``read``: the
    partition and where it was to begin.
    """

    def __init__(
        self,
        name: str = "nasty",
        settings: SourceSettings | None = None,
        *,
        partitions: Sequence[str] = ("p0",),
        follow: bool = False,
        at_once: int | None = None,
        identity: str = "nasty://stream",
        series: str | None = None,
        resource_id: str | None = None,
        keeps: float | None = None,
        facts: Mapping[str, str] | None = None,
        clock: Clock | None = None,
        poll: float = 0.01,
    ) -> None:
        super().__init__(name, settings or SourceSettings(type="nasty"))
        self.begun: list[tuple[str, Position | Start]] = []
        self.follow = follow
        self.at_once = at_once
        #: What is read; another one is a stream that was made anew.
        self.stream = identity
        #: How far behind the tip a reader says it is when it has read everything (seconds).
        self.lag = 0.0
        self._series = series
        self._resource_id = resource_id
        self._keeps = keeps
        self._facts = dict(facts or {})
        self._clock = clock or SystemClock()
        self._poll = poll
        self._lines = {partition: _Line() for partition in partitions}
        self._held: Held | None = None
        self._lock = threading.RLock()

    # -- what a test does to it ------------------------------------------------------------------------------------

    def add(self, *data: bytes, partition: str = "p0", arrived: float | None = None) -> list[int]:
        """Records, in order; ``arrived`` in seconds since 1970 (default: the clock's now). Returns their positions."""
        nanoseconds = round((self._clock.now() if arrived is None else arrived) * 1e9)
        with self._lock:
            records = self._lines[partition].records
            first = records[-1].position + STEP if records else FIRST
            new = [Record(first + number * STEP, one, nanoseconds) for number, one in enumerate(data)]
            records += new
        return [record.position for record in new]

    def split(self, partition: str, *children: str) -> None:
        """Ends a partition; its children follow when it has been read."""
        self.end(partition)
        with self._lock:
            for child in children:
                self._lines[child] = _Line(parents=(partition,))

    def merge(self, *parents: str, into: str) -> None:
        """Ends partitions; one child follows when all of them have been read."""
        for parent in parents:
            self.end(parent)
        with self._lock:
            self._lines[into] = _Line(parents=parents)

    def end(self, partition: str = "p0") -> None:
        """Closes a partition for good: what it has is still read."""
        with self._lock:
            self._lines[partition].ended = True

    def forget(self, partition: str) -> None:
        """The partition is listed no more, as a closed shard when its records have expired."""
        with self._lock:
            self._lines[partition].listed = False
            self._lines[partition].records.clear()

    def expire(self, partition: str = "p0", *, keep: int = 0) -> None:
        """Takes away the oldest records: all but ``keep``."""
        with self._lock:
            records = self._lines[partition].records
            del records[: len(records) - keep]

    def trouble(self, *errors: Exception, partition: str = "p0") -> None:
        """The next reads of a partition raise these, one each, before they bring anything."""
        with self._lock:
            self._lines[partition].troubles += errors

    def hold(self, reason: str = "access_denied", detail: str = "nasty") -> None:
        """Every method raises ``Held`` until ``mend``."""
        self._held = Held(reason, detail)

    def mend(self) -> None:
        self._held = None

    # -- what the engine calls -------------------------------------------------------------------------------------

    def connect(self) -> None:
        self._refuse()

    def identity(self) -> str:
        return self.stream

    def series(self) -> str:
        return self._series or self.stream

    def partitions(self) -> Sequence[Partition]:
        self._refuse()
        with self._lock:
            return [Partition(name, line.parents) for name, line in self._lines.items() if line.listed]

    def read(self, partition: Partition, begin: Position | Start, stop: StopSignal) -> Iterator[Read]:
        self.begun.append((partition.id, begin))
        line = self._lines[partition.id]
        passed = _before(begin)
        while not stop.is_set():
            self._refuse()
            with self._lock:
                if line.troubles:
                    raise line.troubles.pop(0)
                waiting = [record for record in line.records if _is_due(record, begin, passed)]
                records = waiting[: self.at_once]
                tip = len(records) == len(waiting)
                end = tip and line.ended
            if records:
                passed = records[-1].position
            yield Read(records, self.lag if tip else self._age(waiting[len(records)]), end)
            if end or (tip and not self.follow):
                return
            if tip:
                self._clock.wait(stop, self._poll)

    def check(self) -> Iterator[Check]:
        yield Check(self.name, ok=self._held is None, detail="" if self._held is None else self._held.detail)

    def retention(self) -> float | None:
        return self._keeps

    @property
    def resource_id(self) -> str | None:
        return self._resource_id

    def facts(self) -> dict[str, str]:
        return dict(self._facts)

    def _refuse(self) -> None:
        held = self._held
        if held is not None:
            raise Held(held.reason, held.detail)

    def _age(self, record: Record) -> float:
        """Seconds since the next record arrived; something more than none."""
        return max(self._clock.now() - record.arrived / 1e9, 0.001)


def _before(begin: Position | Start) -> int:
    """The last record that is not to be read."""
    if not isinstance(begin, Position):
        return -1
    return begin.record if begin.event == END else begin.record - 1


def _is_due(record: Record, begin: Position | Start, passed: int) -> bool:
    if record.position <= passed:
        return False
    return not isinstance(begin, datetime) or record.arrived >= begin.timestamp() * 1e9
