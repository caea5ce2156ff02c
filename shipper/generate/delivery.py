"""Brings generated records to their destination, at the pace of their own times or as fast as this machine can."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from shipper.clock import Clock
from shipper.generate.activity import PlainRecord
from shipper.generate.destinations import Destination


@dataclass(slots=True)
class Totals:
    """``records`` counts those with events, ``bytes`` all envelopes; ``seconds`` is how long it took."""

    events: int = 0
    records: int = 0
    heartbeats: int = 0
    bytes: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        rate = self.events / self.seconds if self.seconds > 0 else 0.0
        return (
            f"{self.events} events in {self.records} records, and {self.heartbeats} heartbeats: "
            f"{self.bytes / 1e6:.1f} MB in {self.seconds:.1f} s, {rate:.0f} events/s"
        )


def deliver(
    records: Iterable[PlainRecord],
    seal: Callable[[PlainRecord], bytes],
    destination: Destination,
    *,
    clock: Clock,
    paced_from: datetime | None = None,
    totals: Totals,
    progress: Callable[[int], None] = lambda _events: None,
) -> None:
    """Seals and writes every record.

    With ``paced_from``, a record leaves no sooner after the beginning than its time lies after ``paced_from``; before
    each wait what is there is flushed. ``totals`` is up to date also when this raises; ``progress`` is told how many
    events each record had.
    """
    begun = clock.monotonic()
    never = threading.Event()
    try:
        for record in records:
            if paced_from is not None:
                ahead = (record.time - paced_from).total_seconds() - (clock.monotonic() - begun)
                if ahead > 0:
                    destination.flush()
                    clock.wait(never, ahead)
            envelope = seal(record)
            destination.write(envelope)
            totals.events += record.events
            totals.records += not record.heartbeat
            totals.heartbeats += record.heartbeat
            totals.bytes += len(envelope)
            progress(record.events)
    finally:
        destination.flush()
        totals.seconds = clock.monotonic() - begun
