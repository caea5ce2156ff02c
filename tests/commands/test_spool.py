"""``shipper spool``: what it lists, and what it delivers, moves and drops, with and without a running shipper."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.operations import EVENTS, Site
from support.receiver import Receiver


@pytest.fixture
def site(captured: Site, tmp_path: Path, receiver: Receiver) -> Site:
    """Everything is in the spool of ``siem``, whose destination was down and is up again; nothing runs any more."""
    found = Site(tmp_path)
    found.take_captured(captured)
    found.configure(receiver)
    receiver.stop()
    found.once(code=75)
    receiver.start()
    return found


def test_list_says_what_waits_since_when_and_how_much_may(site: Site) -> None:
    backlog = site.backlog("siem")
    assert (backlog["events"], backlog["max_bytes"], backlog["configured"]) == (EVENTS, 10_000_000_000, True)
    assert backlog["bytes"] > EVENTS * 100
    assert backlog["oldest"].endswith("Z")
    headings, line = site.run("spool", "list").splitlines()
    assert headings.split()[:3] == ["output", "events", "bytes"]
    assert line.split()[:4] == ["siem", f"{EVENTS}", f"{backlog['bytes']:,}", "10,000,000,000"]


def test_list_shows_an_output_that_left_the_configuration(site: Site, receiver: Receiver) -> None:
    site.configure(receiver, ["lake"])
    backlog = site.backlog("siem")
    assert (backlog["events"], backlog["configured"], backlog["max_bytes"]) == (EVENTS, False, None)
    assert "left the configuration" in site.run("spool", "list")


def test_list_of_an_unknown_output_is_refused(site: Site) -> None:
    assert "knows an output 'nobody'" in site.run("spool", "list", "--output", "nobody", code=1)


def test_drain_delivers_what_is_on_disk_and_reads_nothing_new(site: Site, receiver: Receiver) -> None:
    site.generate(30, seed=9)
    site.run("spool", "drain")
    assert len(receiver.stored("siem")) == EVENTS
    assert site.backlog("siem")["events"] == 0
    assert site.books()["siem"]["pending"] == 0


def test_drain_of_an_output_that_stays_down_ends_with_75_and_keeps_everything(site: Site, receiver: Receiver) -> None:
    receiver.stop()
    site.run("spool", "drain", code=75)
    assert site.backlog("siem")["events"] == EVENTS


def test_drain_is_refused_beside_a_running_shipper(site: Site, receiver: Receiver) -> None:
    receiver.stop()
    with site.running():
        said = site.run("spool", "drain", code=1)
        assert "a shipper runs with" in said
        assert "drains it by itself" in said


def test_a_second_shipper_is_refused_while_one_drains_by_itself(site: Site, receiver: Receiver) -> None:
    receiver.stop()
    with site.running() as process:
        assert f"is used by another shipper (process {process.pid})" in site.run("run", code=1)
        receiver.start()
        receiver.wait(lambda: len(receiver.stored("siem")) == EVENTS)
    assert site.backlog("siem")["events"] == 0


def test_an_output_that_left_with_a_backlog_is_refused_until_it_was_moved(site: Site, receiver: Receiver) -> None:
    site.configure(receiver, ["lake"])
    assert "still owes 120 events in its spool" in site.run("run", "--once", code=78)
    assert site.json("spool", "move", "--output", "siem", "--to", "lake") == {"events": EVENTS}
    assert site.backlog("lake")["events"] == EVENTS
    site.run("spool", "drain")
    assert len(set(receiver.stored("lake"))) == EVENTS
    books = site.books()
    assert (books["siem"]["purged"], books["lake"]["replayed"]) == (EVENTS, EVENTS)


def test_move_beside_a_running_shipper_is_refused_for_an_output_at_work(site: Site, receiver: Receiver) -> None:
    receiver.stop()
    site.configure(receiver, ["siem", "lake"])
    with site.running():
        assert "the output 'siem' is at work" in site.run("spool", "move", "--output", "siem", "--to", "lake", code=1)
    assert site.backlog("siem")["events"] == EVENTS


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--output", "siem", "--to", "nobody"], "there is no output 'nobody'"),
        (["--output", "siem", "--to", "siem"], "name the same output"),
    ],
)
def test_a_move_that_makes_no_sense_is_wrong_usage(site: Site, arguments: list[str], said: str) -> None:
    assert said in site.run("spool", "move", *arguments, code=2)


def test_move_of_an_unknown_output_is_refused(site: Site) -> None:
    said = site.run("spool", "move", "--output", "nobody", "--to", "siem", code=1)
    assert "knows no output 'nobody'; it knows: siem" in said


def test_drop_gives_up_an_output_that_left_so_that_the_rest_starts(site: Site, receiver: Receiver) -> None:
    site.configure(receiver, ["lake"])
    assert "give --yes" in site.run("spool", "drop", "--output", "siem", code=2)
    assert site.json("spool", "drop", "--output", "siem", "--yes") == {"events": EVENTS}
    site.run("run", "--once")
    assert len(receiver.stored("lake")) == EVENTS
    assert "siem" not in site.books()


def test_drop_of_a_configured_output_keeps_where_it_stands(site: Site, receiver: Receiver) -> None:
    site.run("spool", "drop", "--output", "siem", "--yes")
    assert site.books()["siem"]["purged"] == EVENTS
    site.run("run", "--once")
    assert receiver.stored() == []


def test_drop_beside_a_running_shipper_is_refused_for_an_output_at_work(site: Site, receiver: Receiver) -> None:
    receiver.stop()
    with site.running():
        assert "the output 'siem' is at work" in site.run("spool", "drop", "--output", "siem", "--yes", code=1)
    assert site.backlog("siem")["events"] == EVENTS
