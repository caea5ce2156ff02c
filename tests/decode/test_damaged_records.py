"""Bad input: what is damaged is refused with its reason, and nothing around it is lost."""

from __future__ import annotations

import json
import time

import msgspec
import pytest

from shipper.decode import Decoded, Origin, Reason
from shipper.decode.das.record import MAX_EVENTS
from shipper.decode.decoder import RecordDecoder
from shipper.source import Record

GOOD = b'{"type":"record","command":"SELECT","commandText":"select %d","logTime":"2024-03-05 11:22:33.123456+00"}'
HEAD = (
    b'{"type":"DatabaseActivityMonitoringRecord","clusterId":"cluster-A","instanceId":"db-B",'
    b'"databaseActivityEventList":['
)


class NoKeys:
    def data_key(self, blob: bytes, resource_id: str | None) -> bytes:
        raise AssertionError


def decode(data: bytes) -> Decoded:
    return RecordDecoder(Origin("orders", "shard-1"), NoKeys()).decode(Record(1, data, 1), "1")


def good(number: int) -> bytes:
    return GOOD % number


def listed(*events: bytes) -> bytes:
    return HEAD + b",".join(events) + b"]}"


def extra(name: str, value: str) -> str:
    return "{" + f'"{name}":{value}' + "}"


def member(name: str, value: bytes) -> bytes:
    return good(1)[:-1] + b',"%s":%s}' % (name.encode(), value)


BAD = {
    "NaN": (member("rowCount", b"NaN"), Reason.JSON_MALFORMED),
    "Infinity": (member("rowCount", b"-Infinity"), Reason.JSON_MALFORMED),
    "a number with a leading zero": (member("rowCount", b"01"), Reason.JSON_MALFORMED),
    "a missing comma": (b'{"command":"SELECT" "logTime":"x"}', Reason.JSON_MALFORMED),
    "a comma too many": (good(1)[:-1] + b",}", Reason.JSON_MALFORMED),
    "an escape that does not exist": (member("dbUserName", rb'"\x41"'), Reason.JSON_MALFORMED),
    "a line feed in a string": (member("dbUserName", b'"a\nb"'), Reason.JSON_MALFORMED),
    "quotes that are not escaped": (member("dbUserName", b'"<a b="c"/>"'), Reason.JSON_MALFORMED),
    "an unknown field that is no JSON": (member("colour", b"[1,,2]"), Reason.JSON_MALFORMED),
    "a value that is not UTF-8": (member("dbUserName", b'"\xff\xfe"'), Reason.JSON_ENCODING),
    "a surrogate in UTF-8": (member("dbUserName", b'"\xed\xa0\x80"'), Reason.JSON_ENCODING),
    "a name that is not UTF-8": (member("colour", b"1").replace(b"colour", b"\xff"), Reason.JSON_ENCODING),
    "a native value that is not UTF-8": (
        member("engineNativeAuditFields", b'{"A":"\xff"}'),
        Reason.JSON_ENCODING,
    ),
    "nesting of 1 500": (member("colour", b"[" * 1500 + b"]" * 1500), Reason.JSON_DEPTH),
    "nesting of 100 000": (member("rowCount", b'[{"a":' * 50_000 + b"1" + b"}]" * 50_000), Reason.JSON_DEPTH),
    "native nesting of 300": (
        member("engineNativeAuditFields", b'{"A":' + b"[" * 300 + b"]" * 300 + b"}"),
        Reason.JSON_DEPTH,
    ),
    "a number": (b"5", Reason.SHAPE),
    "null": (b"null", Reason.SHAPE),
    "a list": (b"[" + good(1) + b"]", Reason.SHAPE),
    "an empty object": (b"{}", Reason.SHAPE),
    "an object of unknown fields alone": (b'{"colour":"red"}', Reason.SHAPE),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_event_is_refused_and_its_neighbours_are_shipped(name: str) -> None:
    bad, reason = BAD[name]
    decoded = decode(listed(good(1), bad, good(3), bad, b'{"type":"heartbeat"}', good(6)))
    assert [(item.ordinal, item.reason) for item in decoded.refused] == [(1, reason), (3, reason)]
    assert [event.statement for event in decoded.events] == ["select 1", "select 3", "select 6"]
    assert [event.id for event in decoded.events] == [
        event.id for event in decode(listed(good(1), good(3), good(6))).events
    ]
    assert decoded.raw == [good(1), good(3), good(6)]
    assert decoded.heartbeats == 1
    assert decoded.instance == "db-B"


@pytest.mark.parametrize("name", [name for name in BAD if BAD[name][0].startswith(b'{"type"')])
def test_a_bad_event_that_stands_alone_is_refused_for_the_same_reason(name: str) -> None:
    bad, reason = BAD[name]
    decoded = decode(bad)
    assert decoded.events == []
    assert [(item.ordinal, item.reason) for item in decoded.refused] == [(None, reason)]


def test_details_quote_no_data() -> None:
    for bad, _ in BAD.values():
        for item in decode(listed(bad, good(2))).refused:
            assert "select" not in item.detail
            assert "colour" not in item.detail
            assert len(item.detail) < 200


@pytest.mark.parametrize("length", range(1, len(listed(good(1), good(2))), 7))
def test_a_truncated_record_is_malformed_as_a_whole(length: int) -> None:
    decoded = decode(listed(good(1), good(2))[:length])
    assert decoded.events == []
    assert [(item.ordinal, item.reason) for item in decoded.refused] == [(None, Reason.JSON_MALFORMED)]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.JSON_MALFORMED),
        (b" \n", Reason.JSON_MALFORMED),
        (b"\x1f\x8b\x08 gzip", Reason.JSON_ENCODING),
        (b"version account-id interface", Reason.JSON_MALFORMED),
        (b"{", Reason.JSON_MALFORMED),
        (b'{"a":1}{"b":2}', Reason.JSON_MALFORMED),
        (b"\xff" * 100, Reason.JSON_ENCODING),
        (b"[" * 100_000, Reason.JSON_DEPTH),
        (b'{"a":' * 100_000, Reason.JSON_DEPTH),
        (listed(good(1)) + b"x", Reason.JSON_MALFORMED),
        (listed(good(1)) + listed(good(2)), Reason.JSON_MALFORMED),
        (listed(good(1))[:-1], Reason.JSON_MALFORMED),
        (listed(good(1), b"").replace(b"]}", b"}]"), Reason.JSON_MALFORMED),
    ],
)
def test_what_is_no_json_object_is_refused_whole(data: bytes, reason: Reason) -> None:
    decoded = decode(data)
    assert decoded.events == []
    assert [(item.ordinal, item.reason) for item in decoded.refused] == [(None, reason)]


@pytest.mark.parametrize(
    ("escaped", "text"),
    [
        (rb"a\ud800", "a\ufffd"),
        (rb"\udc00a", "\ufffda"),
        (rb"\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
        (rb"\ude00\ud83d", "\ufffd\ufffd"),
        (rb"\ud800\u0041", "\ufffdA"),
        (rb"\ud83d \ude00", "\ufffd \ufffd"),
        (rb"\\ud800", "\\ud800"),
        (rb"\\\ud800", "\\\ufffd"),
        (rb"\ud83d\ude00", "\U0001f600"),
    ],
)
def test_half_a_character_becomes_the_replacement_character(escaped: bytes, text: str) -> None:
    data = member("dbUserName", b'"%s"' % escaped)
    decoded = decode(listed(good(1), data, good(3)))
    assert decoded.refused == []
    assert [event.user for event in decoded.events] == [None, text, None]
    assert decoded.raw[1] == data
    msgspec.json.encode(decoded.events)


def test_halves_of_characters_are_told_apart_by_the_id() -> None:
    one, other = decode(listed(member("dbUserName", rb'"\ud800"'), member("dbUserName", rb'"\ud801"'))).events
    assert one.id != other.id
    assert one.id[12:] != other.id[12:]


def test_a_lone_surrogate_is_kept_as_it_was_in_extra() -> None:
    event = decode(listed(member("colour", rb'{"a" : "\ud800"}'))).events[0]
    assert event.extra == r'{"colour":{"a":"\ud800"}}'


def test_control_characters_are_legal() -> None:
    event = decode(listed(member("dbUserName", rb'"\u0000\u001f\u007f\n"'))).events[0]
    assert event.user == "\x00\x1f\x7f\n"


def test_of_equal_names_the_last_counts() -> None:
    doubled = b'{"command":"DROP TABLE","command":"SELECT","logTime":"x","colour":1,"colour":2.50,"logTime":"y"}'
    event = decode(listed(doubled)).events[0]
    assert event.command == "SELECT"
    assert event.extra == '{"logTime":"y","colour":2.50}'


def test_an_escaped_name_is_the_name() -> None:
    event = decode(listed(rb'{"\u0063ommand":"SELECT","colo\u0075r":1,"logTime":"2024-03-05 11:22:33"}')).events[0]
    assert event.command == "SELECT"
    assert event.extra == r'{"colo\u0075r":1}'


@pytest.mark.parametrize("number", [b"9223372036854775808", b"-9223372036854775809", b"1" * 30, b"1" * 5000])
@pytest.mark.parametrize("field", ["rowCount", "pid", "sessionId", "exitCode", "remotePort"])
def test_a_number_beyond_64_bits_goes_to_extra(field: str, number: bytes) -> None:
    decoded = decode(listed(good(1), member(field, number)))
    assert decoded.refused == []
    assert decoded.events[1].extra == extra(field, number.decode())
    assert decoded.events[1].statement == "select 1"
    msgspec.json.encode(decoded.events)


@pytest.mark.parametrize("number", ["9223372036854775808", "1" * 30, "five", "1.5", "\uff15", "1_0", " 1", "--1", "-"])
def test_text_that_is_no_number_goes_to_extra(number: str) -> None:
    value = json.dumps(number, ensure_ascii=False)
    assert decode(member("rowCount", value.encode())).events[0].extra == extra("rowCount", value)


@pytest.mark.parametrize("value", ["65536", "-1", "x"])
def test_a_port_that_is_none_goes_to_extra(value: str) -> None:
    event = decode(member("remotePort", json.dumps(value).encode())).events[0]
    assert (event.client_port, event.extra) == (None, extra("remotePort", f'"{value}"'))


@pytest.mark.parametrize("value", [b"1.0", b"true", b"[1]", b'{"a":1e3}'])
def test_values_of_a_wrong_type_go_to_extra_unchanged(value: bytes) -> None:
    for field in ("command", "rowCount", "sessionId", "startTime", "paramList"):
        decoded = decode(listed(member(field, value)))
        if field == "paramList" and value == b"[1]":
            assert decoded.events[0].parameters == ["1"]
            continue
        assert decoded.refused == []
        assert decoded.events[0].extra == extra(field, value.decode())


def test_a_record_of_ten_megabytes_is_read_in_good_time() -> None:
    statement = b'"' + b"x" * 2000 + b'"'
    data = listed(*(member("commandText", statement) for _ in range(5000)), b'{"command":NaN}')
    assert len(data) > 10 << 20
    begin = time.process_time()
    decoded = decode(data)
    assert time.process_time() - begin < 30
    assert len(decoded.events) == 5000
    assert len({event.id for event in decoded.events}) == 5000
    assert [item.ordinal for item in decoded.refused] == [5000]


@pytest.mark.parametrize("unit", [b"1,", b"[],", b"{},", b'"",', b"[[", b'{"a":', b'"\\ud800",', b"\\", b'"', b'"\\"'])
def test_megabytes_of_anything_end_in_good_time(unit: bytes) -> None:
    filling = unit * (2_000_000 // len(unit))
    begin = time.process_time()
    for data in (HEAD + filling, HEAD + filling + b"1]}", good(1)[:-1] + b',"colour":[' + filling + b"1]}"):
        decode(data)
    assert time.process_time() - begin < 60


def test_a_list_longer_than_any_record_is_refused() -> None:
    decoded = decode(listed(*[b"1"] * (MAX_EVENTS + 1)))
    assert [(item.ordinal, item.reason) for item in decoded.refused] == [(None, Reason.TOO_LARGE)]
