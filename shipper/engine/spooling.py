"""The tail of a lane's line on disk: makes rows of events, and settles rows that were read back."""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, groupby

from shipper.engine.parcel import Key
from shipper.state import positions, spool
from shipper.state.dead_letters import DeadLetter
from shipper.state.spool import Place, Spooled

#: Bounds of one row: small enough to be read back in one piece, large enough that a backlog costs few transactions.
ROW_EVENTS = 1000
ROW_BYTES = 1_000_000


class Rows:
    """Collects events, in order, into rows of the spool."""

    def __init__(self, lane: int, allocate: Callable[[], int], now: float) -> None:
        """``allocate`` gives the next id of a row; ``now`` is in seconds since 1970 UTC."""
        self._lane = lane
        self._allocate = allocate
        self._now = now
        self._rows: list[Spooled] = []
        self._open: Spooled | None = None
        self._size = 0

    def add(
        self, places: Sequence[Place], native: Sequence[bytes], raw: Sequence[bytes] | None, time: float
    ) -> tuple[Spooled, int]:
        """Puts events behind the others, all of them into one row. Returns that row, and which of its items is the
        first of them. ``time``: that of the oldest event, in seconds, 0: unknown."""
        size = sum(map(len, native)) + (sum(map(len, raw)) if raw is not None else 0)
        row = self._open
        full = row is not None and (len(row.native) + len(native) > ROW_EVENTS or self._size + size > ROW_BYTES)
        if row is None or full or (row.raw is None) != (raw is None):
            row = self._open = Spooled(
                self._allocate(), self._lane, self._now, 0.0, [], [], None if raw is None else []
            )
            self._rows.append(row)
            self._size = 0
        first = len(row.native)
        row.places += places
        row.native += native
        if raw is not None and row.raw is not None:
            row.raw += raw
        row.oldest = min(filter(None, (row.oldest, time)), default=0.0)
        self._size += size
        return row, first

    def close(self) -> None:
        """What is added next begins a new row."""
        self._open = None

    def finish(self) -> list[Spooled]:
        """All rows, in order."""
        return self._rows


class Row:
    """A row of the spool that is in memory: an origin of slices. Not thread-safe: the lane's lock guards it."""

    __slots__ = ("_changed", "_letters", "_owed", "_starts", "_tally", "row", "size")

    def __init__(self, row: Spooled) -> None:
        self.row = row
        #: Bytes on disk; less than the row's when a part of it was settled and written.
        self.size = row.size
        self._starts: list[int] | None = None
        self._owed = bytearray(b"\x01") * len(row.native)
        self._tally: Counter[Key] = Counter()
        self._letters: list[DeadLetter] = []
        self._changed = False

    def places(self, start: int, stop: int) -> list[Place]:
        """Where the items ``start … stop-1`` stand in their partitions."""
        if self._starts is None:  # most rows are never asked
            self._starts = list(accumulate((place.count for place in self.row.places), initial=0))
        found = []
        number = bisect_right(self._starts, start) - 1
        while start < stop:
            place, begin, end = self.row.places[number], self._starts[number], self._starts[number + 1]
            count = min(end, stop) - start
            if count > 0:
                found.append(place._replace(ordinal=place.ordinal + start - begin, count=count))
            start, number = max(start, min(end, stop)), number + 1
        return found

    def settle(self, start: int, stop: int, tally: Mapping[Key, int], letters: Sequence[DeadLetter]) -> None:
        """Nothing more is owed of the items ``start … stop-1``."""
        self._owed[start:stop] = bytes(stop - start)
        self._tally.update(tally)
        self._letters += letters
        self._changed = True

    @property
    def owes(self) -> bool:
        """Whether anything of it is not settled."""
        return 1 in self._owed

    def flush(self) -> Flushed | None:
        """What has to be written since the last call: ``None`` where nothing was settled."""
        if not self._changed:
            return None
        self._changed = False
        tally, self._tally = self._tally, Counter()
        letters, self._letters = self._letters, []
        return Flushed(self.row.id, self._rest() if self.owes else None, tally, letters)

    def _rest(self) -> Spooled:
        row = self.row
        places: list[Place] = []
        native: list[bytes] = []
        raw: list[bytes] | None = None if row.raw is None else []
        start = 0
        for owed, items in groupby(self._owed):
            stop = start + len(list(items))
            if owed:
                places += self.places(start, stop)
                native += row.native[start:stop]
                if raw is not None and row.raw is not None:
                    raw += row.raw[start:stop]
            start = stop
        return Spooled(row.id, row.lane, row.time, row.oldest, places, native, raw)


class Flushed:
    """A row that was settled, wholly or (``rest``) in part, and what its events became."""

    __slots__ = ("id", "letters", "rest", "tally")

    def __init__(self, id_: int, rest: Spooled | None, tally: Counter[Key], letters: list[DeadLetter]) -> None:
        self.id = id_
        self.rest = rest
        self.tally = tally
        self.letters = letters

    def write(self, connection: sqlite3.Connection, lane: int) -> None:
        """Deletes the row, or leaves in it what is owed, and enters what was settled into the books."""
        if self.rest is None:
            spool.delete(connection, [self.id])
        else:
            spool.replace(connection, self.rest)
        for (entry, reason), count in self.tally.items():
            positions.add_to_books(connection, lane, entry, reason, count)
