"""What the writer does for the file between commits: gives freed pages back, and keeps the ballast."""

from __future__ import annotations

import logging
import sqlite3

from shipper.clock import Clock
from shipper.state import vacuum
from shipper.state.refusal import is_full
from shipper.state.room import Room

log = logging.getLogger("shipper.state")

#: Seconds between two looks whether the ballast can be made again.
BALLAST_INTERVAL = 60.0


class Upkeep:
    """Belongs to the writer's thread. Without ``room`` there is no ballast."""

    def __init__(self, connection: sqlite3.Connection, clock: Clock, room: Room | None) -> None:
        self._connection = connection
        self._clock = clock
        self._room = room
        self._looked: float | None = None

    def turn(self, idle: bool) -> bool:
        """Does at most one small thing; whether there is more to do. ``idle``: nobody has wanted a commit lately."""
        now = self._clock.monotonic()
        if self._room is not None and (self._looked is None or now - self._looked >= BALLAST_INTERVAL):
            self._looked = now
            self._room.restore()
        try:
            if not vacuum.is_due(self._connection, idle):
                return False
            return vacuum.take_slice(self._connection) > vacuum.SPARE
        except sqlite3.OperationalError as error:
            # A full disk, or a command that writes: the pages stay free in the file, and are used or freed later.
            log.debug("state: no pages were given back (%s)", error)
            return False

    def make_room(self, error: sqlite3.OperationalError) -> bool:
        """After the disk refused a commit: whether something was given up, so that it is worth trying again at once."""
        return self._room is not None and (is_full(error) or self._room.short()) and self._room.give_up()
