"""What templates make of events, and which templates are refused."""

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shipper.event import Event
from shipper.templates import MAX_VALUE, check_template, compile_rows, compile_values, is_chosen_by_users, is_constant
from shipper.values import Field, Target, Text, Value

TIME = "2026-03-01T10:20:30.123456Z"


def event(*, time: str = TIME, **fields: Any) -> Event:
    return Event(schema_version=1, id="0" * 32, time=time, **fields)


def rendered(value: Value, *, other: bool = False, **fields: Any) -> str | None:
    (text,) = compile_values([value], other=other)(event(**fields))
    return text


def target(template: str, **fields: Any) -> str | None:
    return rendered(Target(template), **fields)


def text(template: str, **fields: Any) -> str | None:
    return rendered(Text(template), **fields)


# Both kinds


def test_values_come_in_the_order_in_which_they_were_asked_for() -> None:
    render = compile_values([Target("das-{engine}"), Text("{user}"), Field("rows"), Text("fixed")])
    assert render(event(engine="oracle", rows=3)) == ("das-oracle", None, "3", "fixed")


def test_nothing_asked_for_is_an_empty_tuple() -> None:
    assert compile_values([])(event()) == ()


def test_doubled_braces_are_literal() -> None:
    assert text("{{{user}}}", user="a") == "{a}"
    assert target("x{{y}}-{user}", user="a") == "x{y}-a"


def test_several_fields_and_literals() -> None:
    assert text("{instance_id}:{session_id}", instance_id="db-1", session_id="77") == "db-1:77"
    assert target("a/{engine}/{user}/z", engine="oracle", user="bob") == "a/oracle/bob/z"


def test_native_and_labels() -> None:
    assert text("{native.class}/{labels.team.name}", native={"class": "READ"}, labels={"team.name": "x"}) == "READ/x"
    assert target("x-{native.class}") == "x-none"


def test_numbers_and_booleans_as_text() -> None:
    assert text("{client_port}/{statement_truncated}", client_port=5432, statement_truncated=True) == "5432/true"


def test_a_field_named_class() -> None:
    assert text("{class}", class_="READ") == "READ"


# Times


@pytest.mark.parametrize(
    ("strftime", "expected"),
    [
        ("%Y.%m.%d", "2026.03.01"),
        ("%F", "2026-03-01"),
        ("%Y/%m/%d/%H", "2026/03/01/10"),
        ("%H%M%S", "102030"),
        ("%T", "10:20:30"),
        ("%f", "123456"),
        ("%y", "26"),
        ("%j", "060"),
        ("%G-W%V-%u", "2026-W09-7"),
        ("100%%%Y", "100%2026"),
    ],
)
def test_time_formats(strftime: str, expected: str) -> None:
    assert target(f"x-{{time:{strftime}}}") == f"x-{expected}"


def test_every_second_and_day_is_rendered_anew() -> None:
    render = compile_values([Text("{time:%F %T}")])
    times = ["2026-02-28T23:59:59.999999Z", "2026-03-01T00:00:00.000000999Z", "2026-02-28T23:59:59.000000Z"]
    assert [render(event(time=time)) for time in times] == [
        ("2026-02-28 23:59:59",),
        ("2026-03-01 00:00:00",),
        ("2026-02-28 23:59:59",),
    ]


def test_more_days_than_are_remembered() -> None:
    render = compile_values([Text("{time:%S%f}")])
    for number in range(5000):
        assert render(event(time=f"2026-03-01T00:00:01.{number:06}Z")) == (f"01{number:06}",)


def test_an_absent_time_is_none_in_a_target_and_left_out_of_a_text() -> None:
    assert target("x-{started:%Y}") == "x-none"
    assert text("x-{started:%Y}") == "x-"
    assert target("x-{started:%Y}", started="2025-01-01T00:00:00.000000Z") == "x-2025"


@pytest.mark.parametrize(
    "time",
    [
        "yesterday",
        "../../../../etc",
        "2026-13-01T00:00:00.000000Z",
        "2026-03-01T10:20:30./../aZ",
        "2026-W10-1T00:00:00.0Z",
        "\uff12\uff10\uff12\uff16-01-01T00:00:00.0",
    ],
)
def test_what_is_no_time_cannot_get_into_a_target(time: str) -> None:
    assert re.fullmatch(r"x-(none|[0-9]{4}\.[0-9]{2})", target("x-{time:%Y.%m}", time=time) or "")
    assert target("x-{time:%Y%m%dT%H%M%S%f}", time=time) == "x-none"


# Targets


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("orders-prod_1", "orders-prod_1"),
        ("App Name/v1", "App_Name_v1"),
        ("../../etc/passwd", "_.._etc_passwd".replace("..", ".")),
        ("..", "none"),
        (".hidden.", "hidden"),
        ("a..b...c", "a.b.c"),
        ("héllo", "h_llo"),
        ("a\x00b\nc", "a_b_c"),
        ("*,?<>|", "______"),
        ("x" * 300, "x" * 100),
        ("x" * 99 + ".y", "x" * 99),
    ],
)
def test_values_in_targets_are_reduced(value: str, expected: str) -> None:
    assert target("t-{user}", user=value) == f"t-{expected}"


def test_absent_values_in_targets_are_none_or_the_default() -> None:
    assert target("t-{user}") == "t-none"
    assert target("t-{user:-nobody}") == "t-nobody"
    assert target("t-{user:-nobody}", user="..") == "t-nobody"
    assert target("t-{user:-nobody}", user="bob") == "t-bob"
    assert target("t-{user:-}") == "t-none"


def test_lower_case_concerns_the_whole_target() -> None:
    assert rendered(Target("DAS-{user}", lower=True), user="Bob") == "das-bob"
    assert rendered(Target("DAS", lower=True)) == "das"
    assert rendered(Target("DAS-{user}"), user="Bob") == "DAS-Bob"


def test_one_target_too_many_has_other_for_every_value() -> None:
    assert rendered(Target("T-{user}/{time:%F}.log"), other=True, user="x") == "T-other/other.log"
    assert rendered(Target("T-{user:-x}", lower=True), other=True) == "t-other"
    assert rendered(Text("{user}"), other=True, user="bob") == "bob"
    assert rendered(Field("user"), other=True, user="bob") == "bob"


@settings(deadline=None)  # the machine may be busy
@given(st.text(max_size=300), st.text(max_size=150), st.text(max_size=40))
def test_a_rendered_target_is_always_safe(user: str, application: str, time: str) -> None:
    render = compile_values([Target("t/{user}.{client_application:-x}-{time:%Y%m}.{native.a}")])
    (place,) = render(event(user=user, client_application=application, native={"a": user}, time=time))
    assert place is not None
    assert re.fullmatch(r"t/[A-Za-z0-9_.-]+", place)
    assert ".." not in place
    assert len(place) <= 2 + 4 * MAX_VALUE + 3


@settings(deadline=None)  # the machine may be busy
@given(st.text(alphabet="./_-a\\ \x00é", max_size=250))
def test_a_value_alone_neither_begins_nor_ends_with_a_dot(user: str) -> None:
    place = target("t-{user}", user=user) or ""
    assert re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", place[2:])
    assert len(place) <= 2 + MAX_VALUE


# Texts


def test_control_characters_are_removed_from_texts() -> None:
    assert text("{user}", user="a\r\nb\x1b[31mc\x7f\x85\u2028d") == "ab[31mcd"
    assert text("{user}", user="Zoë → ok") == "Zoë → ok"


def test_a_text_of_which_nothing_is_left_is_absent() -> None:
    assert text("{user}") is None
    assert text("{user}", user="\x00\x01") is None
    assert text("{user:-}") is None
    assert text("") is None


def test_absent_values_in_texts_are_left_out_or_the_default() -> None:
    assert text("a{user}b") == "ab"
    assert text("a{user:- the default }b") == "a the default b"
    assert text("{user:-x}", user="\n") == "x"


@settings(deadline=None)  # the machine may be busy
@given(st.text(max_size=200))
def test_a_text_never_has_control_characters(user: str) -> None:
    value = text("<{user}>", user=user) or ""
    assert not re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029]", value)


# Fields


def test_a_field_is_unchanged() -> None:
    assert rendered(Field("user"), user="a\nb") == "a\nb"
    assert rendered(Field("user")) is None
    assert rendered(Field("rows"), rows=0) == "0"
    assert rendered(Field("statement_truncated"), statement_truncated=False) == "false"
    assert rendered(Field("tags"), tags=["a", "b"]) == '["a","b"]'
    assert rendered(Field("native"), native={"a": "b"}) == '{"a":"b"}'
    assert rendered(Field("native.a"), native={"a": "b"}) == "b"
    with pytest.raises(ValueError, match="did you mean 'user'"):
        compile_values([Field("usr")])


# Constants


def test_constant_values_are_one_tuple_for_every_event() -> None:
    values: list[Value] = [Target("das"), Text("x}}")]
    render = compile_values(values)
    assert render(event()) == ("das", "x}")
    assert render(event()) is render(event(user="x"))
    assert is_constant(values)
    assert is_constant([])


@pytest.mark.parametrize("values", [[], [Target("das")], [Text("x"), Field("user"), Target("das-{user}")]])
def test_many_events_are_rendered_as_each_of_them_is(values: list[Value]) -> None:
    events = [event(user=user) for user in ("a", "b", None)]
    render = compile_values(values)
    assert compile_rows(values)(events) == [render(one) for one in events]
    assert compile_rows(values)([]) == []


def test_one_value_that_depends_on_the_event_is_enough_to_be_no_constant() -> None:
    values: list[Value] = [Target("a{user}"), Text("{time:%Y}"), Field("id")]
    for value in values:
        assert not is_constant([Text("x"), value])


# Refusals


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("x-{usr}", "did you mean 'user'"),
        ("x-{}", "no field"),
        ("x-{user", "without its other half"),
        ("x-user}", "write '}}'"),
        ("x-{a{b}", "without its other half"),
        ("x-{native}", "write {native.KEY}"),
        ("x-{tags}", "list"),
        ("x-{user:%Y}", "no time"),
        ("x-{user:none}", "write {user:-TEXT}"),
        ("x-{time:%q}", "%q"),
        ("x-{time:}", "directive"),
        ("x-{time:abc}", "directive"),
        ("x-{time:%}", "known are"),
        ("x\n{user}", "control character"),
        ("x-{user:-a\tb}", "control character"),
    ],
)
@pytest.mark.parametrize("kind", [True, False])
def test_wrong_templates_are_refused(template: str, says: str, kind: bool) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        check_template(template, target=kind)
    with pytest.raises(ValueError, match=re.escape(says)):
        compile_values([Target(template) if kind else Text(template)])


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("", "begins with a value"),
        ("{user}-x", "literal text"),
        ("{time:%Y}", "literal text"),
        ("/{user}/x", "top-level"),
        ("./{user}", "top-level"),
        ("../x", "'..'"),
        ("logs/../{user}", "'..'"),
        ("logs/{user}/../x", "'..'"),
        ("logs.{time:.%Y}", "'..'"),
        ("x-{user:-a/b}", "default"),
        ("x-{user:-..}", "default"),
    ],
)
def test_templates_that_would_be_unsafe_as_targets_are_refused(template: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        check_template(template, target=True)
    check_template(template, target=False)


@pytest.mark.parametrize(
    "template", ["x", "/var/log/{user}/a.log", "das-{time:%Y/%m/%d}", "a.{user}.b", "{{x}}-{user}"]
)
def test_good_targets_pass(template: str) -> None:
    check_template(template, target=True)


@pytest.mark.parametrize(
    ("value", "chosen"),
    [
        (Target("audit-{database}"), True),
        (Target("audit-{time:%Y.%m.%d}-{user:-none}"), True),
        (Target("audit-{time:%Y.%m.%d}"), False),
        (Target("audit-{cluster}-{engine}-{labels.env}"), False),
        (Target("audit"), False),
        (Text("{user}"), False),
    ],
)
def test_a_target_that_users_of_the_database_can_choose_is_known(value: Target | Text, chosen: bool) -> None:
    assert is_chosen_by_users(value) is chosen
