"""``shipper run``: how it stops, what it says then, and its exit codes."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from support.command import shipper, start, succeeded
from support.receiver import Receiver
from support.waiting import until

EVENTS = 200


@pytest.fixture
def captured(tmp_path: Path) -> Path:
    arguments = ["--engine", "aurora-mysql", "--events", EVENTS, "--seed", 4]
    arguments += ["--file", tmp_path / "captured.jsonl", "--keys", tmp_path / "keys.json"]
    succeeded(shipper("generate", *map(str, arguments), cwd=tmp_path))
    return tmp_path


def configure(folder: Path, receiver: Receiver, more: str = "") -> str:
    (folder / "shipper.toml").write_text(
        f"""
        [sources.captured]
        type = "file"
        path = "captured.jsonl"
        keys = {{ provider = "static", path = "keys.json" }}
        [outputs.siem]
        type = "rig"
        url = "{receiver.url}"
        batch = {{ max_events = 20, max_wait = "10ms" }}
        {more}
        """
    )
    return "shipper.toml"


QUIET = '[server]\nlisten = ""\ndrain_timeout = "2s"'


def test_everything_settled_exits_with_0_and_shows_the_books(captured: Path) -> None:
    with Receiver() as receiver:
        done = succeeded(shipper("run", "--once", configure(captured, receiver, QUIET), cwd=captured))
    assert "balance" in done.stderr
    assert done.stdout == ""


def test_an_output_that_is_down_exits_with_75_because_all_that_it_owes_is_on_disk(captured: Path) -> None:
    with Receiver() as receiver:
        name = configure(captured, receiver, QUIET)
    done = shipper("run", "--once", name, cwd=captured)
    assert done.returncode == 75
    assert f"in the spool: {EVENTS} of siem; they are on disk and are sent by the next run" in done.stderr


def test_with_the_wrong_keys_all_records_are_kept_and_shipped_when_they_are_mended(captured: Path) -> None:
    keys = captured / "keys.json"
    right = keys.read_text()
    keys.write_text('{"' + "A" * 64 + '": "' + "A" * 43 + '="}')
    with Receiver() as receiver:
        name = configure(captured, receiver, f"{QUIET}\n[dead_letters]\nstorm = 10")
        done = shipper("run", "--once", name, cwd=captured)
        records = len((captured / "captured.jsonl").read_text().splitlines())
        assert done.returncode == 75
        assert f"source captured keeps {records} records" in done.stderr
        assert "storm" in done.stderr
        keys.write_text(right)
        done = succeeded(shipper("run", "--once", name, cwd=captured))
        assert len(set(receiver.stored())) == EVENTS
    assert "balance" in done.stderr


def test_what_was_owed_is_shipped_by_the_next_run(captured: Path) -> None:
    with Receiver() as receiver:
        name = configure(captured, receiver, QUIET)
    shipper("run", "--once", name, cwd=captured)
    with Receiver() as receiver:
        succeeded(shipper("run", "--once", configure(captured, receiver, QUIET), cwd=captured))
        assert len(receiver.ids["siem"]) == EVENTS


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_exits_with_0(captured: Path, number: signal.Signals) -> None:
    with Receiver() as receiver:
        process = start("run", configure(captured, receiver, QUIET), cwd=captured)
        receiver.wait(lambda: len(receiver.ids.get("siem", ())) == EVENTS)
        process.send_signal(number)
        assert process.wait(30) == 0, (captured / "shipper.log").read_text()


def test_a_second_signal_exits_at_once_and_loses_nothing(captured: Path) -> None:
    release = threading.Event()

    def stuck(output: str, events: list[dict[str, Any]]) -> dict[str, Any]:
        release.wait(60)
        return {}

    with Receiver(stuck) as receiver:
        process = start(
            "run", configure(captured, receiver, '[server]\nlisten = ""\ndrain_timeout = "60s"'), cwd=captured
        )
        receiver.wait_for_request()
        process.terminate()
        stopped_reading(captured)
        process.terminate()
        assert process.wait(10) == 1
        release.set()
        receiver.script = lambda output, events: {}
        succeeded(shipper("run", "--once", configure(captured, receiver, QUIET), cwd=captured))
        assert len(receiver.ids["siem"]) == EVENTS


def stopped_reading(folder: Path) -> None:
    """Until the process has said that it drains."""
    log = folder / "shipper.log"
    until(lambda: "stopping: what is queued is sent" in log.read_text(), log.read_text)


def test_a_timeout_ends_a_single_run(captured: Path) -> None:
    release = threading.Event()

    def stuck(output: str, events: list[dict[str, Any]]) -> dict[str, Any]:
        release.wait(60)
        return {}

    with Receiver(stuck) as receiver:
        name = configure(captured, receiver, '[server]\nlisten = ""\ndrain_timeout = "1s"')
        done = shipper("run", "--once", "--timeout", "1s", name, cwd=captured)
        release.set()
    assert done.returncode == 75
    assert "not everything was settled" in done.stderr


def test_two_shippers_on_one_state_file_are_refused(captured: Path) -> None:
    with Receiver() as receiver:
        name = configure(captured, receiver, QUIET)
        process = start("run", name, cwd=captured)
        receiver.wait(lambda: len(receiver.ids.get("siem", ())) == EVENTS)
        done = shipper("run", name, cwd=captured)
        assert done.returncode == 1
        assert f"is used by another shipper (process {process.pid})" in done.stderr
        process.terminate()
        assert process.wait(30) == 0


def test_a_wrong_configuration_never_starts(captured: Path) -> None:
    with Receiver() as receiver:
        done = shipper("run", configure(captured, receiver, QUIET + "\nnonsense = 1"), cwd=captured)
    assert done.returncode == 78
    assert "shipper.toml" in done.stderr
    assert "nonsense" in done.stderr
    assert not (captured / "state").exists()


def test_options_of_a_single_run_need_it() -> None:
    done = shipper("run", "--strict", cwd=Path.cwd())
    assert done.returncode == 2
    assert "need --once" in done.stderr


def test_a_port_that_is_taken_is_said(captured: Path) -> None:
    with Receiver() as receiver:
        taken = receiver.url.removeprefix("http://")
        done = shipper("run", configure(captured, receiver, f'[server]\nlisten = "{taken}"'), cwd=captured)
    assert done.returncode == 1
    assert f"cannot listen on {taken}" in done.stderr
