"""Who hands in more than the disk takes is told to wait: what is not committed yet is in memory."""

from __future__ import annotations

import threading
from pathlib import Path

from shipper.clock import SystemClock
from shipper.state.file import open_state
from shipper.state.writer import BEHIND, Writer


def test_it_is_behind_until_the_bytes_that_were_handed_in_are_committed(tmp_path: Path) -> None:
    connection = open_state(tmp_path / "shipper.db")
    writer = Writer(connection, SystemClock())
    seen: list[bool] = []
    writer.submit(lambda _: seen.append(writer.behind), size=BEHIND - 1)
    assert not writer.behind
    writer.submit(lambda _: seen.append(writer.behind), size=1)
    assert writer.behind
    writer.close()
    writer.run(lambda: None)
    assert seen == [True, True]
    assert not writer.behind
    connection.close()


def test_who_waits_goes_on_when_the_disk_has_caught_up(tmp_path: Path) -> None:
    connection = open_state(tmp_path / "shipper.db")
    writer = Writer(connection, SystemClock())
    committed: list[None] = []
    writer.submit(lambda _: None, committed.append, size=BEHIND)
    thread = threading.Thread(target=writer.wait_while_behind, args=(threading.Event(),))
    thread.start()
    writer.close()
    writer.run(lambda: None)
    thread.join(10)
    assert not thread.is_alive()
    assert committed
    connection.close()


def test_who_waits_goes_on_when_asked_to_stop(tmp_path: Path) -> None:
    connection = open_state(tmp_path / "shipper.db")
    writer = Writer(connection, SystemClock())
    writer.submit(lambda _: None, size=BEHIND)
    stop = threading.Event()
    stop.set()
    writer.wait_while_behind(stop)
    assert writer.behind
    connection.close()
