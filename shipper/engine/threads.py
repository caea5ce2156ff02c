"""The one place where threads are started, and where their death or standstill is noticed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from shipper.clock import Clock
from shipper.errors import ShipperError

log = logging.getLogger("shipper.engine")

#: Seconds without a sign of progress after which a thread counts as standing still (interface.md, HTTP).
STALL = 60.0


class Pulse:
    """A thread's sign of life: it calls it at each turn, and says when it waits for something that may take long."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = clock.monotonic()
        self._idle = False

    def __call__(self) -> None:
        self._last = self._clock.monotonic()

    @contextmanager
    def idle(self) -> Iterator[None]:
        """Waiting in here is no standstill."""
        self._idle = True
        try:
            yield
        finally:
            self._idle = False
            self()

    def stalled(self) -> bool:
        """Whether the thread should have shown progress and did not."""
        return not self._idle and self._clock.monotonic() - self._last > STALL


class Threads:
    """Starts threads and remembers the first that died of an exception; ``on_death`` is called with it."""

    def __init__(self, clock: Clock, on_death: Callable[[str, BaseException], None]) -> None:
        self._clock = clock
        self._on_death = on_death
        self._lock = threading.Lock()
        self._running: dict[threading.Thread, tuple[str, Pulse]] = {}
        self.died: str | None = None

    def start(self, name: str, body: Callable[[Pulse], None]) -> threading.Thread:
        """Runs ``body`` in a thread of its own."""
        pulse = Pulse(self._clock)

        def run() -> None:
            try:
                body(pulse)
            except BaseException as error:
                self.died = self.died or f"{name}: {type(error).__name__}"
                if isinstance(error, ShipperError):  # says itself what happened
                    log.debug("engine: the thread %s ended: %s", name, error)
                else:
                    log.exception("engine: the thread %s died; shipper stops, nothing is lost", name)
                self._on_death(name, error)
            finally:
                with self._lock:
                    self._running.pop(threading.current_thread(), None)

        thread = threading.Thread(target=run, name=f"shipper-{name}", daemon=True)
        with self._lock:
            self._running[thread] = (name, pulse)
        thread.start()
        return thread

    def stalled(self) -> list[str]:
        """The names of threads that stand still."""
        with self._lock:
            return [name for name, pulse in self._running.values() if pulse.stalled()]
