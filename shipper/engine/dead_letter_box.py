"""Where readers and lanes put dead letters: counts them, and says when there is no more room."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence

from shipper.errors import Held
from shipper.observe.metrics import Metrics
from shipper.state import dead_letters
from shipper.state.dead_letters import EVERY_OUTPUT, DeadLetter, Filter


class DeadLetterBox:
    """Bounded by ``max_bytes`` of data; full holds the component that would write."""

    def __init__(self, connection: sqlite3.Connection, max_bytes: int, metrics: Metrics) -> None:
        self._max_bytes = max_bytes
        self._metrics = metrics
        self._bytes = 0
        self._counts = Counter({EVERY_OUTPUT: 0})
        self.count_again(connection)

    def has_room(self) -> bool:
        """Whether another one may be kept."""
        return self._bytes < self._max_bytes

    def full(self) -> Held:
        """Why nobody may keep another one: nobody may make room by losing the next."""
        return Held(
            "dead_letters_full",
            f"the dead letters hold {self._bytes:,} bytes, of {self._max_bytes:,} allowed",
            "see why with `shipper dead-letters list`, or raise dead_letters.max_bytes",
        )

    def require_room(self) -> None:
        """Raises ``Held`` while the dead letters are full."""
        if not self.has_room():
            raise self.full()

    def kept(self, new: Sequence[DeadLetter]) -> None:
        """Dead letters that were not there before have been committed."""
        for letter in new:
            self._bytes += len(letter.data)
            self._counts[letter.output] += 1
            self._metrics.dead_letters(letter.output, self._counts[letter.output])

    def count_again(self, connection: sqlite3.Connection) -> None:
        """Some were replayed, purged or imported: looks how many there are."""
        self._bytes = dead_letters.stored_bytes(connection)
        found: Counter[str] = Counter()
        for output, _, count in dead_letters.counts(connection, Filter()):
            found[output] += count
        for output in {*self._counts, *found}:
            self._counts[output] = found[output]
            self._metrics.dead_letters(output, found[output])
