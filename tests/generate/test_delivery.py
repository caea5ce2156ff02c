"""Delivery keeps to the records' own times where it is paced, and counts what it wrote."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest

from shipper.generate.activity import Generator, PlainRecord
from shipper.generate.delivery import Totals, deliver

START = datetime(2024, 3, 5, 11, 22, 33, tzinfo=UTC)


class MovedClock:
    """Time passes only where somebody waits."""

    def __init__(self) -> None:
        self.time = 1_000.0

    def now(self) -> float:
        return 0.0

    def monotonic(self) -> float:
        return self.time

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.time += seconds
        return event.is_set()


class Log:
    """A destination that notes when each record was flushed."""

    def __init__(self, clock: MovedClock) -> None:
        self._clock = clock
        self._waiting: list[bytes] = []
        self.flushed: list[tuple[float, bytes]] = []

    def write(self, envelope: bytes) -> None:
        self._waiting.append(envelope)

    def flush(self) -> None:
        self.flushed += [(self._clock.time, one) for one in self._waiting]
        self._waiting.clear()


def generate(events: int = 100) -> list[PlainRecord]:
    return list(Generator("oracle", seed=1, start=START, rate=10.0).records(events))


def test_paced_records_leave_at_their_own_times_and_are_not_kept_back() -> None:
    clock = MovedClock()
    log = Log(clock)
    records = generate()
    deliver(records, lambda one: one.plaintext, log, clock=clock, paced_from=START, totals=Totals())
    assert [envelope for _, envelope in log.flushed] == [one.plaintext for one in records]
    for (left, _), record in zip(log.flushed, records, strict=True):
        assert left - 1_000.0 == pytest.approx((record.time - START).total_seconds(), abs=0.001)


def test_without_a_pace_nothing_waits() -> None:
    clock = MovedClock()
    deliver(generate(), lambda one: one.plaintext, Log(clock), clock=clock, totals=Totals())
    assert clock.time == 1_000.0


def test_the_totals_count_events_records_heartbeats_and_bytes() -> None:
    clock, totals, seen = MovedClock(), Totals(), list[int]()
    records = generate(95)
    log = Log(clock)
    deliver(
        records,
        lambda one: one.plaintext * 2,
        log,
        clock=clock,
        paced_from=START,
        totals=totals,
        progress=seen.append,
    )
    assert totals.events == 95 == sum(seen)
    assert totals.heartbeats == sum(one.heartbeat for one in records) > 0
    assert totals.records + totals.heartbeats == len(records)
    assert totals.bytes == sum(len(envelope) for _, envelope in log.flushed)
    assert totals.seconds == pytest.approx((records[-1].time - START).total_seconds(), abs=0.001)
    assert str(totals).startswith("95 events in ")


def test_what_was_sealed_before_a_failure_is_still_flushed() -> None:
    clock, totals = MovedClock(), Totals()
    log = Log(clock)
    records = generate()

    def seal(record: PlainRecord) -> bytes:
        if record is records[3]:
            raise RuntimeError("no key")
        return record.plaintext

    with pytest.raises(RuntimeError):
        deliver(records, seal, log, clock=clock, totals=totals)
    assert [envelope for _, envelope in log.flushed] == [one.plaintext for one in records[:3]]
    assert totals.records + totals.heartbeats == 3
