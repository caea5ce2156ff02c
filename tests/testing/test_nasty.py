"""The nasty output and source: they do what they were told, and say truly what they did."""

from __future__ import annotations

import itertools
import threading
from datetime import UTC, datetime

import pytest

from shipper.errors import Held
from shipper.output import Batch, DeliveryError, Failure, Outcome, Report, Throttled
from shipper.source import EARLIEST, END, Partition, Position, Read, Start
from shipper.testing.nasty import (
    Action,
    NastyOutput,
    NastySource,
    OrderedNastyOutput,
    already_stored,
    deliver,
    fail,
    nastiness,
    raises,
    slow,
    slow_down,
    wrong,
    wrong_reports,
)
from shipper.values import Field


class StandingClock:
    """A clock in which every wait is over at once, and remembered."""

    def __init__(self) -> None:
        self.waited: list[float] = []
        self.time = 1_700_000_000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.waited.append(seconds)
        self.time += seconds
        return event.is_set()


def batch(*ids: str) -> Batch:
    events = [b'{"id":"%s"}' % one.encode() for one in ids]
    return Batch(events, [()] * len(events), sum(map(len, events)))


ABC = batch("a", "b", "c")


# -- the output ----------------------------------------------------------------------------------------------------


def test_it_does_its_actions_in_turn_and_then_delivers() -> None:
    output = NastyOutput(actions=[raises(Outcome.THROTTLED), slow_down(), already_stored()])
    with pytest.raises(Throttled):
        output.send(ABC)
    assert output.send(batch("a")) == Report(slow_down=True)
    assert output.send(ABC) == Report(already_stored=[0])
    assert output.send(batch("d")) == Report()
    assert output.stored == ["a", "b", "c", "d"]
    assert output.promised == ["a", "a", "b", "c", "d"]
    assert [sent.ids for sent in output.sent] == [["a", "b", "c"], ["a"], ["a", "b", "c"], ["d"]]


def test_what_is_no_event_is_its_own_id() -> None:
    output = NastyOutput()
    output.send(Batch([b"plain", b"\xff"], [(), ()], 6))
    assert output.stored == ["plain", "\\xff"]


@pytest.mark.parametrize("outcome", Outcome)
def test_some_events_fail_and_the_others_are_stored(outcome: Outcome) -> None:
    output = NastyOutput(actions=[fail(outcome, [1, 7], reason="why", retry_after=3)])
    assert output.send(ABC).failed == {1: Failure(outcome, "why", "nasty", 3)}
    assert output.stored == output.promised == ["a", "c"]


def test_events_are_chosen_by_what_they_are() -> None:
    output = NastyOutput(then=fail(Outcome.REJECTED, lambda one, event: one == "c" or b'"a"' in event))
    assert set(output.send(ABC).failed) == {0, 2}


def test_an_unknown_outcome_may_have_been_stored() -> None:
    output = NastyOutput(actions=[fail(Outcome.UNKNOWN, [0], stored=True), raises(Outcome.UNKNOWN, stored=[2])])
    assert set(output.send(ABC).failed) == {0}
    with pytest.raises(DeliveryError):
        output.send(ABC)
    assert (output.stored, output.promised) == (["a", "b", "c", "c"], ["b", "c"])


@pytest.mark.parametrize("outcome", Outcome)
def test_an_outcome_is_raised_by_its_own_error(outcome: Outcome) -> None:
    output = NastyOutput(then=raises(outcome, detail="because"))
    with pytest.raises(Held if outcome is Outcome.HELD else DeliveryError, match="because") as error:
        output.send(ABC)
    if isinstance(error.value, DeliveryError):
        assert error.value.failure.outcome is outcome
    assert output.stored == []


def test_any_exception_is_raised_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        NastyOutput(then=raises(ZeroDivisionError())).send(ABC)


def test_it_is_slow_by_the_clock_that_was_passed_in() -> None:
    clock = StandingClock()
    NastyOutput(clock=clock, then=slow(3600.0)).send(ABC)
    assert clock.waited == [3600.0]


@pytest.mark.parametrize("ended_by_close", [True, False])
def test_it_is_slow_until_somebody_says_so(ended_by_close: bool) -> None:
    gate = threading.Event()
    output = NastyOutput(then=slow(gate, fail(Outcome.THROTTLED, [0])))
    thread = threading.Thread(target=output.send, args=(ABC,))
    thread.start()
    output.wait(lambda: output.sent)
    assert output.stored == []
    if ended_by_close:
        output.close()
    else:
        gate.set()
    thread.join(30)
    assert output.stored == ["b", "c"]


@pytest.mark.parametrize("name", wrong_reports(3))
@pytest.mark.parametrize("stored", [True, False])
def test_a_wrong_report_lies_about_no_event_that_it_calls_delivered(name: str, stored: bool) -> None:
    returned = wrong_reports(3)[name]
    output = NastyOutput(then=wrong(returned, stored=stored))
    assert output.send(ABC) is returned
    assert set(output.promised) <= set(output.stored)
    assert not stored or output.stored == ["a", "b", "c"]


def test_calls_at_the_same_time_are_counted() -> None:
    gate = threading.Event()
    output = NastyOutput(then=slow(gate))
    threads = [threading.Thread(target=output.send, args=(batch(str(number)),)) for number in range(4)]
    for thread in threads:
        thread.start()
    output.wait(lambda: output.most_at_once == 4)
    gate.set()
    for thread in threads:
        thread.join(30)
    assert sorted(output.stored) == ["0", "1", "2", "3"]


def test_connecting_fails_as_often_as_it_was_told() -> None:
    output = NastyOutput(connecting=[Held("unreachable", "no"), ValueError("no")], wanted=[Field("id")])
    assert [check.ok for check in output.check()] == [False]
    with pytest.raises(Held):
        output.connect(None)
    with pytest.raises(ValueError, match="no"):
        output.connect(b"1")
    output.connect(b"2")
    assert output.connected == [None, b"1", b"2"]
    assert [check.ok for check in output.check()] == [True]
    assert list(output.values()) == [Field("id")]
    output.close()
    assert output.closed == 1


def test_with_bookmarks_what_was_not_committed_is_cut_off() -> None:
    output = OrderedNastyOutput(bookmarks=True, actions=[deliver(), raises(Outcome.UNKNOWN, stored=None)])
    output.connect(None)
    assert output.prepare(batch("a")) == b"0"
    assert output.send(batch("a")).bookmark == b"1"
    assert output.prepare(ABC) is None
    with pytest.raises(DeliveryError):
        output.send(ABC)
    assert output.stored == ["a"], "all or nothing"
    output.send(ABC)
    output.connect(b"1")
    assert output.stored == ["a"]


def test_the_same_seed_is_nasty_in_the_same_way() -> None:
    def run(actions: itertools.islice[Action]) -> list[str]:
        output = NastyOutput(actions=actions)
        seen = []
        for number in range(200):
            try:
                seen.append(repr(output.send(batch(f"{number}a", f"{number}b"))))
            except Exception as error:  # noqa: BLE001 - it raises anything
                seen.append(repr(error))
        assert set(output.promised) <= set(output.stored)
        return [*seen, *output.stored]

    first, again, other = (run(itertools.islice(nastiness(seed), 200)) for seed in (1, 1, 2))
    assert first == again != other
    assert any("Held" in one for one in first)
    assert any("RecursionError" in one for one in first)


def rejects(action: Action, seed: int) -> bool:
    """Whether an engine that reads the report well would make dead letters of it."""
    try:
        report = NastyOutput(then=action, seed=seed).send(ABC)
    except DeliveryError as error:
        return error.failure.outcome is Outcome.REJECTED
    except Exception:  # noqa: BLE001 - it raises anything
        return False
    if not isinstance(report, Report) or not isinstance(report.failed, dict) or not {*report.failed} <= {0, 1, 2}:
        return False
    return any(isinstance(one, Failure) and one.outcome is Outcome.REJECTED for one in report.failed.values())


def test_nothing_that_a_seed_draws_costs_an_event_unless_it_is_asked_for() -> None:
    assert not any(map(rejects, nastiness(7), range(2_000)))
    assert any(map(rejects, nastiness(7, {"rejected": 1}), range(100)))


# -- the source ----------------------------------------------------------------------------------------------------


def reads(
    source: NastySource, partition: str = "p0", begin: Position | Start = EARLIEST, most: int = 100
) -> list[Read]:
    return list(itertools.islice(source.read(Partition(partition), begin, threading.Event()), most))


def contents(reads: list[Read]) -> list[bytes]:
    return [record.data for read in reads for record in read.records]


def test_it_reads_what_it_was_given_in_reads_of_a_size() -> None:
    source = NastySource(at_once=2)
    positions = source.add(b"1", b"2", b"3", arrived=5)
    found = reads(source)
    assert [len(read.records) for read in found] == [2, 1]
    assert [read.lag is not None and read.lag > 0 for read in found] == [True, False]
    assert contents(found) == [b"1", b"2", b"3"]
    assert [record.position for read in found for record in read.records] == positions
    assert positions == sorted(positions)
    assert positions[0] > 2**64
    assert source.begun == [("p0", EARLIEST)]


def test_it_reads_at_a_half_settled_record_and_after_a_finished_one() -> None:
    source = NastySource()
    _, second, _ = source.add(b"1", b"2", b"3")
    assert contents(reads(source, begin=Position(second, 4))) == [b"2", b"3"]
    assert contents(reads(source, begin=Position(second, END))) == [b"3"]


def test_it_reads_from_a_time() -> None:
    source = NastySource()
    source.add(b"1", arrived=10)
    source.add(b"2", arrived=20)
    assert contents(reads(source, begin=datetime.fromtimestamp(15, UTC))) == [b"2"]


def test_children_follow_their_parents() -> None:
    source = NastySource(partitions=["p0", "p1"])
    source.split("p0", "a", "b")
    source.merge("a", "b", into="c")
    assert reads(source) == [Read([], 0.0, end=True)]
    assert {one.id: one.parents for one in source.partitions()} == {
        "p0": (),
        "p1": (),
        "a": ("p0",),
        "b": ("p0",),
        "c": ("a", "b"),
    }
    source.forget("p0")
    assert "p0" not in {one.id for one in source.partitions()}


def test_it_waits_for_more_by_the_clock_that_was_passed_in() -> None:
    clock = StandingClock()
    source = NastySource(follow=True, clock=clock, poll=7.0)
    reading = source.read(Partition("p0"), EARLIEST, threading.Event())
    assert next(reading).records == []
    source.add(b"late")
    assert contents([next(reading)]) == [b"late"]
    assert clock.waited == [7.0]


def test_it_is_held_until_it_is_mended() -> None:
    source = NastySource()
    source.hold("stream_not_found", "gone")
    for ask in (source.connect, source.partitions, lambda: reads(source)):
        with pytest.raises(Held, match="gone"):
            ask()
    assert [check.ok for check in source.check()] == [False]
    source.mend()
    source.connect()
    assert reads(source)


def test_trouble_comes_once_and_loses_nothing() -> None:
    source = NastySource()
    source.add(b"1")
    source.trouble(Held("unreachable", "no"), RuntimeError("no"))
    with pytest.raises(Held):
        reads(source)
    with pytest.raises(RuntimeError):
        reads(source)
    assert contents(reads(source)) == [b"1"]


def test_records_expire() -> None:
    source = NastySource(keeps=60)
    source.add(b"1", b"2", b"3")
    source.expire(keep=1)
    assert contents(reads(source)) == [b"3"]
    assert source.retention() == 60


def test_a_stream_is_made_anew_in_the_same_series() -> None:
    source = NastySource(identity="arn/1", series="arn", resource_id="db-A", facts={"instance": "x"})
    source.stream = "arn/2"
    assert (source.identity(), source.series(), source.resource_id) == ("arn/2", "arn", "db-A")
    assert source.facts() == {"instance": "x"}
