"""What all lanes share of the spool: the ids of its rows, reading them back, and whether the disk has room for more."""

from __future__ import annotations

import itertools
import sqlite3
import threading
from collections.abc import Callable
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

    def allocate(self) -> int:
        """The id of the next row: they grow in the order of the lines."""
        with self._giving:
            return next(self._ids)

    def reserve(self, count: int) -> int:
        """The first of so many ids in a row."""
        with self._giving:
            first = next(self._ids)
            for _ in range(count - 1):
                next(self._ids)
        return first

    def page(self, lane: int, after: int, max_bytes: int) -> list[Spooled]:
        """Rows of a lane that have been committed, from the first behind ``after`` on."""
        with self._lock:
            return spool.page(self._reading, lane, after, max_bytes)

    def short(self) -> bool:
        """Whether so little of the disk is free that it is kept for positions and deletions."""
        return self._room.short()

    def ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Asks the state file something, beside the writer."""
        with self._lock:
            return question(self._reading)
