"""What goes to disk when, and what comes back: nothing pins a position, nothing is lost or counted twice."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shipper.engine import lane as lane_module
from shipper.errors import Held
from shipper.event import Event
from shipper.output import Outcome, OutputSettings
from shipper.source import END
from shipper.testing.nasty import Call, NastyOutput, OrderedNastyOutput, deliver, fail, raises
from shipper.values import Text
from support.lane_rig import Idle, Rig, Site, event


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


DOWN = raises(Outcome.UNKNOWN)


def test_nothing_pins_a_position_for_longer_than_spool_after(site: Site, rigs: list[Rig]) -> None:
    output = NastyOutput(settings=settings(), then=DOWN)
    rigs.append(rig := Rig(site, output))
    rig.add(2, 1)
    rig.pump(29)
    assert rig.position() is None
    rig.pump(2)
    assert rig.passed() == ["e0", "e1", "e2"]
    assert sorted(rig.spooled()) == ["e0", "e1", "e2"]
    assert rig.balance() == 0


def test_a_quiet_streams_only_event_is_spooled_too(site: Site, rigs: list[Rig]) -> None:
    """The queue has room, and nothing new ever comes."""
    rigs.append(rig := Rig(site, NastyOutput(settings=settings(), then=raises(Outcome.HELD))))
    rig.add(1)
    rig.pump(3 * 86_400, until=rig.spooled)
    rig.kill()
    rigs.append(again := Rig(site, output := NastyOutput(settings=settings())))
    again.read()
    assert again.lane.owed() == (0, 0, 1)
    again.pump(5)
    assert output.stored == ["e0"]
    assert again.balance() == 0


def test_a_kill_with_a_backlog_costs_no_event_to_be_read_again(site: Site, rigs: list[Rig]) -> None:
    rigs.append(rig := Rig(site, NastyOutput(settings=settings(), then=DOWN)))
    rig.add(*[3] * 50)
    rig.pump(31)
    rig.kill()
    rigs.append(again := Rig(site, output := NastyOutput(settings=settings())))
    again.read()
    assert again.lane.unspooled() == 0, "what is in the spool was offered again"
    again.pump(5)
    assert sorted(output.stored) == sorted(f"e{n}" for n in range(150))
    assert again.books() == {"offered": {"": 150}, "delivered": {"": 150}}


def test_what_is_under_way_when_it_goes_to_disk_is_not_sent_again(site: Site, rigs: list[Rig]) -> None:
    """The outcome comes after the spilling: its row is read back by nobody, also before its deletion is committed."""
    rigs.append(rig := Rig(site, OrderedNastyOutput(settings=settings(batch={"max_events": 2, "max_wait": "1ms"}))))
    rig.add(1, 1, 1, 1)
    rig.clock.move(1)
    parcel = rig.lane.take()
    assert parcel is not None
    rig.clock.move(31)
    rig.lane.tick()
    rig.writer.commit()
    assert rig.spooled() == ["e0", "e1", "e2", "e3"]
    report = rig.delivery._send(parcel.content(), lambda: None)  # type: ignore[arg-type]
    with rig.lane.lock():
        rig.delivery._conclude(parcel, parcel.content(), report)
    rig.pump(5)
    assert isinstance(rig.output, NastyOutput)
    assert rig.output.stored == ["e0", "e1", "e2", "e3"]
    assert rig.books() == {"offered": {"": 4}, "delivered": {"": 4}}


def test_a_bookmark_covers_exactly_the_rows_that_were_sent(site: Site, rigs: list[Rig]) -> None:
    """A row of the spool is sent in several batches: a kill between them doubles nothing in a file."""
    rigs.append(rig := Rig(site, OrderedNastyOutput(settings=settings(), then=DOWN)))
    rig.add(*[1] * 10)
    rig.pump(31)
    rig.kill()
    small = settings(batch={"max_events": 3, "max_wait": "1ms"})
    rigs.append(again := Rig(site, first := OrderedNastyOutput(settings=small, bookmarks=True)))
    first.behave([deliver(), deliver()], then=DOWN)
    again.pump(0.5)
    assert first.stored == [f"e{n}" for n in range(6)]
    again.kill()
    rigs.append(last := Rig(site, second := OrderedNastyOutput(settings=small, bookmarks=True)))
    second.stored = list(first.stored)
    last.pump(5)
    assert second.stored == [f"e{n}" for n in range(10)]
    assert last.books() == {"offered": {"": 10}, "delivered": {"": 10}}


def test_a_full_queue_of_a_dead_output_goes_to_disk_and_reading_goes_on(
    site: Site, rigs: list[Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_module, "QUEUE_BYTES", 10_000)
    batch = {"max_bytes": 5000, "max_wait": "1ms"}
    rigs.append(rig := Rig(site, NastyOutput(settings=settings(batch=batch), then=DOWN)))
    rig.add(1)
    rig.pump(20)
    assert rig.lane.breaker.open
    for _ in range(20):
        rig.add(*[1] * 20)
        assert rig.lane.queued_bytes() <= 13_000
    rig.writer.commit()
    assert len(rig.spooled()) >= 250
    assert rig.balance() == 0


def test_a_slow_output_that_delivers_is_waited_for_when_nobody_else_waits(
    site: Site, rigs: list[Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_module, "QUEUE_BYTES", 500)
    batch = {"max_events": 2, "max_bytes": 250, "max_wait": "1ms"}
    rigs.append(rig := Rig(site, NastyOutput(settings=settings(batch=batch))))
    rig.add(*[1] * 10)
    with pytest.raises(Idle):
        rig.add(1)
    rig.pump(1)
    rig.read()
    rig.pump(1)
    assert rig.spooled() == []
    assert rig.books() == {"offered": {"": 11}, "delivered": {"": 11}}


def test_neighbours_are_not_made_to_wait_for_a_slow_output(
    site: Site, rigs: list[Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_module, "QUEUE_BYTES", 500)
    batch = {"max_bytes": 250, "max_wait": "1ms"}
    rigs.append(rig := Rig(site, NastyOutput(settings=settings(batch=batch))))
    rig.add(*[1] * 10)

    class Neighbour:
        def roomy(self) -> bool:
            return True

    rig.lane._waited = lane_module.PATIENCE
    with rig.lane.lock():
        assert rig.lane._make_room(rig.never, [Neighbour()])  # type: ignore[list-item]
    rig.writer.commit()
    assert len(rig.spooled()) == 10


def test_small_chunks_that_are_delivered_in_time_never_go_to_disk(site: Site, rigs: list[Rig]) -> None:
    """Two thousand chunks of one event wait for company: that is no gap."""
    rigs.append(rig := Rig(site, NastyOutput(settings=settings(batch={"max_events": 5000, "max_wait": "20s"}))))
    rig.add(*[1] * 2000, at_once=1)
    rig.pump(5)
    assert rig.spooled() == []


def test_a_gap_goes_to_disk_when_too_much_is_settled_behind_it(
    site: Site, rigs: list[Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_module, "WINDOW", 20)
    stuck = fail(Outcome.UNKNOWN, lambda name, _: name == "e0")
    batch = {"max_events": 1, "max_wait": "1ms"}
    rigs.append(rig := Rig(site, NastyOutput(settings=settings(batch=batch, concurrency=2), then=stuck)))
    rig.add(*[1] * 15, at_once=1)
    rig.pump(3)
    assert rig.passed() == []
    rig.add(*[1] * 15, at_once=1)
    rig.pump(6)
    assert rig.spooled() == ["e0"]
    assert len(rig.passed()) == 30
    assert rig.balance() == 0


def test_one_stuck_event_for_two_hours_pins_nothing_and_a_kill_costs_nothing(site: Site, rigs: list[Rig]) -> None:
    stuck = fail(Outcome.UNKNOWN, lambda name, _: name == "e1")
    output = NastyOutput(settings=settings(concurrency=4), then=stuck)
    rigs.append(rig := Rig(site, output))
    rig.add(3)
    for _ in range(120):
        rig.pump(60)
        rig.add(2)
    rig.pump(40)
    assert rig.spooled() == ["e1"]
    assert len(rig.passed()) == 243
    assert len(output.stored) == 242
    rig.kill()
    rigs.append(again := Rig(site, output := NastyOutput(settings=settings())))
    again.read()
    again.pump(5)
    assert output.stored == ["e1"]
    assert again.books() == {"offered": {"": 243}, "delivered": {"": 243}}


def test_a_backlog_is_sent_in_order_and_before_what_came_later(site: Site, rigs: list[Rig]) -> None:
    rigs.append(rig := Rig(site, OrderedNastyOutput(settings=settings(), then=DOWN)))
    rig.add(*[1] * 20)
    rig.pump(31)
    rig.add(*[1] * 20)
    rig.pump(31)
    rig.add(*[1] * 20)
    output = rig.output
    assert isinstance(output, NastyOutput)
    output.behave()
    rig.pump(130)
    assert output.stored == [f"e{n}" for n in range(60)]
    assert rig.spooled() == []


@pytest.mark.parametrize("mode", ["block", "dead_letter"])
def test_a_full_spool_stops_the_sources_or_buries(
    site: Site, rigs: list[Rig], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_module, "QUEUE_BYTES", 1000)
    batch = {"max_bytes": 250, "max_wait": "1ms"}
    table = settings(batch=batch, spool={"max_bytes": 3000, "when_full": mode})
    rigs.append(rig := Rig(site, NastyOutput(settings=table, then=DOWN)))
    rig.add(1)
    rig.pump(31)
    try:
        for _ in range(10):
            rig.add(*[1] * 10)
            rig.pump(31)
        stopped = False
    except Idle:
        stopped = True
    rig.writer.commit()
    assert stopped == (mode == "block")
    assert bool(rig.dead()) == (mode == "dead_letter")
    assert (rig.lane.cramped == "full") == (mode == "block")
    assert rig.lane.spooled().bytes <= 3000
    assert rig.balance() == 0
    output = rig.output
    assert isinstance(output, NastyOutput)
    output.behave()
    rig.pump(200)
    rig.read()
    rig.pump(200)
    assert sorted([*output.stored, *rig.dead()]) == sorted(
        name for names in site.partitions["p"].records.values() for name in names
    )
    assert rig.balance() == 0


def test_a_short_disk_keeps_what_is_unsettled_in_memory_and_ends_by_itself(site: Site, rigs: list[Rig]) -> None:
    rigs.append(rig := Rig(site, NastyOutput(settings=settings(), then=DOWN)))
    rig.room.low = True
    rig.add(3)
    rig.pump(40)
    assert rig.lane.cramped == "disk"
    assert rig.position() is None
    rig.room.low = False
    rig.pump(1)
    assert rig.lane.cramped is None
    assert sorted(rig.spooled()) == ["e0", "e1", "e2"]


def test_a_lane_that_owes_nothing_is_not_held_by_a_short_disk(site: Site, rigs: list[Rig]) -> None:
    rigs.append(rig := Rig(site, NastyOutput(settings=settings())))
    rig.add(3)
    rig.pump(5)
    rig.room.low = True
    rig.lane.close()
    assert rig.lane.cramped is None


def test_what_left_a_source_while_the_disk_was_short_is_read_again_and_counted_once(
    site: Site, rigs: list[Rig]
) -> None:
    """A reload that cannot spool: the new reader begins behind what the old one had handed in."""
    rigs.append(rig := Rig(site, output := NastyOutput(settings=settings(concurrency=2))))
    rig.add(1, 1)
    rig.clock.move(1)
    parcel = rig.lane.take()
    assert parcel is not None
    rig.add(1)
    rig.room.low = True
    rig.lane.leave("s")
    rig.writer.commit()
    rig.begin(site.partitions["p"])
    rig.offered.clear()
    rig.read()
    report = rig.delivery._send(parcel.content(), lambda: None)  # type: ignore[arg-type]
    with rig.lane.lock():
        rig.delivery._conclude(parcel, parcel.content(), report)
    rig.pump(5)
    assert set(output.stored) == {"e0", "e1", "e2"}
    assert rig.books() == {"offered": {"": 3}, "delivered": {"": 3}}
    assert rig.position() is not None


def test_a_mended_template_and_format_apply_to_the_backlog(site: Site, rigs: list[Rig]) -> None:
    rigs.append(rig := Rig(site, NastyOutput("out", settings(), then=DOWN)))
    rig.add(2)
    rig.pump(31)
    rig.kill()
    table = settings(labels={"team": "dba"})
    rigs.append(again := Rig(site, output := NastyOutput("out", table, wanted=[Text("audit-{labels.team}")])))
    sent: list[bytes] = []

    def look(call: Call) -> Any:
        sent.extend(call.batch.events)
        return deliver()(call)

    output.behave(then=look)
    again.pump(5)
    assert output.sent[0].values == [("audit-dba",)] * 2
    assert all(msgspec.json.decode(line, type=Event).labels == {"team": "dba"} for line in sent)


def test_the_raw_format_gets_the_engines_own_bytes_back(site: Site, rigs: list[Rig]) -> None:
    table = settings(format={"type": "raw"})
    rigs.append(rig := Rig(site, NastyOutput("out", table, then=DOWN)))
    (record,) = site.records(1)
    from shipper.engine.chunk import Chunk, Share

    ledger = rig.begin(site.partitions["p"])
    chunk = Chunk([record], [0], count=1)
    rig.lane.offer(ledger, chunk, Share([b"the engine's own"], [()], native=[event("e0")]), rig.never)
    rig.pump(31)
    rig.kill()
    rigs.append(again := Rig(site, output := NastyOutput("out", table)))
    again.pump(5)
    assert output.stored == ["the engine's own"]


def test_a_limit_that_was_lowered_applies_to_the_backlog(site: Site, rigs: list[Rig]) -> None:
    rigs.append(rig := Rig(site, NastyOutput("out", settings(), then=DOWN), padding=2000))
    rig.add(2)
    rig.pump(31)
    rig.kill()
    table = settings(max_event_bytes=1024, oversize="truncate")
    rigs.append(again := Rig(site, output := NastyOutput("out", table)))
    sizes: list[int] = []

    def look(call: Call) -> Any:
        sizes.extend(map(len, call.batch.events))
        return deliver()(call)

    output.behave(then=look)
    again.pump(5)
    assert len(sizes) == 2
    assert max(sizes) <= 1024
    assert again.books() == {"offered": {"": 2}, "delivered": {"": 2}}


def test_what_is_left_of_a_row_is_written_again_and_its_bytes_are_known(site: Site, rigs: list[Rig]) -> None:
    rigs.append(rig := Rig(site, NastyOutput(settings=settings(), then=DOWN)))
    rig.add(*[1] * 10)
    rig.pump(31)
    rig.kill()
    stuck = fail(Outcome.UNKNOWN, lambda name, _: name in ("e3", "e4", "e7"))
    rigs.append(again := Rig(site, NastyOutput(settings=settings(), then=stuck)))
    again.pump(40)
    assert again.spooled() == ["e3", "e4", "e7"]
    assert again.lane.spooled()[:3] == (1, 3, sum(len(event(name)) for name in ("e3", "e4", "e7")) + 2)
    assert again.balance() == 0


def test_rows_cost_the_same_however_many_there_are(site: Site, rigs: list[Rig]) -> None:
    def drain(rows: int) -> float:
        output = NastyOutput(settings=settings(batch={"max_events": 10, "max_wait": "1ms"}), then=DOWN)
        rigs.append(rig := Rig(site, output))
        rig.add(1)
        rig.pump(20)
        for _ in range(rows):
            rig.add(1)
            rig.lane.spool_now()
        rig.writer.commit()
        rig.clock.move(60)
        output.behave()
        calls = 0

        def count(_frame: object, event: str, _argument: object) -> None:
            nonlocal calls
            calls += event == "call"

        sys.setprofile(count)
        try:
            rig.pump(200)
        finally:
            sys.setprofile(None)
        assert rig.spooled() == []
        rig.kill()
        return calls / rows

    assert drain(1500) < 2 * drain(100)
    rigs.clear()


def test_a_held_output_keeps_its_backlog_through_a_year_of_wall_clock(site: Site, rigs: list[Rig]) -> None:
    rigs.append(rig := Rig(site, NastyOutput(settings=settings(), then=raises(Held("access_denied", "403")))))
    rig.add(2)
    rig.pump(31)
    rig.clock.wall += 365 * 86_400
    rig.pump(31)
    assert rig.spooled() == ["e0", "e1"]
    rig.kill()
    rigs.append(again := Rig(site, output := NastyOutput(settings=settings())))
    again.pump(5)
    assert output.stored == ["e0", "e1"]
    assert again.books() == {"offered": {"": 2}, "delivered": {"": 2}}


def test_a_kill_in_the_middle_of_a_drain_costs_duplicates_at_most(site: Site, rigs: list[Rig]) -> None:
    batch = {"max_events": 4, "max_wait": "1ms"}
    rigs.append(rig := Rig(site, NastyOutput(settings=settings(batch=batch), then=DOWN)))
    rig.add(*[1] * 30)
    rig.pump(31)
    rig.kill()
    stored: list[str] = []
    for _ in range(6):
        rigs.append(again := Rig(site, output := NastyOutput(settings=settings(batch=batch))))
        again.read()
        output.behave([deliver()] * 3, then=DOWN)
        again.run()
        stored += output.stored
        again.kill()
    rigs.append(last := Rig(site, output := NastyOutput(settings=settings(batch=batch))))
    last.read()
    last.pump(5)
    assert {*stored, *output.stored} == {f"e{n}" for n in range(30)}
    assert last.books() == {"offered": {"": 30}, "delivered": {"": 30}}


def test_another_version_of_the_decoder_inside_a_record_begins_that_record_again(site: Site, rigs: list[Rig]) -> None:
    stuck = fail(Outcome.UNKNOWN, lambda name, _: name == "e2")
    rigs.append(rig := Rig(site, NastyOutput(settings=settings(), then=stuck)))
    rig.add(5)
    rig.pump(1)
    position = rig.position()
    assert position is not None
    assert position.event == 2
    rig.kill()
    rigs.append(again := Rig(site, output := NastyOutput(settings=settings()), decoder="2"))
    again.read()
    again.pump(5)
    assert output.stored == [f"e{n}" for n in range(5)]
    position = again.position()
    assert position is not None
    assert position.event == END


def test_memory_stays_bounded_while_an_output_is_dead_and_its_source_never_ends(
    site: Site, rigs: list[Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_module, "QUEUE_BYTES", 50_000)
    rigs.append(rig := Rig(site, NastyOutput(settings=settings(concurrency=4), then=DOWN), padding=200))

    def held() -> float:
        lane = rig.lane
        queued = sum(len(line) for one in lane._queue.waiting for line in (*one.events, *one.native))
        front = sum(len(line) for one in lane._front.waiting for line in (*one.events, *one.native))
        out = sum(parcel.size for parcel in (*lane._flying, *lane._retries))
        rows = sum(row.row.size for row in lane._backlog.rows)
        entries = sum(len(ledger._entries) for ledger in lane._ledgers)
        return float(queued + front + out + rows + entries * 100)

    seen = []
    for _ in range(40):
        rig.add(*[5] * 40, at_once=5)
        rig.pump(3)
        seen.append(held())
    assert max(seen[20:]) < 5_000_000
    assert max(seen[30:]) < 1.2 * max(seen[10:20])
    assert len(rig.spooled()) > 5000
