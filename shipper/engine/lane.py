"""One output's line: its queue, its batcher and its ledgers. A slow one fills up; it never touches another.

Readers ``offer`` shares of chunks, senders ``take`` batches and ``settle`` them.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from sqlite3 import Connection
from typing import Any

from shipper.clock import Clock
from shipper.engine.chunk import Chunk, Share
from shipper.engine.dead_letter_box import DeadLetterBox
from shipper.engine.ledger import Entry, Ledger, Tally
from shipper.engine.targets import TargetCap
from shipper.observe.metrics import Metrics
from shipper.output import Batch, Output
from shipper.source import END, Position, StopSignal
from shipper.state import dead_letters, positions
from shipper.state.dead_letters import DeadLetter
from shipper.state.positions import Move
from shipper.state.writer import Writer

#: Encoded bytes that wait in a lane's queue; a share larger than that is admitted when nothing else waits.
QUEUE_BYTES = 16 * 1024 * 1024
#: Seconds between two looks at the stop signal while waiting.
LOOK = 0.5


@dataclass(slots=True)
class Slice:
    """The part of a chunk that one batch took: items ``start … stop-1`` of an entry."""

    ledger: Ledger
    entry: Entry
    start: int
    stop: int


@dataclass(slots=True)
class Parcel:
    """A batch on its way, the slices that it settles, and the time (s) of its oldest event (0: unknown)."""

    batch: Batch
    slices: list[Slice]
    time: float


@dataclass(slots=True)
class _Queued:
    """What is left of a share in the queue; ``since`` is monotonic seconds."""

    ledger: Ledger
    entry: Entry
    events: Sequence[bytes]
    values: Sequence[tuple[str | None, ...]]
    taken: int
    size: int
    since: float


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
        clock: Clock,
    ) -> None:
        settings = output.settings
        limits = output.limits
        self.name = name
        self.id = identifier
        self.output = output
        self.settings = settings
        self._max_events = min(settings.batch.max_events, limits.max_events or settings.batch.max_events)
        self._max_bytes = min(settings.batch.max_bytes, limits.max_bytes or settings.batch.max_bytes)
        self._overhead = limits.overhead
        self._writer = writer
        self._letters = letters
        self._metrics = metrics
        self._clock = clock
        self._cap = TargetCap(output.values(), settings.max_targets, clock)
        self._lock = threading.Lock()
        # Two conditions, so that nobody is woken who has nothing to do: senders wait for work, readers for room.
        self._work = threading.Condition(self._lock)
        self._room = threading.Condition(self._lock)
        self._queue: deque[_Queued] = deque()
        self._queued_bytes = 0
        self._queued_events = 0
        self._in_flight = 0
        self._finishing = False
        self._stopped = False
        #: The books of this run so far, up to the position.
        self.books: Tally = Counter()

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
        return Ledger(row.id, source, stream, settled, decoder, reference)

    def offer(self, ledger: Ledger, chunk: Chunk, share: Share, stop: StopSignal) -> bool:
        """Queues a share, waiting while the queue is full. False when ``stop`` came first: then nothing is owed."""
        with self._lock:
            while self._queued_bytes >= QUEUE_BYTES and self._queue:
                if stop.is_set() or self._stopped:
                    return False
                self._room.wait(LOOK)
            entry = ledger.open(chunk, share)
            if entry is None:
                return True
            self._metrics.count(self.name, entry.arrival())
            if entry.owed == 0:
                self._submit([ledger], None, ())
                return True
            events = share.events[entry.first :] if entry.first else share.events
            values = self._cap.apply(share.values[entry.first :] if entry.first else share.values)
            size = sum(map(len, events)) + self._overhead * len(events)
            self._queue.append(_Queued(ledger, entry, events, values, 0, size, self._clock.monotonic()))
            self._queued_bytes += size
            self._queued_events += len(events)
            if len(self._queue) == 1 or self._full():
                self._work.notify()
        return True

    def end(self, ledger: Ledger) -> None:
        """The partition was read to its end."""
        with self._lock:
            ledger.end()
            self._submit([ledger], None, ())

    def finish(self) -> None:
        """Nothing more is offered: what is queued is sent without waiting for company, then ``take`` gives ``None``."""
        with self._lock:
            self._finishing = True
            self._work.notify_all()

    def stop(self) -> None:
        """Sending stops: ``take`` gives ``None`` at once; what is queued stays behind the position."""
        with self._lock:
            self._stopped = True
            self._work.notify_all()
            self._room.notify_all()

    # -- senders ---------------------------------------------------------------------------------------------------

    def take(self) -> Parcel | None:
        """The next batch: when it is full, or when its first event has waited ``max_wait``. ``None``: no more."""
        with self._lock:
            while True:
                if self._stopped:
                    return None
                if not self._queue:
                    if self._finishing:
                        return None
                    self._work.wait()
                    continue
                waited = self._clock.monotonic() - self._queue[0].since
                if self._full() or self._finishing or waited >= self.settings.batch.max_wait:
                    return self._cut()
                self._work.wait(self.settings.batch.max_wait - waited)

    def settle(
        self, parcel: Parcel, tallies: Sequence[Tally], letters: Sequence[DeadLetter], bookmark: bytes | None
    ) -> None:
        """Nothing more is owed of a parcel; ``tallies`` say per slice what became of it."""
        with self._lock:
            for part, tally in zip(parcel.slices, tallies, strict=True):
                part.entry.settle(part.start, part.stop, tally)
            self._in_flight -= len(parcel.batch)
            self._submit([part.ledger for part in parcel.slices], bookmark, letters)

    def owed(self) -> tuple[int, int]:
        """How many events wait in the queue, and how many were taken and are not settled."""
        with self._lock:
            return self._queued_events, self._in_flight

    def queued_bytes(self) -> int:
        """Encoded bytes in the queue."""
        return self._queued_bytes

    # -- inside the lock -------------------------------------------------------------------------------------------

    def _submit(self, ledgers: Sequence[Ledger], bookmark: bytes | None, letters: Sequence[DeadLetter]) -> None:
        moves: list[Move] = []
        for ledger in dict.fromkeys(ledgers):
            move = ledger.advance()
            if move is not None:
                moves.append(move)
                self.books.update(move.tally)
        if moves or letters or bookmark is not None:
            self._writer.submit(self._settlement(moves, bookmark, letters), self._letters.kept)

    def _settlement(
        self, moves: Sequence[Move], bookmark: bytes | None, letters: Sequence[DeadLetter]
    ) -> Callable[[Connection], list[DeadLetter]]:
        def change(connection: Connection) -> list[DeadLetter]:
            new = dead_letters.keep(connection, letters)
            positions.settle(connection, self.id, moves, bookmark)
            return new

        return change

    def _full(self) -> bool:
        """Whether the queue holds a whole batch."""
        enough: bool = self._queued_events >= self._max_events or self._queued_bytes >= self._max_bytes
        return enough

    def _cut(self) -> Parcel:
        events: list[bytes] = []
        values: list[tuple[str | None, ...]] = []
        slices: list[Slice] = []
        room, room_bytes, time = self._max_events, self._max_bytes, 0.0
        while self._queue and room > 0:
            head = self._queue[0]
            left = len(head.events) - head.taken
            if left <= room and head.size <= room_bytes:
                stop, size = len(head.events), head.size
            else:
                stop, size = self._fit(head, room, room_bytes, first=not events)
            if stop == head.taken:
                break
            events += head.events[head.taken : stop] if head.taken or stop < len(head.events) else head.events
            values += head.values[head.taken : stop]
            slices.append(Slice(head.ledger, head.entry, head.taken, stop))
            time = time or head.entry.chunk.time
            room -= stop - head.taken
            room_bytes -= size
            self._queued_bytes -= size
            self._queued_events -= stop - head.taken
            head.taken, head.size = stop, head.size - size
            if stop < len(head.events):
                break
            self._queue.popleft()
        self._in_flight += len(events)
        self._room.notify_all()
        if self._queue:
            self._work.notify()  # another sender may take the rest, or wait for company
        return Parcel(Batch(events, values, sum(map(len, events))), slices, time)

    def _fit(self, head: _Queued, room: int, room_bytes: int, *, first: bool) -> tuple[int, int]:
        """How far into a share the batch goes, and how many bytes that is; at least one event if it is the first."""
        candidates = head.events[head.taken : head.taken + room]
        sizes = list(accumulate(len(event) + self._overhead for event in candidates))
        count = bisect_right(sizes, room_bytes)
        if count == 0:
            if not first:
                return head.taken, 0
            count = 1
        stop = head.taken + count
        boundary = self._record_boundary(head, stop)
        if boundary > head.taken:
            stop = boundary
        elif not first:
            return head.taken, 0
        return stop, sizes[stop - head.taken - 1]

    @staticmethod
    def _record_boundary(head: _Queued, stop: int) -> int:
        """The last item at or before ``stop`` with which a record begins: a kill then costs no half records."""
        if stop >= len(head.events):
            return stop
        record = head.entry.position(stop).record
        while stop > head.taken and head.entry.position(stop - 1).record == record:
            stop -= 1
        return stop


def delivered(count: int) -> Tally:
    """The tally of a slice whose every event was delivered."""
    return Counter({("delivered", ""): count})
