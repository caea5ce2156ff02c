"""Lanes that are renamed or forgotten, and positions that people look at and set back."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from shipper.errors import StateError
from shipper.source import EARLIEST, END, Position
from shipper.state import dead_letters, kept_records, lanes, positions, spool, stands
from shipper.state.dead_letters import Filter
from shipper.state.lanes import Owing
from state.samples import RECORD, Scene


def owe(scene: Scene) -> None:
    """Lane a owes of everything; b owes what is owed to both."""
    spool.insert(scene.connection, scene.row(1, scene.a, [b"x", b"y"]))
    kept_records.keep(scene.connection, [scene.kept_record(1, lanes=(scene.a,)), scene.kept_record(2)])
    dead_letters.keep(
        scene.connection,
        [
            scene.event_letter(1),
            scene.record_letter(2),
            scene.record_letter(3, (0, 1), lanes=(scene.a,)),
            scene.record_letter(4, lanes=(scene.a, scene.b)),
        ],
    )


def test_what_every_lane_owes_is_counted(scene: Scene) -> None:
    assert lanes.owing(scene.connection) == {"a": Owing(0, 0, 0), "b": Owing(0, 0, 0)}
    owe(scene)
    assert lanes.owing(scene.connection) == {"a": Owing(2, 2, 4), "b": Owing(0, 1, 2)}


def test_a_renamed_lane_keeps_all_that_it_owes_and_where_it_stands(scene: Scene) -> None:
    owe(scene)
    scene.settle(scene.a, RECORD, offered=9)
    positions.keep_bookmark(scene.connection, scene.a, b"mark")
    assert lanes.rename(scene.connection, "a", "new")
    assert positions.ensure_lanes(scene.connection, ["new"])["new"] == scene.a
    assert lanes.owing(scene.connection) == {"new": Owing(2, 2, 4), "b": Owing(0, 1, 2)}
    assert scene.books("new") == {"offered": 9}
    assert positions.bookmark_of(scene.connection, scene.a) == b"mark"


def test_a_lane_that_was_renamed_already_is_left_alone(scene: Scene) -> None:
    lanes.rename(scene.connection, "a", "new")
    assert not lanes.rename(scene.connection, "a", "new")


def test_a_lane_of_the_new_name_that_owes_nothing_gives_way(scene: Scene) -> None:
    scene.settle(scene.a, RECORD)
    scene.settle(scene.b, RECORD - 1)
    assert lanes.rename(scene.connection, "a", "b")
    (stand,) = stands.stands(scene.connection)
    assert (stand.lane, stand.position) == ("b", Position(RECORD, END))


def test_a_lane_of_the_new_name_that_owes_something_refuses(scene: Scene) -> None:
    owe(scene)
    with pytest.raises(StateError, match="output b cannot be renamed to a, which still owes something"):
        lanes.rename(scene.connection, "b", "a")
    assert lanes.owing(scene.connection)["b"] == Owing(0, 1, 2)


def test_a_forgotten_lane_leaves_nothing_but_what_it_refused(scene: Scene) -> None:
    owe(scene)
    lanes.forget(scene.connection, "a")
    assert lanes.owing(scene.connection) == {"a": Owing(0, 0, 1), "b": Owing(0, 1, 2)}
    assert scene.books("a") == {"purged": 2 + 1 + 2 + 1}
    assert [stand.lane for stand in stands.stands(scene.connection)] == ["b"]
    assert [record.lanes for record in kept_records.page(scene.connection, 1, None, 0, 10)] == [(scene.b,)]


def test_the_name_of_a_forgotten_lane_goes_with_the_last_that_it_refused(scene: Scene) -> None:
    owe(scene)
    lanes.forget(scene.connection, "a")
    dead_letters.purge(scene.connection, Filter(output="a"))
    lanes.forget(scene.connection, "a")
    lanes.forget(scene.connection, "a")
    assert positions.books(scene.connection).keys() == {"b"}


def test_an_output_with_a_forgotten_name_begins_as_a_new_one(scene: Scene) -> None:
    scene.settle(scene.b, RECORD)
    lanes.forget(scene.connection, "a")
    known = positions.ensure_lanes(scene.connection, ["a", "b"])
    assert known["a"] not in (scene.a, scene.b)
    rows = positions.ensure_partitions(scene.connection, scene.stream, ["shard"], list(known.values()), 1.0)
    assert rows["shard"].standings[known["a"]].position == Position(RECORD, END)


def test_a_lane_begins_again_where_it_is_told(scene: Scene) -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    for lane in (scene.a, scene.b):
        scene.settle(lane, RECORD)
    assert stands.begin_again(scene.connection, scene.a, scene.stream.id, moment, 2000.0) == 1
    (row,) = positions.ensure_partitions(scene.connection, scene.stream, ["shard"], [scene.a, scene.b], 3000.0).values()
    standing = row.standings[scene.a]
    assert (standing.position, standing.begins, standing.tip) == (None, moment, 2000.0)
    assert row.standings[scene.b].position == Position(RECORD, END)
    assert row.standings[scene.b].begins is None
    stands.begin_again(scene.connection, scene.a, scene.stream.id, EARLIEST, 2000.0)
    (row,) = positions.ensure_partitions(scene.connection, scene.stream, ["shard"], [scene.a], 3000.0).values()
    assert row.standings[scene.a].begins is EARLIEST


def test_a_partition_that_ended_before_the_time_stays_ended(scene: Scene) -> None:
    scene.connection.execute("UPDATE positions SET record = '1', ended = 1, arrived = ?", (int(1000e9),))
    late, early = datetime.fromtimestamp(1001, UTC), datetime.fromtimestamp(999, UTC)
    assert stands.begin_again(scene.connection, scene.a, scene.stream.id, late, 2000.0) == 0
    assert stands.begin_again(scene.connection, scene.a, scene.stream.id, early, 2000.0) == 1
    assert [stand.ended for stand in stands.stands(scene.connection)] == [False, True]


def test_a_new_lane_beside_one_that_begins_again_begins_there_too(scene: Scene) -> None:
    for lane in (scene.a, scene.b):
        scene.settle(lane, RECORD)
    stands.begin_again(scene.connection, scene.a, scene.stream.id, EARLIEST, 2000.0)
    known = positions.ensure_lanes(scene.connection, ["a", "b", "new"])
    rows = positions.ensure_partitions(scene.connection, scene.stream, ["shard"], list(known.values()), 3000.0)
    assert rows["shard"].standings[known["new"]].begins is EARLIEST


def test_what_was_purged_is_kept_again_for_a_lane_that_reads_again(scene: Scene) -> None:
    letters = [scene.event_letter(1), scene.record_letter(2, lanes=(scene.a,))]
    dead_letters.keep(scene.connection, letters)
    dead_letters.purge(scene.connection, Filter())
    stands.begin_again(scene.connection, scene.a, scene.stream.id, EARLIEST, 2000.0)
    assert dead_letters.keep(scene.connection, letters) == letters


def test_positions_are_shown_by_name(scene: Scene) -> None:
    scene.settle(scene.b, RECORD, event=3)
    first, second = stands.stands(scene.connection)
    assert (first.lane, first.stream, first.partition, first.position) == ("a", "arn/1", "shard", None)
    assert (second.lane, second.position, second.begins) == ("b", Position(RECORD, 3), None)
