"""Whether records that cannot be decoded are to blame, or the key, the context or the settings: a source's storm.

So many in a row, over all partitions, with none that decodes between them, are not believed (delivery.md, Outcomes).
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence

from shipper.errors import Held
from shipper.state.dead_letters import DeadLetter

log = logging.getLogger("shipper.engine")


class SourceStorm:
    """The state of one source. Thread-safe."""

    def __init__(self, source: str, threshold: int) -> None:
        """``threshold``: records in a row that make a storm."""
        self._source = source
        self._threshold = threshold
        self._lock = threading.Lock()
        self._row = 0
        self._sure = False
        self._letters: deque[DeadLetter] = deque(maxlen=threshold)
        self._last = ""
        #: What cannot be decoded is kept, and does not become a dead letter.
        self.raging = False

    def passed(self) -> None:
        """Some record was decoded."""
        if self._row or self._sure or self.raging:
            self.judge((True,))

    def judge(self, outcomes: Sequence[bool]) -> int:
        """What became of records, in the order in which they were read: decoded or not. Says how many of them are to be
        believed; with the next begins a storm."""
        with self._lock:
            if self.raging:
                if not any(outcomes):
                    return 0
                self._end()
            for number, decoded in enumerate(outcomes):
                if decoded:
                    self._row, self._sure = 0, False
                    self._letters.clear()
                elif not self._sure:
                    self._row += 1
                    if self._row >= self._threshold:
                        self.raging = True
                        return number
            return len(outcomes)

    def note(self, letters: Sequence[DeadLetter]) -> bool:
        """These dead letters of the row have been handed in; says whether a storm has begun meanwhile."""
        with self._lock:
            self._letters.extend(letters)
            if letters:
                self._last = f"{letters[-1].reason}: {letters[-1].detail}"
            return self.raging

    def take(self) -> list[DeadLetter]:
        """The dead letters of the row, once: nobody believes them any more."""
        with self._lock:
            letters = list(self._letters)
            self._letters.clear()
            return letters

    def over(self) -> None:
        """One was decoded: what cannot be is to blame itself, until the next decodes."""
        with self._lock:
            self._end()

    def held(self) -> Held:
        """Why the source is held."""
        why = f"; the last one: {self._last}" if self._last else ""
        return Held(
            "storm",
            f"{self._threshold} records in a row could not be decoded, so it is not the records{why}",
            "they are kept as they were read; look at resource_id, keys and decode of the source",
        )

    def _end(self) -> None:
        if self.raging:
            log.info("source %s: a record was decoded: the storm is over, what was kept is decoded now", self._source)
        self.raging, self._row, self._sure = False, 0, True
        self._letters.clear()
