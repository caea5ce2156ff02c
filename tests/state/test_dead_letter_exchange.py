"""Dead letters taken from one state file to another."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shipper.errors import StateError
from shipper.source import EARLIEST
from shipper.state import dead_letters, kept_records, positions, spool
from shipper.state.dead_letters import Filter
from shipper.state.file import open_state
from state.samples import RECORD, Scene


@pytest.fixture
def other(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = open_state(tmp_path / "other.db")
    yield connection
    connection.close()


def exported(scene: Scene, chosen: Filter | None = None) -> list[bytes]:
    return list(dead_letters.export_lines(scene.connection, chosen or Filter()))


def test_an_imported_letter_is_the_one_that_was_exported(scene: Scene, other: sqlite3.Connection) -> None:
    event = scene.event_letter(RECORD, ordinal=3, raw=b"raw\xff", event_id="e1", attempts=4)
    record = scene.record_letter(RECORD + 1, (1, 2), resource_id="cluster-1", data=bytes(range(256)))
    dead_letters.keep(scene.connection, [event, record])
    lines = exported(scene)
    assert [dead_letters.import_line(other, line) for line in lines] == [True, True]
    assert list(dead_letters.listing(other, Filter())) == list(dead_letters.listing(scene.connection, Filter()))
    assert dead_letters.data_of(other, 1) == event.data
    assert dead_letters.raw_of(other, 1) == event.raw
    assert dead_letters.data_of(other, 2) == record.data
    assert list(dead_letters.export_lines(other, Filter())) == lines


def test_a_line_is_one_json_object_that_names_everything(scene: Scene) -> None:
    dead_letters.keep(scene.connection, [scene.record_letter(RECORD, lanes=(scene.b,))])
    (line,) = exported(scene)
    assert b"\n" not in line
    read = json.loads(line)
    assert (read["stream"], read["partition"], read["record"]) == ("arn/1", "shard", str(RECORD))
    assert (read["output"], read["outputs"], read["data"]) == ("*", ["b"], "ZW5jcnlwdGVk")


def test_only_what_is_chosen_is_exported(scene: Scene) -> None:
    dead_letters.keep(scene.connection, [scene.event_letter(number) for number in (1, 2, 3)])
    assert [json.loads(line)["record"] for line in exported(scene, Filter(since=1002.0))] == ["2", "3"]


def test_the_same_letter_is_imported_once(scene: Scene) -> None:
    dead_letters.keep(scene.connection, [scene.event_letter(1)])
    (line,) = exported(scene)
    assert not dead_letters.import_line(scene.connection, line)
    assert scene.books("a") == {}


def test_a_purged_letter_can_be_imported_again(scene: Scene) -> None:
    dead_letters.keep(scene.connection, [scene.event_letter(1)])
    (line,) = exported(scene)
    dead_letters.purge(scene.connection, Filter())
    assert dead_letters.import_line(scene.connection, line)
    assert scene.books("a") == {"purged": 1, "replayed": 1, "dead_lettered": 1}
    assert scene.connection.execute("SELECT count(*) FROM tombstones").fetchone() == (0,)


def reading_lanes(connection: sqlite3.Connection, *names: str) -> list[int]:
    """Outputs that have read something else already."""
    lanes = [positions.ensure_lanes(connection, names)[name] for name in names]
    stream = positions.ensure_stream(connection, "arn/9", "arn/9", "earliest", None, lanes)
    positions.ensure_partitions(connection, stream, ["p"], lanes, 1.0)
    return lanes


def owed_after_import(scene: Scene, other: sqlite3.Connection) -> tuple[int, ...]:
    for line in exported(scene):
        dead_letters.import_line(other, line)
    dead_letters.replay(other, Filter(output="*"), 1)
    (stream,) = other.execute("SELECT id FROM streams WHERE identity = 'arn/1'").fetchone()
    (record,) = kept_records.page(other, stream, None, 0, 10)
    return record.lanes


def test_an_imported_record_is_owed_to_the_outputs_of_its_names(scene: Scene, other: sqlite3.Connection) -> None:
    dead_letters.keep(scene.connection, [scene.record_letter(1, (0, 1), lanes=(scene.b,))])
    _, lane = reading_lanes(other, "one", "b")
    assert owed_after_import(scene, other) == (lane,)
    assert positions.books(other) == {
        "one": {},
        "b": {"dead_lettered": {"tampered": 2}, "replayed": {"": 2}, "replayed_out": {"": 2}},
    }


def test_a_record_whose_outputs_nobody_knows_is_owed_to_those_that_are_there(
    scene: Scene, other: sqlite3.Connection
) -> None:
    dead_letters.keep(scene.connection, [scene.record_letter(1)])
    lanes = reading_lanes(other, "one", "two")
    assert owed_after_import(scene, other) == tuple(lanes)


def test_a_record_rescued_into_a_new_file_is_owed_to_all_its_outputs(scene: Scene, other: sqlite3.Connection) -> None:
    dead_letters.keep(scene.connection, [scene.event_letter(1), scene.record_letter(2)])
    owed = owed_after_import(scene, other)
    assert owed == tuple(positions.ensure_lanes(other, [])[name] for name in ("a", "b"))


def test_an_imported_event_is_replayed_to_its_output(scene: Scene, other: sqlite3.Connection) -> None:
    dead_letters.keep(scene.connection, [scene.event_letter(1)])
    dead_letters.import_line(other, exported(scene)[0])
    dead_letters.replay(other, Filter(), 1)
    lane = positions.ensure_lanes(other, ["a"])["a"]
    assert [row.native for row in spool.page(other, lane, 0, 1000)] == [[b'{"n":1}']]


def test_a_stream_known_from_imported_letters_alone_begins_as_a_new_one(
    scene: Scene, other: sqlite3.Connection
) -> None:
    dead_letters.keep(scene.connection, [scene.event_letter(1)])
    dead_letters.import_line(other, exported(scene)[0])
    lanes = list(positions.ensure_lanes(other, ["a"]).values())
    start = "2026-01-02T03:04:05+00:00"
    stream = positions.ensure_stream(other, "arn/1", "arn", start, 86400.0, lanes)
    assert stream.start == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    found = positions.ensure_partitions(other, stream, ["shard", "shard 2"], lanes, 1000.0)
    assert (found["shard"].begin, found["shard 2"].begin) == (stream.start, stream.start)
    assert positions.ensure_partitions(other, stream, ["child"], lanes, 1000.0)["child"].begin is EARLIEST
    successor = positions.ensure_stream(other, "arn/2", "arn", start, 86400.0, lanes)
    assert successor.start is EARLIEST


def test_a_stream_is_no_successor_of_one_that_is_known_from_imported_letters_alone(
    scene: Scene, other: sqlite3.Connection
) -> None:
    dead_letters.keep(scene.connection, [scene.event_letter(1)])
    dead_letters.import_line(other, exported(scene)[0])
    stream = positions.ensure_stream(other, "arn/2", "arn", "2026-01-02T03:04:05+00:00", None, [])
    assert isinstance(stream.start, datetime)


@pytest.mark.parametrize(
    "change",
    [
        {"record": "-1"},
        {"record": "1" * 81},
        {"record": 1},
        {"ordinals": [-1]},
        {"data": "not base64!"},
        {"output": ""},
        {"arrived": 2**63},
        {"stream": None},
    ],
)
def test_a_line_that_is_no_dead_letter_is_refused_and_changes_nothing(scene: Scene, change: dict[str, object]) -> None:
    dead_letters.keep(scene.connection, [scene.event_letter(1)])
    line = json.dumps({**json.loads(exported(scene)[0]), "stream": "arn/9", **change}).encode()
    with pytest.raises(StateError, match="not one that `shipper dead-letters export` wrote"):
        dead_letters.import_line(scene.connection, line)
    assert scene.connection.execute("SELECT count(*) FROM streams").fetchone() == (1,)


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"\xff", b"[" * 10_000])
def test_garbage_is_refused(scene: Scene, line: bytes) -> None:
    with pytest.raises(StateError, match="it was not imported"):
        dead_letters.import_line(scene.connection, line)
