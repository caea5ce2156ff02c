"""The tail of a lane's line on disk."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from shipper.errors import StateError
from shipper.state import spool
from shipper.state.file import open_reader
from shipper.state.spool import Place, Totals
from state.samples import RECORD, Scene


def test_a_row_comes_back_as_it_was_written(scene: Scene) -> None:
    row = scene.row(1, scene.a, [b'{"a":1}', b'{"b":2}'], raw=True)
    row.places = [
        Place(1, 1, "orders", RECORD, "at 1", 7, 3, 1),
        Place(1, 2, "söurce", RECORD + 1, "at 2", 8, 0, 1),
    ]
    spool.insert(scene.connection, row)
    assert spool.page(scene.connection, scene.a, 0, 1000) == [row]


def test_an_empty_line_of_an_event_is_kept(scene: Scene) -> None:
    for number, lines in enumerate(([b""], [b"", b""], [b"", b"x", b""]), 1):
        spool.insert(scene.connection, scene.row(number, scene.a, lines))
    assert [row.native for row in spool.page(scene.connection, scene.a, 0, 1000)] == [
        [b""],
        [b"", b""],
        [b"", b"x", b""],
    ]


def test_a_page_holds_what_fits_in_order_and_only_one_lane(scene: Scene) -> None:
    for number in (1, 2, 3, 4):
        spool.insert(scene.connection, scene.row(number, scene.b if number == 2 else scene.a, [b"x" * 100]))
    ids = [row.id for row in spool.page(scene.connection, scene.a, 0, 200)]
    assert ids == [1, 3]
    assert [row.id for row in spool.page(scene.connection, scene.a, 3, 200)] == [4]
    assert spool.page(scene.connection, scene.a, 4, 200) == []


def test_a_row_larger_than_a_page_comes_alone(scene: Scene) -> None:
    for number in (1, 2):
        spool.insert(scene.connection, scene.row(number, scene.a, [b"x" * 100]))
    assert [row.id for row in spool.page(scene.connection, scene.a, 0, 1)] == [1]


def test_what_is_left_of_a_row_replaces_it(scene: Scene) -> None:
    row = scene.row(1, scene.a, [b"first", b"second"], raw=True)
    spool.insert(scene.connection, row)
    row.native, row.raw = [b"second"], [b"raw second"]
    row.places = [row.places[0]._replace(ordinal=1, count=1)]
    spool.replace(scene.connection, row)
    assert spool.page(scene.connection, scene.a, 0, 1000) == [row]
    assert spool.totals(scene.connection) == {scene.a: Totals(1, 1, len(b"secondraw second"), 100.0)}


def test_totals_count_every_lane_from_its_oldest_row(scene: Scene) -> None:
    spool.insert(scene.connection, scene.row(1, scene.a, [b"12", b"34"], time=50.0))
    spool.insert(scene.connection, scene.row(2, scene.a, [b"5"], time=40.0))  # the wall clock was set back
    spool.insert(scene.connection, scene.row(3, scene.b, [b"6"], time=60.0, raw=True))
    assert spool.totals(scene.connection) == {scene.a: Totals(2, 3, 6, 50.0), scene.b: Totals(1, 1, 6, 60.0)}


def test_size_is_what_the_totals_count(scene: Scene) -> None:
    row = scene.row(1, scene.a, [b"12", b"34"], raw=True)
    spool.insert(scene.connection, row)
    assert spool.totals(scene.connection)[scene.a].bytes == row.size


def test_ids_go_on_when_the_spool_has_been_empty(scene: Scene) -> None:
    assert spool.next_id(scene.connection) == 1
    spool.insert(scene.connection, scene.row(7, scene.a, [b"x"]))
    spool.delete(scene.connection, [7, 8])
    assert spool.totals(scene.connection) == {}
    assert spool.next_id(scene.connection) == 8


def test_lines_and_places_that_do_not_fit_together_are_refused(scene: Scene) -> None:
    row = scene.row(1, scene.a, [b"x", b"y"])
    row.native.pop()
    with pytest.raises(ValueError, match="1 native lines and places of 2 events"):
        spool.insert(scene.connection, row)


def test_a_row_whose_lines_are_not_those_that_were_written_is_refused(scene: Scene) -> None:
    spool.insert(scene.connection, scene.row(1, scene.a, [b"x", b"y"]))
    scene.connection.execute("UPDATE spool SET native = ?", (b"x y",))
    with pytest.raises(StateError, match="row 1 of the spool holds 1 lines where 2 were written"):
        spool.page(scene.connection, scene.a, 0, 1000)


def test_a_moved_spool_stands_behind_what_the_other_line_has(scene: Scene) -> None:
    for number, lane in enumerate((scene.a, scene.b, scene.a), 1):
        spool.insert(scene.connection, scene.row(number, lane, [b"from %d" % number] * number))
    assert spool.move(scene.connection, scene.a, scene.b, 10) == 4
    rows = spool.page(scene.connection, scene.b, 0, 1000)
    assert [(row.id, row.native[0]) for row in rows] == [(2, b"from 2"), (10, b"from 1"), (11, b"from 3")]
    assert spool.totals(scene.connection).keys() == {scene.b}
    assert spool.next_id(scene.connection) == 12
    assert (scene.books("a"), scene.books("b")) == ({"purged": 4}, {"replayed": 4})
    assert spool.move(scene.connection, scene.a, scene.b, 12) == 0


def test_a_spool_is_moved_page_by_page_in_order(scene: Scene) -> None:
    for number in range(1, 6):
        spool.insert(scene.connection, scene.row(number, scene.a, [b"%d" % number]))
    while spool.move(scene.connection, scene.a, scene.b, spool.next_id(scene.connection), limit=2):
        pass
    assert [row.native for row in spool.page(scene.connection, scene.b, 0, 1000)] == [[b"%d" % n] for n in range(1, 6)]
    assert scene.books("b") == {"replayed": 5}


def test_a_dropped_spool_is_purged_in_the_books(scene: Scene) -> None:
    for number, lane in enumerate((scene.a, scene.b, scene.a), 1):
        spool.insert(scene.connection, scene.row(number, lane, [b"x"] * number))
    assert spool.drop(scene.connection, scene.a, limit=1) == 1
    assert spool.drop(scene.connection, scene.a) == 3
    assert spool.totals(scene.connection).keys() == {scene.b}
    assert (scene.books("a"), scene.books("b")) == ({"purged": 4}, {})


def test_totals_and_pages_are_found_without_touching_other_rows(connection: sqlite3.Connection) -> None:
    asked: list[str] = []
    connection.set_trace_callback(asked.append)
    spool.totals(connection)
    spool.page(connection, 1, 0, 1000)
    connection.set_trace_callback(None)
    for query in asked:
        (*_, plan) = connection.execute(f"EXPLAIN QUERY PLAN {query}").fetchone()
        assert "USING COVERING INDEX spool_in_line" in plan


def test_another_thread_pages_beside_the_writer(scene: Scene, path: Path) -> None:
    spool.insert(scene.connection, scene.row(1, scene.a, [b"x"]))
    reader = open_reader(path)
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.extend(row.id for row in spool.page(reader, scene.a, 0, 1000)))
    thread.start()
    thread.join()
    reader.close()
    assert found == [1]
