"""``shipper dead-letters``: what is listed and shown, and that nothing an attacker wrote reaches the terminal raw."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from support.command import shipper, succeeded

RECORDS = (
    b'{"type":"DatabaseActivityMonitoringRecords","version":"1.1",'
    b'"databaseActivityEvents":"not base64!","key":"AAAA"}\n'
    b"\x1b[31mnot JSON [bold]at all\n"
)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A folder in which a run has left two dead letters."""
    (tmp_path / "in.jsonl").write_bytes(RECORDS)
    (tmp_path / "keys.json").write_text("{}")
    (tmp_path / "keys.json").chmod(0o600)
    (tmp_path / "shipper.toml").write_text(
        """
        [sources.captured]
        type = "file"
        path = "in.jsonl"
        keys = { provider = "static", path = "keys.json" }
        [outputs.out]
        type = "file"
        path = "out/events.jsonl"
        [server]
        listen = ""
        """
    )
    done = shipper("run", "--once", "--strict", "shipper.toml", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    return tmp_path


def listed(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    done = succeeded(shipper("dead-letters", "list", "-c", "shipper.toml", "--json", *arguments, cwd=folder))
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_each_says_why_it_is_there_and_where_it_was_read(state: Path) -> None:
    found = listed(state)
    assert [(one["reason"], one["output"], one["position"]) for one in found] == [
        ("base64", "*", "0"),
        ("json_malformed", "*", str(RECORDS.index(b"\x1b"))),
    ]
    assert {one["source"] for one in found} == {"captured"}


def test_filters_choose(state: Path) -> None:
    assert [one["reason"] for one in listed(state, "--reason", "base64")] == ["base64"]
    assert listed(state, "--output", "out") == []
    assert len(listed(state, "--since", "1h")) == 2
    assert listed(state, "--since", "2100-01-01T00:00Z") == []


def test_the_record_comes_back_as_it_was_read(state: Path) -> None:
    (_, second) = listed(state)
    shown = succeeded(
        shipper("dead-letters", "show", "-c", "shipper.toml", "--id", str(second["id"]), "--json", cwd=state)
    )
    assert base64.b64decode(json.loads(shown.stdout)["data"]) == RECORDS.splitlines()[1]


def test_what_an_attacker_wrote_cannot_draw_on_the_terminal(state: Path) -> None:
    for arguments in (["list"], ["show", "--id", "1"], ["show", "--id", "2"]):
        done = succeeded(shipper("dead-letters", *arguments, "-c", "shipper.toml", cwd=state))
        assert "\x1b" not in done.stdout
    assert "\\x1b[31mnot JSON [bold]at all" in done.stdout


def test_an_id_that_does_not_exist_is_said(state: Path) -> None:
    done = shipper("dead-letters", "show", "-c", "shipper.toml", "--id", "99", cwd=state)
    assert done.returncode == 1
    assert "there is none with the id 99" in done.stderr


def test_without_a_state_file_the_mend_is_said(state: Path) -> None:
    (state / "shipper.toml").write_text((state / "shipper.toml").read_text() + '[state]\npath = "elsewhere/x.db"\n')
    done = shipper("dead-letters", "list", "-c", "shipper.toml", cwd=state)
    assert done.returncode == 1
    assert "there is no state file" in done.stderr


def test_none_is_said_too(state: Path) -> None:
    done = succeeded(shipper("dead-letters", "list", "-c", "shipper.toml", "--reason", "tampered", cwd=state))
    assert done.stdout == "no dead letters\n"
