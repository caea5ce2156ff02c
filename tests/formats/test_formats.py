"""What one event looks like in each format."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shipper.event import FIELDS, Event
from shipper.fields import KINDS, Kind
from shipper.formats import compile_format, readable
from shipper.settings import FormatSettings

FRAME = b'{"type":"DatabaseActivityMonitoringRecord","clusterId":"cluster-X","databaseActivityEventList":['
RAW = b'{"commandText":"select 1","rowCount":1}'


def event(**fields: Any) -> Event:
    return Event(schema_version=1, id="0" * 32, time="2026-03-01T10:20:30.123456Z", **fields)


def written(
    subject: Event,
    settings: str | dict[str, Any] = "native",
    labels: dict[str, str] | None = None,
    raw: bytes = RAW,
    frame: bytes = FRAME,
) -> bytes:
    table = {"type": settings} if isinstance(settings, str) else settings
    return compile_format(FormatSettings.model_validate(table), labels)([subject], [raw], [frame])[0]


SCALARS: dict[Kind, st.SearchStrategy[Any]] = {
    Kind.TEXT: st.text(max_size=40),
    Kind.NUMBER: st.integers(-(2**63), 2**63 - 1),
    Kind.FLAG: st.booleans(),
    Kind.TEXTS: st.lists(st.text(max_size=10), max_size=3),
    Kind.TABLE: st.dictionaries(st.text(max_size=5), st.text(max_size=10), max_size=3),
}
FIELD_VALUES: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"schema_version": st.just(1), "id": st.just("0" * 32), "time": st.text(max_size=40)},
    optional={
        FIELDS[name]: SCALARS[kind]
        for name, kind in KINDS.items()
        if name not in ("schema_version", "id", "time", "category", "outcome")
    },
)
EVENTS = FIELD_VALUES.map(lambda fields: Event(**fields))


# native


def test_native_is_the_event_in_the_order_of_its_fields() -> None:
    line = written(event(category="ddl", user="a", class_="READ", labels={"b": "c"}))
    assert line == (
        b'{"schema_version":1,"id":"00000000000000000000000000000000","time":"2026-03-01T10:20:30.123456Z",'
        b'"category":"ddl","user":"a","class":"READ","labels":{"b":"c"}}'
    )


def test_the_category_other_is_written() -> None:
    assert b'"category":"other"' in written(event())


def test_only_writes_these_fields_in_the_events_order() -> None:
    line = written(
        event(user="a", class_="READ", rows=0), {"type": "native", "only": ["class", "user", "rows", "error"]}
    )
    assert line == b'{"user":"a","class":"READ","rows":0}'
    assert written(event(user="a"), {"type": "native", "only": ["user"]}) == b'{"user":"a"}'


def test_except_writes_all_but_these() -> None:
    line = written(event(user="a", statement="secret"), {"type": "native", "except": ["statement", "schema_version"]})
    assert json.loads(line) == {
        "id": "0" * 32,
        "time": "2026-03-01T10:20:30.123456Z",
        "category": "other",
        "user": "a",
    }


def test_labels_of_the_output_are_added_and_win_without_touching_the_event() -> None:
    subject = event(labels={"env": "prod", "team": "a"})
    line = written(subject, labels={"team": "b", "siem": "x"})
    assert json.loads(line)["labels"] == {"env": "prod", "team": "b", "siem": "x"}
    assert subject.labels == {"env": "prod", "team": "a"}


def test_labels_follow_each_event() -> None:
    encode = compile_format(FormatSettings(), {"siem": "x"})
    first, second = {"a": "1"}, {"a": "2"}
    found = [
        json.loads(encode([event(labels=labels)], [b""], [b""])[0])["labels"]
        for labels in (None, first, second, first, None)
    ]
    assert found == [
        {"siem": "x"},
        {"a": "1", "siem": "x"},
        {"a": "2", "siem": "x"},
        {"a": "1", "siem": "x"},
        {"siem": "x"},
    ]


def test_labels_and_selections_go_together() -> None:
    subject = event(user="u", labels={"a": "1"})
    assert written(subject, {"type": "native", "only": ["labels"]}, {"b": "2"}) == b'{"labels":{"a":"1","b":"2"}}'
    assert b"labels" not in written(subject, {"type": "native", "except": ["labels"]}, {"b": "2"})


@settings(deadline=None)  # the machine may be busy
@given(EVENTS)
def test_native_is_one_line_that_reads_back_as_the_same_event(subject: Event) -> None:
    for labels in (None, {"x": "y"}):
        line = written(subject, labels=labels)
        assert b"\n" not in line
        back = msgspec.json.decode(line, type=Event)
        if labels is None:
            assert back == msgspec.json.decode(msgspec.json.encode(subject), type=Event)
        else:
            assert back.labels is not None
            assert back.labels["x"] == "y"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"only": ["usr"]}, "did you mean 'user'"),
        ({"except": ["usr"]}, "did you mean 'user'"),
        ({"only": ["native.x"]}, "write 'native'"),
        ({"only": []}, "no field is left"),
        ({"except": list(FIELDS)}, "no field is left"),
        ({"only": ["user"], "except": ["id"]}, "exclude each other"),
        ({"type": "raw", "only": ["user"]}, "belong to the format native"),
        ({"type": "pretty", "except": ["user"]}, "belong to the format native"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        written(event(), {"type": "native", **options})


# raw


def test_raw_is_the_record_with_this_one_event() -> None:
    line = written(event(), "raw")
    assert line == FRAME + RAW + b"]}"
    assert json.loads(line)["databaseActivityEventList"] == [json.loads(RAW)]


def test_raw_without_a_record_is_the_event_alone() -> None:
    assert written(event(), "raw", frame=b"") == RAW


def test_raw_never_breaks_the_line() -> None:
    line = written(event(), "raw", raw=b'{\n"a": 1}', frame=b'{\n"databaseActivityEventList":[')
    assert b"\n" not in line
    assert json.loads(line) == {"databaseActivityEventList": [{"a": 1}]}


def test_raw_takes_no_labels() -> None:
    assert written(event(), "raw", {"a": "b"}) == FRAME + RAW + b"]}"


# pretty


def test_pretty_is_one_readable_line() -> None:
    subject = event(
        category="write",
        action="update",
        outcome="success",
        user="alice",
        client_ip="10.0.0.5",
        database="orders",
        schema="public",
        object="customer",
        rows=3,
        duration_ns=12_345_678,
        statement="UPDATE customer\n   SET vip = true",
    )
    assert readable(subject) == (
        "2026-03-01 10:20:30.123456Z  success  write/update  alice@10.0.0.5 → orders public.customer  3 rows  12.3 ms"
        "  UPDATE customer SET vip = true"
    )
    assert written(subject, "pretty").decode() == readable(subject)


def test_pretty_of_an_event_that_knows_little() -> None:
    assert readable(event()) == "2026-03-01 10:20:30.123456Z  unknown  other  ? → ?"


def test_pretty_shows_the_error_where_there_is_no_statement() -> None:
    assert readable(event(category="authentication", error="password wrong")).endswith("  password wrong")


@pytest.mark.parametrize(
    ("nanoseconds", "shown"),
    [
        (0, "0 ns"),
        (999, "999 ns"),
        (1_000, "1 µs"),
        (1_500_000, "1.5 ms"),
        (2 * 10**9, "2 s"),
        (3600 * 10**9, "3600 s"),
    ],
)
def test_durations_have_a_fitting_unit(nanoseconds: int, shown: str) -> None:
    assert f"  {shown}" in readable(event(duration_ns=nanoseconds))


def test_pretty_shortens_what_is_long() -> None:
    line = readable(event(statement="x" * 10**6, user="u" * 10**6, database="d" * 10**6))
    assert len(line) < 500
    assert line.endswith("x…")


def test_pretty_makes_terminal_escapes_visible() -> None:
    line = readable(event(user="\x1b]0;owned\x07", statement="select '\x1b[2J' \u202e \u200b \x9b"))
    assert "\\x1b]0;owned\\x07" in line
    assert "\\x1b[2J" in line
    assert "\\u202e" in line


@settings(deadline=None)  # the machine may be busy
@given(EVENTS)
def test_pretty_is_printable_whatever_the_event_holds(subject: Event) -> None:
    line = written(subject, "pretty").decode()
    assert line.isprintable()
    assert len(line) < 10_000


def test_pretty_survives_a_lone_surrogate() -> None:
    assert b"\\ud800" in written(event(user="a\ud800"), "pretty")
