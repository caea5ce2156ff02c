"""Lets a few files be read at a time, in order, without letting those that are held keep the others waiting."""

from __future__ import annotations

import threading


class Turns:
    """So many readers read at a time, first come, first served. Thread-safe.

    One whose last turn ended held tries again at once, beyond the number: it most likely fails again, and while it
    waited it would seem to work.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._changed = threading.Condition()
        self._taken = 0
        self._waiting: list[str] = []
        self._held: set[str] = set()

    def take(self, name: str, timeout: float) -> bool:
        """Waits for a turn, at most ``timeout`` seconds; who asks again keeps the place in the queue."""
        with self._changed:
            if name not in self._held:
                if name not in self._waiting:
                    self._waiting.append(name)
                if not self._changed.wait_for(lambda: self._may_go(name), timeout):
                    return False
                self._waiting.remove(name)
            self._taken += 1
            self._changed.notify_all()
            return True

    def give_up(self, name: str) -> None:
        """Leaves the queue."""
        with self._changed:
            self._waiting.remove(name)
            self._changed.notify_all()

    def give_back(self, name: str, *, held: bool) -> None:
        """Ends a turn that was taken."""
        with self._changed:
            self._taken -= 1
            (self._held.add if held else self._held.discard)(name)
            self._changed.notify_all()

    def _may_go(self, name: str) -> bool:
        return self._taken < self._size and self._waiting[0] == name
