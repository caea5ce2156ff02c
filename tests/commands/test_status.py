"""``shipper status``: what a running shipper says, what the state file says, and the books."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from support.operations import EVENTS, Site
from support.receiver import Receiver
from support.waiting import until

EVERY = 3


@pytest.fixture
def site(captured: Site, tmp_path: Path) -> Site:
    found = Site(tmp_path)
    found.take_captured(captured)
    return found


@pytest.fixture
def port() -> int:
    """One that nobody listens on."""
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        return server.server_port


def with_server(port: int, host: str = "127.0.0.1") -> str:
    return f'[server]\nlisten = "{host}:{port}"\ndrain_timeout = "2s"'


def asked(site: Site) -> dict[str, Any]:
    found: dict[str, Any] = site.json("status")
    return found


def test_a_running_shipper_says_what_waits_where_and_what_is_held(site: Site, receiver: Receiver, port: int) -> None:
    site.configure(receiver, ["siem", "lake"], more=with_server(port))
    receiver.behave("held", output="siem", reason="credentials", detail="its own words")
    with site.running():
        receiver.wait(lambda: len(receiver.stored("lake")) == EVENTS)
        until(lambda: asked(site)["outputs"]["siem"]["pending"]["spool"], lambda: str(asked(site)))
        found = asked(site)
        text = site.run("status")
    assert (found["from"], found["phase"]) == ("shipper", "running")
    assert found["held"] == [{"component": "output siem", "reason": "credentials"}]
    siem, lake = found["outputs"]["siem"], found["outputs"]["lake"]
    assert sum(siem["pending"].values()) == EVENTS
    assert (siem["held"], siem["last_delivery"], siem["spool"]["max_bytes"]) == ("credentials", None, 10_000_000_000)
    assert siem["spool"]["bytes"] > 0
    assert lake["pending"] == {"queue": 0, "in_flight": 0, "spool": 0}
    assert (lake["held"], lake["books"]["delivered"], lake["books"]["balances"]) == (None, EVENTS, True)
    assert lake["last_delivery"].endswith("Z")
    assert found["sources"]["captured"]["lag_seconds"] < 60
    assert found["sources"]["captured"]["last_read"].endswith("Z")
    assert "held: credentials" in text
    assert "its own words" not in f"{text} {found}"


def test_where_none_runs_the_state_file_says_what_it_knows(site: Site, receiver: Receiver, port: int) -> None:
    site.configure(receiver, ["siem", "lake"], more=with_server(port))
    receiver.behave("rejected", every=EVERY, output="lake")
    receiver.behave("held", output="siem")
    site.once(code=75)
    found = asked(site)
    assert (found["from"], found["phase"], found["held"]) == ("state file", None, [])
    siem, lake = found["outputs"]["siem"], found["outputs"]["lake"]
    assert siem["pending"] == {"queue": None, "in_flight": None, "spool": EVENTS}
    assert lake["dead_letters"] == {"rejected": EVENTS - len(receiver.stored("lake"))}
    assert siem["last_delivery"] is found["sources"]["captured"]["lag_seconds"] is None
    assert Path(found["state"]["path"]) == site.folder / "state" / "shipper.db"
    assert found["state"]["disk_free_bytes"] > 0
    headings, line, *_ = site.run("status").splitlines()
    assert headings.split()[0] == "output"
    assert line.split()[:4] == ["siem", "-", "-", str(EVENTS)]


def test_an_output_that_left_the_configuration_is_shown(site: Site, receiver: Receiver) -> None:
    site.configure(receiver, ["siem"])
    receiver.stop()
    site.once(code=75)
    site.configure(receiver, ["lake"])
    found = asked(site)["outputs"]
    assert (found["siem"]["configured"], found["siem"]["pending"]["spool"]) == (False, EVENTS)
    assert (found["lake"]["configured"], found["lake"]["pending"]["spool"]) == (True, 0)
    assert "left the configuration" in site.run("status")


def test_beyond_loopback_nothing_is_asked(site: Site, receiver: Receiver, port: int) -> None:
    site.configure(receiver, more=with_server(port, "0.0.0.0"))
    with site.running():
        receiver.wait(lambda: len(receiver.stored("siem")) == EVENTS)
        assert asked(site)["from"] == "state file"


@pytest.mark.parametrize("body", [b"no JSON", b"[]", b'{"state": {"path": "/elsewhere/shipper.db"}}', b"{}"])
def test_what_answers_and_is_not_this_shipper_is_not_believed(site: Site, receiver: Receiver, body: bytes) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Keeps the test's output quiet."""

    site.configure(receiver)
    site.once()
    with HTTPServer(("127.0.0.1", 0), Other) as server:
        Thread(target=server.handle_request, daemon=True).start()
        site.configure(receiver, more=with_server(server.server_port))
        assert asked(site)["from"] == "state file"


def test_without_a_state_file_it_says_so(site: Site, receiver: Receiver) -> None:
    site.configure(receiver)
    assert "there is no state file" in site.run("status", code=1)


# -- the books ---------------------------------------------------------------------------------------------------------


def test_the_books_are_those_of_every_output_that_there_ever_was(site: Site, receiver: Receiver) -> None:
    site.configure(receiver, ["siem", "lake"])
    receiver.behave("rejected", every=EVERY, output="siem")
    site.once()
    site.configure(receiver, ["lake"])
    books = site.books()
    refused = EVENTS - len(receiver.stored("siem"))
    assert list(books) == ["siem", "lake"]
    assert {line: books["siem"][line] for line in ("offered", "delivered", "dead_letters", "pending")} == {
        "offered": EVENTS,
        "delivered": EVENTS - refused,
        "dead_letters": refused,
        "pending": 0,
    }
    assert books["siem"]["reasons"] == {"dead_lettered": {"rejected": refused}}
    headings, siem, lake = site.run("status", "--books").splitlines()
    assert headings.split() == ["output", "offered", "delivered", "filtered", "dead", "letters", "pending", "books"]
    assert siem.split() == ["siem", "120", str(EVENTS - refused), "0", str(refused), "0", "balance"]
    assert lake.split() == ["lake", "120", "120", "0", "0", "0", "balance"]


def test_the_books_are_exact_beside_a_running_shipper(site: Site, receiver: Receiver) -> None:
    site.configure(receiver)
    receiver.stop()
    with site.running():
        site.wait_until_spooled("siem", EVENTS)
        assert site.books()["siem"]["pending"] == EVENTS
        receiver.start()
        receiver.wait(lambda: len(receiver.stored("siem")) == EVENTS)
        until(lambda: site.books()["siem"]["delivered"] == EVENTS, lambda: str(site.books()))


def test_books_that_do_not_balance_are_said_with_exit_code_1(site: Site, receiver: Receiver) -> None:
    site.configure(receiver)
    site.once()
    tamper(site, "UPDATE books SET count = count + 1 WHERE entry = 'offered'")
    assert "DO NOT BALANCE" in site.run("status", "--books", code=1)
    assert not json.loads(site.run("status", "--books", "--json", code=1))["outputs"]["siem"]["balances"]


def test_a_dead_letter_that_is_missing_is_said(site: Site, receiver: Receiver) -> None:
    site.configure(receiver)
    receiver.behave("rejected", every=EVERY)
    site.once()
    tamper(site, "DELETE FROM dead_letters WHERE id = 1")
    assert "siem: 1 of its dead letters are missing from the state file" in site.run("status", "--books")


# -- gaps --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("running", [False, True])
def test_a_gap_is_shown_until_it_is_acknowledged(site: Site, receiver: Receiver, *, running: bool) -> None:
    site.configure(receiver)
    site.once()
    tamper(
        site,
        "INSERT INTO gaps (source, partition, since, until, reason, noticed) "
        "VALUES ('captured', 'shard-0', 1e9, 1.1e9, 'expired', 1.2e9)",
    )
    (gap,) = asked(site)["gaps"]
    assert (gap["source"], gap["partition"], gap["since"]) == ("captured", "shard-0", "2001-09-09T01:46:40Z")
    assert "shard-0" in site.run("status")
    if running:
        with site.running():
            assert site.json("status", "--acknowledge-gaps") == {"gaps": 1}
    else:
        assert "1 gaps were acknowledged" in site.run("status", "--acknowledge-gaps")
    assert asked(site)["gaps"] == []


def tamper(site: Site, statement: str) -> None:
    with closing(sqlite3.connect(site.folder / "state" / "shipper.db")) as connection, connection:
        connection.execute(statement)
