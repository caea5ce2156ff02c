"""The tail of a lane's line on disk: makes rows of events, and settles rows that were read back."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

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

    __slots__ = ("_changed", "_letters", "_owed", "_tally", "row")

    def __init__(self, row: Spooled) -> None:
        self.row = row
        self._owed = bytearray(b"\x01") * len(row.native)
        self._tally: Counter[Key] = Counter()
        self._letters: list[DeadLetter] = []
        self._changed = False

    def places(self, start: int, stop: int) -> list[Place]:
        """Where the items ``start … stop-1`` stand in their partitions."""
        return list(_cut(self.row.places, start, stop))

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
        left = [index for index, owed in enumerate(self._owed) if owed]
        places = [place for index in left for place in _cut(row.places, index, index + 1)]
        raw = None if row.raw is None else [row.raw[index] for index in left]
        return Spooled(row.id, row.lane, row.time, row.oldest, places, [row.native[index] for index in left], raw)


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


def _cut(places: Sequence[Place], start: int, stop: int) -> Iterator[Place]:
    """The runs that the items ``start … stop-1`` are in, cut to them."""
    begin = 0
    for place in places:
        end = begin + place.count
        if end > start and begin < stop:
            skipped = max(0, start - begin)
            yield place._replace(ordinal=place.ordinal + skipped, count=min(end, stop) - begin - skipped)
        begin = end
        if begin >= stop:
            return
