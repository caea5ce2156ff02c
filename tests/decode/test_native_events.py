"""Native events that are read again."""

from __future__ import annotations

import json

import msgspec
import pytest

from shipper.decode import Decoded, Origin, Reason
from shipper.decode.decoder import RecordDecoder
from shipper.source import Record

ID = "018e0e59d9919e0f62a43c06113c108f"
EVENT = {
    "schema_version": 1,
    "id": ID,
    "time": "2024-03-05T11:22:33.233787Z",
    "engine": "oracle",
    "category": "ddl",
    "class": "Standard",
    "rows": 5,
    "native": {"scn": "5"},
    "labels": {"env": "test"},
    "source_name": "first",
    "arrived": "2024-03-05T11:22:34.000000Z",
}


class NoKeys:
    def data_key(self, blob: bytes, resource_id: str | None) -> bytes:
        raise AssertionError


def decode(data: bytes) -> Decoded:
    decoder = RecordDecoder(Origin("second", "file", labels={"env": "prod", "team": "a"}), NoKeys())
    return decoder.decode(Record(1, data, 1_709_637_753_000_000_000), "42")


def line(**changes: object) -> bytes:
    event = {**EVENT, **changes}
    return json.dumps(
        {name: value for name, value in event.items() if value is not ...}, separators=(",", ":")
    ).encode()


def test_what_an_event_says_stands_and_what_it_lacks_is_filled_in() -> None:
    event = decode(line()).events[0]
    assert json.loads(msgspec.json.encode(event)) == {
        **EVENT,
        "labels": {"env": "test", "team": "a"},
        "source_partition": "file",
        "source_position": "42",
    }


def test_raw_is_the_event_itself_and_no_frame_stands_around_it() -> None:
    decoded = decode(line().replace(b",", b", \n"))
    assert decoded.raw == [line()]
    assert decoded.frame == b""


@pytest.mark.parametrize("id_", ["", "x", ID.upper(), ID + "0", 5, None, ...])
def test_an_event_without_a_valid_id_gets_one_of_its_content(id_: object) -> None:
    event = decode(line(id=id_)).events[0]
    assert event.id != ID
    assert event.id.startswith("018e0e59d991")
    assert event.id == decode(line(id=id_)).events[0].id
    assert event.id != decode(line(id=id_, user="x")).events[0].id
    assert event.extra == (None if id_ in ("", None, ...) else "{" + f'"id":{json.dumps(id_)}' + "}")


@pytest.mark.parametrize("time", ["", "yesterday", 5, None, ..., "1969-12-31T23:59:59Z"])
def test_a_time_that_cannot_be_read_is_that_of_arrival(time: object) -> None:
    event = decode(line(time=time)).events[0]
    assert event.time == "2024-03-05T11:22:33.000000Z"
    assert event.tags == ["time_from_arrival"]
    if time not in ("", None, ...):
        assert event.extra == "{" + f'"time":{json.dumps(time)}' + "}"


def test_times_become_canonical() -> None:
    event = decode(line(time="2024-03-05 12:22:33+01", started="2024-03-05T11:22:33Z")).events[0]
    assert (event.time, event.started) == ("2024-03-05T11:22:33.000000Z", "2024-03-05T11:22:33.000000Z")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("colour", {"a": 1.0}),
        ("rows", "5"),
        ("rows", 2**63),
        ("pid", -(2**70)),
        ("client_port", 70000),
        ("category", "misc"),
        ("native", {"SCN": "5"}),
        ("native", {"scn": 5}),
        ("started", "then"),
        ("statement", ["x"]),
        ("tags", "x"),
    ],
)
def test_what_does_not_fit_goes_to_extra(field: str, value: object) -> None:
    event = decode(line(**{field: value})).events[0]
    assert event.extra == msgspec.json.encode({field: value}).decode()
    assert field == "colour" or field not in json.loads(msgspec.json.encode(event)) or field == "category"
    assert event.category == ("other" if field == "category" else "ddl")
    assert event.id == ID


def test_extra_grows_by_what_is_new() -> None:
    event = decode(line(extra='{"old":1.0}', colour="red")).events[0]
    assert event.extra == '{"old":1.0,"colour":"red"}'


def test_empty_values_are_absent() -> None:
    event = decode(line(user="", objects=[], native={}, error=None)).events[0]
    assert (event.user, event.objects, event.native, event.error) == (None, None, None, None)


def test_a_lone_surrogate_becomes_the_replacement_character() -> None:
    event = decode(line()[:-1] + b',"statement":"a\\ud800"}').events[0]
    assert event.statement == "a\ufffd"
    assert event.id == ID


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (line()[:-1], Reason.JSON_MALFORMED),
        (line()[:-1] + b',"rows":NaN}', Reason.JSON_MALFORMED),
        (line()[:-1] + b',"user":"\xff"}', Reason.JSON_ENCODING),
        (line()[:-1] + b',"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", Reason.JSON_DEPTH),
    ],
)
def test_damage_is_refused_with_its_reason(data: bytes, reason: Reason) -> None:
    decoded = decode(data)
    assert decoded.events == []
    assert [(item.ordinal, item.reason) for item in decoded.refused] == [(None, reason)]
