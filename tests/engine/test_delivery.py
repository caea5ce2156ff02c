"""What follows from each outcome that an output reports: what is sent again, what is refused, what settles."""

from __future__ import annotations

import random
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shipper.clock import SystemClock
from shipper.engine.chunk import Chunk, Share
from shipper.engine.dead_letter_box import DeadLetterBox
from shipper.engine.delivery import Delivery
from shipper.engine.holds import Holds
from shipper.engine.lane import Lane
from shipper.engine.ledger import Ledger
from shipper.engine.spool_disk import SpoolDisk
from shipper.engine.threads import Pulse
from shipper.observe.metrics import Metrics
from shipper.output import (
    Batch,
    Failure,
    Held,
    Limits,
    Outcome,
    Output,
    OutputSettings,
    Rejected,
    Report,
    TooLarge,
    Unknown,
)
from shipper.source import EARLIEST, END, Position
from shipper.state import dead_letters, positions, spool
from shipper.state.dead_letters import Filter
from shipper.state.file import lock, open_reader, open_state
from shipper.state.room import Room
from shipper.state.writer import Writer

Answer = Callable[[Batch], Report]


class HurriedClock(SystemClock):
    """Real time, but nobody waits: retries follow at once."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self.passed = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.passed

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.waits.append(seconds)
        self.passed += seconds
        return event.wait(0)

    def wait_for_news(self, condition: threading.Condition, seconds: float) -> None:
        self.waits.append(seconds)
        self.passed += seconds
        condition.wait(0.001)


class Scripted(Output[OutputSettings]):
    """Answers each call of ``send`` by the next entry of a script, and after that delivers."""

    def __init__(self, settings: OutputSettings, *script: Report | Exception) -> None:
        super().__init__("out", settings)
        self.script = list(script)
        self.sent: list[list[bytes]] = []
        self.bookmarks: list[bytes] = []
        #: When each call came (monotonic seconds), by the clock that the rig sets.
        self.times: list[float] = []
        self.clock: SystemClock = SystemClock()

    def send(self, batch: Batch) -> Report:
        self.sent.append(list(batch.events))
        self.times.append(self.clock.monotonic())
        answer = self.script.pop(0) if self.script else Report()
        if isinstance(answer, Exception):
            raise answer
        return answer


class Rig:
    """One lane with a real state file and one sender, fed by hand."""

    def __init__(self, path: Path, output: Output[Any]) -> None:
        self.connection = open_state(path)
        self.clock = HurriedClock()
        self.output = output
        if isinstance(output, Scripted):
            output.clock = self.clock
        self.writer = Writer(self.connection, self.clock)
        self.metrics = Metrics()
        self.holds = Holds(random.Random(1))
        identifier = positions.ensure_lanes(self.connection, ["out"])["out"]
        stream = positions.ensure_stream(self.connection, "arn/1", "arn", "earliest", None, [identifier])
        row = positions.ensure_partitions(self.connection, stream, ["p"], [identifier], 1000.0)["p"]
        assert row.begin is EARLIEST
        disk = SpoolDisk(open_reader(path), spool.next_id(self.connection), Room(path, None))
        letters = DeadLetterBox(self.connection, 10_000, self.metrics, disk)
        randomness = random.Random(1)
        self.lane = Lane(
            "out", identifier, output, self.writer, letters, self.metrics, self.clock, disk, randomness, storm=100
        )
        self.delivery = Delivery(self.lane, self.writer, letters, self.holds, self.metrics, self.clock)
        self.ledger: Ledger = self.lane.ledger("s", stream.id, row, "1")
        self.next = 0

    def offer(self, *sizes: int) -> None:
        """One chunk of records with these numbers of events, named e0, e1 …"""
        count = sum(sizes)
        events = [b'{"id":"e%d"}' % number for number in range(self.next, self.next + count)]
        self.next += count
        base = self.next * 1000
        chunk = Chunk(
            records=[base + number for number in range(len(sizes))],
            starts=[sum(sizes[:number]) for number in range(len(sizes))],
            count=count,
        )
        self.lane.offer(self.ledger, chunk, Share(events, [()] * count), threading.Event())

    def ship(self) -> dict[str, dict[str, int]]:
        """Sends everything and returns the lane's books."""
        self.lane.finish()
        writing = threading.Thread(target=self.writer.run, args=(lambda: None,))
        writing.start()
        self.delivery.run(None, Pulse(self.clock))
        self.writer.close()
        writing.join()
        return positions.books(self.connection)["out"]

    def position(self) -> Position | None:
        (standing,) = positions._standings(self.connection, self.ledger.partition).values()
        return standing.position

    def letters(self) -> list[tuple[str | None, str, int]]:
        return [(kept.event_id, kept.reason, kept.attempts) for kept in dead_letters.listing(self.connection, Filter())]


def times_of(one: Rig) -> list[float]:
    """When ``send`` was called."""
    assert isinstance(one.output, Scripted)
    return one.output.times


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def make(output: Output[Any]) -> Rig:
        made.append(Rig(path, output))
        return made[-1]

    path = tmp_path / "shipper.db"
    with lock(path):
        yield make
        for one in made:
            one.connection.close()


def settings(**more: Any) -> OutputSettings:
    return OutputSettings.model_validate({"type": "scripted", "batch": {"max_wait": "1ms"}, **more})


def failing(outcome: Outcome, *indices: int, retry_after: float | None = None) -> Report:
    return Report(failed={index: Failure(outcome, "why", "its words", retry_after) for index in indices})


def test_what_is_reported_delivered_settles(rig: Callable[..., Rig]) -> None:
    one = rig(Scripted(settings()))
    one.offer(2, 1)
    assert one.ship() == {"offered": {"": 3}, "delivered": {"": 3}}
    assert one.position() == Position(3001, END)


@pytest.mark.parametrize("outcome", [Outcome.THROTTLED, Outcome.NOT_TRIED, Outcome.UNKNOWN])
def test_only_what_failed_is_sent_again(rig: Callable[..., Rig], outcome: Outcome) -> None:
    output = Scripted(settings(), failing(outcome, 1))
    one = rig(output)
    one.offer(3)
    assert one.ship() == {"offered": {"": 3}, "delivered": {"": 3}}
    assert output.sent == [[b'{"id":"e0"}', b'{"id":"e1"}', b'{"id":"e2"}'], [b'{"id":"e1"}']]
    duplicates = one.metrics.registry.get_sample_value("shipper_possible_duplicates_total", {"output": "out"})
    assert duplicates == (1 if outcome is Outcome.UNKNOWN else 0)


def test_a_refused_event_becomes_a_dead_letter_and_its_neighbours_settle(rig: Callable[..., Rig]) -> None:
    one = rig(Scripted(settings(), failing(Outcome.REJECTED, 1)))
    one.offer(1, 1, 1)
    assert one.ship() == {"offered": {"": 3}, "delivered": {"": 2}, "dead_lettered": {"rejected": 1}}
    assert one.letters() == [("e1", "rejected", 1)]
    (kept,) = dead_letters.listing(one.connection, Filter())
    assert (kept.record, kept.ordinals, kept.output) == (3001, (0,), "out")
    assert dead_letters.data_of(one.connection, kept.id) == b'{"id":"e1"}'


def test_what_was_stored_before_is_counted_apart(rig: Callable[..., Rig]) -> None:
    one = rig(Scripted(settings(), Report(already_stored={0, 2})))
    one.offer(3)
    assert one.ship() == {"offered": {"": 3}, "delivered": {"": 1}, "already_stored": {"": 2}}


def test_a_batch_that_is_too_large_is_halved_until_the_guilty_event_is_alone(rig: Callable[..., Rig]) -> None:
    class Small(Scripted):
        def send(self, batch: Batch) -> Report:
            super().send(batch)
            if b'{"id":"e5"}' in batch.events or len(batch) > 4:
                raise TooLarge("413")
            return Report()

    output = Small(settings())
    one = rig(output)
    one.offer(8)
    assert one.ship() == {"offered": {"": 8}, "delivered": {"": 7}, "dead_lettered": {"too_large": 1}}
    assert [event for event, _, _ in one.letters()] == ["e5"]
    assert [len(events) for events in output.sent] == [8, 4, 4, 2, 1, 1, 2]


def test_a_held_output_keeps_everything_and_goes_on(rig: Callable[..., Rig]) -> None:
    output = Scripted(settings(), Held("access_denied", "403"), Held("access_denied", "403"))
    one = rig(output)
    one.offer(2)
    assert one.ship() == {"offered": {"": 2}, "delivered": {"": 2}}
    assert len(output.sent) == 3
    assert one.holds.current() == []


def test_a_hold_that_is_reported_for_single_events_never_makes_dead_letters(rig: Callable[..., Rig]) -> None:
    script = [failing(Outcome.HELD, 1), *[failing(Outcome.HELD, 0)] * 30]
    one = rig(Scripted(settings(retry={"give_up_after": "5s"}), *script))
    one.offer(2)
    assert one.ship() == {"offered": {"": 2}, "delivered": {"": 2}}
    assert one.holds.current() == []


def test_what_was_not_tried_goes_out_at_once_but_not_in_a_tight_loop(rig: Callable[..., Rig]) -> None:
    one = rig(Scripted(settings(retry={"initial": "60s"}), *[failing(Outcome.NOT_TRIED, 0)] * 4))
    one.offer(1)
    one.ship()
    first, second, third, *_ = times_of(one)
    assert second - first < 0.1, "what was not tried waits for nothing"
    assert third - second > 0.1


def test_what_follows_a_refused_event_goes_out_at_once_each_time(rig: Callable[..., Rig]) -> None:
    """A destination that stops at the first event that it refuses: the others wait for nobody."""
    stops = [
        Report(failed={0: Failure(Outcome.REJECTED), **dict.fromkeys(range(1, left), Failure(Outcome.NOT_TRIED))})
        for left in (4, 3, 2)
    ]
    one = rig(Scripted(settings(retry={"initial": "60s"}), *stops))
    one.offer(4)
    assert one.ship() == {"offered": {"": 4}, "delivered": {"": 1}, "dead_lettered": {"rejected": 3}}
    times = times_of(one)
    assert len(times) == 4
    assert times[-1] - times[0] < 0.5


def test_a_destination_that_asks_for_it_gets_its_next_batch_later(rig: Callable[..., Rig]) -> None:
    one = rig(Scripted(settings(batch={"max_events": 1}, retry={"initial": "3s"}), Report(slow_down=True)))
    one.offer(1, 1)
    one.ship()
    first, second = times_of(one)
    assert 3.0 <= second - first < 4.0


def test_what_a_plugin_raises_by_mistake_counts_as_unknown(
    rig: Callable[..., Rig], caplog: pytest.LogCaptureFixture
) -> None:
    one = rig(Scripted(settings(), ZeroDivisionError("a bug")))
    one.offer(1)
    assert one.ship() == {"offered": {"": 1}, "delivered": {"": 1}}
    assert "the plugin failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("nonsense", [failing(Outcome.REJECTED, 7), Report(already_stored={-1}), None])
def test_a_report_that_makes_no_sense_counts_as_unknown(rig: Callable[..., Rig], nonsense: Any) -> None:
    one = rig(Scripted(settings(), nonsense))
    one.offer(2)
    assert one.ship() == {"offered": {"": 2}, "delivered": {"": 2}}


def test_giving_up_makes_dead_letters_and_a_hold_does_not_count(rig: Callable[..., Rig]) -> None:
    hold = Held("access_denied", "403")
    script = [hold] * 20 + [Unknown("timeout")] * 100
    one = rig(Scripted(settings(retry={"initial": "1s", "max": "1s", "give_up_after": "10s"}), *script))
    one.offer(2)
    assert one.ship() == {"offered": {"": 2}, "dead_lettered": {"gave_up": 2}}
    ((_, reason, attempts), _) = one.letters()
    assert reason == "gave_up"
    assert attempts > 5


def test_a_destination_that_says_when_is_asked_then(rig: Callable[..., Rig]) -> None:
    one = rig(Scripted(settings(), failing(Outcome.THROTTLED, 0, retry_after=7.0)))
    one.offer(1)
    one.ship()
    first, second = times_of(one)
    assert 7.0 <= second - first < 7.6


def test_no_wait_is_longer_than_retry_max(rig: Callable[..., Rig]) -> None:
    one = rig(Scripted(settings(retry={"max": "2s"}), failing(Outcome.THROTTLED, 0, retry_after=3600.0)))
    one.offer(1)
    one.ship()
    assert max(one.clock.waits) <= 2.0


def test_an_abandoned_batch_stays_behind_the_position(rig: Callable[..., Rig]) -> None:
    class Down(Scripted):
        def send(self, batch: Batch) -> Report:
            super().send(batch)
            if len(self.sent) == 3:
                one.delivery.abandon()
            raise Unknown("down")

    output = Down(settings())
    one = rig(output)
    one.offer(2)
    assert one.ship() == {}
    assert len(output.sent) == 3, "it was sent again after sending was stopped"
    assert one.position() is None
    assert one.lane.owed() == (0, 2, 0)


def test_a_batch_keeps_within_the_limits_of_its_destination(rig: Callable[..., Rig]) -> None:
    class Narrow(Scripted):
        limits = Limits(max_events=3, max_bytes=100, overhead=26)

    output = Narrow(settings())
    one = rig(output)
    one.offer(*[1] * 10)
    one.ship()
    # An event has 11 bytes: three of them with their overhead would be 111.
    assert [len(events) for events in output.sent] == [2, 2, 2, 2, 2]


def test_batches_end_with_records_where_they_can(rig: Callable[..., Rig]) -> None:
    output = Scripted(settings(batch={"max_events": 5, "max_wait": "1ms"}))
    one = rig(output)
    one.offer(3, 3, 7)
    one.ship()
    assert [len(events) for events in output.sent] == [3, 3, 5, 2]


def test_a_bookmark_is_committed_before_anything_new_is_touched(rig: Callable[..., Rig]) -> None:
    class Bookmarked(Scripted):
        def prepare(self, batch: Batch) -> bytes | None:
            return b"before"

        def send(self, batch: Batch) -> Report:
            reader = sqlite3.connect(path)
            self.bookmarks.append(reader.execute("SELECT bookmark FROM lanes").fetchone()[0])
            reader.close()
            return Report(bookmark=b"after")

    output = Bookmarked(settings())
    one = rig(output)
    path = one.connection.execute("PRAGMA database_list").fetchone()[2]
    one.offer(1)
    one.ship()
    assert output.bookmarks == [b"before"]
    assert positions.bookmark_of(one.connection, one.lane.id) == b"after"


def test_full_dead_letters_hold_the_output_and_lose_nothing(rig: Callable[..., Rig]) -> None:
    one = rig(Scripted(settings(), Rejected("no"), Rejected("no")))
    one.offer(1)
    one.connection.execute("UPDATE lanes SET bookmark = NULL")
    one.delivery._letters._bytes = 10_000  # full

    class Emptied(HurriedClock):
        def wait_for_news(self, condition: threading.Condition, seconds: float) -> None:
            if one.holds.current():
                held.extend(hold.reason for hold in one.holds.current())
                one.delivery._letters._bytes = 0
            super().wait_for_news(condition, seconds)

    held: list[str] = []
    one.lane._clock = Emptied()
    assert one.ship() == {"offered": {"": 1}, "dead_lettered": {"rejected": 1}}
    assert set(held) == {"dead_letters_full"}


def test_counted_metrics_balance_with_what_is_pending(rig: Callable[..., Rig]) -> None:
    one = rig(Scripted(settings(), failing(Outcome.REJECTED, 0)))
    one.offer(3)
    one.ship()
    found: Counter[str] = Counter()
    for family in one.metrics.registry.collect():
        for sample in family.samples:
            if sample.labels.get("output") == "out":
                found[sample.name.removeprefix("shipper_")] += int(sample.value)
    assert found["events_offered_total"] == 3
    assert found["events_delivered_total"] == 2
    assert found["events_dead_lettered_total"] == 1
