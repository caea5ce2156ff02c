"""Reads one partition: gives every lane its share of every chunk, and waits for the slowest of them.

What cannot be decoded now, and what follows it, goes to the source's keeper.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from shipper.clock import Clock
from shipper.engine.dead_letter_box import DeadLetterBox
from shipper.engine.holds import Holds
from shipper.engine.keeper import Keeper
from shipper.engine.lane import Lane
from shipper.engine.ledger import Ledger
from shipper.engine.letters import record_letter
from shipper.engine.prepare import Prepare, Prepared
from shipper.engine.threads import Pulse
from shipper.engine.unpacking import decodes, since
from shipper.errors import Held
from shipper.observe.metrics import Metrics
from shipper.source import EARLIEST, END, Partition, Position, Read, Record, Source, Start
from shipper.state import gaps, positions
from shipper.state.kept_records import KeptRecord
from shipper.state.positions import PartitionRow, Stream
from shipper.state.writer import Writer

log = logging.getLogger("shipper.engine")

#: Seconds between two notes in the state file that a reader stood at the tip.
TIP_INTERVAL = 30.0
#: Seconds between two looks at whether what stands before kept records has gone to the spools.
LOOK = 0.5


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
        keeper: Keeper,
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
        self._lanes = [line.lane for line in lines]
        self._prepare = prepare
        self._keeper = keeper
        # Seconds for which what cannot be decoded is tried again from memory, and since when that is so. A single run
        # would take it for the end of all progress.
        self._after = 0.0 if once else min((lane.settings.spool.after for lane in self._lanes), default=0.0)
        self._held_since: float | None = None
        self._passed = -1
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
        """The smallest position of the lanes; where one of them has settled nothing, the place where it begins: the
        partition's beginning, or what it was told."""
        settled = [line.ledger.settled for line in self._lines]
        known = [position for position in settled if position is not None]
        if len(known) == len(settled):
            return min(known)
        standings = [self._row.standings[line.lane.id] for line in self._lines]
        told = [
            standing.begins or self._row.begin
            for standing, position in zip(standings, settled, strict=True)
            if position is None
        ]
        times = [time for time in told if isinstance(time, datetime)]
        if len(times) < len(told):
            return EARLIEST
        first = min(times)
        # One that stands before that time goes on from there.
        behind = [
            position
            for standing, position in zip(standings, settled, strict=True)
            if position is not None and standing.arrived < first.timestamp() * 1e9
        ]
        return min(behind, default=first)

    def _pass_on(self, records: Sequence[Record], pulse: Pulse) -> bool:
        """Gives the records to the lanes, or to the keeper; false when the reader was stopped before all were given."""
        while records:
            if self._keeper.takes(self._row.id):
                return self._set_aside(records, pulse)
            self._passed = -1
            try:
                if not self._decode(records, pulse):
                    return False
                held = None
            except Held as refusal:
                held = refusal
            # What stands before the refused key, or before a storm, is with the lanes; the rest is in memory.
            records = [record for record in records if record.position > self._passed]
            if held is not None:
                age = self._held_for()
                if age >= self._after:
                    if not self._set_aside(records, pulse):
                        return False
                    self._keeper.held(held)
                    self._held_since = None
                    return True
                self._hold(held, pulse, self._after - age)
                if self._stop.is_set():
                    return False
        return True

    def _held_for(self) -> float:
        now = self._clock.monotonic()
        if self._held_since is None:
            self._held_since = now
        return now - self._held_since

    def _decode(self, records: Sequence[Record], pulse: Pulse) -> bool:
        """Gives the lanes what the records hold, up to where a storm begins; false when the reader was stopped."""
        for prepared in self._prepare(records):
            chunk, storm = prepared.chunk, self._keeper.storm
            self._held_since = None
            believed = len(chunk.records)
            if not prepared.refused:
                storm.passed()
            else:
                believed = storm.judge(decodes(prepared))
            if believed == len(chunk.records):
                if not self._offer(prepared, pulse):
                    return False
                if chunk.complete:
                    self._passed = chunk.records[-1]
                continue
            # Decoded again, without those that are not believed: once in a storm.
            first, end = chunk.records[0], chunk.records[believed]
            for part in self._prepare([record for record in records if first <= record.position < end]):
                if not self._offer(part, pulse):
                    return False
                self._passed = part.chunk.records[-1]
            return True
        return True

    def _offer(self, prepared: Prepared, pulse: Pulse) -> bool:
        if prepared.refused:
            if not self._wait_for_room(pulse):
                return False
            self._keep(prepared)
        with pulse.idle():
            for line, share in zip(self._lines, prepared.shares, strict=True):
                if not line.lane.offer(line.ledger, prepared.chunk, share, self._stop, self._lanes):
                    return False
        self._metrics.prepared(self._source.name, prepared)
        return True

    def _set_aside(self, records: Sequence[Record], pulse: Pulse) -> bool:
        """Puts records to the keeper, as they were read, and moves the lanes past them; false when the reader was
        stopped before that."""
        while not self._stop.is_set():
            with pulse.idle():
                self._writer.wait_while_behind(self._stop)
            short = self._keeper.short()
            if short is not None:
                self._hold(short, pulse)
                continue
            for line in self._lines:
                if line.ledger.owes:
                    line.lane.spool_now()
            if any(line.ledger.owes for line in self._lines):
                with pulse.idle():
                    self._clock.wait(self._stop, LOOK)
                continue
            if self._keeper.storm.raging:
                self._keeper.recall()
            kept = self._kept(records)
            moves = []
            for line in self._lines:
                with line.lane.lock():
                    move = line.ledger.pass_over(Position(records[-1].position, END), records[-1].arrived)
                moves.append((line.lane.id, move))
            with pulse.idle():
                self._keeper.append(self._row.id, kept, moves)
            return True
        return False

    def _kept(self, records: Sequence[Record]) -> list[KeptRecord]:
        """The records, each for the lanes that have not settled it."""
        now = self._clock.now()
        kept: list[KeptRecord] = []
        for record in records:
            owed: dict[tuple[int, ...], list[int]] = {}
            for line in self._lines:
                settled = line.ledger.settled
                if settled is None or settled <= (record.position, 0):
                    owed.setdefault((), []).append(line.lane.id)
                elif settled < (record.position, END):
                    owed.setdefault(since(settled.event, line.ledger.decoder), []).append(line.lane.id)
            kept += [
                KeptRecord(
                    id=0,
                    stream=self._stream.id,
                    partition=self._row.id,
                    source=self._source.name,
                    record=record.position,
                    reference=self._source.reference(record.position),
                    resource_id=self._source.resource_id,
                    arrived=record.arrived,
                    time=now,
                    lanes=tuple(lanes),
                    ordinals=ordinals,
                    replayed=False,
                    data=record.data,
                )
                for ordinals, lanes in owed.items()
            ]
        return kept

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

    def _keep(self, prepared: Prepared) -> None:
        """Puts undecodable records to the dead letters: handed in before any position that passes them."""
        now = self._clock.now()
        letters = []
        for record, parts in prepared.refused:
            end = Position(record.position, END)
            owed = (line for line in self._lines if line.ledger.settled is None or line.ledger.settled < end)
            lanes = tuple(sorted(line.lane.id for line in owed))
            letters.append(record_letter(self._source, self._stream.id, self._row.id, record, parts, now, lanes))
        size = sum(len(letter.data) for letter in letters)
        self._writer.submit(self._letters.keeping(letters), self._letters.kept, size)
        row = 0
        outcomes = decodes(prepared)
        while row < len(outcomes) and not outcomes[-1 - row]:
            row += 1
        if row and self._keeper.storm.note(letters[-row:]):
            self._keeper.recall()

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

    def _hold(self, held: Held, pulse: Pulse, longest: float = float("inf")) -> None:
        pause = self._holds.hold(self._component, held, self._partition.id)
        with pulse.idle():
            self._clock.wait(self._stop, min(pause, longest))

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

    def _say_gap(self, begin: float, end: float) -> None:
        self._metrics.gap(self._source.name)
        name, partition, now = self._source.name, self._partition.id, self._clock.now()
        self._writer.submit(lambda connection: gaps.note(connection, name, partition, begin, end, "expired", now))
        log.error(
            "%s: a gap in %s: what arrived between %s and %s may have expired before it was read; reading goes on",
            self._component,
            self._partition.id,
            _utc(begin),
            _utc(end),
        )


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
