"""Room on the disk: what is kept free, what is given up first, and what deletions give back."""

from __future__ import annotations

import functools
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from shipper.clock import SystemClock
from shipper.errors import StateError
from shipper.state import spool, vacuum
from shipper.state.file import lock, open_state, read_state
from shipper.state.room import BALLAST, RESERVE, Room
from shipper.state.writer import Writer
from state.samples import Scene
from support.small_disk import mounted
from support.waiting import until

KB = 1024
MB = 1024 * 1024


@contextmanager
def writing(writer: Writer, pulse: Callable[[], None] = lambda: None) -> Iterator[Writer]:
    thread = threading.Thread(target=writer.run, args=(pulse,))
    thread.start()
    try:
        yield writer
    finally:
        writer.give_up()
        thread.join(30)


@contextmanager
def filled(folder: Path, free: int) -> Iterator[None]:
    """Something else takes the disk until so many bytes are free."""
    disk = os.statvfs(folder)
    other = folder / "somebody else's"
    with other.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, disk.f_bavail * disk.f_frsize - free)
    try:
        yield
    finally:
        other.unlink()


def test_the_reserve_is_64_mb_or_a_twentieth_of_a_smaller_disk(tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    assert Room(tmp_path / "s.db").reserve() == min(RESERVE, disk.f_blocks * disk.f_frsize // 20)
    assert Room(tmp_path / "s.db", 123).reserve() == 123


def test_a_disk_with_less_than_the_reserve_is_short_of_room(tmp_path: Path) -> None:
    assert not Room(tmp_path / "s.db", 1).short()
    assert Room(tmp_path / "s.db", 2**60).short()
    assert Room(tmp_path / "nowhere" / "s.db").short()


def test_the_ballast_takes_its_blocks_and_is_private(tmp_path: Path) -> None:
    room = Room(tmp_path / "s.db")
    assert room.restore()
    ballast = (tmp_path / "s.db.ballast").stat()
    assert (ballast.st_size, ballast.st_blocks * 512 >= BALLAST, ballast.st_mode & 0o777) == (BALLAST, True, 0o600)
    assert room.restore()


def test_the_ballast_is_given_up_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    room = Room(tmp_path / "s.db")
    room.restore()
    assert room.give_up()
    assert not room.give_up()
    assert list(tmp_path.iterdir()) == []
    assert caplog.text.count("was removed to go on") == 1


def test_a_disk_without_ample_room_gets_no_ballast(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "40m") as folder:
        room = Room(folder / "s.db")
        with filled(folder, 5 * MB):
            assert not room.restore()
            assert not (folder / "s.db.ballast").exists()
        assert room.restore()
        assert (folder / "s.db.ballast").stat().st_size == 2 * MB  # no more than the reserve of so small a disk


def test_a_full_disk_takes_commits_again_after_the_ballast_was_given_up(tmp_path: Path) -> None:
    with (
        mounted(tmp_path / "disk", "40m") as folder,
        lock(folder / "s.db"),
        closing(open_state(folder / "s.db")) as connection,
    ):
        room = Room(folder / "s.db")
        assert room.restore()
        with filled(folder, 0), writing(Writer(connection, SystemClock(), room)) as writer:
            insert, done = "INSERT INTO lanes (name, bookmark) VALUES ('a', ?)", threading.Event()
            writer.submit(lambda opened: opened.execute(insert, (bytes(MB),)), lambda _: done.set())
            assert done.wait(20)
            assert writer.blocked is None
            assert not (folder / "s.db.ballast").exists()


def test_a_disk_that_is_full_without_a_ballast_blocks_until_there_is_room(tmp_path: Path) -> None:
    with (
        mounted(tmp_path / "disk", "10m") as folder,
        lock(folder / "s.db"),
        closing(open_state(folder / "s.db")) as connection,
    ):
        done = threading.Event()
        insert = "INSERT INTO lanes (name, bookmark) VALUES ('a', ?)"
        with writing(Writer(connection, SystemClock(), Room(folder / "s.db"))) as writer:
            with filled(folder, 0):
                writer.submit(lambda opened: opened.execute(insert, (bytes(MB),)), lambda _: done.set())
                until(lambda: writer.blocked, lambda: "a full disk took a commit")
            assert done.wait(20)
            assert writer.blocked is None


def test_the_ballast_is_given_up_where_the_disk_is_full_at_the_start(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "40m") as folder, lock(folder / "s.db"):
        open_state(folder / "s.db").close()
        assert Room(folder / "s.db").restore()
        with filled(folder, 0):
            connection = open_state(folder / "s.db")
            connection.execute("INSERT INTO lanes (name) VALUES ('a')")
            connection.close()
            assert not (folder / "s.db.ballast").exists()


def test_a_full_disk_does_not_keep_the_lock_from_being_taken(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "1m") as folder, filled(folder, 0), lock(folder / "s.db"):
        pass


def test_the_writer_makes_the_ballast_when_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with lock(path), closing(open_state(path)) as opened, writing(Writer(opened, SystemClock(), Room(path))) as writer:
        writer.call(lambda _: None)
        until((tmp_path / "s.db.ballast").exists, lambda: "no ballast")


def test_ten_thousand_rows_cost_the_same_at_the_end_and_the_file_shrinks_again(scene: Scene, path: Path) -> None:
    connection = scene.connection
    steps: list[int] = []  # of SQLite's machine: what a step costs, on any computer
    connection.set_progress_handler(lambda: steps.append(1), 10)

    def cost(first: int) -> tuple[int, int]:
        """What writing and paging a hundred rows takes."""
        steps.clear()
        connection.execute("BEGIN IMMEDIATE")
        for number in range(first, first + 100):
            spool.insert(connection, scene.row(number, scene.a, [b"x" * 4 * KB]))
        connection.execute("COMMIT")
        written = len(steps)
        steps.clear()
        assert len(spool.page(connection, scene.a, first - 1, 100 * 4 * KB)) == 100
        return written, len(steps)

    costs = [cost(first) for first in range(1, 10_001, 100)]
    assert costs[-1] == pytest.approx(costs[1], rel=0.5)
    assert spool.totals(connection)[scene.a][:3] == (10_000, 10_000, 10_000 * 4 * KB)
    connection.set_progress_handler(None, 0)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert path.stat().st_size > 40 * MB
    with writing(Writer(connection, SystemClock())) as writer:
        for first in range(1, 10_001, 1000):
            writer.call(functools.partial(spool.delete, ids=range(first, first + 1000)))
        until(lambda: path.stat().st_size < 4 * MB, lambda: f"the file still has {path.stat().st_size:,} bytes")


def spool_and_delete(scene: Scene, rows: int, size: int) -> None:
    scene.connection.execute("BEGIN IMMEDIATE")
    for number in range(1, rows + 1):
        spool.insert(scene.connection, scene.row(number, scene.a, [b"x" * size]))
    scene.connection.execute("COMMIT")
    spool.delete(scene.connection, range(1, rows + 1))


def test_a_slice_ends_where_it_was_told_to(scene: Scene) -> None:
    connection = scene.connection
    spool_and_delete(scene, 300, 40 * KB)
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    assert vacuum.is_due(connection, idle=True)
    assert vacuum.take_slice(connection, 100) == free - 100


def test_free_pages_that_are_soon_used_again_are_left_alone(scene: Scene) -> None:
    connection = scene.connection
    spool_and_delete(scene, 30, 16 * KB)
    assert connection.execute("PRAGMA freelist_count").fetchone()[0] > 0
    assert not vacuum.is_due(connection, idle=True)


def test_beside_steady_traffic_only_a_file_that_is_mostly_empty_is_made_smaller(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = scene.connection
    monkeypatch.setattr(vacuum, "SPARE_WHILE_BUSY", 100)
    for number in range(1, 301):
        spool.insert(connection, scene.row(number, scene.a, [b"x" * 16 * KB]))
    spool.delete(connection, range(1, 121))
    assert vacuum.is_due(connection, idle=True)
    assert not vacuum.is_due(connection, idle=False)
    spool.delete(connection, range(121, 251))
    assert vacuum.is_due(connection, idle=False)


def test_a_slice_never_commits_what_is_half_done(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(RuntimeError, match="a transaction is open"):
        vacuum.take_slice(connection)
    assert connection.in_transaction
    connection.execute("ROLLBACK")


def test_what_waits_goes_before_the_next_slice(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    spool_and_delete(scene, 1000, 40 * KB)
    order: list[str] = []
    writer = Writer(scene.connection, SystemClock())
    take = vacuum.take_slice

    def slice_(opened: sqlite3.Connection) -> int:
        order.append("slice")
        writer.submit(lambda _: order.append("change"))
        return take(opened, 100)

    monkeypatch.setattr(vacuum, "take_slice", slice_)
    with writing(writer):
        until(lambda: len(order) >= 4, lambda: f"only {order}")
    assert order[:4] == ["slice", "change"] * 2


def test_damage_met_while_writing_is_told_with_how_to_go_on(scene: Scene, path: Path) -> None:
    connection = scene.connection
    for number in range(1, 101):
        spool.insert(connection, scene.row(number, scene.a, [b"x" * 100]))
    (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'spool_in_line'").fetchone()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * 16384)
        file.write(b"\xff" * 16384)
    damaged = open_state(path)
    writer = Writer(damaged, SystemClock())
    writer.submit(lambda opened: spool.delete(opened, [1]))
    with pytest.raises(StateError, match=r"is damaged: .*malformed; stopped; positions stand .*; restore it"):
        writer.run(lambda: None)
    damaged.close()


def test_damaged_positions_are_found_at_the_start(scene: Scene, path: Path) -> None:
    connection = scene.connection
    (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'positions'").fetchone()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * 16384)
        file.write(b"\xff" * 16384)
    with pytest.raises(StateError, match=r"is damaged: .*nothing was started; restore it, with its -wal file"):
        open_state(path)
    rescue = read_state(path)  # what is not damaged can still be exported
    assert rescue.execute("SELECT count(*) FROM dead_letters").fetchone() == (0,)
    rescue.close()
