"""Reads one partition: gives every lane its share of every chunk, and waits for the slowest of them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from shipper.clock import Clock
from shipper.decode import Refused
from shipper.engine.dead_letter_box import DeadLetterBox
from shipper.engine.holds import Holds
from shipper.engine.lane import Lane
from shipper.engine.ledger import Ledger
from shipper.engine.prepare import Prepare, Prepared
from shipper.engine.threads import Pulse
from shipper.errors import Held
from shipper.observe.metrics import Metrics
from shipper.source import END, Partition, Position, Read, Record, Source, Start
from shipper.state import positions
from shipper.state.dead_letters import EVERY_OUTPUT, DeadLetter
from shipper.state.positions import PartitionRow, Stream
from shipper.state.writer import Writer

log = logging.getLogger("shipper.engine")

#: Seconds between two notes in the state file that a reader stood at the tip.
TIP_INTERVAL = 30.0


@dataclass(frozen=True, slots=True)
class Line:
    """A lane as a reader sees it: where it puts its share, and what it owes of this partition."""

    lane: Lane
    ledger: Ledger


class Reader:
    """Reads one partition of a source from where its lanes stand."""

    def __init__(
        self,
        source: Source[Any],
        stream: Stream,
        partition: Partition,
        row: PartitionRow,
        lines: Sequence[Line],
        prepare: Prepare,
        *,
        once: bool,
        closed: bool,
        writer: Writer,
        letters: DeadLetterBox,
        holds: Holds,
        metrics: Metrics,
        clock: Clock,
        stop: threading.Event,
    ) -> None:
        self._source = source
        self._stream = stream
        self._partition = partition
        self._row = row
        self._lines = lines
        self._prepare = prepare
        self._once = once
        self._closed = closed
        self._writer = writer
        self._letters = letters
        self._holds = holds
        self._metrics = metrics
        self._clock = clock
        self._stop = stop
        self._component = f"source {source.name}"
        self._identity = source.identity()
        self._tip_noted = float("-inf")
        self._started = clock.monotonic()
        self._seen: float | None = None
        self._lag = float("inf")
        #: How many reads brought records, or came nearer to the tip.
        self.reads = 0
        #: The partition is finished for good.
        self.ended = False

    def run(self, pulse: Pulse) -> None:
        """The body of the reader's thread: ends at the partition's end, with ``--once`` at its present end."""
        begin = self._begin()
        self._report_gap()
        self._metrics.begun(self._source.name, self._partition.id)
        try:
            self._read(begin, pulse)
        finally:
            self._metrics.finished(self._source.name, self._partition.id)

    def _read(self, begin: Position | Start, pulse: Pulse) -> None:
        while not self._stop.is_set() and self._source.identity() == self._identity:
            try:
                reads = self._source.read(self._partition, begin, self._stop)
                while True:
                    asked = self._clock.monotonic()
                    read = next(reads, None)
                    if read is None:
                        return
                    pulse()
                    self._report_expired(read, asked)
                    if not self._pass_on(read.records, pulse):
                        return
                    if read.records:
                        begin = Position(read.records[-1].position, END)
                    self._holds.release(self._component, self._partition.id)
                    self._note(read)
                    if read.end:
                        self._end()
                        return
                    if self._once and self._at_present_end(read, asked):
                        return
            except Held as held:
                self._hold(held, pulse)

    def _begin(self) -> Position | Start:
        """The smallest position of the lanes; the partition's beginning where one of them has settled nothing."""
        settled = [line.ledger.settled for line in self._lines]
        known = [position for position in settled if position is not None]
        return min(known) if len(known) == len(settled) else self._row.begin

    def _pass_on(self, records: Sequence[Record], pulse: Pulse) -> bool:
        """Gives the records to the lanes; false when the reader was stopped before all of them had theirs."""
        passed = -1
        while records:
            try:
                for prepared in self._prepare(records):
                    if not self._offer(prepared, pulse):
                        return False
                    if prepared.chunk.complete:
                        passed = prepared.chunk.records[-1]
                return True
            except Held as held:
                # What stands before the refused key is with the lanes; the rest is tried again, from memory.
                records = [record for record in records if record.position > passed]
                self._hold(held, pulse)
                if self._stop.is_set():
                    return False
        return True

    def _offer(self, prepared: Prepared, pulse: Pulse) -> bool:
        if prepared.refused:
            if not self._wait_for_room(pulse):
                return False
            self._keep(prepared.refused)
        with pulse.idle():
            for line, share in zip(self._lines, prepared.shares, strict=True):
                if not line.lane.offer(line.ledger, prepared.chunk, share, self._stop):
                    return False
        self._metrics.prepared(self._source.name, prepared)
        return True

    def _wait_for_room(self, pulse: Pulse) -> bool:
        """Waits while the dead letters are full, or the disk takes none; false when the reader was stopped."""
        while not self._stop.is_set():
            with pulse.idle():
                self._writer.wait_while_behind(self._stop)
            try:
                self._letters.require_room()
            except Held as held:
                self._hold(held, pulse)
            else:
                return True
        return False

    def _keep(self, refused: Sequence[tuple[Record, list[Refused]]]) -> None:
        """Puts undecodable records to the dead letters: handed in before any position that passes them."""
        letters = []
        for record, parts in refused:
            ordinals = tuple(part.ordinal for part in parts if part.ordinal is not None)
            letters.append(
                DeadLetter(
                    stream=self._stream.id,
                    partition=self._row.id,
                    record=record.position,
                    reference=self._source.reference(record.position),
                    ordinals=ordinals,
                    output=EVERY_OUTPUT,
                    source=self._source.name,
                    reason=str(parts[0].reason),
                    detail=parts[0].detail,
                    time=self._clock.now(),
                    arrived=record.arrived,
                    data=record.data,
                    resource_id=self._source.resource_id,
                )
            )
        size = sum(len(letter.data) for letter in letters)
        self._writer.submit(self._letters.keeping(letters), self._letters.kept, size)

    def _note(self, read: Read) -> None:
        if read.records or (read.lag is not None and read.lag < self._lag):
            self.reads += 1
        self._lag = float("inf") if read.lag is None else read.lag
        self._metrics.read(self._source.name, self._partition.id, read)
        now = self._clock.monotonic()
        if read.lag == 0 and now - self._tip_noted >= TIP_INTERVAL:
            self._tip_noted = now
            wall = self._clock.now()
            # One that still owes something has not come as far as the reader.
            lanes = [line.lane.id for line in self._lines if not line.ledger.owes]
            self._writer.submit(lambda connection: positions.saw_tip(connection, self._row.id, lanes, wall))

    def _at_present_end(self, read: Read, asked: float) -> bool:
        """What arrives after the start of ``--once`` belongs to the next run: a busy stream would never end. ``asked``:
        when the read began. A closed partition is read to its end, after which its children follow."""
        return read.lag is not None and read.lag <= max(0.0, asked - self._started) and not self._closed

    def _end(self) -> None:
        for line in self._lines:
            line.lane.end(line.ledger)
        self.ended = True

    def _hold(self, held: Held, pulse: Pulse) -> None:
        with pulse.idle():
            self._clock.wait(self._stop, self._holds.hold(self._component, held, self._partition.id))

    def _report_gap(self) -> None:
        """At start: what the slowest lane has not seen may have expired, when it was away for longer than the source
        keeps a record."""
        retention = self._source.retention()
        standings = [self._row.standings[line.lane.id] for line in self._lines]
        if retention is None or not standings:
            return
        seen = min(max(standing.arrived / 1e9, standing.tip) for standing in standings)
        horizon = self._clock.now() - retention
        if 0 < seen < horizon:
            self._say_gap(seen, horizon)

    def _report_expired(self, read: Read, asked: float) -> None:
        """While running: the same after a hold or a wait for full queues. Reckoned with the monotonic clock, because a
        wall clock that jumps expires nothing."""
        retention = self._source.retention()
        if retention is not None and self._seen is not None:
            late = asked - self._seen - retention
            if late > 0:
                horizon = self._clock.now() - retention
                self._say_gap(horizon - late, horizon)
        if read.lag is not None:
            self._seen = asked - read.lag

    def _say_gap(self, since: float, until: float) -> None:
        self._metrics.gap(self._source.name)
        log.error(
            "%s: a gap in %s: what arrived between %s and %s may have expired before it was read; reading goes on",
            self._component,
            self._partition.id,
            _utc(since),
            _utc(until),
        )


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
