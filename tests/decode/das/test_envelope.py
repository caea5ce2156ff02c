"""Envelopes are read as JSON, whatever their spelling; what cannot be read has one reason."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shipper.decode import Reason, Undecodable
from shipper.decode.das.envelope import parse_envelope
from shipper.generate.sealing import envelope

MESSAGE = bytes(range(256)) + b"\xfb\xff"
BLOB = b"\x01\x02\x02\x00x" + bytes(range(179))


def written(**changes: Any) -> bytes:
    fields = {
        "type": "DatabaseActivityMonitoringRecords",
        "version": "1.1",
        "databaseActivityEvents": base64.b64encode(MESSAGE).decode(),
        "key": base64.b64encode(BLOB).decode(),
    } | changes
    return json.dumps({key: value for key, value in fields.items() if value is not ...}).encode()


def reason_of(data: bytes) -> Reason:
    with pytest.raises(Undecodable) as caught:
        parse_envelope(data)
    assert "\n" not in caught.value.detail
    return caught.value.reason


@pytest.mark.parametrize("spaced", [False, True])
def test_an_envelope_is_read_with_any_white_space(spaced: bool) -> None:
    found = parse_envelope(envelope(MESSAGE, BLOB, version="1.2", spaced=spaced))
    assert (found.version, found.message, found.key_blob) == ("1.2", MESSAGE, BLOB)
    assert (found.key_text, found.plain, found.unknown) == (base64.b64encode(BLOB).decode(), None, ())
    pretty = json.dumps(json.loads(envelope(MESSAGE, BLOB)), indent=4).encode()
    assert parse_envelope(b" \r\n\t" + pretty + b"\n") == parse_envelope(envelope(MESSAGE, BLOB))


def test_the_order_of_keys_does_not_matter() -> None:
    reverse = json.dumps(dict(reversed(json.loads(written()).items()))).encode()
    assert parse_envelope(reverse) == parse_envelope(written())


def test_unknown_keys_are_named_and_change_nothing() -> None:
    found = parse_envelope(written(zone="x", accountId={"a": [1]}, **{"n\u00fc": None}))
    assert found.unknown == ("accountId", "n\u00fc", "zone")
    assert (found.message, found.key_blob, found.version) == (MESSAGE, BLOB, "1.1")


@pytest.mark.parametrize(("version", "expected"), [("9.9", "9.9"), (1.2, "1.2"), (2, "2"), ("", ""), (..., "")])
def test_any_version_passes(version: Any, expected: str) -> None:
    assert parse_envelope(written(version=version)).version == expected
    assert parse_envelope(written(version=version, more=1)).version == expected


def test_a_type_may_be_missing_but_not_be_another() -> None:
    assert parse_envelope(written(type=...)).message == MESSAGE
    assert reason_of(written(type="DatabaseActivityMonitoringRecord")) == Reason.ENVELOPE_MALFORMED


def test_escapes_inside_the_base64_are_undone() -> None:
    text = written().replace(b"/", b"\\/").replace(b"=", b"\\u003d").replace(b"+", b"\\u002B")
    assert b"\\/" in text
    assert parse_envelope(text) == parse_envelope(written())


def test_events_that_are_an_object_already_are_handed_on_as_written() -> None:
    plain = b'{ "type" : "DatabaseActivityMonitoringRecord", "databaseActivityEventList":[{"rowCount":1.000}] }'
    for key in (b"", b',"key":"AQID"'):
        found = parse_envelope(b'{"databaseActivityEvents": ' + plain + b' ,"version":"1.0"' + key + b"}")
        assert (found.message, found.plain) == (None, plain)
        assert found.key_blob == (b"\1\2\3" if key else b"")


def test_of_a_key_that_is_written_twice_the_last_one_counts() -> None:
    data = b'{"databaseActivityEvents":"AAAA","key":"AQID","databaseActivityEvents":"BBBB"%s}'
    for more in (b"", b',"unknown":1'):
        assert parse_envelope(data % more).message == b"\x04\x10\x41"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        b"{",
        b"NaN",
        written()[:-1],
        written() + b"x",
        written() + written(),
        written(databaseActivityEvents=...),
        written(databaseActivityEvents=None),
        written(databaseActivityEvents=7),
        written(databaseActivityEvents=["QQ=="]),
        written(key=...),
        written(key=None),
        written(key=""),
        written(key=5),
        written(type=5),
        written(version=[]),
        written(version="\ud800"),
        written(databaseActivityEvents="\ud800"),
        written(more=1)[:-1] + b',"x":NaN}',
    ],
)
def test_what_is_no_envelope_is_malformed(data: bytes) -> None:
    assert reason_of(data) == Reason.ENVELOPE_MALFORMED


@pytest.mark.parametrize("text", ["QQ", "QQ=", "Q", "QQ==QQ==", "Q Q=", "QQ-_", "QQ==\n", "\u00fc", "=", "Q\\=="])
def test_base64_is_strict(text: str) -> None:
    assert reason_of(written(databaseActivityEvents=text)) == Reason.BASE64
    assert reason_of(written(key=text)) == Reason.BASE64


def test_an_empty_message_is_left_to_the_reader_of_messages() -> None:
    assert parse_envelope(written(databaseActivityEvents="")).message == b""


@pytest.mark.parametrize("name", ["version", "key", "type", "more", "databaseActivityEvents"])
def test_what_is_not_utf_8_has_its_own_reason(name: str) -> None:
    assert reason_of(written(**{name: "@@"}).replace(b"@@", b"\xff\xfe")) == Reason.JSON_ENCODING


def test_deep_nesting_has_its_own_reason() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    assert reason_of(written()[:-1] + b',"x":' + deep + b"}") == Reason.JSON_DEPTH
    assert reason_of(b'{"databaseActivityEvents":' + deep + b"}") == Reason.JSON_DEPTH


def test_a_ten_mebibyte_envelope_is_read() -> None:
    message = MESSAGE * 30_000
    assert parse_envelope(envelope(message, BLOB)).message == message


def test_no_detail_quotes_data() -> None:
    for data in (written(key="c2VjcmV0!"), written(type="secret"), b'{"secret":', written(version=["secret"])):
        with pytest.raises(Undecodable) as caught:
            parse_envelope(data)
        assert "secret" not in str(caught.value)
        assert "c2Vj" not in str(caught.value)


@given(st.lists(st.tuples(st.integers(0, 1000), st.binary(max_size=3)), min_size=1, max_size=3))
@settings(max_examples=300, deadline=None)
def test_mutations_raise_nothing_else(edits: list[tuple[int, bytes]]) -> None:
    data = bytearray(written(more={"a": [1, None]}))
    for at, replacement in edits:
        data[at % len(data) : at % len(data) + 1] = replacement
    try:
        found = parse_envelope(bytes(data))
    except Undecodable:
        return
    assert (found.message is None) != (found.plain is None)
