"""Two outputs of different temper on one source, by the real command line: neither waits for nor repeats the other."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from shipper.state import positions
from shipper.state.file import read_state
from support.command import shipper, start, succeeded
from support.receiver import Receiver
from support.waiting import until

EVENTS = 2_000


@pytest.fixture
def captured(tmp_path: Path) -> Path:
    """A file of captured records and its keys."""
    arguments = ["--engine", "aurora-postgresql", "--events", EVENTS, "--seed", 3]
    arguments += ["--file", tmp_path / "captured.jsonl", "--keys", tmp_path / "keys.json"]
    succeeded(shipper("generate", *map(str, arguments), cwd=tmp_path))
    return tmp_path


def configure(folder: Path, receiver: Receiver, more: str = "") -> Path:
    configuration = folder / "shipper.toml"
    configuration.write_text(
        f"""
        [sources.captured]
        type = "file"
        path = "captured.jsonl"
        keys = {{ provider = "static", path = "keys.json" }}
        [outputs.fast]
        type = "rig"
        url = "{receiver.url}"
        batch = {{ max_events = 50, max_wait = "20ms" }}
        [outputs.slow]
        type = "rig"
        url = "{receiver.url}"
        batch = {{ max_events = 50, max_wait = "20ms" }}
        [server]
        listen = ""
        {more}
        """
    )
    return configuration


def test_after_a_kill_the_fast_output_gets_nothing_twice_that_it_had_settled(captured: Path) -> None:
    release = threading.Event()

    def slow_waits(output: str, events: list[dict[str, Any]]) -> dict[str, Any]:
        if output == "slow" and receiver.requests["slow"] >= 3:
            release.wait(60)
        return {}

    with Receiver(slow_waits) as receiver:
        configuration = configure(captured, receiver)
        process = start("run", configuration, cwd=captured)
        receiver.wait(lambda: len(receiver.ids.get("fast", ())) == EVENTS and receiver.requests["slow"] >= 3)
        wait_until_settled(captured / "state" / "shipper.db", "fast", EVENTS)
        process.kill()
        process.wait()
        release.set()
        receiver.script = lambda output, events: {}
        succeeded(shipper("run", "--once", configuration, cwd=captured))
        assert set(receiver.ids["fast"].values()) == {1}, "the fast output got again what it had settled"
        assert len(receiver.ids["slow"]) == EVENTS
        # What was acknowledged but not committed when the kill came may repeat: at most what was in flight.
        assert receiver.ids["slow"].total() <= EVENTS + 4 * 50


def test_a_slow_output_does_not_hold_the_other_one_back(captured: Path) -> None:
    release = threading.Event()

    def slow_waits(output: str, events: list[dict[str, Any]]) -> dict[str, Any]:
        if output == "slow":
            release.wait(60)
        return {}

    with Receiver(slow_waits) as receiver:
        process = start("run", configure(captured, receiver), cwd=captured)
        receiver.wait(lambda: len(receiver.ids.get("fast", ())) == EVENTS)
        assert "slow" not in receiver.ids
        release.set()
        receiver.wait(lambda: len(receiver.ids.get("slow", ())) == EVENTS)
        process.terminate()
        assert process.wait(30) == 0


def test_a_new_output_starts_where_its_sources_stand(captured: Path) -> None:
    with Receiver() as receiver:
        succeeded(shipper("run", "--once", configure(captured, receiver), cwd=captured))
        more = f'[outputs.late]\ntype = "rig"\nurl = "{receiver.url}"'
        succeeded(shipper("run", "--once", configure(captured, receiver, more), cwd=captured))
        assert "late" not in receiver.ids


def test_each_output_keeps_its_own_position_when_one_of_them_fails_for_good(captured: Path) -> None:
    def refuses(output: str, events: list[dict[str, Any]]) -> dict[str, Any]:
        if output == "slow":
            return {"failed": {str(index): "rejected" for index in range(0, len(events), 2)}}
        return {}

    with Receiver(refuses) as receiver:
        done = shipper("run", "--once", "--strict", configure(captured, receiver), cwd=captured)
        assert done.returncode == 3, done.stderr
        connection = read_state(captured / "state" / "shipper.db")
        books = positions.books(connection)
        connection.close()
        assert books["fast"] == {"offered": {"": EVENTS}, "delivered": {"": EVENTS}}
        assert sum(books["slow"]["delivered"].values()) == len(receiver.ids["slow"])
        assert books["slow"]["dead_lettered"] == {"rejected": EVENTS - len(receiver.ids["slow"])}


def wait_until_settled(state: Path, lane: str, events: int) -> None:
    """Until the lane's books have been committed for so many events."""
    connection = read_state(state)
    try:
        until(
            lambda: sum(positions.books(connection).get(lane, {}).get("delivered", {}).values()) == events,
            lambda: str(positions.books(connection)),
        )
    finally:
        connection.close()
