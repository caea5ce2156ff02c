"""What all lanes share of the spool: the ids of its rows, reading them back, and whether the disk has room for more."""

from __future__ import annotations

import itertools
import sqlite3
import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

from shipper.state import spool
from shipper.state.room import Room
from shipper.state.spool import Spooled

T = TypeVar("T")


class SpoolDisk:
    """Reads beside the writer. Thread-safe."""

    def __init__(self, reading: sqlite3.Connection, first_id: int, room: Room) -> None:
        """``reading``: a connection of its own; ``first_id``: above every id that was ever given."""
        self._reading = reading
        self._ids = itertools.count(first_id)
        self._room = room
        self._lock = threading.Lock()
        self._giving = threading.Lock()
        self._uncommitted: set[int] = set()
        self._last = first_id - 1

    def allocate(self) -> int:
        """The id of the next row: they grow in the order of the lines. ``committed`` has to be told of it."""
        with self._giving:
            given = self._last = next(self._ids)
            self._uncommitted.add(given)
            return given

    def reserve(self, count: int) -> range:
        """So many ids in a row; ``committed`` has to be told of all of them, used or not."""
        with self._giving:
            first = next(self._ids)
            given = range(first, first + count)
            self._last = given.stop - 1
            self._ids = itertools.count(given.stop)
            self._uncommitted.update(given)
            return given

    def committed(self, ids: Iterable[int]) -> None:
        """These are in the state file now, or never will be."""
        with self._giving:
            self._uncommitted.difference_update(ids)

    def complete(self) -> int:
        """The largest id up to which nothing is on its way."""
        with self._giving:
            return min(self._uncommitted, default=self._last + 1) - 1

    def page(self, lane: int, after: int, max_bytes: int) -> list[Spooled]:
        """Rows of a lane, from the first behind ``after`` on, as far as no smaller id is still on its way: transactions
        may overtake each other, the line's order may not change."""
        with self._giving:
            limit = min(self._uncommitted, default=None)
        with self._lock:
            rows = spool.page(self._reading, lane, after, max_bytes)
        return rows if limit is None else [row for row in rows if row.id < limit]

    def short(self) -> bool:
        """Whether so little of the disk is free that it is kept for positions and deletions."""
        return self._room.short()

    def ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Asks the state file something, beside the writer."""
        with self._lock:
            return question(self._reading)
