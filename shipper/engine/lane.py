"""One output's line: its queue, its spool, its batcher and its ledgers. A slow one never makes another one wait.

Readers ``offer`` shares of chunks, senders ``take`` parcels, ``settle`` them and ``put_back`` what is to be sent again.
What is unsettled for too long goes to the spool, in the transaction that moves the positions (delivery.md, Isolation).
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from shipper.clock import EngineClock
from shipper.engine.admission import Admission
from shipper.engine.backlog import Backlog
from shipper.engine.breaker import Breaker, Storm
from shipper.engine.chunk import Chunk, Share
from shipper.engine.commits import Commits
from shipper.engine.dead_letter_box import DeadLetterBox
from shipper.engine.ledger import Entry, Ledger, Tally
from shipper.engine.line import Line, Waiting
from shipper.engine.parcel import Parcel, Verdict
from shipper.engine.rendering import Rendering
from shipper.engine.retries import Retries
from shipper.engine.spilling import abandoned, spill_parcels, spill_queue
from shipper.engine.spool_disk import SpoolDisk
from shipper.engine.spooling import Row, Rows
from shipper.observe.metrics import Metrics
from shipper.output import Output
from shipper.source import END, Position, StopSignal
from shipper.state import positions
from shipper.state.dead_letters import DeadLetter
from shipper.state.spool import Spooled, Totals
from shipper.state.writer import Writer

#: Encoded bytes that wait in a lane's queue, or two batches where that is more; a share larger than that is admitted
#: when nothing else waits.
QUEUE_BYTES = 8 * 1024 * 1024
#: Chunks that may be settled behind the first that is not, before that one goes to the spool.
WINDOW = 1000
#: Seconds that a reader waits for room in a lane that delivers while a neighbour could send more than it is given.
PATIENCE = 1.0
#: Seconds between two looks at the stop signal, or at the clock, while waiting.
LOOK = 0.5


class Lane:
    """The line of one output. Thread-safe."""

    def __init__(
        self,
        name: str,
        identifier: int,
        output: Output[Any],
        writer: Writer,
        letters: DeadLetterBox,
        metrics: Metrics,
        clock: EngineClock,
        disk: SpoolDisk,
        randomness: random.Random,
        storm: int,
    ) -> None:
        """``storm``: after how many refusals in a row the fault is not taken to be the data's."""
        settings, limits = output.settings, output.limits
        self.name = name
        self.id = identifier
        self.output = output
        self.settings = settings
        self.rendering = Rendering(settings, output.values())
        max_events = min(settings.batch.max_events, limits.max_events or settings.batch.max_events)
        max_bytes = min(settings.batch.max_bytes, limits.max_bytes or settings.batch.max_bytes)
        self.breaker = Breaker(settings.retry, 1 if output.ordered else settings.concurrency, clock, randomness)
        self.storm = Storm(storm)
        self._raw = settings.format.type == "raw"
        self._writer = writer
        self._letters = letters
        self._metrics = metrics
        self._clock = clock
        self.disk = disk
        self._admission = Admission(output, self.rendering, clock, self._set_aside)
        self._lock = threading.RLock()
        # Two conditions, so that nobody is woken who has nothing to do: senders wait for work, readers for room.
        self._work = threading.Condition(self._lock)
        self._room = threading.Condition(self._lock)
        self._queue = Line(max_events, max_bytes, limits.overhead)
        self._capacity: int = max(QUEUE_BYTES, 2 * max_bytes)
        #: What was read back from the spool: it stands before the queue.
        self._front = Line(max_events, max_bytes, limits.overhead)
        self._retries = Retries(ordered=output.ordered, randomness=randomness)
        self._flying: list[Parcel] = []
        self._ledgers: list[Ledger] = []
        self._backlog = Backlog(identifier, settings.spool, disk)
        self._commits = Commits(identifier, writer, letters, disk, self._backlog, self._readable)
        self._numbers = 0
        self._flushed = clock.monotonic()
        self._waited = 0.0
        #: Whether some ledger was abandoned.
        self._abandons = False
        self._finishing = False
        self._leaving = False
        #: Whether what was unsettled has been given to the spool for good.
        self.closed = False
        self._stopped = False
        #: Why nothing can be spooled although it should be; ``None``: it can, or need not.
        self.cramped: str | None = None

    # -- readers ---------------------------------------------------------------------------------------------------

    def ledger(
        self,
        source: str,
        stream: int,
        row: positions.PartitionRow,
        decoder: str,
        reference: Callable[[int], str] = str,
    ) -> Ledger:
        """Begins a partition where the lane stands. A half-settled record that another version of the decoder made is
        begun again: its events may be others, or in another order."""
        standing = row.standings[self.id]
        settled = standing.position
        if settled is not None and standing.decoder != decoder and settled.event not in (0, END):
            settled = Position(settled.record, 0)
        ledger = Ledger(row.id, source, stream, settled, decoder, reference)
        with self._lock:
            self._ledgers.append(ledger)
        return ledger

    def offer(
        self, ledger: Ledger, chunk: Chunk, share: Share, stop: StopSignal, neighbours: Sequence[Lane] = ()
    ) -> bool:
        """Queues a share, waiting while the queue is full and nothing can be spooled. False when ``stop`` came first:
        then nothing is owed. ``neighbours``: the lanes that wait meanwhile."""
        with self._lock:
            if not self._make_room(stop, neighbours):
                return False
            entry = ledger.open(chunk, share)
            if entry is None:
                return True
            self._metrics.count(self.name, entry.arrival())
            if entry.owed == 0:
                self._commits.submit([ledger], ())
                return True
            first = entry.first
            events = share.events[first:] if first else share.events
            native = share.events if share.native is None else share.native
            native = native[first:] if first else native
            values = share.values[first:] if first else share.values
            now = self._clock.monotonic()
            waiting = Waiting(entry, events, values, native, 0, 0, 0, now, chunk.time, entry)
            self._admission.admit(self._queue, waiting)
            if entry.done:
                self._commits.submit([ledger], ())
            if len(self._queue.waiting) == 1 or self._queue.full():
                self._work.notify()
        return True

    def end(self, ledger: Ledger) -> None:
        """The partition was read to its end."""
        with self._lock:
            ledger.end()
            self._commits.submit([ledger], ())

    def leave(self, source: str) -> None:
        """Nothing more is read of a source for now: what is unsettled goes to the spool, its ledgers are let go."""
        with self._lock:
            spilled = self._spill(force=True)
            left = [ledger for ledger in self._ledgers if ledger.source == source]
            self._ledgers = [ledger for ledger in self._ledgers if ledger.source != source]
            if not spilled:
                self._abandon(left)

    def _abandon(self, ledgers: Iterable[Ledger]) -> None:
        """Nothing can be spooled: what is unsettled of these is read again, and not sent from here any more."""
        self._abandons = True
        for ledger in ledgers:
            ledger.abandon()
        for waiting in self._queue.empty():
            if waiting.entry is None or not waiting.entry.ledger.abandoned:
                self._queue.put(waiting)
        self._retries.drop(abandoned)
        self._room.notify_all()

    def roomy(self) -> bool:
        """Whether the queue is less than half full."""
        free: bool = self._queue.bytes < self._capacity // 2
        return free

    # -- senders ---------------------------------------------------------------------------------------------------

    def take(self) -> Parcel | None:
        """The next parcel to be sent. ``None``: no more, because the lane has stopped or everything is settled."""
        while True:
            with self._lock:
                if self._stopped or (self._leaving and (self.breaker.open or self._backlog.unread)):
                    return None
                now = self._clock.monotonic()
                parcel = self._choose(now)
                if parcel is not None:
                    if not parcel.begun:
                        parcel.begun, parcel.held = now, self.breaker.held_seconds()
                    self._flying.append(parcel)
                    self._room.notify_all()
                    self._work.notify()  # another sender may take the rest, or wait for company
                    return parcel
                if self._finishing and self._idle():
                    self._work.notify_all()
                    return None
                if not self._wants_rows():
                    self._clock.wait_for_news(self._work, self._pause(now))
                    continue
                self._backlog.loading = True
            rows = self._backlog.read()
            with self._lock:
                self._backlog.loading = False
                self._load(rows)
                if not rows:  # not committed yet
                    self._clock.wait_for_news(self._work, LOOK / 10)

    def landed(self, parcel: Parcel, again: Iterable[Parcel]) -> None:
        """The request with this parcel is over; ``again`` is what is to be sent again of it, when it is due."""
        with self._lock:
            self._flying = [other for other in self._flying if other is not parcel]
            self._retries.put(again)
            if self._abandons:
                self._retries.drop(abandoned)
            self._work.notify()

    def before(self, parcel: Parcel) -> list[Parcel]:
        """What waits to be sent again and stands before a parcel in the line."""
        return [other for other in self._retries if other.number < parcel.number]

    def settle(self, parcel: Parcel, verdict: Verdict, letters: Mapping[int, DeadLetter]) -> None:
        """Nothing more is owed of some of a parcel's events; ``letters`` are those that were refused."""
        with self._lock:
            done = sorted((*verdict.stored, *verdict.already_stored, *verdict.refused))
            already, refused = frozenset(verdict.already_stored), verdict.refused
            tallies: list[Tally] = []
            ledgers: list[Ledger] = []
            rows: list[Row] = []
            for part, begin, end in parcel.runs(done):
                tally: Tally = Counter()
                if not already and not refused:
                    tally["delivered", ""] = end - begin
                else:
                    tally.update(verdict.become(index, already, letters) for index in range(begin, end))
                start = part.start + begin - part.first
                kept = [letters[index] for index in range(begin, end) if index in letters] if letters else ()
                part.origin.settle(start, start + end - begin, tally, kept)
                tallies.append(tally)
                if isinstance(part.origin, Entry):
                    ledgers.append(part.origin.ledger)
                elif isinstance(part.origin, Row):
                    rows.append(part.origin)
                    self._backlog.settled(end - begin)
            gone = frozenset(done)
            parcel.open = [index for index in parcel.open if index not in gone] if len(gone) < len(parcel.open) else []
            self._metrics.settled(self.name, tallies, parcel.time)
            # A row of which a part is settled is written later, but for a bookmark, which must cover exactly what is.
            settled = [row for row in dict.fromkeys(rows) if not row.owes or verdict.bookmark is not None]
            self._commits.submit(ledgers, settled, bookmark=verdict.bookmark)

    def lock(self) -> threading.RLock:
        """Held while the outcome of a request is worked out, which touches the breaker and several parcels."""
        return self._lock

    def judge_all(self) -> None:
        """What waits to be sent again was refused in a storm that is over: what is refused now is refused for good."""
        for parcel in self._retries:
            parcel.judged = True

    # -- the spool -------------------------------------------------------------------------------------------------

    def adopt(self, totals: Totals) -> None:
        """Rows that others appended to this lane's spool, in a former run too, are committed; ``totals`` of those."""
        with self._lock:
            self._backlog.adopt(totals)
            self._work.notify()

    def spool_now(self) -> None:
        """Writes everything unsettled to the spool, if it takes it."""
        with self._lock:
            self._spill(force=True)

    def tick(self) -> None:
        """Called now and then: keeps positions from getting old."""
        with self._lock:
            now = self._clock.monotonic()
            since = self._oldest()
            beyond = any(ledger.beyond > WINDOW for ledger in self._ledgers)
            if beyond or (since is not None and now - since >= self.settings.spool.after):
                self._spill()
            else:
                self.cramped = None
            if now - self._flushed >= self.settings.spool.after:
                self._flushed = now
                self._commits.submit((), self._backlog.rows)
            if self._retries or self._queue:
                self._work.notify()

    def close(self) -> None:
        """The end: everything unsettled, in flight included, goes to the spool. What does not fit stays behind the
        position."""
        with self._lock:
            flying = sum(len(parcel.open) for parcel in self._flying)
            if flying:
                self._metrics.possible_duplicates(self.name, flying)
            self._spill(force=True)
            self.closed = True

    # -- starting and stopping ---------------------------------------------------------------------------------------

    def finish(self, *, spool_too: bool = True) -> None:
        """Nothing more is offered: what is queued is sent without waiting for company, then ``take`` gives ``None``.

        Without ``spool_too`` it does so also while the output fails, or has a backlog on disk: what is queued is to go
        there too, and nobody needs to wait for it.
        """
        with self._lock:
            self._finishing = True
            self._leaving = not spool_too
            self._work.notify_all()

    def stop(self) -> None:
        """Sending stops: ``take`` gives ``None`` at once."""
        with self._lock:
            self._stopped = True
            self._work.notify_all()
            self._room.notify_all()

    # -- what others ask ---------------------------------------------------------------------------------------------

    def owed(self) -> tuple[int, int, int]:
        """Events that wait in memory, that were sent without a final answer, and that wait in the spool."""
        with self._lock:
            out = sum(len(parcel.open) for parcel in (*self._flying, *self._retries))
            return self._queue.events, out, self._backlog.totals.events - self._out(Row)

    def unspooled(self) -> int:
        """Events that only the position protects: they would be read again after a stop."""
        with self._lock:
            return self._queue.events + self._out(Entry)

    def spooled(self) -> Totals:
        """What the spool holds, in flight included."""
        with self._lock:
            return self._backlog.totals

    def spool_figures(self) -> tuple[int, int, float]:
        """Bytes on disk, how many it may have, and when the oldest row was written (seconds since 1970; 0: none)."""
        spooled = self._backlog.totals
        return spooled.bytes, self.settings.spool.max_bytes, spooled.oldest

    @property
    def books(self) -> Tally:
        """The books of this run so far, up to the position."""
        return self._commits.books

    def queued_bytes(self) -> int:
        """Encoded bytes in the queue."""
        return self._queue.bytes

    def _out(self, kind: type[Entry] | type[Row]) -> int:
        """Events out of one kind of origin that were taken and are not settled."""
        return sum(
            end - begin
            for parcel in (*self._flying, *self._retries)
            for part, begin, end in parcel.runs(parcel.open)
            if isinstance(part.origin, kind)
        )

    # -- inside the lock: taking ---------------------------------------------------------------------------------------

    def _choose(self, now: float) -> Parcel | None:
        if len(self._flying) >= self.breaker.limit or now < self.breaker.not_before:
            return None
        if self.breaker.open:
            return self._retries.probe(self.breaker.probes, lambda: self._begin(None), storm=self.storm.raging)
        parcel = self._retries.due(now)
        if parcel is not None:
            return parcel
        waits = bool(self._retries) and (self.output.ordered or self._retries.full())
        return None if waits else self._begin(now)

    def _begin(self, now: float | None) -> Parcel | None:
        """A new batch from the front of the line, if one is ready; ``now`` ``None``: whatever there is."""
        if self._front:
            ready = now is None or self._front.full() or not self._backlog.unread or self._backlog.loading
            return self._cut(self._front) if ready else None
        if self._backlog.unread or not self._queue:
            return None
        waited = now is None or now - self._queue.waiting[0].since >= self.settings.batch.max_wait
        return self._cut(self._queue) if waited or self._finishing or self._queue.full() else None

    def _cut(self, line: Line) -> Parcel:
        self._numbers += 1
        return line.cut((self._numbers,))

    def _pause(self, now: float) -> float:
        """Seconds until something may be due."""
        if len(self._flying) >= self.breaker.limit:
            return LOOK
        times = [now + LOOK]  # never for longer: the clock may be moved
        if self.breaker.not_before > now:
            times.append(self.breaker.not_before)
        else:
            if (due := self._retries.next_due()) is not None:
                times.append(due)
            if self._queue and not self._backlog.unread and not self._front:
                times.append(self._queue.waiting[0].since + self.settings.batch.max_wait)
        return max(0.001, min(times) - now)

    def _idle(self) -> bool:
        return not (self._queue or self._front or self._backlog.unread or self._flying or self._retries)

    # -- inside the lock: the spool ------------------------------------------------------------------------------------

    def _wants_rows(self) -> bool:
        backlog = self._backlog
        if not backlog.unread or backlog.loading or self._front.full() or len(self._flying) >= self.breaker.limit:
            return False
        return not self._retries.full() and (self._admission.max_event_bytes is None or self._letters.has_room())

    def _load(self, rows: Sequence[Spooled]) -> None:
        for waiting in self._backlog.load(rows, self.rendering, self._clock.monotonic()):
            self._admission.admit(self._front, waiting)
        self._commits.submit((), [row for row in self._backlog.rows if not row.owes])

    def _make_room(self, stop: StopSignal, neighbours: Sequence[Lane]) -> bool:
        while self._queue.bytes >= self._capacity and self._queue:
            if stop.is_set() or self._stopped:
                return False
            # One that delivers, only slower than it is read, is waited for; but not by its neighbours.
            failing = self.breaker.open or self._backlog.unread or self._front
            starved = any(lane.roomy() for lane in neighbours if lane is not self)
            if (failing or (starved and self._waited >= PATIENCE)) and self._spill():
                self._waited = 0.0
                return True
            before = self._clock.monotonic()
            # Nobody notifies a lane when the state file has caught up with the spools of all of them.
            self._clock.wait_for_news(self._room, LOOK / 10 if self._writer.behind else LOOK)
            if starved:
                self._waited += self._clock.monotonic() - before
        self._waited = max(0.0, self._waited - 0.001)
        return True

    def _oldest(self) -> float | None:
        """When the first was offered of what is in memory alone (monotonic seconds)."""
        times = [
            parcel.since
            for parcel in (*self._flying, *self._retries)
            if any(isinstance(part.origin, Entry) and not abandoned(part.origin) for part in parcel.slices)
        ]
        if self._queue:
            times.append(self._queue.waiting[0].since)
        return min(times, default=None)

    def _spill(self, *, force: bool = False) -> bool:
        """Writes everything unsettled to the spool, in the order of the line, and moves the positions past it. Says
        whether it did; ``force``: also beyond ``max_bytes``, at the end of a lane's life."""
        parcels = sorted((*self._flying, *self._retries), key=lambda parcel: parcel.number)
        over = False
        size = sum(len(line) for waiting in self._queue.waiting for line in waiting.native[waiting.taken :])
        if self._oldest() is None:
            self.cramped = None  # nothing needs room
        else:
            self.cramped = "disk" if self._writer.blocked is not None else self._backlog.obstacle(size)
        if self.cramped == "full" and (force or self._may_bury()):
            self.cramped = None
            over = not force
        elif self.cramped is not None:
            return False
        if self._writer.behind and not force:
            return False
        rows = Rows(self.id, self.disk.allocate, self._clock.now())
        ledgers, sent = spill_parcels(parcels, rows, raw=self._raw)
        self._backlog.keep(sent)
        refuse = self._admission.refused if over else None
        ledgers += spill_queue(self._queue.empty(), rows, raw=self._raw, refuse=refuse)
        self._commits.submit(ledgers, self._backlog.rows, rows.finish())
        self._room.notify_all()
        self._work.notify()
        return True

    def _may_bury(self) -> bool:
        """Whether what the spool does not take becomes dead letters."""
        return self.settings.spool.when_full == "dead_letter" and self._letters.has_room()

    # -- inside the lock: offering and settling ----------------------------------------------------------------------

    def _set_aside(self, waiting: Waiting, become: tuple[str, str]) -> None:
        """An event was settled before it was sent."""
        if isinstance(waiting.origin, Row):
            self._backlog.settled(1)
        self._metrics.count(self.name, {become: 1})

    def _readable(self) -> None:
        with self._lock:
            self._work.notify()  # rows can be read back now
