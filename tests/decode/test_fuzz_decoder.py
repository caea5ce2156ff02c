"""Whatever the bytes are, decoding ends, raises nothing, and its events can be written."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shipper.decode import Decoded, Origin
from shipper.decode.das.activity import FIELDS
from shipper.decode.decoder import RecordDecoder
from shipper.event import FIELDS as EVENT_FIELDS
from shipper.event import Event
from shipper.source import Record

DATA = Path(__file__).parents[1] / "data"
RECORDS = [path.read_bytes() for path in sorted(DATA.glob("*.record.json"))]
NATIVES = [
    json.dumps(event).encode()
    for path in sorted(DATA.glob("*.event.json"))
    for event in json.loads(path.read_text())[:2]
]
HEAD = b'{"type":"DatabaseActivityMonitoringRecord","instanceId":"db-B","databaseActivityEventList":['
BEFORE = b'{"command":"SELECT","commandText":"before","logTime":"2024-03-05 11:22:33.123456+00"}'
AFTER = b'{"command":"SELECT","commandText":"after","logTime":"2024-03-05 11:22:33.123456+00"}'
HOSTILE = st.sampled_from(
    [b"\xff", b"\\ud800", b"NaN", b'"', b"{", b"}", b"[", b"]", b",", b":", b"\x00", b"\\", b"1e999", b"9" * 40, b" \n"]
)
TEXTS = st.text() | st.sampled_from(["", "0", "2024-03-05 1", "a.b,`c"])
VALUES: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
PIECES = "SELECT WITH AS ( ) , ; ' \" ` /* */ /*! -- # $$ $a$ \\ SET pgaudit. server_audit_ INTO OUTFILE"
QUICK = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class NoKeys:
    def data_key(self, blob: bytes, resource_id: str | None) -> bytes:
        return bytes(32)


DECODER = RecordDecoder(Origin("fuzz", "p"), NoKeys())
READ_AGAIN = msgspec.json.Decoder(Event).decode


def decode(data: bytes) -> Decoded:
    decoded = DECODER.decode(Record(1, data, 1_709_637_753_000_000_000), "1")
    assert len(decoded.raw) == len(decoded.events)
    for event, raw in zip(decoded.events, decoded.raw, strict=True):
        written = json.loads(msgspec.json.encode(event))
        assert READ_AGAIN(msgspec.json.encode(event)) == event
        assert None not in written.values()
        assert "" not in written.values()
        assert event.client_ip is None or event.client_host is None
        raw.decode()
        assert b"\n" not in raw
        if event.extra is not None:
            assert event.extra.startswith("{")
    return decoded


@QUICK
@given(st.binary(max_size=300))
def test_arbitrary_bytes(data: bytes) -> None:
    decoded = decode(data)
    assert decoded.events or decoded.refused or decoded.heartbeats


@QUICK
@given(st.data())
def test_damaged_records(draw: st.DataObject) -> None:
    data = bytearray(draw.draw(st.sampled_from(RECORDS + NATIVES)))
    for _ in range(draw.draw(st.integers(1, 3))):
        at = draw.draw(st.integers(0, len(data)))
        data[at : at + draw.draw(st.integers(0, 5))] = draw.draw(HOSTILE | st.binary(max_size=3))
    decode(bytes(data))


@QUICK
@given(st.dictionaries(st.sampled_from(sorted(FIELDS)) | st.text(), VALUES))
def test_events_of_any_values_leave_their_neighbours_alone(fields: dict[str, object]) -> None:
    event = json.dumps({"command": "SELECT", **fields}).encode()
    decoded = decode(HEAD + BEFORE + b"," + event + b"," + AFTER + b"]}")
    statements = [event.statement for event in decoded.events]
    assert (statements[0], statements[-1]) == ("before", "after")
    assert len(decoded.events) + len(decoded.refused) + decoded.heartbeats == 3


@QUICK
@given(st.dictionaries(st.sampled_from(sorted(EVENT_FIELDS)) | st.text(), VALUES))
def test_native_events_of_any_values(fields: dict[str, object]) -> None:
    native = {"id": "0" * 32, "time": "2024-03-05T11:22:33.000000Z", **fields, "schema_version": 1}
    decoded = decode(json.dumps(native).encode())
    assert len(decoded.events) + len(decoded.refused) == 1


@QUICK
@given(
    st.sampled_from(["SQLSERVER", "oracle", "PostgreSQL", "MySQL", "x"]),
    st.sampled_from(["QUERY", "SET", "COPY", "ALTER ROLE", "CREATE", "LOGIN FAILED", "READ", "CONNECT"]),
    st.lists(st.sampled_from(PIECES.split(" ")) | st.text(max_size=5), max_size=30).map(" ".join),
)
def test_any_statement(engine: str, command: str, statement: str) -> None:
    event = {"command": command, "commandText": statement, "serverType": engine, "logTime": "2024-03-05 11:22:33"}
    assert len(decode(json.dumps(event).encode()).events) == 1
