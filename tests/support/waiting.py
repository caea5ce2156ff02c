"""Waits for a condition with a deadline; no test waits for a time to pass."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


def until(condition: Callable[[], object], failure: Callable[[], str], seconds: float = 30.0) -> None:
    """Returns when ``condition`` holds; fails with what ``failure`` says when it does not within ``seconds``."""
    pause = threading.Event()
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {failure()}"
        pause.wait(0.02)
