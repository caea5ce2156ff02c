"""A bounded part of one read after decoding and transforms: what lanes queue, and where its events stand."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from shipper.source import END, Position

#: Bounds of a chunk (contracts.md, Position): a 10 MiB reply can inflate to 110 MB, lanes take it in parts.
MAX_EVENTS = 1000
MAX_BYTES = 2 * 1024 * 1024


@dataclass(slots=True)
class Chunk:
    """Some consecutive events of one partition, before transforms, and how they map to positions.

    ``records[j]`` is a record's position and ``starts[j]`` the number of events before it in this chunk. A record may
    begin in an earlier chunk (``first_event`` is then the number of its events that stand there) and go on in the next
    (``complete`` is then false). ``refused`` holds, for what could not be decoded, its record's number in the chunk and
    the reason; ``arrived`` is the last record's (ns); ``time`` the first event's (s, 0: unknown).
    """

    records: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    first_event: int = 0
    count: int = 0
    complete: bool = True
    refused: list[tuple[int, str]] = field(default_factory=list)
    arrived: int = 0
    time: float = 0.0

    def position(self, index: int) -> Position:
        """The position before the event ``index``; ``index == count`` is the chunk's end."""
        if index >= self.count and self.complete:
            return Position(self.records[-1], END)
        record = bisect_right(self.starts, index) - 1
        return Position(self.records[record], index - self.starts[record] + (self.first_event if record == 0 else 0))

    def index(self, position: Position | None) -> int:
        """How many events of the chunk stand before ``position``."""
        if position is None:
            return 0
        record = bisect_left(self.records, position.record)
        if record == len(self.records):
            return self.count
        if self.records[record] != position.record:
            return self.starts[record]
        following = self.starts[record + 1] if record + 1 < len(self.records) else self.count
        if position.event == END:
            return following
        before = position.event - (self.first_event if record == 0 else 0)
        return min(max(self.starts[record] + before, self.starts[record]), following)

    def finished(self, position: Position | None) -> int:
        """How many records of the chunk ``position`` has left behind."""
        if position is None:
            return 0
        record = bisect_left(self.records, position.record)
        return record + (
            position.event == END and record < len(self.records) and self.records[record] == position.record
        )

    def passed(self, position: Position | None) -> bool:
        """Whether a lane that stands at ``position`` owes nothing of this chunk."""
        return position is not None and position >= self.position(self.count)


@dataclass(slots=True)
class Share:
    """What one lane gets of a chunk: encoded events and what its output asked for of each. ``native`` are the same
    events' native lines, as the spool keeps them; ``None``: ``events`` are.

    ``indices`` are the chosen events' numbers in the chunk, ``None`` for all; ``filtered`` maps the rule that dropped
    events to their numbers, in order.
    """

    events: Sequence[bytes]
    values: Sequence[tuple[str | None, ...]]
    indices: list[int] | None = None
    filtered: dict[str, list[int]] = field(default_factory=dict)
    native: Sequence[bytes] | None = None
