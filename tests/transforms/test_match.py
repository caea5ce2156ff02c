"""What a match table says about an event."""

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from shipper.event import CATEGORIES, Event
from shipper.transforms.match import MODIFIERS, MatchError, compile_match


def event(**fields: Any) -> Event:
    return Event(schema_version=1, id="0" * 32, time="2026-03-01T10:00:00.000000Z", **fields)


def matches(table: dict[str, Any], *, cased: bool = False, **fields: Any) -> bool:
    answer = compile_match(table, cased=cased)(event(**fields))
    assert isinstance(answer, bool)
    return answer


def refusal(table: dict[str, Any], *, cased: bool = False) -> MatchError:
    with pytest.raises(MatchError) as caught:
        compile_match(table, cased=cased)
    return caught.value


# Whole values


def test_a_text_matches_whole_and_in_any_case() -> None:
    assert matches({"user": "Alice"}, user="aLICE")
    assert not matches({"user": "Alice"}, user="alice2")
    assert not matches({"user": "Alice"}, user="my alice")


def test_case_folds_beyond_ascii() -> None:
    assert matches({"user": "STRASSE"}, user="straße")


def test_cased_tables_and_the_cased_modifier_compare_exactly() -> None:
    assert not matches({"user": "rdsadmin"}, cased=True, user="RDSAdmin")
    assert matches({"user": "rdsadmin"}, cased=True, user="rdsadmin")
    assert not matches({"user|cased": "rdsadmin"}, user="RDSAdmin")
    assert matches({"user|cased": ["rdsadmin", "RDSAdmin"]}, user="RDSAdmin")


def test_cased_reaches_into_nested_tables_and_partial_comparisons() -> None:
    table = {"any": [{"not": {"user": "a"}}, {"user|contains": "B"}]}
    assert matches(table, cased=True, user="A")
    assert not matches({"any": [{"user|contains": "B"}]}, cased=True, user="b")


def test_a_list_means_any_of() -> None:
    assert matches({"user": ["alice", "bob"]}, user="bob")
    assert not matches({"user": ["alice", "bob"]}, user="carol")


def test_every_key_must_hold() -> None:
    table = {"user": "alice", "database": "orders", "rows|gt": 5}
    assert matches(table, user="alice", database="orders", rows=6)
    assert not matches(table, user="alice", database="orders", rows=5)
    assert not matches(table, user="alice", database="other", rows=6)
    assert not matches(table, user="bob", database="orders", rows=6)


def test_an_asterisk_is_literal() -> None:
    assert not matches({"user": "a*"}, user="alice")
    assert matches({"user": "a*"}, user="a*")


@pytest.mark.parametrize(
    "table",
    [
        {"user": "x"},
        {"user|contains": "x"},
        {"user|startswith": "x"},
        {"user|endswith": "x"},
        {"user|re": "x"},
        {"user|cased": "x"},
        {"client_ip|cidr": "0.0.0.0/0"},
        {"rows": 0},
        {"rows|gt": -1},
        {"rows|lt": 1},
        {"rows|gte": 0},
        {"rows|lte": 0},
        {"statement_truncated": False},
        {"tags": "x"},
        {"tags|all": ["x"]},
        {"native.x": "x"},
        {"native.x|gt": 0},
        {"labels.x|re": "."},
        {"outcome": "success"},
    ],
)
def test_a_condition_on_an_absent_field_is_false(table: dict[str, Any]) -> None:
    assert not matches(table)
    assert matches({"not": table})


def test_a_list_field_matches_if_any_element_does() -> None:
    assert matches({"privileges": "select"}, privileges=["INSERT", "SELECT"])
    assert not matches({"privileges": "select"}, privileges=["INSERT"])
    assert matches({"objects|startswith": "public."}, objects=["a.b", "Public.orders"])
    assert not matches({"tags": "x"}, tags=[])


def test_an_absent_bind_value_is_no_text() -> None:
    assert matches({"parameters|contains": "se"}, parameters=[None, "secret"])
    assert not matches({"parameters|contains": "n"}, parameters=[None])


def test_numbers_and_booleans_are_typed() -> None:
    assert matches({"client_port": [5432, 5433]}, client_port=5433)
    assert matches({"client_port": "5432"}, client_port=5432)  # what ${PORT} becomes
    assert matches({"statement_truncated": True}, statement_truncated=True)
    assert matches({"statement_truncated": "false"}, statement_truncated=False)
    assert not matches({"statement_truncated": True}, statement_truncated=False)


# Modifiers


def test_contains_startswith_and_endswith_ignore_case_and_take_lists() -> None:
    assert matches({"statement|contains": ["grant", "ALL PRIV"]}, statement="Grant all privileges")
    assert matches({"statement|startswith": ["drop", "GRANT"]}, statement="grant all")
    assert matches({"statement|endswith": ["ALL", "x"]}, statement="grant all")
    assert not matches({"statement|startswith": "all"}, statement="grant all")
    assert not matches({"statement|endswith": "grant"}, statement="grant all")
    assert not matches({"statement|contains": "revoke"}, statement="grant all")


def test_partial_comparisons_can_be_cased() -> None:
    assert not matches({"statement|contains|cased": "GRANT"}, statement="grant all")
    assert matches({"statement|cased|startswith": "grant"}, statement="grant all")
    assert not matches({"statement|endswith|cased": "ALL"}, statement="grant all")


def test_all_asks_for_every_value() -> None:
    assert matches({"statement|contains|all": ["from", "payroll"]}, statement="select * FROM hr.payroll")
    assert not matches({"statement|contains|all": ["from", "payroll"]}, statement="select * from hr.staff")
    assert matches({"privileges|all": ["select", "insert"]}, privileges=["insert", "update", "SELECT"])
    assert not matches({"privileges|all": ["select", "insert"]}, privileges=["select"])
    assert matches({"statement|re|all": [r"^select\b", r"payroll$"]}, statement="select * from payroll")
    assert not matches({"statement|re|all": [r"^select\b", r"payroll$"]}, statement="select * from payroll2")


def test_re_searches_and_minds_case_unless_told_otherwise() -> None:
    assert matches({"statement|re": r"drop\s+table"}, statement="please drop\n table x")
    assert not matches({"statement|re": "drop"}, statement="DROP")
    assert matches({"statement|re": "(?i)drop"}, statement="DROP")
    assert matches({"statement|re": ["nothing", "^a.c$"]}, statement="aéc")


def test_re_survives_a_lone_surrogate() -> None:
    assert matches({"statement|re": "drop"}, statement="\ud800 drop")


def test_re_takes_linear_time() -> None:
    test = compile_match({"statement|re": "(a+)+$"})
    hostile = event(statement="a" * 100_000 + "b")
    assert not test(hostile)  # a backtracking engine would still be at it when the universe ends


def test_re_that_exhausts_its_memory_still_answers_rightly() -> None:
    test = compile_match({"statement|re": "(x{500}.{400}){2}$"})
    assert test(event(statement="x" * 1800))
    assert not test(event(statement="x" * 1800 + "\n"))


@pytest.mark.parametrize(
    ("network", "address", "inside"),
    [
        ("10.0.0.0/8", "10.255.0.1", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("192.0.2.7", "192.0.2.7", True),
        ("fd00::/8", "fd12::1", True),
        ("fd00::/8", "10.0.0.1", False),
        ("10.0.0.0/8", "::ffff:10.1.2.3", True),
        ("0.0.0.0/0", "localhost", False),
        ("0.0.0.0/0", "1" * 100_000, False),
    ],
)
def test_cidr(network: str, address: str, inside: bool) -> None:
    assert matches({"client_ip|cidr": ["203.0.113.0/24", network]}, client_ip=address) is inside
    assert matches({"native.peer|cidr": network}, native={"peer": address}) is inside


@pytest.mark.parametrize(
    ("key", "rows"),
    [("rows|gt", (False, False, True)), ("rows|gte", (False, True, True)),
     ("rows|lt", (True, False, False)), ("rows|lte", (True, True, False))],
)  # fmt: skip
def test_orderings(key: str, rows: tuple[bool, ...]) -> None:
    assert tuple(matches({key: 10}, rows=n) for n in (9, 10, 11)) == rows
    assert tuple(matches({key: "10"}, rows=n) for n in (9, 10, 11)) == rows


def test_orderings_read_numbers_from_native_text() -> None:
    assert matches({"native.cost|gt": 1.5}, native={"cost": "2"})
    assert matches({"native.cost|gt": 1.5}, native={"cost": "1.6e0"})
    assert not matches({"native.cost|gt": 1.5}, native={"cost": "many"})
    assert not matches({"native.cost|gt": 1.5}, native={"cost": "9" * 100_000})
    assert matches({"native.cost|gte": 10**15 + 1}, native={"cost": str(10**15 + 1)})


def test_exists() -> None:
    assert matches({"error|exists": True}, error="x")
    assert not matches({"error|exists": True})
    assert matches({"error|exists": False})
    assert not matches({"error|exists": False}, error="x")
    assert matches({"native.x|exists": False}, native={"y": "1"})
    assert matches({"native|exists": True}, native={"y": "1"})
    assert matches({"client_port|exists": True}, client_port=0)


# Nesting and tables of values


def test_not_and_any_nest() -> None:
    table = {"category": "ddl", "not": {"any": [{"user": "flyway"}, {"client_ip|cidr": "10.0.0.0/8"}]}}
    assert matches(table, category="ddl", user="alice", client_ip="192.0.2.1")
    assert not matches(table, category="ddl", user="flyway", client_ip="192.0.2.1")
    assert not matches(table, category="ddl", user="alice", client_ip="10.0.0.1")
    assert not matches(table, category="read", user="alice")


def test_native_and_labels_as_dotted_keys_and_as_tables() -> None:
    fields: dict[str, Any] = {"native": {"class": "READ", "n": "1"}, "labels": {"team.name": "payments"}}
    assert matches({"native.class": "read", "labels.team.name": "Payments"}, **fields)
    assert matches({"native": {"class": "read", "n|gt": 0}}, **fields)
    assert not matches({"native": {"class": "write"}}, **fields)
    assert not matches({"native": {"class": "read", "n|gt": 1}}, **fields)


def test_class_is_a_field() -> None:
    assert matches({"class": "read"}, class_="READ")


def test_a_nested_table_means_the_same_for_every_event() -> None:
    test = compile_match({"any": [{"user": "a"}, {"user": "b"}]})
    assert [test(event(user=user)) for user in "abcab"] == [True, True, False, True, True]


# Enumerated fields


def test_enumerated_values_are_known_ones_in_any_case() -> None:
    assert matches({"category": ["DDL", "privilege"]}, category="ddl")
    assert matches({"engine|startswith": "AURORA-"}, engine="aurora-mysql")
    assert matches({"engine|re": "mysql"}, engine="mysql")


# Refusals


@pytest.mark.parametrize(
    ("table", "key", "says"),
    [
        ({}, "", "every event"),
        ({"usr": "x"}, "usr", "did you mean 'user'"),
        ({"dbUserName": "x"}, "dbUserName", "did you mean 'user'"),
        ({"Database": "x"}, "Database", "did you mean 'database'"),
        ({"zzzzzz": "x"}, "zzzzzz", "native.KEY"),
        ({"user.name": "x"}, "user.name", "no field"),
        ({"native.Foo-Bar": "x"}, "native.Foo-Bar", "lower-case"),
        ({"native.": "x"}, "native.", "native.KEY"),
        ({"native": "x"}, "native", "native.KEY"),
        ({"labels|contains": "x"}, "labels|contains", "labels.KEY"),
        ({"user|contain": "x"}, "user|contain", "did you mean |contains"),
        ({"user|": "x"}, "user|", "modifier"),
        ({"user|contains|startswith": "x"}, "user|contains|startswith", "exclude each other"),
        ({"user|cased|cased": "x"}, "user|cased|cased", "twice"),
        ({"user|re|cased": "x"}, "user|re|cased", "(?i)"),
        ({"user|exists|cased": True}, "user|exists|cased", "stands alone"),
        ({"client_ip|cidr|all": ["10.0.0.0/8"]}, "client_ip|cidr|all", "stands alone"),
        ({"user": []}, "user", "empty list"),
        ({"user": ""}, "user", "|exists"),
        ({"user|contains": ["a", ""]}, "user|contains", "|exists"),
        ({"user": 5}, "user", 'write "5"'),
        ({"user": True}, "user", "holds text, not true"),
        ({"user": {"name": "x"}}, "user", "a table"),
        ({"user|all": "a"}, "user|all", "needs a list"),
        ({"user|all": ["a", "b"]}, "user|all", "one value"),
        ({"rows": "many"}, "rows", "whole number"),
        ({"rows": True}, "rows", "whole number"),
        ({"rows": 1.5}, "rows", "whole number"),
        ({"rows|contains": "1"}, "rows|contains", "means nothing"),
        ({"rows|gt": [1, 2]}, "rows|gt", "one number"),
        ({"rows|gt": True}, "rows|gt", "one number"),
        ({"rows|gt": float("nan")}, "rows|gt", "one number"),
        ({"user|gt": 5}, "user|gt", "compares numbers"),
        ({"statement_truncated": 1}, "statement_truncated", "true or false"),
        ({"user|exists": "yes"}, "user|exists", "true or false"),
        ({"client_ip|cidr": "10.0.0.1/8"}, "client_ip|cidr", "write '10.0.0.0/8'"),
        ({"client_ip|cidr": "nowhere"}, "client_ip|cidr", "not a network"),
        ({"user|cidr": "10.0.0.0/8"}, "user|cidr", "client_ip"),
        ({"statement|re": "(?=x)"}, "statement|re", "look-around"),
        ({"statement|re": "("}, "statement|re", "no pattern"),
        ({"statement|re": "x" * 20_000}, "statement|re", "longer than"),
        ({"category": "dll"}, "category", "did you mean 'ddl'"),
        ({"outcome": ["success", "failed"]}, "outcome", "failure"),
        ({"engine": "postgres"}, "engine", "did you mean 'postgresql'"),
        ({"engine|startswith": "rds-"}, "engine|startswith", "it can be"),
        ({"not": {"usr": "x"}}, "not.usr", "user"),
        ({"any": [{"user": "a"}, {"not": {"rows": "x"}}]}, "any.1.not.rows", "whole number"),
        ({"any": {}}, "any", "not a list"),
        ({"any": []}, "any", "not a list"),
        ({"any": [{}]}, "any.0", "every event"),
        ({"any": ["x"]}, "any.0", "not a table"),
        ({"not": "x"}, "not", "not a table"),
        ({"native": {"a|contain": "x"}}, "native.a|contain", "|contains"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_with_its_place_and_a_way_out(table: dict[str, Any], key: str, says: str) -> None:
    error = refusal(table)
    assert error.key == key
    assert says in f"{error.message}; {error.mend}"
    assert str(error).startswith(key)


def test_a_cased_table_takes_enumerated_values_as_events_spell_them() -> None:
    assert "did you mean 'ddl'" in refusal({"category": "DDL"}, cased=True).mend
    assert matches({"category": "ddl"}, cased=True, category="ddl")


def test_endless_nesting_is_refused() -> None:
    table: dict[str, Any] = {"user": "x"}
    for _ in range(1000):
        table = {"not": table}
    assert "deep" in refusal(table).message


# Against a slow and simple reading of the same language


TEXTS = st.text(alphabet="aAbB*.\u017fs\u1e9e\n", min_size=1, max_size=4)
NAMES = st.sampled_from(["user", "statement", "native.k", "labels.k"])


def _text_condition(draw: DrawFn) -> tuple[str, Any]:
    how = draw(st.sampled_from(["", "contains", "startswith", "endswith"]))
    key = draw(NAMES) + (f"|{how}" if how else "") + draw(st.sampled_from(["", "|cased"]))
    many = draw(st.lists(TEXTS, min_size=1, max_size=3))
    if how and draw(st.booleans()):
        return key + "|all", many
    return key, many if draw(st.booleans()) else many[0]


@st.composite
def conditions(draw: DrawFn) -> tuple[str, Any]:
    kind = draw(st.sampled_from(["text", "list", "rows", "order", "exists", "category"]))
    if kind == "text":
        return _text_condition(draw)
    if kind == "list":
        every = draw(st.booleans())
        return "tags|all" if every else "tags", draw(st.lists(TEXTS, min_size=1, max_size=2))
    if kind == "rows":
        return "rows", draw(st.lists(st.integers(0, 3), min_size=1, max_size=2))
    if kind == "order":
        return "rows|" + draw(st.sampled_from(["gt", "gte", "lt", "lte"])), draw(st.integers(0, 3))
    if kind == "exists":
        return draw(st.sampled_from(["user", "tags", "rows", "native.k"])) + "|exists", draw(st.booleans())
    return "category", draw(st.lists(st.sampled_from(CATEGORIES), min_size=1, max_size=2))


FLAT = st.lists(conditions(), min_size=1, max_size=3).map(dict)
TABLES = st.recursive(
    FLAT,
    lambda inner: st.one_of(
        st.tuples(FLAT, inner).map(lambda pair: {**pair[0], "not": pair[1]}),
        st.lists(inner, min_size=1, max_size=3).map(lambda tables: {"any": tables}),
    ),
    max_leaves=4,
)
EVENTS = st.fixed_dictionaries(
    {"category": st.sampled_from(CATEGORIES)},
    optional={
        "user": TEXTS,
        "statement": TEXTS,
        "rows": st.integers(0, 3),
        "tags": st.lists(TEXTS, max_size=3),
        "native": st.dictionaries(st.just("k"), TEXTS),
        "labels": st.dictionaries(st.just("k"), TEXTS),
    },
)


def slow(table: dict[str, Any], fields: dict[str, Any], cased: bool) -> bool:
    return all(_slow_key(key, value, fields, cased) for key, value in table.items())


def _slow_key(key: str, wanted: Any, fields: dict[str, Any], cased: bool) -> bool:
    if key == "not":
        return not slow(wanted, fields, cased)
    if key == "any":
        return any(slow(table, fields, cased) for table in wanted)
    name, *modifiers = key.split("|")
    found: Any
    if "." in name:
        outer, inner = name.split(".")
        found = fields.get(outer, {}).get(inner)
    else:
        found = fields.get(name)
    if "exists" in modifiers:
        return (found is not None) is wanted
    if found is None:
        return False
    present = found if isinstance(found, list) else [found]
    verdicts = [
        any(_slow_compare(one, want, modifiers, cased) for one in present)
        for want in (wanted if isinstance(wanted, list) else [wanted])
    ]
    return all(verdicts) if "all" in modifiers else any(verdicts)


def _slow_compare(one: Any, want: Any, modifiers: list[str], cased: bool) -> bool:
    if isinstance(one, str) and not (cased or "cased" in modifiers):
        one, want = one.casefold(), want.casefold()
    escaped = re.escape(want) if isinstance(want, str) else ""
    verdicts: dict[str, Callable[[], Any]] = {
        "contains": lambda: re.search(escaped, one) is not None,
        "startswith": lambda: re.match(escaped, one) is not None,
        "endswith": lambda: re.search(escaped + r"\Z", one) is not None,
        "gt": lambda: one > want,
        "gte": lambda: one >= want,
        "lt": lambda: one < want,
        "lte": lambda: one <= want,
    }
    for modifier, verdict in verdicts.items():
        if modifier in modifiers:
            return bool(verdict())
    return bool(one == want)


@settings(deadline=None)  # the machine may be busy
@given(TABLES, EVENTS, st.booleans())
def test_agrees_with_a_slow_reading_of_the_language(table: dict[str, Any], fields: dict[str, Any], cased: bool) -> None:
    assert compile_match(table, cased=cased)(event(**fields)) is slow(table, fields, cased)


# The manual


def _documented_tables() -> list[tuple[dict[str, Any], bool]]:
    """Every match table of docs/match.md, and whether it belongs to ``drop``."""
    text = (Path(__file__).parents[2] / "docs" / "match.md").read_text("utf-8")
    tables: list[tuple[dict[str, Any], bool]] = []
    for block in re.findall(r"```toml\n(.*?)```", text, flags=re.DOTALL):
        parsed = tomllib.loads(block)
        for kind in ("transforms", "outputs"):
            tables += [(table["match"], table["type"] == "drop") for table in parsed.get(kind, {}).values()]
    return tables


def test_every_table_of_the_manual_compiles() -> None:
    tables = _documented_tables()
    assert len(tables) >= 4
    for table, cased in tables:
        compile_match(table, cased=cased)


def test_every_modifier_is_in_the_manual() -> None:
    text = (Path(__file__).parents[2] / "docs" / "match.md").read_text("utf-8")
    assert [modifier for modifier in MODIFIERS if f"`{modifier}`" not in text] == []
