"""What waits in one lane's line: the spool's rows on disk, then the queue in memory, which is the line's tail.

Takes events from the front, writes the tail to disk. The lane's lock guards it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from shipper.engine.ledger import Entry
from shipper.engine.parcel import Origin, Parcel, Slice
from shipper.output import Batch


@dataclass(slots=True)
class Waiting:
    """Events of one origin that wait. The first ``taken`` of them are gone; ``size`` is what the rest counts against
    ``batch.max_bytes``; ``since`` (monotonic seconds) is when they were offered."""

    origin: Origin
    events: Sequence[bytes]
    values: Sequence[tuple[str | None, ...]]
    native: Sequence[bytes]
    start: int
    taken: int
    size: int
    since: float
    time: float
    #: Positions by item where a batch should end with a record; ``None``: anywhere.
    entry: Entry | None = None

    @property
    def left(self) -> int:
        """How many events wait."""
        return len(self.events) - self.taken


class Line:
    """A queue of ``Waiting``, counted."""

    def __init__(self, max_events: int, max_bytes: int, overhead: int) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._overhead = overhead
        self.waiting: deque[Waiting] = deque()
        self.bytes = 0
        self.events = 0

    def __bool__(self) -> bool:
        return bool(self.waiting)

    def put(self, waiting: Waiting) -> None:
        """Appends."""
        self.waiting.append(waiting)
        self.bytes += waiting.size
        self.events += waiting.left

    def size_of(self, events: Sequence[bytes]) -> int:
        """What events count against ``max_bytes``."""
        return sum(map(len, events)) + self._overhead * len(events)

    def full(self) -> bool:
        """Whether it holds a whole batch."""
        return self.events >= self._max_events or self.bytes >= self._max_bytes

    def empty(self) -> list[Waiting]:
        """Takes everything out."""
        everything = list(self.waiting)
        self.waiting.clear()
        self.bytes = self.events = 0
        return everything

    def cut(self, number: tuple[int, ...]) -> Parcel:
        """The next batch. It ends with a record where it can."""
        events: list[bytes] = []
        values: list[tuple[str | None, ...]] = []
        native: list[bytes] = []
        slices: list[Slice] = []
        room, room_bytes, time, since = self._max_events, self._max_bytes, 0.0, self.waiting[0].since
        while self.waiting and room > 0:
            head = self.waiting[0]
            if head.left <= room and head.size <= room_bytes:
                stop, size = len(head.events), head.size
            else:
                stop, size = self._fit(head, room, room_bytes, first=not events)
            if stop == head.taken:
                break
            slices.append(Slice(len(events), stop - head.taken, head.origin, head.start + head.taken))
            whole = not head.taken and stop == len(head.events)
            events += head.events if whole else head.events[head.taken : stop]
            values += head.values if whole else head.values[head.taken : stop]
            native += head.native if whole else head.native[head.taken : stop]
            time = time or head.time
            room -= stop - head.taken
            room_bytes -= size
            self.bytes -= size
            self.events -= stop - head.taken
            head.taken, head.size = stop, head.size - size
            if stop < len(head.events):
                break
            self.waiting.popleft()
        batch = Batch(events, values, sum(map(len, events)))
        return Parcel(batch, native, slices, list(range(len(events))), number, time, since)

    def _fit(self, head: Waiting, room: int, room_bytes: int, *, first: bool) -> tuple[int, int]:
        """How far into a share the batch goes, and how many bytes that is; at least one event if it is the first."""
        candidates = head.events[head.taken : head.taken + room]
        sizes = list(accumulate(map(len, candidates)))
        overhead = self._overhead
        count = bisect_right(range(len(sizes)), room_bytes, key=lambda last: sizes[last] + overhead * (last + 1))
        if count == 0:
            if not first:
                return head.taken, 0
            count = 1
        stop = head.taken + count
        boundary = _record_boundary(head, stop)
        if boundary > head.taken:
            stop = boundary
        elif not first:
            return head.taken, 0
        count = stop - head.taken
        return stop, sizes[count - 1] + overhead * count


def _record_boundary(head: Waiting, stop: int) -> int:
    """The last item at or before ``stop`` with which a record begins: a kill then costs no half records."""
    if stop >= len(head.events) or head.entry is None:
        return stop
    entry, start = head.entry, head.start
    record = entry.position(start + stop).record
    while stop > head.taken and entry.position(start + stop - 1).record == record:
        stop -= 1
    return stop
