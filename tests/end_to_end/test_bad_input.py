"""Whatever is wrong with a record: a dead letter with its own reason, or a correct event. Never a crash, a hang or a
silent loss, and its neighbours arrive."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from shipper.generate.activity import Generator, PlainRecord
from shipper.generate.damage import DAMAGES, damage
from shipper.generate.keys_file import KeysFileWriter
from shipper.generate.sealer import LocalDataKeys, Sealer
from shipper.state import dead_letters, positions
from shipper.state.dead_letters import Filter
from shipper.state.file import read_state
from support.command import shipper, succeeded

GOOD = 20


class Captured:
    """A folder with a file of captured records, and what a run made of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        keys = KeysFileWriter(folder / "keys.json")
        self.sealer = Sealer(LocalDataKeys(keys.add))
        self.generator = Generator("aurora-mysql", seed=9, start=datetime(2026, 3, 5, tzinfo=UTC), events_per_record=1)
        self.records = [record for record in self.generator.records(GOOD * 2) if record.events]

    def run(self, *records: bytes) -> None:
        """Ships these records between whole ones."""
        whole = [self.sealer.seal(record) for record in self.records]
        lines = [*whole[:GOOD], *records, *whole[GOOD : 2 * GOOD]]
        (self.folder / "in.jsonl").write_bytes(b"\n".join(lines) + b"\n")
        (self.folder / "shipper.toml").write_text(
            """
            [sources.captured]
            type = "file"
            path = "in.jsonl"
            keys = { provider = "static", path = "keys.json" }
            [outputs.out]
            type = "file"
            path = "out.jsonl"
            [server]
            listen = ""
            """
        )
        succeeded(shipper("run", "--once", "shipper.toml", cwd=self.folder))
        connection = read_state(self.folder / "state" / "shipper.db")
        self.letters = list(dead_letters.listing(connection, Filter()))
        self.kept = [dead_letters.data_of(connection, letter.id) for letter in self.letters]
        self.books = positions.books(connection)["out"]
        connection.close()
        self.events: list[dict[str, Any]] = [
            json.loads(line) for line in (self.folder / "out.jsonl").read_bytes().splitlines()
        ]

    def extra(self) -> list[dict[str, Any]]:
        """The events that are not of the whole records."""
        assert len(self.events) >= 2 * GOOD, "neighbours of a bad record are missing"
        return self.events[GOOD : len(self.events) - GOOD]


@pytest.fixture
def captured(tmp_path: Path) -> Captured:
    return Captured(tmp_path)


def test_every_kind_of_damage_is_kept_as_it_was_read_with_its_own_reason(captured: Captured) -> None:
    # An empty record is no line of a file; a Kinesis record may be one.
    kinds = [kind for kind in DAMAGES if kind != "empty"]
    broken = {
        kind: damage(captured.sealer, captured.records[0], kind, random.Random(number))
        for number, kind in enumerate(kinds)
    }
    captured.run(*broken.values())
    assert captured.extra() == []
    found = dict(zip(captured.kept, [letter.reason for letter in captured.letters], strict=True))
    assert {kind: found.get(data) for kind, data in broken.items()} == {kind: str(DAMAGES[kind]) for kind in broken}
    assert sum(captured.books["dead_lettered"].values()) == len(broken)
    assert captured.books["offered"] == {"": 2 * GOOD + len(broken)}


def edited(captured: Captured, edit: Callable[[bytes], bytes]) -> bytes:
    """A record, sealed as the engine does, whose plaintext was changed first."""
    record = next(one for one in captured.records if b'"command":"QUERY"' in one.plaintext)
    return captured.sealer.seal(
        PlainRecord(
            record.engine,
            edit(record.plaintext),
            record.events,
            record.instance,
            record.resource_id,
            record.heartbeat,
            record.time,
        )
    )


def replacing(field: bytes, value: bytes) -> Callable[[bytes], bytes]:
    """Puts another value into a field of the record's only event."""

    def edit(plain: bytes) -> bytes:
        before, _, rest = plain.partition(b'"' + field + b'":')
        end = rest.index(b',"')
        return before + b'"' + field + b'":' + value + rest[end:]

    return edit


Event = dict[str, Any]
#: What is odd → how it gets into the plaintext, and what must hold of the event.
ODD: dict[str, tuple[Callable[[bytes], bytes], Callable[[Event], bool]]] = {
    "NUL": (replacing(b"dbUserName", rb'"a\u0000b"'), lambda event: event["user"] == "a\0b"),
    "a lone surrogate": (replacing(b"dbUserName", rb'"a\ud800b"'), lambda event: event["user"] == "a\ufffdb"),
    "duplicate keys": (replacing(b"dbUserName", b'"first","dbUserName":"last"'), lambda event: event["user"] == "last"),
    "a number beyond 64 bits": (
        replacing(b"rowCount", b"123456789012345678901234567890"),
        lambda event: "rows" not in event and "123456789012345678901234567890" in event["extra"],
    ),
    "a wrong type": (
        replacing(b"dbUserName", b"[1]"),
        lambda event: "user" not in event and "[1]" in event["extra"],
    ),
    "an unknown field": (
        replacing(b"dbUserName", b'"u","newField":1.000'),
        lambda event: "1.000" in event["extra"],
    ),
    "10 MB of SQL": (
        replacing(b"commandText", b'"SELECT ' + b"x" * 10_000_000 + b'"'),
        lambda event: len(event["statement"]) == 10_000_007,
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_merely_odd_becomes_a_correct_event(captured: Captured, name: str) -> None:
    edit, check = ODD[name]
    captured.run(edited(captured, edit))
    assert captured.letters == [], name
    (event,) = captured.extra()
    assert check(event), {key: str(value)[:200] for key, value in event.items()}


@pytest.mark.parametrize(
    ("reason", "edit"),
    [
        ("json_malformed", replacing(b"rowCount", b"NaN")),
        ("json_encoding", replacing(b"dbUserName", b'"\xff"')),
        ("json_depth", replacing(b"dbUserName", b"[" * 2000 + b"]" * 2000)),
        ("json_depth", replacing(b"dbUserName", b"[" * 200_000 + b"]" * 200_000)),
    ],
)
def test_one_bad_event_does_not_take_its_neighbours_along(
    captured: Captured, reason: str, edit: Callable[[bytes], bytes]
) -> None:
    def among_neighbours(plain: bytes) -> bytes:
        head, _, event = edit(plain).partition(b'"databaseActivityEventList":[')
        good = plain.partition(b'"databaseActivityEventList":[')[2][:-2]
        bad = event[:-2]
        return head + b'"databaseActivityEventList":[' + good + b"," + bad + b"," + good + b"]}"

    captured.run(edited(captured, among_neighbours))
    first, second = captured.extra()
    assert first["id"] != second["id"], "equal events of one record must stay two"
    assert [(letter.reason, letter.ordinals) for letter in captured.letters] == [(reason, (1,))]
