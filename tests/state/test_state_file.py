"""The state file: its lock, its settings, positions, books and dead letters across restarts."""

from __future__ import annotations

import functools
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shipper.clock import SystemClock
from shipper.errors import StateError
from shipper.source import EARLIEST, END, Position
from shipper.state import dead_letters, positions
from shipper.state.dead_letters import DeadLetter, Filter
from shipper.state.file import lock, open_state, read_state
from shipper.state.positions import Move
from shipper.state.writer import Writer
from support.waiting import until


def stream_of(connection: sqlite3.Connection, lanes: list[int], start: str = "earliest") -> positions.Stream:
    return positions.ensure_stream(connection, "arn/1", "arn", start, 86400.0, lanes)


def move_to(partition: int, position: Position, **tally: int) -> Move:
    return Move(partition, position, "1", 7, Counter({(entry, ""): count for entry, count in tally.items()}))


def test_file_and_folder_are_private(path: Path, connection: sqlite3.Connection) -> None:
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_commits_are_durable_and_the_file_can_shrink(connection: sqlite3.Connection) -> None:
    pragma = {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")}
    assert pragma == {"journal_mode": "wal", "synchronous": 2}
    assert connection.execute("PRAGMA auto_vacuum").fetchone()[0] == 2
    assert connection.execute("PRAGMA page_size").fetchone()[0] == 16384
    assert connection.execute("PRAGMA secure_delete").fetchone()[0] == 0


def test_a_second_shipper_on_the_same_file_is_refused_and_told_who_has_it(path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from shipper.state.file import lock\n"
        "with lock(Path(sys.argv[1])):\n    print('locked', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "locked\n"
    with pytest.raises(StateError, match=rf"another shipper \(process {other.pid}\)"), lock(path):
        pass
    other.communicate()
    with lock(path):
        pass


def test_a_damaged_file_is_refused_with_its_name_and_with_how_to_go_on(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database, and long enough to be looked at" * 100)
    with pytest.raises(StateError, match=r"shipper\.db is damaged: file is not a database; .* restore it.* rescue"):
        open_state(path)
    with pytest.raises(StateError, match=r"is damaged: .*; nothing was read; restore it"):
        read_state(path)


def test_a_missing_file_cannot_be_read(path: Path) -> None:
    with pytest.raises(StateError, match="there is no state file"):
        read_state(path)


def test_the_first_listing_begins_at_the_start_and_later_partitions_at_their_beginning(
    connection: sqlite3.Connection,
) -> None:
    lanes = list(positions.ensure_lanes(connection, ["a"]).values())
    stream = stream_of(connection, lanes, "2026-01-02T03:04:05+00:00")
    first = positions.ensure_partitions(connection, stream, ["one"], lanes, 1000.0)
    later = positions.ensure_partitions(connection, stream, ["one", "child"], lanes, 1000.0)
    assert first["one"].begin == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert later["one"].begin == first["one"].begin
    assert later["child"].begin is EARLIEST


def test_the_start_is_resolved_once(connection: sqlite3.Connection) -> None:
    lanes = list(positions.ensure_lanes(connection, ["a"]).values())
    stream_of(connection, lanes, "2026-01-02T03:04:05+00:00")
    assert stream_of(connection, lanes, "2027-01-01T00:00:00+00:00").start == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_a_stream_that_succeeds_a_known_one_begins_at_its_beginning(connection: sqlite3.Connection) -> None:
    stream_of(connection, [])
    successor = positions.ensure_stream(connection, "arn/2", "arn", "2026-01-02T03:04:05+00:00", None, [])
    assert successor.start is EARLIEST


def test_a_new_lane_starts_at_the_smallest_position_of_the_others(connection: sqlite3.Connection) -> None:
    known = positions.ensure_lanes(connection, ["fast", "slow"])
    stream = stream_of(connection, list(known.values()))
    row = positions.ensure_partitions(connection, stream, ["p"], list(known.values()), 1000.0)["p"]
    positions.settle(connection, known["fast"], [move_to(row.id, Position(9, END))], None)
    positions.settle(connection, known["slow"], [move_to(row.id, Position(5, 3))], None)
    every = positions.ensure_lanes(connection, ["fast", "slow", "new"])
    stream_of(connection, list(every.values()))
    row = positions.ensure_partitions(connection, stream, ["p"], list(every.values()), 1000.0)["p"]
    assert row.standings[every["new"]].position == Position(5, 3)


def test_a_lane_that_was_away_finds_itself_at_the_beginning_of_what_came_meanwhile(
    connection: sqlite3.Connection,
) -> None:
    known = positions.ensure_lanes(connection, ["stays", "away"])
    stream = stream_of(connection, list(known.values()))
    positions.ensure_partitions(connection, stream, ["parent"], list(known.values()), 1000.0)
    child = positions.ensure_partitions(connection, stream, ["child"], [known["stays"]], 1000.0)["child"]
    positions.settle(connection, known["stays"], [move_to(child.id, Position(9, END))], None)
    child = positions.ensure_partitions(connection, stream, ["child"], list(known.values()), 1000.0)["child"]
    assert child.standings[known["away"]].position is None


def test_sequence_numbers_of_any_size_keep_their_order(connection: sqlite3.Connection) -> None:
    lanes = list(positions.ensure_lanes(connection, ["a"]).values())
    stream = stream_of(connection, lanes)
    row = positions.ensure_partitions(connection, stream, ["p"], lanes, 1000.0)["p"]
    number = 49590338271490256608559692538361571095921575989136588898 * 10**10 + 3
    positions.settle(connection, lanes[0], [move_to(row.id, Position(number, END))], None)
    row = positions.ensure_partitions(connection, stream, ["p"], lanes, 1000.0)["p"]
    assert row.standings[lanes[0]].position == Position(number, END)


def test_bookmark_position_and_books_move_together(path: Path) -> None:
    with lock(path):
        connection = open_state(path)
        lane = positions.ensure_lanes(connection, ["a"])["a"]
        stream = stream_of(connection, [lane])
        row = positions.ensure_partitions(connection, stream, ["p"], [lane], 1000.0)["p"]
        connection.execute("BEGIN IMMEDIATE")
        positions.settle(connection, lane, [move_to(row.id, Position(5, END), offered=2, delivered=2)], b"mark")
        connection.execute("ROLLBACK")
        assert positions.bookmark_of(connection, lane) is None
        assert positions.books(connection) == {"a": {}}
        positions.settle(connection, lane, [move_to(row.id, Position(5, END), offered=2, delivered=2)], b"mark")
        connection.close()
        connection = open_state(path)
        assert positions.bookmark_of(connection, lane) == b"mark"
        assert positions.books(connection) == {"a": {"offered": {"": 2}, "delivered": {"": 2}}}
        connection.close()


def test_a_vanished_partition_is_reported_once(connection: sqlite3.Connection) -> None:
    lanes = list(positions.ensure_lanes(connection, ["a"]).values())
    stream = stream_of(connection, lanes)
    positions.ensure_partitions(connection, stream, ["gone", "here"], lanes, 1000.0)
    assert positions.forget_vanished(connection, stream, ["here"], lanes) == ["gone"]
    assert positions.forget_vanished(connection, stream, ["here"], lanes) == []


def test_what_a_lane_still_settles_of_a_vanished_partition_does_not_open_it_again(
    connection: sqlite3.Connection,
) -> None:
    lanes = list(positions.ensure_lanes(connection, ["a"]).values())
    stream = stream_of(connection, lanes)
    row = positions.ensure_partitions(connection, stream, ["gone"], lanes, 1000.0)["gone"]
    assert positions.forget_vanished(connection, stream, [], lanes) == ["gone"]
    positions.settle(connection, lanes[0], [move_to(row.id, Position(5, END))], None)
    assert positions.forget_vanished(connection, stream, [], lanes) == []


def test_an_output_that_left_the_configuration_makes_no_gap(connection: sqlite3.Connection) -> None:
    known = positions.ensure_lanes(connection, ["stays", "left"])
    stream = stream_of(connection, list(known.values()))
    row = positions.ensure_partitions(connection, stream, ["gone"], list(known.values()), 1000.0)["gone"]
    move = move_to(row.id, Position(5, END))
    move.ended = True
    positions.settle(connection, known["stays"], [move], None)
    assert positions.forget_vanished(connection, stream, [], [known["stays"]]) == []


def test_half_characters_of_a_destination_do_not_stop_the_writer(connection: sqlite3.Connection) -> None:
    stream = stream_of(connection, [])
    positions.ensure_partitions(connection, stream, ["p"], [], 1000.0)
    half = DeadLetter(1, 1, 1, "1", (), "out", "orders", "rejected", "no \ud800", 1000.0, 5, b"{}")
    dead_letters.keep(connection, [half])
    assert [kept.detail for kept in dead_letters.listing(connection, Filter())] == ["no ?"]


def letter(record: int, reason: str = "tampered", output: str = "*") -> DeadLetter:
    return DeadLetter(1, 1, record, str(record), (), output, "orders", reason, "why", 1000.0, 5, b"as it was read")


def test_dead_letters_keep_the_record_as_it_was_read(connection: sqlite3.Connection) -> None:
    stream = stream_of(connection, [])
    positions.ensure_partitions(connection, stream, ["p"], [], 1000.0)
    dead_letters.keep(connection, [letter(1), letter(2, "base64")])
    dead_letters.keep(connection, [letter(1)])
    kept = list(dead_letters.listing(connection, Filter(), page=1))
    assert [(one.record, one.reason, one.attempts) for one in kept] == [(1, "tampered", 2), (2, "base64", 1)]
    assert dead_letters.data_of(connection, kept[0].id) == b"as it was read"
    assert dead_letters.counts(connection, Filter(reason="base64")) == [("*", "base64", 1)]
    assert dead_letters.stored_bytes(connection) == 2 * len(b"as it was read")


def test_changes_are_committed_in_the_order_in_which_they_were_handed_in(path: Path) -> None:
    with lock(path):
        connection = open_state(path)
        writer = Writer(connection, SystemClock())
        thread = threading.Thread(target=writer.run, args=(lambda: None,))
        thread.start()
        for name in "abc":
            writer.submit(functools.partial(insert_lane, name))
        names = writer.call(lambda opened: [name for (name,) in opened.execute("SELECT name FROM lanes ORDER BY id")])
        assert names == ["a", "b", "c"]
        with pytest.raises(sqlite3.IntegrityError):
            writer.call(functools.partial(insert_lane, "a"))
        writer.close()
        thread.join()
        connection.close()
        assert read_names(path) == ["a", "b", "c"]


def test_a_change_that_nobody_waits_for_takes_what_follows_with_it(path: Path) -> None:
    with lock(path):
        connection = open_state(path)
        writer = Writer(connection, SystemClock())
        writer.submit(lambda opened: opened.execute("INSERT INTO lanes (name) VALUES (NULL)"))
        writer.submit(functools.partial(insert_lane, "rests on it"))
        with pytest.raises(sqlite3.IntegrityError):
            writer.run(lambda: None)
        assert connection.execute("SELECT count(*) FROM lanes").fetchone() == (0,)
        with pytest.raises(StateError, match="the writer has ended"):
            writer.call(lambda opened: None)
        connection.close()


def test_who_waits_for_a_writer_that_dies_is_told(path: Path) -> None:
    with lock(path):
        connection = open_state(path)
        writer = Writer(connection, SystemClock())
        told: list[BaseException] = []

        def wait() -> None:
            try:
                writer.call(functools.partial(insert_lane, "a"))
            except StateError as error:
                told.append(error)

        waiting = threading.Thread(target=wait)
        waiting.start()
        until(lambda: writer._waiting, lambda: "nothing was handed in")
        writer.submit(lambda opened: opened.execute("INSERT INTO lanes (name) VALUES (NULL)"))
        with pytest.raises(sqlite3.IntegrityError):
            writer.run(lambda: None)
        waiting.join(10)
        assert len(told) == 1
        connection.close()


def test_what_a_commit_is_followed_by_happens_once_however_often_the_disk_refused(path: Path) -> None:
    with lock(path):
        connection = open_state(path)
        writer = Writer(connection, HurriedClock())
        tries = iter([True, True, False])
        committed: list[str] = []

        def change(opened: sqlite3.Connection) -> str:
            if next(tries):
                raise sqlite3.OperationalError("database or disk is full")
            return "stored"

        writer.submit(change, committed.append)
        writer.close()
        writer.run(lambda: None)
        assert committed == ["stored"]
        connection.close()


def test_a_disk_that_stays_full_does_not_keep_the_process_from_ending(path: Path) -> None:
    with lock(path):
        connection = open_state(path)
        writer = Writer(connection, SystemClock())

        def full(opened: sqlite3.Connection) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        writer.submit(full)
        thread = threading.Thread(target=writer.run, args=(lambda: None,))
        thread.start()
        until(lambda: writer.blocked, lambda: "the disk took it")
        writer.give_up()
        thread.join(10)
        assert not thread.is_alive()
        connection.close()


class HurriedClock(SystemClock):
    """Nobody waits."""

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return event.is_set()


def insert_lane(name: str, connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO lanes (name) VALUES (?)", (name,))


def read_names(path: Path) -> list[str]:
    connection = read_state(path)
    names = [name for (name,) in connection.execute("SELECT name FROM lanes ORDER BY id")]
    connection.close()
    return names
