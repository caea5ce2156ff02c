"""How far reading stands behind a source, also while nothing can be read and nobody can say."""

from __future__ import annotations

import threading

from shipper.clock import Clock


class Lag:
    """The lag of one source's partitions. Thread-safe.

    What a partition's last read said grows with the clock until the next one, so a reader that fails or hangs shows.
    What has not been read yet counts from its beginning.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._started = clock.monotonic()
        self._found = False
        #: Partition → (lag in seconds, when it was so in monotonic seconds).
        self._known: dict[str, tuple[float, float]] = {}

    def begun(self, partition: str) -> None:
        """Somebody tries to read this partition from now on."""
        with self._lock:
            self._found = True
            self._known.setdefault(partition, (0.0, self._clock.monotonic()))

    def read(self, partition: str, lag: float | None) -> None:
        """A read succeeded. ``lag`` in seconds; ``None``: the source does not know, what was known before holds."""
        now = self._clock.monotonic()
        with self._lock:
            self._found = True
            before = self._known.get(partition, (0.0, now))[0]
            self._known[partition] = (before if lag is None else max(0.0, lag), now)

    def finished(self, partition: str) -> None:
        """Nothing follows in this partition."""
        with self._lock:
            self._found = True
            self._known.pop(partition, None)

    def seconds(self) -> float:
        """The largest lag of all partitions, now."""
        now = self._clock.monotonic()
        with self._lock:
            if not self._found:
                return now - self._started
            return max((lag + now - since for lag, since in self._known.values()), default=0.0)
