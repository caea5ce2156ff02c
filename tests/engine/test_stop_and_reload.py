"""Stopping and reloading a running engine: nothing is lost, nothing comes twice, and nobody waits for the dead."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any

import pytest

from shipper.configuration import load
from shipper.engine import works
from shipper.engine.pipeline import EXIT_BACKLOG, Pipeline
from shipper.errors import ConfigurationError, Held
from shipper.output import Outcome, OutputSettings
from shipper.sources.kinesis import KinesisSource
from shipper.state import control, dead_letters
from shipper.state.dead_letters import Filter
from shipper.state.file import open_state, read_state
from shipper.state.room import Room
from shipper.testing.nasty import NastyOutput, fail, raises, slow
from support.site import Site, in_background
from support.waiting import until

DOWN = raises(Outcome.UNKNOWN)


class Outputs:
    """Every output that the engine builds, by name, newest last; ``dead`` names those that take nothing."""

    def __init__(self) -> None:
        self.built: dict[str, list[NastyOutput]] = {}
        self.dead: set[str] = set()
        self.unreachable: set[str] = set()

    def make(self, name: str, table: OutputSettings) -> NastyOutput:
        connecting = [Held("unreachable", "nobody there")] * 1000 if name in self.unreachable else []
        made = NastyOutput(name, table, then=DOWN if name in self.dead else None, connecting=connecting)
        self.built.setdefault(name, []).append(made)
        return made

    def stored(self, name: str) -> list[str]:
        return [one for output in self.built[name] for one in output.stored]


@pytest.fixture
def outputs(monkeypatch: pytest.MonkeyPatch) -> Outputs:
    made = Outputs()
    monkeypatch.setattr(works, "output_class", lambda _: made.make)
    monkeypatch.setattr(works, "missing_modules", lambda *_: None)
    return made


def soon(condition: Callable[[], object]) -> None:
    until(condition, lambda: "it did not come to that")


def owes(running: Pipeline, name: str) -> int:
    """Events that an output was given and that are not settled."""
    assert running._works is not None
    return sum(running._works.outputs[name].lane.owed())


def second(site: Site, *more: str) -> str:
    return "\n".join(["[outputs.second]", 'type = "rig"', f'url = "{site.receiver.url}"', *more])


def configured(site: Site, *more: str, **tables: Any) -> Pipeline:
    site.configure(*more, **tables)
    path = site.folder / "shipper.toml"
    return Pipeline(load([path]), load_again=lambda: load([path]))


@pytest.mark.parametrize("kind", ["dead", "unreachable"])
def test_a_stop_with_a_dead_output_ends_at_once_with_everything_in_its_spool(
    site: Site, outputs: Outputs, kind: str
) -> None:
    getattr(outputs, kind).add("second")
    site.put(30)
    running = configured(site, second(site))
    wait = in_background(running)
    soon(lambda: len(outputs.built.get("siem", [])) == 1 and len(outputs.stored("siem")) == 30)
    soon(lambda: owes(running, "second") == 30)
    started = time.monotonic()
    running.stop()
    result = wait()
    assert time.monotonic() - started < 8
    assert result.exit_code == EXIT_BACKLOG
    assert result.spooled == {"second": 30}
    assert result.owed == {}
    outputs.dead.clear()
    outputs.unreachable.clear()
    again = in_background(running := configured(site, second(site)))
    soon(lambda: len(outputs.stored("second")) == 30)
    running.stop()
    assert again().exit_code == 0
    assert len(set(outputs.stored("second"))) == 30
    assert len(outputs.stored("siem")) == 30, "the healthy one got something twice"


def test_a_reload_renders_what_waits_anew_and_leaves_the_others_alone(site: Site, outputs: Outputs) -> None:
    outputs.dead.add("second")
    site.put(30)
    running = configured(site, second(site))
    wait = in_background(running)
    soon(lambda: len(outputs.built.get("siem", [])) == 1 and len(outputs.stored("siem")) == 30)
    outputs.dead.clear()
    site.configure(second(site, 'labels = { team = "dba" }'))
    running.reload()
    soon(lambda: len(outputs.stored("second")) == 30)
    site.put(10)
    soon(lambda: len(outputs.stored("second")) == 40 and len(outputs.stored("siem")) == 40)
    running.stop()
    result = wait()
    assert result.exit_code == 0
    assert len(outputs.built["siem"]) == 1, "the one that did not change was built again"
    assert len(outputs.built["second"]) == 2
    assert sorted(outputs.stored("second")) == sorted(outputs.stored("siem"))
    assert len(set(outputs.stored("siem"))) == 40
    assert result.books["second"] == {"offered": {"": 40}, "delivered": {"": 40}}


def test_a_reload_that_would_forget_what_waits_in_memory_is_refused(
    site: Site, outputs: Outputs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(works, "CLOSING", 0.3)
    outputs.dead.add("second")
    site.put(30)
    running = configured(site, second(site))
    wait = in_background(running)
    soon(lambda: len(outputs.built.get("siem", [])) == 1 and len(outputs.stored("siem")) == 30)
    soon(lambda: owes(running, "second") == 30)
    site.configure()
    running.reload()
    soon(lambda: "not taken over" in caplog.text)
    assert "still owes 30 events" in caplog.text
    site.put(5)
    soon(lambda: len(outputs.stored("siem")) == 35)
    soon(lambda: owes(running, "second") == 35)
    running.stop()
    result = wait()
    assert result.spooled == {"second": 35}
    assert len(set(outputs.stored("siem"))) == len(outputs.stored("siem")) == 35


def test_a_reload_on_a_full_disk_sends_nothing_twice_that_is_under_way(
    site: Site, outputs: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = 'batch = { max_wait = "10ms" }'
    running = configured(site, second(site, quick))
    wait = in_background(running)
    soon(lambda: len(outputs.built.get("second", [])) == 1)
    (siem,) = outputs.built["siem"]
    siem.behave(then=slow(1.5))
    monkeypatch.setattr(Room, "short", lambda _: True)
    site.put(30)
    soon(lambda: siem.sent and len(outputs.stored("second")) == 30)
    site.configure(second(site, quick, 'labels = { team = "dba" }'))
    running.reload()
    soon(lambda: len(outputs.built["second"]) == 2)
    site.put(5)
    soon(lambda: len(outputs.stored("second")) == 35 and len(set(siem.stored)) == 35)
    running.stop()
    wait()
    assert len(siem.stored) == 35


def test_a_renamed_output_goes_on_with_its_backlog(site: Site, outputs: Outputs) -> None:
    outputs.dead.add("second")
    site.put(20)
    running = configured(site, second(site))
    wait = in_background(running)
    soon(lambda: len(outputs.built.get("siem", [])) == 1 and len(outputs.stored("siem")) == 20)
    site.configure(second(site, 'renamed_from = "second"').replace("outputs.second", "outputs.archive"))
    running.reload()
    soon(lambda: len(outputs.built.get("archive", [])) == 1 and len(outputs.stored("archive")) == 20)
    running.stop()
    result = wait()
    assert result.exit_code == 0
    assert result.books["archive"] == {"offered": {"": 20}, "delivered": {"": 20}}
    assert outputs.stored("second") == []


def test_a_wrong_configuration_changes_nothing(site: Site, outputs: Outputs, caplog: pytest.LogCaptureFixture) -> None:
    running = configured(site)
    wait = in_background(running)
    soon(lambda: running.ready()[0])
    with suppress(ConfigurationError):
        site.configure("nonsense = 1")
    running.reload()
    soon(lambda: "not taken over" in caplog.text)
    site.put(10)
    soon(lambda: len(outputs.stored("siem")) == 10)
    running.stop()
    assert wait().exit_code == 0


def test_a_request_that_makes_no_sense_fails_alone(site: Site, outputs: Outputs) -> None:
    running = configured(site)
    site.state.parent.mkdir(parents=True, exist_ok=True)
    with open_state(site.state) as connection:
        asked = [
            control.ask(connection, request, 0.0)
            for request in ({"do": "replay", "filter": {"nonsense": 1}}, {"do": "dance"}, {"do": "position_set"})
        ]
        connection.commit()
    connection.close()
    wait = in_background(running)
    site.put(10)
    soon(lambda: len(outputs.built.get("siem", [])) == 1 and len(outputs.stored("siem")) == 10)

    def answers() -> list[str]:
        with closing(read_state(site.state)) as connection:
            return [control.result(connection, one)[0] for one in asked]

    soon(lambda: "waiting" not in answers())
    assert set(answers()) == {"failed"}
    running.stop()
    assert wait().exit_code == 0


def test_a_long_request_hears_a_stop_and_what_it_did_not_do_stays(
    site: Site, outputs: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = configured(site)
    wait = in_background(running)
    soon(lambda: running.ready()[0])
    outputs.built["siem"][0].behave(then=fail(Outcome.REJECTED, lambda name, _: int(name, 16) % 2 == 1, detail="no"))
    site.put(40)
    soon(lambda: sum(running.books()["siem"].values()) == 80)  # offered, and settled
    refused = running.books()["siem"]["dead_lettered", "rejected"]
    assert refused > 10
    purge = dead_letters.purge

    def stopped_in_the_middle(connection: sqlite3.Connection, chosen: Filter, limit: int) -> int:
        running.stop()
        return purge(connection, chosen, limit=min(limit, 7))

    monkeypatch.setattr(dead_letters, "purge", stopped_in_the_middle)
    with closing(open_state(site.state)) as connection:
        asked = control.ask(connection, {"do": "purge", "filter": {}}, time.time())
    assert wait().exit_code == 0
    with closing(read_state(site.state)) as connection:
        state, answer = control.result(connection, asked)
    assert state == "failed"
    assert "stopped in the middle" in str(answer)
    assert len(site.letters()) == refused - 7


def test_a_run_that_ends_by_itself_gives_back_what_its_backlog_took(site: Site, outputs: Outputs) -> None:
    outputs.dead.add("siem")
    site.put(2000)
    site.configure().run()
    full = site.state.stat().st_size
    outputs.dead.clear()
    assert site.configure().run().exit_code == 0
    assert len(outputs.stored("siem")) == 2000
    assert site.state.stat().st_size < full / 4


def test_a_source_that_connects_when_all_is_over_does_not_spoil_the_stop(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    connecting, released = threading.Event(), threading.Event()
    connect, release = KinesisSource.connect, works.Works.release

    def late(source: KinesisSource) -> None:
        connecting.set()
        assert released.wait(30)
        connect(source)

    def after_the_last_commit(of: works.Works) -> None:
        released.set()
        for thread in threading.enumerate():
            if thread.name == "shipper-source orders":
                thread.join(30)
        release(of)

    monkeypatch.setattr(KinesisSource, "connect", late)
    monkeypatch.setattr(works.Works, "release", after_the_last_commit)
    site.configure()
    running = Pipeline(load([site.folder / "shipper.toml"]))
    wait = in_background(running)
    assert connecting.wait(30)
    running.stop()
    assert wait().exit_code == 0
