"""Every example of tests/data, from the engine's record to the native events that stand beside it."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from shipper.decode import Decoded, Origin
from shipper.decode.decoder import RecordDecoder
from shipper.event import Event
from shipper.generate.sealing import envelope, seal
from shipper.source import Record

DATA = Path(__file__).parents[2] / "data"
NAMES = sorted(path.name.removesuffix(".record.json") for path in DATA.glob("*.record.json"))
ORIGIN = Origin("orders", "shardId-000000000001", resource_id="cluster-AAAABBBBCCCCDDDDEEEEFFFF22")
SEQUENCE_NUMBER = "49590338271490256608559692538361571095921575989136588898"
ARRIVED = 1_709_637_753_900_000_000
KEY = bytes(range(32))
BLOB = b"a wrapped key"


class OneKey:
    """Answers for one blob and one resource."""

    def data_key(self, blob: bytes, resource_id: str | None) -> bytes:
        assert blob == BLOB
        assert resource_id == ORIGIN.resource_id
        return KEY


def decode(data: bytes) -> Decoded:
    return RecordDecoder(ORIGIN, OneKey()).decode(Record(7, data, ARRIVED), SEQUENCE_NUMBER)


def record(name: str) -> bytes:
    return msgspec.json.format((DATA / f"{name}.record.json").read_bytes(), indent=-1)


def expected(name: str) -> list[object]:
    events = json.loads((DATA / f"{name}.event.json").read_text())
    assert isinstance(events, list)
    return events


def native(events: list[Event]) -> list[object]:
    return [json.loads(msgspec.json.encode(event)) for event in events]


@pytest.mark.parametrize("name", NAMES)
def test_a_decrypted_record_becomes_the_events_beside_it(name: str) -> None:
    decoded = decode(record(name))
    assert decoded.refused == []
    assert native(decoded.events) == expected(name)


@pytest.mark.parametrize("name", NAMES)
def test_white_space_between_tokens_changes_nothing(name: str) -> None:
    spaced = decode((DATA / f"{name}.record.json").read_bytes())
    compact = decode(record(name))
    assert native(spaced.events) == expected(name)
    assert spaced.raw == compact.raw
    assert spaced.frame == compact.frame


@pytest.mark.parametrize("name", NAMES)
def test_every_event_is_one_line_and_can_be_decoded_again_from_frame_and_raw(name: str) -> None:
    decoded = decode(record(name))
    assert len(decoded.raw) == len(decoded.events)
    for event, raw in zip(decoded.events, decoded.raw, strict=True):
        assert b"\n" not in raw
        again = decode(decoded.frame + raw + b"]}" if decoded.frame else raw)
        assert native(again.events) == native([event])


@pytest.mark.parametrize("suite", [0x0178, 0x0378, 0x0478, 0x0578])
@pytest.mark.parametrize("frame_length", [128, 4096, 262_144, 0])
def test_every_example_survives_every_encryption(suite: int, frame_length: int) -> None:
    for name in NAMES:
        sealed = seal(record(name), wrapping_key=KEY, key_blob=BLOB, suite=suite, frame_length=frame_length)
        decoded = decode(sealed)
        assert decoded.refused == [], name
        assert native(decoded.events) == expected(name), name


@pytest.mark.parametrize("name", NAMES)
def test_an_envelope_with_the_decrypted_object_in_it_is_read_without_a_key(name: str) -> None:
    plain = b'{"type":"DatabaseActivityMonitoringRecords","version":"1.1","databaseActivityEvents":%s,"key":"AAAA"}'
    decoded = decode(plain % record(name))
    assert native(decoded.events) == expected(name)


def test_plaintext_that_is_not_compressed_is_read() -> None:
    sealed = seal(record("aurora-mysql-select"), wrapping_key=KEY, key_blob=BLOB, compress=False)
    assert native(decode(sealed).events) == expected("aurora-mysql-select")


def test_a_heartbeat_is_counted_names_the_instance_and_is_no_event() -> None:
    decoded = decode(record("heartbeat"))
    assert (decoded.events, decoded.raw, decoded.refused) == ([], [], [])
    assert decoded.heartbeats == 1
    assert decoded.instance == "db-GGGGHHHHIIIIJJJJKKKKLLLL33"


def test_the_version_of_an_envelope_tells_the_engine_where_nothing_else_does() -> None:
    listed = b'{"databaseActivityEventList":[{"command":"LOGON","logTime":"2024-03-05 11:22:33","exitCode":1017}]}'
    sealed = seal(listed, wrapping_key=KEY, key_blob=BLOB, version="1.3")
    assert decode(sealed).events[0].engine == "oracle"


def test_a_damaged_message_is_refused_with_its_reason() -> None:
    refused = decode(envelope(b"not a message", BLOB)).refused
    assert len(refused) == 1
    assert refused[0].ordinal is None
    assert refused[0].reason.startswith("message_")
