"""Time that is passed in, so that tests move it and a wall clock that jumps decides nothing.

Durations and waits use ``monotonic``; ``now`` is for what people and destinations read.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """What the engine asks about time."""

    def now(self) -> float:
        """Seconds since 1970-01-01 UTC."""

    def monotonic(self) -> float:
        """Seconds that only grow; the zero point means nothing."""

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Waits until ``event`` is set or ``seconds`` have passed; says whether it is set."""


class EngineClock(Clock, Protocol):
    """What the engine asks beside that."""

    def wait_for_news(self, condition: threading.Condition, seconds: float) -> None:
        """Waits until somebody notifies the condition, which the caller holds, or ``seconds`` have passed."""


class SystemClock:
    """The machine's own time."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return event.wait(seconds)

    def wait_for_news(self, condition: threading.Condition, seconds: float) -> None:
        condition.wait(seconds)
