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
        self._bytes = dead_letters.stored_bytes(connection)
        self._counts = Counter({EVERY_OUTPUT: 0})
        for output, _, count in dead_letters.counts(connection, Filter()):
            self._counts[output] += count
        for output, count in self._counts.items():
            metrics.dead_letters(output, count)

    def require_room(self) -> None:
        """Raises ``Held`` while the dead letters are full: nobody may make room by losing the next one."""
        if self._bytes >= self._max_bytes:
            raise Held(
                "dead_letters_full",
                f"the dead letters hold {self._bytes:,} bytes, of {self._max_bytes:,} allowed",
                "see why with `shipper dead-letters list`, or raise dead_letters.max_bytes",
            )

    def kept(self, new: Sequence[DeadLetter]) -> None:
        """Dead letters that were not there before have been committed."""
        for letter in new:
            self._bytes += len(letter.data)
            self._counts[letter.output] += 1
            self._metrics.dead_letters(letter.output, self._counts[letter.output])
