"""The source's own spool: keeps records that cannot be decoded now, and decodes them first when they can be.

A stream forgets after a day; who disables its key must not win by waiting. So reading goes on, records are kept as they
were read, in order, and one thread tries the oldest of them again and again (delivery.md, Outcomes). Those whose key
stays refused while others decode are passed over (``passing``).
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from shipper.clock import EngineClock
from shipper.decode import Decoder
from shipper.decode.das.keys import REFUSAL_TTL
from shipper.engine.dead_letter_box import DeadLetterBox, Fresh
from shipper.engine.holds import Holds
from shipper.engine.lane import Lane
from shipper.engine.leaving import bury, of_the_row, transaction
from shipper.engine.passing import Passing
from shipper.engine.prepare import Routes
from shipper.engine.source_storm import SourceStorm
from shipper.engine.spool_disk import SpoolDisk
from shipper.engine.spooling import Rows
from shipper.engine.threads import Pulse
from shipper.engine.unpacking import Leave, Piece, Unpacked, Unpacking
from shipper.errors import Held
from shipper.observe.metrics import Metrics
from shipper.source import Source
from shipper.state import kept_line, kept_records, positions
from shipper.state.dead_letters import DeadLetter
from shipper.state.kept_records import KeptRecord
from shipper.state.positions import Move
from shipper.state.spool import Spooled, Totals
from shipper.state.writer import Writer

log = logging.getLogger("shipper.engine")

#: The part of the source that is held while what was kept cannot be decoded.
PART = "kept records"
#: Bounds of what is read back at once.
PAGE_RECORDS = 500
PAGE_BYTES = 1024 * 1024
#: Pages that are looked through at a try while records are refused, and for how many seconds.
LOOK_PAGES = 8
LOOK_SECONDS = 5.0
#: Seconds between two looks while nothing changes.
LOOK = 0.5


class Keeper:
    """The kept records of one source, of all its partitions."""

    def __init__(
        self,
        source: Source[Any],
        lanes: Sequence[Lane],
        routes: Routes,
        decoder: Callable[[str], Decoder],
        everyone: Callable[[], Sequence[Lane]],
        changed: threading.Event,
        *,
        threshold: int,
        disk: SpoolDisk,
        writer: Writer,
        letters: DeadLetterBox,
        holds: Holds,
        metrics: Metrics,
        clock: EngineClock,
    ) -> None:
        """``lanes`` and their ``routes`` are the source's, ``everyone`` every lane at work; ``decoder`` makes one for a
        partition (name); ``changed`` is set when nothing is kept any more; ``threshold``: of a storm."""
        self._source = source
        self._decoder = decoder
        self._everyone = everyone
        self._changed = changed
        self._disk = disk
        self._writer = writer
        self._letters = letters
        self._holds = holds
        self._metrics = metrics
        self._clock = clock
        self._component = f"source {source.name}"
        self._unpacking = Unpacking(source, lanes, routes, self._decoder_of, clock)
        self._stop = threading.Event()
        self._news = threading.Condition()
        self._series = ""
        # Ids up to which the rows at the start, and the replayed rows at the last look, are counted.
        self._known = 0
        self._seen: Counter[int] = Counter()
        self._recalls = 0
        self._look_due = False
        self._waiting: Counter[int] = Counter()
        self._records = 0
        self._bytes = 0
        self._probed: Counter[int] = Counter()
        self._lines: defaultdict[int, Passing] = defaultdict(Passing)
        # Of the waiting ones, and of all, those that were passed over; why, when they are tried again, and whether they
        # are what the source is held for.
        self._left: Counter[int] = Counter()
        self._left_records = 0
        self._why: Held | None = None
        self._again = 0.0
        self._shown = False
        #: Whether what cannot be decoded is to blame itself.
        self.storm = SourceStorm(source.name, threshold)
        #: How many records were decoded, or became dead letters; and tries after which some may be passed over.
        self.done = 0

    # -- readers -----------------------------------------------------------------------------------------------------

    def open(self, series: str) -> None:
        """Begins with what the state file holds of a series of streams, before anything is read."""
        first = not self._series
        self._series = series
        self._unpacking.forget_decoders()
        if first:
            found = self._writer.call(lambda connection: kept_line.waiting(connection, series))
            with self._news:
                self._waiting.update(found.records)
                self._known = found.last
                self._records += sum(found.records.values())
                self._bytes += found.bytes

    def takes(self, partition: int) -> bool:
        """Whether what is read of a partition (id) is to be kept: in a storm, or when what was read before it waits and
        was not passed over."""
        with self._news:
            return self.storm.raging or self._waiting[partition] > self._left[partition]

    def append(self, partition: int, records: Sequence[KeptRecord], moves: Sequence[tuple[int, Move]]) -> None:
        """Keeps records of a partition behind the others, and moves lanes past them, in one transaction."""
        with self._news:
            self._waiting[partition] += len(records)
            self._records += len(records)
            self._bytes += sum(len(record.data) for record in records)

        def change(connection: sqlite3.Connection) -> None:
            kept_records.keep(connection, records)
            for lane, move in moves:
                positions.settle(connection, lane, [move], None)

        self._writer.call(change)
        with self._news:
            self._news.notify_all()

    def held(self, held: Held) -> None:
        """A reader could not decode for this reason, and keeps what it reads from now on."""
        self._holds.hold(self._component, held, PART)

    def recall(self) -> None:
        """A storm has begun: the dead letters of its row are sent again."""
        letters = self.storm.take()
        now = self._clock.now()

        def change(connection: sqlite3.Connection) -> None:
            kept_line.recall(connection, letters, now)
            self._letters.count_again(connection)

        if letters:
            with self._news:
                self._recalls += 1
            self._writer.submit(change, self._recalled)

    def short(self) -> Held | None:
        """Why nothing is kept although it should be."""
        if not self._disk.short():
            return None
        return Held("disk_full", "the disk under the state file is nearly full: nothing is kept, reading waits")

    # -- what others ask -----------------------------------------------------------------------------------------------

    def totals(self) -> tuple[int, int]:
        """How many records wait, and their bytes."""
        with self._news:
            return self._records, max(0, self._bytes)

    @property
    def empty(self) -> bool:
        """Whether nothing is kept."""
        return self._records <= 0 and not (self._recalls or self._look_due or self.storm.raging)

    @property
    def idle(self) -> bool:
        """Whether nothing is kept but what was passed over."""
        return self._records <= self._left_records and not (self._recalls or self._look_due or self.storm.raging)

    def stop(self) -> None:
        """What is kept stays."""
        self._stop.set()
        with self._news:
            self._news.notify_all()

    # -- the thread ----------------------------------------------------------------------------------------------------

    def run(self, pulse: Pulse) -> None:
        """The body of the keeper's thread."""
        while not self._stop.is_set():
            pulse()
            try:
                moved = self._turn(pulse)
            except Held as held:
                self._shown = False
                pause = self._holds.hold(self._component, held, PART)
                if any(line.patient for line in self._lines.values()):
                    pause = min(pause, REFUSAL_TTL)
                with pulse.idle():
                    self._clock.wait(self._stop, pause)
                continue
            self._show_left()
            if moved and self.idle:
                self._changed.set()
            with pulse.idle(), self._news:
                if not moved and not self._stop.is_set():
                    # What is being appended is not on disk yet.
                    self._clock.wait_for_news(self._news, LOOK if self.idle else LOOK / 10)

    def _turn(self, pulse: Pulse) -> bool:
        """Decodes what can be; says whether anything could. Raises ``Held``. The key of a stream that is no more does
        not hold up its successor."""
        streams = self._disk.ask(lambda connection: kept_line.streams(connection, self._series))
        self._look(streams)
        if self.empty:
            return False
        moved, refusal = False, None
        if self.storm.raging:
            for stream in streams:
                try:
                    if self._probe(stream):
                        break
                except Held as held:
                    refusal = refusal or held
            else:
                raise refusal or self.storm.held()
        if self._left_records and self._clock.monotonic() >= self._again:
            self._shown = False
            for stream in streams:
                moved |= self._try_left(stream, pulse)
        for stream in streams:
            try:
                while not self._stop.is_set() and self._work_off(stream, pulse):
                    moved = True
                    pulse()
            except Held as held:
                refusal = refusal or held
        if refusal is not None:
            raise refusal
        return moved

    def _look(self, streams: Sequence[int]) -> None:
        """Counts what was replayed, by whomever."""
        self._look_due = False
        for stream in streams:
            after = max(self._known, self._seen[stream])
            count, size, last = self._disk.ask(
                lambda connection, stream=stream, after=after: kept_line.replays(connection, stream, after)  # type: ignore[misc] # mypy does not infer it
            )
            with self._news:
                self._seen[stream] = max(after, last)
                self._records += count
                self._bytes += size

    def _probe(self, stream: int) -> bool:
        """In a storm: whether any of the next records can be decoded, or the newest one: who plants a thousand that
        cannot be must not hold the source for ever."""
        page = self._page(stream, max(self._probed[stream], self._lines[stream].mark))
        self._probed[stream] = page[-1].id if page else 0
        newest = self._disk.ask(lambda connection: kept_line.newest(connection, stream))
        last = [] if newest is None else self._page(stream, newest - 1)
        rest, refusal, begun = [*last, *page], None, self._clock.monotonic()
        while rest and self._clock.monotonic() - begun <= LOOK_SECONDS:
            found = self._unpacking(rest, _always)
            if any(found.outcomes):
                self._probed[stream] = 0
                self.storm.over()
                return True
            refusal = refusal or found.why
            rest = rest[len(found.records) + len(found.left) :]
        if refusal is not None:
            raise refusal
        return False

    def _work_off(self, stream: int, pulse: Pulse) -> bool:
        """Decodes a page of the oldest records, and puts what they hold into the spools; false where there is none."""
        line = self._lines[stream]
        page = self._page(stream, line.mark)
        if not page:
            line.free()
            return False
        leave: Leave = lambda kept, held: line.passes(kept.id, held, self._clock.monotonic())  # noqa: E731 - of this line
        found = self._take(page, leave if line.patient else None, pulse)
        if found.records and line.began(found.records[0].id):
            self._again = 0.0
        with self._news:
            line.mark = max(line.mark, found.last)
            self._left.update(kept.partition for kept in found.left if self._counted(kept))
            self._left_records += len(found.left)
            self._why = found.why or self._why
        if self.storm.raging:
            self.recall()
            raise self.storm.held()
        if found.held is not None and found.refused is not None:
            newest = self._disk.ask(lambda connection: kept_line.newest(connection, stream)) or 0
            proven = self._decodes_behind(stream, found.refused.id, newest)
            if line.refused(found.refused.id, newest, self._clock.monotonic(), proven=proven):
                self.done += 1
            if not line.due(found.refused.id, found.held, self._clock.monotonic()):
                raise found.held
        return True

    def _decodes_behind(self, stream: int, record: int, newest: int) -> bool:
        """Whether anything behind a refused record (id) can be decoded: the newest one, or any of the next pages."""
        line, begun = self._lines[stream], self._clock.monotonic()
        if newest > record and self._unpacking.first_decoded(self._page(stream, newest - 1), sound=True) is not None:
            return True
        line.looked = max(line.looked, record)
        for _ in range(LOOK_PAGES):
            page = self._page(stream, line.looked)
            decoded = self._unpacking.first_decoded(page, sound=True)
            if decoded is not None:
                line.looked = decoded - 1
                return True
            line.looked = page[-1].id if page else 0
            if not page or self._stop.is_set() or self._clock.monotonic() - begun > LOOK_SECONDS:
                break
        return False

    def _try_left(self, stream: int, pulse: Pulse) -> bool:
        """Tries some of those that were passed over; says whether any was taken. When the key of one is back, they are
        all tried from the first one on."""
        line, begun, moved = self._lines[stream], self._clock.monotonic(), False
        for _ in range(LOOK_PAGES):
            page = [kept for kept in self._page(stream, line.retried) if kept.id <= line.mark]
            if not page:
                line.retried, line.flowing = 0, False
                break
            if line.flowing:
                found = self._take(page, _always, pulse)
                if self.storm.raging:
                    self.recall()
                    raise self.storm.held()
                line.retried, self._why, moved = found.last, found.why or self._why, moved or bool(found.records)
            elif self._unpacking.first_decoded(page, sound=False) is None:
                line.retried = page[-1].id
            else:
                line.retried, line.flowing = 0, True
            pulse()
            if self._stop.is_set() or self._clock.monotonic() - begun > LOOK_SECONDS:
                break
        return moved

    def _show_left(self) -> None:
        """The source is held for what was passed over, though nothing waits for it."""
        if not self._left_records or self._why is None:
            self._holds.release(self._component, PART)
        elif not self._shown:
            records, why = self._left_records, self._why
            detail = f"{why.detail}; {records} kept records wait for their key, and nothing waits for them"
            pause = self._holds.hold(self._component, Held(why.reason, detail, why.mend), PART)
            flowing = any(line.flowing for line in self._lines.values())
            self._again = self._clock.monotonic() + (0.0 if flowing else pause)
            self._shown = True

    def _take(self, page: Sequence[KeptRecord], leave: Leave | None, pulse: Pulse) -> Unpacked:
        """Unpacks records and hands them over, up to where a storm begins, or one is refused and may not be left."""
        found = self._unpacking(page, leave)
        if found.letters:
            self._letters.require_room()
        believed = self.storm.judge(found.outcomes)
        if believed < len(found.outcomes):
            # Those of the row that makes the storm stay where they are.
            while believed and not found.outcomes[believed - 1]:
                believed -= 1
            end = found.records[believed].id
            found = self._unpacking([kept for kept in page if kept.id < end], leave)
        if found.records:
            self._hand_over(found, pulse)
        return found

    def _page(self, stream: int, after: int) -> list[KeptRecord]:
        return self._disk.ask(
            lambda connection: kept_records.page(connection, stream, None, after, PAGE_RECORDS, PAGE_BYTES)
        )

    def _decoder_of(self, partition: int) -> Decoder:
        name = self._disk.ask(lambda connection: kept_line.partition_name(connection, partition))
        return self._decoder(name)

    # -- what was decoded ----------------------------------------------------------------------------------------------

    def _hand_over(self, found: Unpacked, pulse: Pulse) -> None:
        """One transaction takes the records out of here, and puts their events into the spools."""
        lanes = {lane.id: lane for lane in self._everyone() if lane.id in found.tallies}
        buried = self._make_room(found, lanes, pulse)
        if self._stop.is_set():
            return
        done = threading.Event()
        rows = [row for lane, pieces in found.pieces.items() for row in self._rows(lane, pieces)]
        for identifier, lane_at_work in lanes.items():
            with lane_at_work.lock():
                lane_at_work.books.update(found.tallies[identifier])
        self._writer.submit(
            transaction(found, rows, self._letters.keeping([*found.letters, *buried])),
            lambda fresh: self._handed_over(found, rows, fresh, done),
            found.size,
        )
        for identifier, lane_at_work in lanes.items():
            tally = Counter(found.tallies[identifier])
            tally["offered", ""] += tally.pop(("replayed", ""), 0)
            self._metrics.count(lane_at_work.name, +tally)
        for prepared in found.prepared:
            self._metrics.prepared(self._source.name, prepared)
        if found.letters and self.storm.note(of_the_row(found)):
            self.recall()
        with pulse.idle():
            while not done.is_set() and not self._stop.is_set():
                self._clock.wait(done, LOOK)

    def _handed_over(self, found: Unpacked, rows: Sequence[Spooled], fresh: Fresh, done: threading.Event) -> None:
        """After the commit, in the writer's thread: only now readers go on behind them."""
        self._letters.kept(fresh)
        at_work = {lane.id: lane for lane in self._everyone()}
        for row in rows:
            if row.lane in at_work:
                at_work[row.lane].adopt(Totals(1, row.events, row.size, row.time))
        self._disk.committed([row.id for row in rows])
        with self._news:
            for record in found.records:
                left = record.id <= self._lines[record.stream].mark
                self._left_records -= left
                counted = self._counted(record)
                if counted:
                    self._waiting[record.partition] -= 1
                    if left:
                        self._left[record.partition] -= 1
                    if not self._waiting[record.partition]:
                        del self._waiting[record.partition]
                if counted or record.id <= self._seen[record.stream]:
                    self._records -= 1
                    self._bytes -= len(record.data)
            self.done += len(found.records)
        done.set()

    def _counted(self, record: KeptRecord) -> bool:
        """Whether what is read of its partition waits for it."""
        return record.id <= self._known or not record.replayed

    def _rows(self, lane: int, pieces: Sequence[Piece]) -> Sequence[Spooled]:
        rows = Rows(lane, self._disk.allocate, self._clock.now())
        for piece in pieces:
            rows.add(piece.places, piece.native, piece.raw, piece.time)
        return rows.finish()

    def _make_room(self, found: Unpacked, lanes: dict[int, Lane], pulse: Pulse) -> list[DeadLetter]:
        """Waits while the disk, or the spool of a lane, is full. Where ``when_full`` says so, what a lane's spool does
        not take becomes dead letters, which are returned."""
        buried: list[DeadLetter] = []
        with pulse.idle():
            self._writer.wait_while_behind(self._stop)
            for identifier, lane in lanes.items():
                pieces = found.pieces.get(identifier, [])
                size = sum(piece.size for piece in pieces)
                while pieces and not self._stop.is_set() and (full := self._full(lane, size)) is not None:
                    give_up = lane.settings.spool.when_full == "dead_letter" and self._letters.has_room()
                    if give_up and full.reason == "spool_full":
                        buried += bury(found, lane, self._clock.now())
                        break
                    self._holds.hold(self._component, full, PART)
                    self._clock.wait(self._stop, LOOK)
        return buried

    def _full(self, lane: Lane, size: int) -> Held | None:
        held = self.short()
        if held is None and lane.spooled().rows and lane.spooled().bytes + size > lane.settings.spool.max_bytes:
            held = Held("spool_full", f"the spool of output {lane.name} is full: what was kept waits for room in it")
        return held

    def _recalled(self, _: None) -> None:
        with self._news:
            self._recalls -= 1
            self._look_due = True
            self._news.notify_all()


def _always(_record: KeptRecord, _held: Held) -> bool:
    return True
