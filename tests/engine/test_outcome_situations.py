"""What follows when an output refuses, stumbles, throttles or is held: each situation that the design names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shipper.errors import Held
from shipper.output import Failure, Outcome, OutputSettings, Report
from shipper.testing.nasty import (
    Action,
    Call,
    NastyOutput,
    OrderedNastyOutput,
    deliver,
    fail,
    nastiness,
    raises,
    wrong,
    wrong_reports,
)
from shipper.values import Target, Text
from support.lane_rig import Rig, Site, names

KINDS = [NastyOutput, OrderedNastyOutput]
BUG = ZeroDivisionError("a bug")


def settings(**more: Any) -> OutputSettings:
    return OutputSettings.model_validate({"type": "nasty", "batch": {"max_wait": "1ms"}, **more})


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def rigs(site: Site) -> Iterator[list[Rig]]:
    made: list[Rig] = []
    yield made
    for one in made[-1:]:
        one.kill()


def stumbling(*guilty: str, delivering: bool = True) -> Action:
    """Raises a plain exception, as a bug does, where a batch has one of these events."""

    def act(call: Call) -> Report:
        if set(call.ids) & set(guilty) or not delivering:
            raise BUG
        return deliver()(call)

    return act


def refusing(bad: Any) -> Action:
    """Rejects the events whose names are bad, and stores the others."""
    return fail(Outcome.REJECTED, lambda name, _: bad(int(name[1:])), detail="strict mapping")


def all_names(site: Site) -> list[str]:
    return [name for names in site.partitions["p"].records.values() for name in names]


# -- what a plugin returns or raises by mistake ------------------------------------------------------------------------


@pytest.mark.parametrize("which", sorted(wrong_reports(3)))
def test_no_report_whatever_is_in_it_ends_the_sender_or_loses_an_event(site: Site, rigs: list[Rig], which: str) -> None:
    output = NastyOutput(settings=settings(), actions=[wrong(lambda count: wrong_reports(count)[which])] * 2)
    rigs.append(rig := Rig(site, output))
    rig.add(3)
    rig.pump(300)
    assert {*output.stored, *rig.dead()} == {"e0", "e1", "e2"}
    assert rig.lane.owed() == (0, 0, 0)
    assert rig.balance() == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("guilty", [("e7",), ("e0",), ("e19",), ("e7", "e8"), ("e3", "e4", "e11")])
def test_the_event_that_a_plugin_stumbles_over_is_isolated_while_its_neighbours_pass(
    site: Site, rigs: list[Rig], kind: type[NastyOutput], guilty: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    output = kind(settings=settings(concurrency=2), then=stumbling(*guilty))
    rigs.append(rig := Rig(site, output))
    rig.add(20)
    for _ in range(60):
        rig.pump(60)
        rig.add(1)
    rig.pump(600)
    assert sorted(rig.dead()) == sorted(guilty)
    assert sorted(output.stored) == sorted(set(all_names(site)) - set(guilty))
    if kind is OrderedNastyOutput:
        assert output.stored == [name for name in all_names(site) if name not in guilty]
    assert set(rig.reasons()) == {"rejected"}
    assert rig.balance() == 0
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("kind", KINDS)
def test_a_plugin_that_stumbles_over_everything_makes_no_dead_letter(
    site: Site, rigs: list[Rig], kind: type[NastyOutput]
) -> None:
    output = kind(settings=settings(concurrency=2), then=stumbling(delivering=False))
    rigs.append(rig := Rig(site, output))
    rig.add(*[1] * 150)
    rig.pump(7200)
    assert rig.dead() == []
    output.behave()
    rig.pump(300)
    assert sorted(output.stored) == sorted(all_names(site))
    if kind is OrderedNastyOutput:
        assert output.stored == all_names(site)
    assert rig.dead() == []


def test_a_batch_of_which_every_event_seems_guilty_has_none(site: Site, rigs: list[Rig]) -> None:
    """Others pass all the time; the plugin stumbles over each event of one batch."""
    guilty = [f"e{number}" for number in range(8)]
    output = NastyOutput(settings=settings(concurrency=2), then=stumbling(*guilty))
    rigs.append(rig := Rig(site, output))
    rig.add(8)
    rig.pump(1)
    for _ in range(40):
        rig.pump(30)
        rig.add(1)
    rig.pump(60)
    assert rig.dead() == []
    assert sorted(rig.spooled()) == guilty
    output.behave()
    rig.pump(120)
    assert sorted(output.stored) == sorted(all_names(site))


# -- a configuration or a permission that is wrong ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_strict_mapping_holds_the_output_and_floods_nothing(
    site: Site, rigs: list[Rig], kind: type[NastyOutput]
) -> None:
    output = kind(settings=settings(batch={"max_events": 30, "max_wait": "1ms"}), then=refusing(lambda number: True))
    rigs.append(rig := Rig(site, output))
    rig.add(*[1] * 500)
    rig.pump(3600)
    assert len(rig.dead()) < 100
    assert [hold.reason for hold in rig.holds.current()] == ["storm"]
    assert len(rig.passed()) == 500, "what waits is in the spool"
    assert rig.balance() == 0
    output.behave()
    rig.pump(600)
    assert sorted(output.stored) == sorted(all_names(site))
    assert rig.dead() == []
    assert rig.holds.current() == []
    books = rig.books()
    assert books["delivered"] == {"": 500}
    assert books["replayed"] == books["replayed_out"]


def test_a_storm_survives_a_kill_and_counts_nothing_twice(site: Site, rigs: list[Rig]) -> None:
    table = settings(batch={"max_events": 30, "max_wait": "1ms"})
    rigs.append(rig := Rig(site, NastyOutput(settings=table, then=refusing(lambda number: True))))
    rig.add(*[1] * 300)
    rig.pump(2, until=lambda: rig.lane.storm.raging)
    assert rig.lane.storm.raging
    while rig.writer.commit():
        pass
    assert rig.dead() == [], "what was refused before the storm was seen is sent again, whoever sees its end"
    assert not set(rig.spooled()) - set(rig.passed()), "a row would be read again"
    rig.kill()
    rigs.append(again := Rig(site, output := NastyOutput(settings=table)))
    again.read()
    again.pump(60)
    assert sorted(output.stored) == sorted(all_names(site))
    assert again.balance() == 0
    assert again.books()["offered"] == {"": 300}


def test_a_storm_on_a_full_disk_sends_everything_again_when_it_is_over(site: Site, rigs: list[Rig]) -> None:
    """What was refused behind an event without an answer is no dead letter yet when the storm begins, for nothing can
    be spooled. It becomes one when the disk has room again, and the storm's end sends it again."""

    def first_unanswered(call: Call) -> Report:
        outcome = Outcome.UNKNOWN if "e0" in call.ids else Outcome.REJECTED
        return fail(outcome, lambda *_: True, detail="strict mapping")(call)

    table = settings(batch={"max_events": 30, "max_wait": "1ms"}, concurrency=2)
    rigs.append(rig := Rig(site, output := NastyOutput(settings=table, then=first_unanswered)))
    rig.room.low = True
    rig.add(*[1] * 300)
    rig.pump(2, until=lambda: rig.lane.storm.raging)
    assert rig.lane.storm.raging
    assert rig.dead() == []
    rig.room.low = False
    rig.pump(60, until=rig.dead)
    assert rig.dead()
    output.behave()
    rig.pump(600)
    assert rig.dead() == []
    assert sorted(output.stored) == sorted(all_names(site))
    assert rig.balance() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_an_attackers_thousand_bad_events_do_not_hold_the_output_for_ever(
    site: Site, rigs: list[Rig], kind: type[NastyOutput]
) -> None:
    output = kind(settings=settings(batch={"max_events": 100, "max_wait": "1ms"}))
    output.behave(then=refusing(lambda number: 50 <= number < 1050))
    rigs.append(rig := Rig(site, output))
    rig.add(*[1] * 1100)
    for _ in range(30):
        rig.pump(60)
        rig.add(1)
    rig.pump(600)
    assert len(output.stored) == 100 + 30
    assert len(rig.dead()) == 1000
    assert rig.lane.owed() == (0, 0, 0)
    assert rig.holds.current() == []
    books = {entry: sum(counts.values()) for entry, counts in rig.books().items()}
    assert books["offered"] + books.get("replayed", 0) == books["delivered"] + books["dead_lettered"]
    if kind is OrderedNastyOutput:
        assert output.stored == sorted(output.stored, key=lambda name: int(name[1:]))


def test_ninety_nine_refusals_among_others_are_believed(site: Site, rigs: list[Rig]) -> None:
    output = NastyOutput(settings=settings(), then=refusing(lambda number: number % 2))
    rigs.append(rig := Rig(site, output))
    rig.add(*[1] * 600)
    rig.pump(60)
    assert len(rig.dead()) == 300
    assert rig.holds.current() == []


def test_a_permission_that_is_missing_dead_letters_nothing_also_with_give_up_after(site: Site, rigs: list[Rig]) -> None:
    """Each answer takes longer than ``give_up_after``, and refuses event by event."""

    def slowly(call: Call) -> Report:
        rig.clock.move(20)
        return Report(failed=dict.fromkeys(call.indices(), Failure(Outcome.HELD, "access_denied", "403")))

    output = NastyOutput(settings=settings(retry={"give_up_after": "10s"}), then=slowly)
    rigs.append(rig := Rig(site, output))
    rig.add(3)
    rig.pump(3600)
    assert rig.dead() == []
    assert [hold.reason for hold in rig.holds.current()] == ["access_denied"]
    output.behave()
    rig.pump(60)
    assert sorted(output.stored) == ["e0", "e1", "e2"]


class Indices(NastyOutput):
    """Puts each event where its database says; some databases are refused."""

    def __init__(self, *refused: str, whole: bool, target: str = "audit-{id}") -> None:
        super().__init__(settings=settings(concurrency=2), wanted=[Target(target), Text("{id}")])
        self.refused = refused
        self.whole = whole

    def send(self, batch: Any) -> Report:
        bad = [index for index, (target, name) in enumerate(batch.values) if {target, f"day-{name}"} & {*self.refused}]
        if bad and self.whole:
            raise Held("target_not_found", "no such index")
        self.behave(then=fail(Outcome.HELD, bad, reason="target_not_found"))
        return super().send(batch)


@pytest.mark.parametrize("whole", [True, False])
def test_a_target_made_of_event_fields_stops_nobody(site: Site, rigs: list[Rig], whole: bool) -> None:
    rigs.append(rig := Rig(site, output := Indices("audit-e3", whole=whole)))
    rig.add(8)
    for _ in range(20):
        rig.pump(60)
        rig.add(1)
    rig.pump(600)
    assert rig.dead() == ["e3"]
    assert dict(rig.reasons()) == {"target_refused": 1}
    assert len(output.stored) == 27
    assert rig.holds.current() == []


def test_a_permission_fault_with_targets_of_event_fields_dead_letters_nothing(site: Site, rigs: list[Rig]) -> None:
    rigs.append(rig := Rig(site, output := Indices(whole=True)))
    rig.add(8)
    output.refused = tuple(f"audit-e{number}" for number in range(8))
    rig.pump(7200)
    assert rig.dead() == []
    assert [hold.reason for hold in rig.holds.current()] == ["target_not_found"]
    output.refused = ()
    rig.pump(120)
    assert sorted(output.stored) == sorted(all_names(site))


def test_a_target_of_times_is_a_fault_of_the_configuration(site: Site, rigs: list[Rig]) -> None:
    """One day's index is blocked: nobody who uses the database has chosen it."""
    rigs.append(rig := Rig(site, Indices("day-e3", whole=False, target="audit-{time:%Y.%m.%d}")))
    rig.add(8)
    rig.pump(600)
    assert rig.dead() == []
    assert [hold.reason for hold in rig.holds.current()] == ["target_not_found"]


def test_full_dead_letters_hold_also_an_output_that_takes_the_rest(site: Site, rigs: list[Rig]) -> None:
    output = NastyOutput(settings=settings(), then=refusing(lambda number: number % 5 == 0))
    rigs.append(rig := Rig(site, output, letters=200))
    for _ in range(40):
        rig.add(5)
        rig.pump(31)
    assert len(rig.dead()) < 8
    assert [hold.reason for hold in rig.holds.current()] == ["dead_letters_full"]
    assert rig.balance() == 0
    assert len(rig.passed()) == 200


# -- too large ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_too_large_together_is_sent_in_halves_and_in_order(
    site: Site, rigs: list[Rig], kind: type[NastyOutput]
) -> None:
    def act(call: Call) -> Report:
        if len(call.ids) > 2:
            return Report(failed={
                index: Failure(Outcome.TOO_LARGE if index % 2 else Outcome.NOT_TRIED) for index in call.indices()
            })  # fmt: skip
        return deliver()(call)

    rigs.append(rig := Rig(site, output := kind(settings=settings(), then=act)))
    rig.add(11)
    rig.pump(30)
    assert sorted(output.stored) == sorted(all_names(site))
    if kind is OrderedNastyOutput:
        assert output.stored == all_names(site)
    assert rig.dead() == []


def test_an_event_that_the_destination_finds_too_large_is_cut_until_it_takes_it(site: Site, rigs: list[Rig]) -> None:
    def act(call: Call) -> Report:
        if call.batch.size > 700:
            return raises(Outcome.TOO_LARGE)(call)
        return deliver()(call)

    rigs.append(rig := Rig(site, output := NastyOutput(settings=settings(oversize="truncate"), then=act), padding=4000))
    rig.add(3)
    rig.pump(60)
    assert sorted(output.stored) == ["e0", "e1", "e2"]
    assert rig.dead() == []


# -- the breaker -------------------------------------------------------------------------------------------------------


def test_a_dead_output_is_asked_one_request_at_a_time_with_growing_pauses(site: Site, rigs: list[Rig]) -> None:
    times: list[float] = []

    def act(call: Call) -> Report:
        times.append(rig.clock.monotonic())
        return raises(Outcome.UNKNOWN)(call)

    table = settings(concurrency=8, batch={"max_events": 1, "max_wait": "1ms"}, retry={"max": "60s"})
    rigs.append(rig := Rig(site, output := NastyOutput(settings=table, then=act)))
    rig.add(*[1] * 50)
    rig.pump(3600)
    assert rig.lane.breaker.limit == 1
    assert len(times) < 250, "an hour of full jitter up to a minute"
    late = [time for time in times if time > times[0] + 1800]
    assert len(late) < 100
    output.behave()
    rig.pump(120)
    assert sorted(output.stored) == sorted(all_names(site))
    assert not rig.lane.breaker.open
    assert rig.lane.breaker.limit > 1


def test_throttling_lowers_the_concurrency_and_passing_raises_it(site: Site, rigs: list[Rig]) -> None:
    table = settings(concurrency=8, batch={"max_events": 1, "max_wait": "1ms"})
    rigs.append(rig := Rig(site, NastyOutput(settings=table, actions=[fail(Outcome.THROTTLED)] * 3)))
    rig.add(*[1] * 100)
    rig.clock.move(1)
    rig.pump(0.5)
    assert rig.lane.breaker.limit <= 2
    rig.pump(60)
    assert rig.lane.breaker.limit == 8


def test_retry_after_holds_for_all_requests_also_when_one_passes_meanwhile(site: Site, rigs: list[Rig]) -> None:
    table = settings(concurrency=3, batch={"max_events": 1, "max_wait": "1ms"})
    rigs.append(rig := Rig(site, output := NastyOutput(settings=table)))
    rig.add(1, 1, 1)
    rig.clock.move(1)
    throttled, passing = rig.lane.take(), rig.lane.take()
    assert throttled is not None
    assert passing is not None
    answer = Report(failed={0: Failure(Outcome.THROTTLED, retry_after=30.0)})
    with rig.lane.lock():
        rig.delivery._conclude(throttled, throttled.content(), answer)
        rig.delivery._conclude(passing, passing.content(), Report())
    rig.pump(25)
    assert output.sent == []
    rig.pump(10)
    assert sorted(output.stored) == ["e0", "e2"]


def test_giving_up_is_no_sign_that_the_destination_works(site: Site, rigs: list[Rig]) -> None:
    table = settings(retry={"give_up_after": "60s"}, batch={"max_events": 1, "max_wait": "1ms"})
    rigs.append(rig := Rig(site, output := NastyOutput(settings=table, then=raises(Outcome.UNKNOWN))))
    rig.add(1)
    rig.pump(50)
    assert rig.lane.breaker.open
    rig.pump(600, until=rig.dead)
    assert rig.dead() == ["e0"]
    assert rig.lane.breaker.open
    assert output.stored == []


def test_a_stuck_event_does_not_slow_a_quiet_stream(site: Site, rigs: list[Rig]) -> None:
    """Each new event passes within seconds, though the only other request fails for hours."""
    stuck = fail(Outcome.UNKNOWN, lambda name, _: name == "e0")
    rigs.append(rig := Rig(site, output := NastyOutput(settings=settings(), then=stuck)))
    rig.add(2)
    rig.pump(600)
    for number in range(2, 20):
        rig.add(1)
        rig.pump(5)
        assert f"e{number}" in output.stored
        rig.pump(300)


def test_nothing_is_asked_in_a_tight_loop_while_the_first_of_an_ordered_line_waits(site: Site, rigs: list[Rig]) -> None:
    rigs.append(rig := Rig(site, OrderedNastyOutput(settings=settings())))
    rig.add(4)
    rig.clock.move(1)
    parcel = rig.lane.take()
    assert parcel is not None
    first, second = parcel.halves()
    first.due, second.due = rig.clock.monotonic() + 30, rig.clock.monotonic()
    rig.lane.landed(parcel, [first, second])
    pause = rig.run()
    assert pause is not None
    assert pause >= 0.4
    assert names(rig.lane._retries) == ["e0", "e1", "e2", "e3"]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_an_output_does_everything_arrives_or_is_a_dead_letter(
    site: Site, rigs: list[Rig], kind: type[NastyOutput], seed: int
) -> None:
    """A random nasty output, a kill in the middle; then it behaves."""
    table = settings(concurrency=3, batch={"max_events": 5, "max_wait": "1ms"})
    rigs.append(rig := Rig(site, first := kind(settings=table), seed=seed))
    first.behave(nastiness(seed))
    for _ in range(10):
        rig.add(2, 1, 3)
        rig.pump(20)
        assert rig.balance() == 0
    rig.kill()
    rigs.append(again := Rig(site, second := kind(settings=table), seed=seed))
    again.read()
    second.behave(nastiness(seed + 1000))
    again.pump(120)
    second.behave()
    again.pump(600)
    assert {*first.stored, *second.stored, *again.dead()} >= set(all_names(site))
    assert again.lane.owed() == (0, 0, 0)
    assert again.balance() == 0
