"""How fast one lane sends: retries, back-off, the breaker, adaptive concurrency, and what a storm of refusals means.

It decides nothing about an event; it says when the next request may begin and which parcel it should carry. The lane's
lock guards it.
"""

from __future__ import annotations

import random

from shipper.clock import Clock
from shipper.engine.parcel import Parcel
from shipper.settings import RetrySettings

#: Requests in a row of which nothing passed, after which one at a time probes the output.
OPENS_AFTER = 3
#: Attempts in a row of which nothing passed, while others passed, after which the fault may lie in the parcel.
SUSPECT_AFTER = 3
#: Shares by which throttling lowers the concurrency.
LOWER = 0.5


class Breaker:
    """The state of one output as its requests show it."""

    def __init__(self, retry: RetrySettings, concurrency: int, clock: Clock, randomness: random.Random) -> None:
        self._retry = retry
        self._concurrency = concurrency
        self._clock = clock
        self._randomness = randomness
        self._limit = float(concurrency)
        self._row = 0
        self._held_since: float | None = None
        self._held = 0.0
        #: Requests of which something passed.
        self.passes = 0
        #: Probes since the breaker opened.
        self.probes = 0
        self._probe_at = 0.0
        self._asked_until = 0.0

    @property
    def open(self) -> bool:
        """Whether one request at a time probes the output."""
        return self._row >= OPENS_AFTER or self._held_since is not None

    @property
    def not_before(self) -> float:
        """Monotonic seconds before which no request begins."""
        return max(self._probe_at, self._asked_until)

    @property
    def limit(self) -> int:
        """How many requests may be under way."""
        return 1 if self.open else max(1, int(self._limit))

    def held_seconds(self) -> float:
        """Seconds that the output has been held so far: they count neither as an attempt nor towards giving up."""
        now = self._clock.monotonic()
        return self._held + (now - self._held_since if self._held_since is not None else 0.0)

    def passed(self) -> None:
        """A request of which something was stored."""
        self.passes += 1
        self._end()
        self._limit = min(float(self._concurrency), self._limit + 1 / self._limit)

    def answered(self) -> None:
        """A request that was answered for good, though nothing was stored: the output works."""
        self._end()

    def failed(self) -> None:
        """A request of which nothing passed."""
        self._row += 1
        self._go_on()
        if self.open:
            self.probes += 1
            self._probe_at = self._clock.monotonic() + self.back_off(self._row)

    def hold(self, pause: float) -> None:
        """The output is held and is tried again after ``pause`` seconds."""
        now = self._clock.monotonic()
        if self._held_since is None:
            self._held_since = now
        self.probes += 1
        self._probe_at = now + pause

    def slow_down(self, pause: float, *, asked: bool) -> None:
        """The destination throttles, perhaps for ``pause`` seconds; ``asked``: it took everything, and asks for fewer
        requests."""
        self._limit = max(1.0, self._limit * LOWER)
        pause = max(pause, self._retry.initial if asked else 0.0)
        self._asked_until = max(self._asked_until, self._clock.monotonic() + min(pause, self._retry.max))

    def postpone(self, parcel: Parcel, retry_after: float) -> None:
        """Sets when the parcel is due again."""
        now = self._clock.monotonic()
        if parcel.at_once:
            parcel.due = now
        elif retry_after:
            parcel.due = now + min(retry_after, self._retry.max)
        else:
            parcel.due = now + self.back_off(parcel.attempts)

    def back_off(self, attempt: int) -> float:
        """Seconds until the next try: exponential, full jitter."""
        ceiling: float = min(self._retry.max, self._retry.initial * 2.0 ** min(max(attempt, 1) - 1, 30))
        return self._randomness.uniform(0, ceiling)

    def gives_up(self, parcel: Parcel) -> bool:
        """Whether ``give_up_after`` is over for the parcel."""
        limit = self._retry.give_up_after
        if limit is None:
            return False
        return self._clock.monotonic() - parcel.begun - (self.held_seconds() - parcel.held) >= limit

    def _end(self) -> None:
        self._row = self.probes = 0
        self._go_on()
        self._probe_at = 0.0  # but what the destination asked for still holds

    def _go_on(self) -> None:
        if self._held_since is not None:
            self._held += self._clock.monotonic() - self._held_since
            self._held_since = None


class Storm:
    """Refusals in a row with none that passes between them: then it is not the data (delivery.md, Outcomes)."""

    def __init__(self, threshold: int) -> None:
        self._threshold = threshold
        self._row = 0
        #: Whether the output is held for it: nothing is refused for good.
        self.raging = False

    def refused(self, count: int) -> bool:
        """More events were refused; says whether that makes a storm of it, and then they are not to be believed."""
        self._row += count
        if self._row >= self._threshold:
            self.raging = True
        return self.raging

    def passed(self) -> bool:
        """An event passed; says whether that ends a storm."""
        ended, self.raging, self._row = self.raging, False, 0
        return ended
