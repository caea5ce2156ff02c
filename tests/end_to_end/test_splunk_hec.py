"""Encrypted activity to a Splunk that is killed and started again in the middle: nothing is lost."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from shipper.state import positions
from shipper.state.file import read_state
from shipper.testing.splunk_hec import FakeSplunkHec
from support.command import shipper, start, succeeded
from support.waiting import until

EVENTS = 20_000
LONG = 100_000
TOKEN = "8d2a9c1e-55aa-4c1f-9d5e-7b1d2f3a4c5d"
KILLS = 3


def captured(folder: Path, events: int) -> None:
    """A file of encrypted records with ten events each, and its keys."""
    arguments = ["--engine", "aurora-postgresql", "--events", events, "--events-per-record", 10, "--seed", 3]
    arguments += ["--file", folder / "captured.jsonl", "--keys", folder / "keys.json"]
    succeeded(shipper("generate", *map(str, arguments), cwd=folder))


def configure(folder: Path, splunk: FakeSplunkHec, more: str) -> Path:
    path = folder / "shipper.toml"
    path.write_text(
        f"""
        [sources.captured]
        type = "file"
        path = "captured.jsonl"
        keys = {{ provider = "static", path = "keys.json" }}
        [outputs.siem]
        type = "splunk_hec"
        url = "{splunk.url}"
        token = "{TOKEN}"
        batch = {{ max_events = 200, max_wait = "20ms" }}
        retry = {{ initial = "50ms", max = "500ms" }}
        {more}
        [server]
        listen = ""
        """
    )
    return path


def ids_of(splunk: FakeSplunkHec) -> Counter[str]:
    """How often each event was taken: lines as they are, or objects."""
    found = (one.event if isinstance(one.event, dict) else json.loads(one.event) for one in splunk.events)
    return Counter(str(one["id"]) for one in found)


def books(folder: Path) -> dict[str, Any]:
    connection = read_state(folder / "state" / "shipper.db")
    found = positions.books(connection)["siem"]
    connection.close()
    return found


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "event": ({}, "concurrency = 4"),
    "raw": ({}, 'endpoint = "raw"'),
    # What is not indexed when the kill comes is gone, and only the missing acknowledgement says so.
    "acknowledged": ({"ack": True, "index_delay": 0.05}, 'ack = { interval = "20ms", timeout = "1s" }'),
}


def is_long(case: str, events: int) -> Any:
    return pytest.param(case, events, id=f"{case}-{events}", marks=[pytest.mark.long] if events == LONG else [])


@pytest.mark.parametrize(("case", "events"), [is_long(case, events) for case in CASES for events in (EVENTS, LONG)])
def test_a_splunk_that_is_killed_in_the_middle_has_everything_in_the_end(
    tmp_path: Path, case: str, events: int
) -> None:
    captured(tmp_path, events)
    given, more = CASES[case]
    with FakeSplunkHec(TOKEN, **given) as splunk:
        configuration = configure(tmp_path, splunk, more)
        process = start("run", "--once", configuration, cwd=tmp_path)
        lost = 0
        for kill in range(1, KILLS + 1):
            splunk.wait(events * kill // (KILLS + 2), seconds=120)
            lost += splunk.kill()
            splunk.start()
        assert process.wait(240) == 0, (tmp_path / "shipper.log").read_text()
        assert (lost > 0) is splunk.ack, "what is not indexed is gone, and nobody but the acknowledgement says so"
        ids = ids_of(splunk)
        assert len(ids) == events
        delivered = sum(books(tmp_path)["delivered"].values())
        assert delivered == events
        # At most what was under way when a kill came is there twice.
        assert ids.total() <= events + KILLS * 200 * 16


def test_a_shipper_that_is_killed_ships_the_rest_when_it_is_started_again(tmp_path: Path) -> None:
    captured(tmp_path, EVENTS)
    with FakeSplunkHec(TOKEN) as splunk:
        configuration = configure(tmp_path, splunk, "")
        process = start("run", configuration, cwd=tmp_path)
        splunk.wait(EVENTS // 3, seconds=60)
        process.kill()
        process.wait()
        assert len(ids_of(splunk)) < EVENTS, "the kill came too late"
        succeeded(shipper("run", "--once", configuration, cwd=tmp_path))
        assert len(ids_of(splunk)) == EVENTS


def test_a_wrong_token_holds_until_it_is_mended_and_nothing_becomes_a_dead_letter(tmp_path: Path) -> None:
    captured(tmp_path, 500)
    with FakeSplunkHec("another token") as splunk:
        configuration = configure(tmp_path, splunk, "")
        process = start("run", "--once", configuration, cwd=tmp_path)
        until(lambda: b"Invalid token" in (tmp_path / "shipper.log").read_bytes(), lambda: "no word of the token")
        splunk.token = TOKEN
        assert process.wait(60) == 0, (tmp_path / "shipper.log").read_text()
        assert len(ids_of(splunk)) == 500
        assert books(tmp_path).keys() == {"offered", "delivered"}
        assert TOKEN.encode() not in (tmp_path / "shipper.log").read_bytes()


def test_check_connect_says_what_is_permitted_and_writes_nothing(tmp_path: Path) -> None:
    captured(tmp_path, 10)
    with FakeSplunkHec(TOKEN) as splunk:
        configuration = configure(tmp_path, splunk, "")
        done = succeeded(shipper("check", "--connect", configuration, cwd=tmp_path))
        # The table breaks lines where it must.
        assert "healthy" in done.stdout
        splunk.token = "another token"
        done = shipper("check", "--connect", configuration, cwd=tmp_path)
        assert done.returncode == 1
        assert "Invalid" in done.stdout
        assert TOKEN not in done.stdout + done.stderr
        assert splunk.events == []
