"""``shipper dead-letters replay``, ``purge``, ``export``, ``import``: beside a running shipper, and where none runs."""

from __future__ import annotations

import base64
import fcntl
import json
import stat
from collections import Counter
from pathlib import Path

import pytest

from shipper.commands import state_access
from shipper.errors import StateError
from support.operations import EVENTS, Site
from support.receiver import Receiver

#: One event in so many is refused.
EVERY = 3


@pytest.fixture
def site(captured: Site, tmp_path: Path, receiver: Receiver) -> Site:
    """Two outputs have delivered everything but the same third, which they refused; nothing runs any more."""
    found = Site(tmp_path)
    found.take_captured(captured)
    found.configure(receiver, ["siem", "lake"])
    receiver.behave("rejected", every=EVERY)
    found.once()
    receiver.behave("deliver")
    return found


def counts(receiver: Receiver) -> dict[str, int]:
    """How many different events each output has stored; none of them twice."""
    assert all(set(ids.values()) <= {1} for ids in receiver.ids.values())
    return receiver.count()


# -- replay ------------------------------------------------------------------------------------------------------------


def test_replay_with_none_running_delivers_them_and_reads_nothing_new(site: Site, receiver: Receiver) -> None:
    letters = len(site.letters("--output", "siem"))
    site.generate(50, seed=9)  # appended to what the source follows
    site.run("dead-letters", "replay", "--output", "siem")
    assert counts(receiver) == {"siem": EVENTS, "lake": EVENTS - letters}
    assert Counter(letter["output"] for letter in site.letters()) == {"lake": letters}
    assert site.books()["siem"]["replayed_out"] == letters


def test_replay_beside_a_running_shipper_is_carried_out_by_it(site: Site, receiver: Receiver) -> None:
    letters = len(site.letters("--output", "siem"))
    with site.running():
        answer = site.json("dead-letters", "replay", "--output", "siem")
        assert answer == {"events": letters, "records": 0, "by": "running shipper"}
        receiver.wait(lambda: len(receiver.stored("siem")) == EVENTS)
    assert counts(receiver) == {"siem": EVENTS, "lake": EVENTS - letters}
    site.books()


def test_replay_by_id_sends_only_those(site: Site, receiver: Receiver) -> None:
    first, second, *rest = site.letters("--output", "lake")
    site.run("dead-letters", "replay", "--id", str(first["id"]), "--id", str(second["id"]))
    assert receiver.stored("lake")[-2:] == [first["event_id"], second["event_id"]]
    assert site.letters("--output", "lake") == rest


def test_what_is_refused_again_is_a_dead_letter_again(site: Site, receiver: Receiver) -> None:
    before = {(letter["output"], letter["event_id"]) for letter in site.letters()}
    receiver.behave("rejected", every=EVERY)
    site.run("dead-letters", "replay")
    assert {(letter["output"], letter["event_id"]) for letter in site.letters()} == before
    assert site.books()["siem"]["dead_letters"] == len(before) / 2


def test_what_cannot_be_delivered_now_is_in_the_spool_and_75_says_so(site: Site, receiver: Receiver) -> None:
    letters = len(site.letters("--output", "siem"))
    receiver.stop()
    site.run("dead-letters", "replay", "--output", "siem", code=75)
    assert site.letters("--output", "siem") == []
    assert site.backlog("siem")["events"] == letters
    site.books()
    receiver.start()
    site.run("spool", "drain")
    assert counts(receiver)["siem"] == EVENTS


def test_letters_of_an_output_that_left_the_configuration_stay(site: Site, receiver: Receiver) -> None:
    before = site.letters("--output", "lake")
    site.configure(receiver, ["siem"])
    assert "left" not in site.run("dead-letters", "replay", "--output", "siem")
    site.run("dead-letters", "replay", "--output", "lake")
    assert site.letters() == before


def test_a_dry_run_counts_by_output_and_reason_and_touches_nothing(site: Site) -> None:
    state = site.folder / "state" / "shipper.db"
    before, letters = state.read_bytes(), len(site.letters("--output", "siem"))
    for verb in ("replay", "purge"):
        found = site.json("dead-letters", verb, "--output", "siem", "--dry-run")
        counted = [{"output": "siem", "reason": "rejected", "letters": letters}]
        assert found == {"dry_run": True, "letters": letters, "counts": counted}
        assert f"{letters} dead letters would be" in site.run("dead-letters", verb, "--output", "siem", "--dry-run")
    assert state.read_bytes() == before


# -- purge -------------------------------------------------------------------------------------------------------------


def test_purge_deletes_what_was_chosen_and_counts_it(site: Site) -> None:
    letters = len(site.letters("--output", "siem"))
    assert site.json("dead-letters", "purge", "--output", "siem", "--yes") == {"purged": letters}
    assert {letter["output"] for letter in site.letters()} == {"lake"}
    assert site.books()["siem"]["purged"] == letters


def test_purge_beside_a_running_shipper(site: Site) -> None:
    with site.running():
        letters = len(site.letters())
        assert site.json("dead-letters", "purge", "--yes") == {"purged": letters}
        assert site.letters() == []
    site.books()


def test_purge_asks_nobody_where_nobody_can_answer(site: Site) -> None:
    assert "give --yes" in site.run("dead-letters", "purge", code=2, input="y\n")
    assert site.letters()


def test_every_filter_must_hold(site: Site) -> None:
    one, other, *_ = site.letters()
    every = len(site.letters())

    def chosen(*filters: str) -> int:
        counted = site.json("dead-letters", "purge", "--dry-run", *filters)
        return int(counted["letters"])

    assert chosen() == chosen("--since", "1h") == chosen("--source", "captured", "--reason", "rejected") == every
    assert chosen("--since", "2100-01-01") == chosen("--source", "other") == chosen("--reason", "tampered") == 0
    assert chosen("--id", str(one["id"]), "--id", str(other["id"])) == 2
    assert chosen("--id", str(one["id"]), "--reason", "tampered") == 0


# -- export and import -------------------------------------------------------------------------------------------------


def test_an_export_is_imported_elsewhere_and_replayed_there(site: Site, receiver: Receiver, tmp_path: Path) -> None:
    letters = len(site.letters("--output", "siem"))
    site.run("dead-letters", "export", "--output", "siem", "-o", "letters.jsonl")
    assert stat.S_IMODE((site.folder / "letters.jsonl").stat().st_mode) == 0o600
    there = Site(tmp_path / "there")
    there.folder.mkdir()
    there.take_captured(site)
    (there.folder / "captured.jsonl").write_bytes(b"")
    there.configure(receiver)
    export = (site.folder / "letters.jsonl").read_text()
    assert there.run("dead-letters", "import", "-", input=export).startswith(
        f"{letters} dead letters were read, {letters}"
    )
    assert there.books()["siem"]["dead_letters"] == letters
    again = there.json("dead-letters", "import", str(site.folder / "letters.jsonl"))
    assert again == {"read": letters, "new": 0}
    there.run("dead-letters", "replay")
    assert counts(receiver)["siem"] == EVENTS
    assert there.letters() == []
    assert len(site.letters("--output", "siem")) == letters


def test_import_beside_a_running_shipper_and_replay_by_it(site: Site, receiver: Receiver) -> None:
    letters = len(site.letters("--output", "siem"))
    export = site.run("dead-letters", "export", "--output", "siem")
    site.run("dead-letters", "purge", "--output", "siem", "--yes")
    (site.folder / "letters.jsonl").write_text(export)
    with site.running():
        answer = site.json("dead-letters", "import", "letters.jsonl")
        assert answer == {"read": letters, "new": letters}
        site.run("dead-letters", "replay", "--output", "siem")
        receiver.wait(lambda: len(receiver.stored("siem")) == EVENTS)
    site.books()


def test_a_line_that_is_no_dead_letter_is_named_and_those_before_it_are_taken_in(site: Site) -> None:
    first, *_ = site.run("dead-letters", "export").splitlines()
    site.run("dead-letters", "purge", "--yes")
    (site.folder / "letters.jsonl").write_text(f'{first}\n{{"not": "one"}}\n')
    said = site.run("dead-letters", "import", "letters.jsonl", code=1)
    assert "it is number 2, and those before it were taken in" in said
    assert [letter["event_id"] for letter in site.letters()] == [json.loads(first)["event_id"]]


def test_an_export_never_writes_over_a_file(site: Site) -> None:
    (site.folder / "letters.jsonl").write_text("precious")
    assert "exists already" in site.run("dead-letters", "export", "-o", "letters.jsonl", code=1)
    assert (site.folder / "letters.jsonl").read_text() == "precious"


# -- who holds the lock ------------------------------------------------------------------------------------------------


def test_a_request_that_nobody_answers_is_taken_back(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_access, "PATIENCE", 0.3)
    path = site.folder / "state" / "shipper.db"
    change = state_access.Change({"do": "purge", "filter": {}}, lambda _: {"acted": True})
    with (path.parent / "shipper.db.lock").open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StateError, match="has not answered"):
            state_access.carry_out(path, change)
    with state_access.reading(path) as connection:
        assert connection.execute("SELECT count(*) FROM control").fetchone() == (0,)
    assert state_access.carry_out(path, change) == ({"acted": True}, False)


# -- records that could not be decoded ---------------------------------------------------------------------------------


@pytest.fixture
def undecoded(captured: Site, tmp_path: Path, receiver: Receiver) -> Site:
    """Nothing could be decoded, because the keys were wrong; they are right again, and nothing runs."""
    site = Site(tmp_path)
    site.take_captured(captured)
    right = (tmp_path / "keys.json").read_bytes()
    wrong = {blob: base64.b64encode(b"w" * 32).decode() for blob in json.loads(right)}
    (tmp_path / "keys.json").write_text(json.dumps(wrong))
    site.configure(receiver, ["siem", "lake"])
    site.once()
    assert receiver.stored() == []
    (tmp_path / "keys.json").write_bytes(right)
    return site


@pytest.mark.parametrize("running", [False, True])
def test_records_are_decoded_again_for_every_output_when_what_was_wrong_is_mended(
    undecoded: Site, receiver: Receiver, *, running: bool
) -> None:
    letters = len(undecoded.letters("--reason", "wrong_key"))
    assert undecoded.books()["siem"]["dead_letters"] == letters > 1
    if running:
        with undecoded.running():
            answer = undecoded.json("dead-letters", "replay", "--output", "*")
            receiver.wait(lambda: receiver.count() == {"siem": EVENTS, "lake": EVENTS})
    else:
        answer = undecoded.json("dead-letters", "replay", "--output", "*")
    assert (answer["events"], answer["records"]) == (0, letters)
    assert counts(receiver) == {"siem": EVENTS, "lake": EVENTS}
    assert undecoded.letters() == []
    undecoded.books()


def test_what_an_export_holds_of_a_record_is_still_encrypted(undecoded: Site) -> None:
    exported = [json.loads(line) for line in undecoded.run("dead-letters", "export").splitlines()]
    records = (undecoded.folder / "captured.jsonl").read_bytes().splitlines()
    assert [base64.b64decode(line["data"]) for line in exported] == records
