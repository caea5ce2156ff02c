"""The benchmarks measure what they say: the same events on both sides, and a verdict beyond the noise only."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path

import msgspec
import pytest

from benchmarks.__main__ import moved
from benchmarks.floors import (
    FLOORS,
    lines_to_file,
    lines_to_gzip,
    lines_to_nothing,
    lines_to_splunk_hec,
    lines_to_spool,
    records_by_sdk,
)
from benchmarks.inputs import write_lines, write_records
from benchmarks.measure import Run, cost
from benchmarks.rows import ROWS, SECOND, Row, added, measure
from benchmarks.sinks import SINKS, running
from shipper.event import Event
from shipper.testing.splunk_hec import FakeSplunkHec


def test_the_floor_of_lines_writes_native_events_with_ids_of_their_own(tmp_path: Path) -> None:
    write_lines(tmp_path / "in", 500)
    assert lines_to_file(tmp_path / "in", tmp_path / "out") == 500
    events = [msgspec.json.decode(line, type=Event) for line in (tmp_path / "out").read_bytes().splitlines()]
    assert len({event.id for event in events}) == 500
    assert {event.engine for event in events} == {"aurora-mysql"}


def test_the_compressed_floor_sees_the_same_events(tmp_path: Path) -> None:
    write_lines(tmp_path / "in", 500)
    assert lines_to_gzip(tmp_path / "in", tmp_path / "out") == 500


@pytest.mark.parametrize("suite", [0x0178, 0x0378])
def test_the_floor_of_records_decrypts_every_event(suite: int, tmp_path: Path) -> None:
    write_records(tmp_path / "in", suite=suite, events_per_record=10, records=20)
    assert records_by_sdk(tmp_path / "in", tmp_path / "out") == 200


def test_starting_costs_nothing_per_event() -> None:
    small, large = [Run(1.0, 10), Run(1.2, 10)], [Run(2.0, 20), Run(2.2, 30)]
    found = cost(small, large, (0, 100_000))
    assert found.per_event == pytest.approx(10.0)
    assert found.spread == pytest.approx(0.0)
    assert found.start == pytest.approx(1.1)
    assert found.rss == 30


@pytest.mark.parametrize(
    ("ratio", "noise", "expected"),
    [(1.05, 0.01, None), (1.30, 0.40, None), (1.30, 0.05, 0.30), (0.70, 0.05, -0.30)],
    ids=["little", "noisy", "slower", "faster"],
)
def test_a_ratio_has_moved_only_beyond_the_noise(ratio: float, noise: float, expected: float | None) -> None:
    change = moved({"ratio": ratio, "noise": noise}, {"ratio": 1.0, "noise": 0.02})
    assert change == (None if expected is None else pytest.approx(expected))


def test_the_floor_of_spooling_keeps_every_line(tmp_path: Path) -> None:
    write_lines(tmp_path / "in", 1500)
    assert lines_to_spool(tmp_path / "in", tmp_path / "out.db") == 1500
    with closing(sqlite3.connect(tmp_path / "out.db")) as database:
        kept = b"".join(native for (native,) in database.execute("SELECT native FROM spool"))
    assert lines_to_file(tmp_path / "in", tmp_path / "out") == 1500
    assert kept == (tmp_path / "out").read_bytes()


def test_the_floor_of_the_engine_sees_the_same_events(tmp_path: Path) -> None:
    write_lines(tmp_path / "in", 500)
    assert lines_to_nothing(tmp_path / "in", tmp_path / "out") == 500


@pytest.mark.parametrize("name", sorted(SINKS))
def test_the_floors_of_http_post_as_many_events(name: str, tmp_path: Path) -> None:
    write_lines(tmp_path / "in", 1500)
    with running(name) as port:
        assert FLOORS[f"lines_to_{name}"](tmp_path / "in", Path(str(port))) == 1500


def test_the_floors_of_http_send_what_the_destinations_take(tmp_path: Path) -> None:
    write_lines(tmp_path / "in", 500)
    with FakeSplunkHec() as splunk:
        lines_to_splunk_hec(tmp_path / "in", Path(str(splunk.port)))
        found = [(got.fields["event_id"], got.time) for got in splunk.events]
    lines_to_file(tmp_path / "in", tmp_path / "out")
    events = [msgspec.json.decode(line, type=Event) for line in (tmp_path / "out").read_bytes().splitlines()]
    assert [id_ for id_, _ in found] == [one.id for one in events]
    assert [time for _, time in found] == pytest.approx(
        [datetime.fromisoformat(one.time).timestamp() for one in events]
    )


def test_a_second_output_is_compared_with_the_first() -> None:
    _, one, two = SECOND[0]
    assert added({one: 10.0, two: 12.5}) == {SECOND[0][0]: pytest.approx(0.25)}
    assert {one, two} <= {row.name for row in ROWS}


@pytest.mark.parametrize("row", [ROWS[0], ROWS[1], ROWS[5], ROWS[7], *ROWS[-5:]], ids=lambda row: row.name)
def test_a_row_runs_shipper_beside_its_floor(row: Row) -> None:
    found = measure(row, rounds=1, scale=0.01)
    assert found.shipper.rss > 0
    assert found.floor.rss > 0
