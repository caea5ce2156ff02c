"""One configured output at work: its plugin, its lane and the threads that send."""

from __future__ import annotations

import functools
import threading
from typing import Any

from shipper.clock import Clock
from shipper.engine.delivery import Delivery
from shipper.engine.lane import Lane
from shipper.engine.threads import Threads
from shipper.output import Output


class Shipping:
    """Owns what begins and ends with an output."""

    def __init__(self, output: Output[Any], lane: Lane, delivery: Delivery, clock: Clock) -> None:
        self.output = output
        self.lane = lane
        self._delivery = delivery
        self._clock = clock
        self._senders: list[threading.Thread] = []

    @property
    def name(self) -> str:
        """The output's name in the configuration."""
        return self.lane.name

    def start(self, threads: Threads, bookmark: bytes | None) -> None:
        """Begins to send. ``bookmark``: what the output asked to keep last."""
        run = functools.partial(self._delivery.run, bookmark)
        count = 1 if self.output.ordered else self.output.settings.concurrency
        self._senders = [threads.start(f"sender {self.name} {number}", run) for number in range(count)]

    def busy(self) -> bool:
        """Whether a sender is still at work."""
        return any(sender.is_alive() for sender in self._senders)

    def feeds_from(self, source: str) -> bool:
        """Whether the output takes the events of a source."""
        sources = self.output.settings.sources
        return sources is None or source in sources

    def join(self, deadline: float) -> None:
        """Waits for the senders until ``deadline`` (monotonic seconds)."""
        for sender in self._senders:
            sender.join(max(0.0, deadline - self._clock.monotonic()))

    def leave(self) -> None:
        """Nothing more is offered: what is queued is sent if the output takes it; one that fails, or could not be
        connected to, is not waited for."""
        self.lane.finish(spool_too=False)
        if not self._delivery.connected:
            self._delivery.abandon()

    def abandon(self) -> None:
        """Sending stops: no request is begun any more."""
        self.lane.stop()
        self._delivery.abandon()

    def close(self, seconds: float) -> None:
        """The end: waits for requests under way, at most so long, and puts what is unsettled into the spool."""
        self.abandon()
        self.join(self._clock.monotonic() + seconds)
        self.lane.close()
