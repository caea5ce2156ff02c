"""The add-on for Splunk speaks of the events that there are, and gives the data models of the CIM their fields.

Splunk is not here to ask: its evaluations are carried out by a small reading of their language, on the decoder's own
expected events.
"""

from __future__ import annotations

import configparser
import csv
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import pytest

from shipper.event import CATEGORIES, ENGINES, FIELDS, Event
from shipper_splunk_hec.settings import SplunkHecSettings
from support.environments import REPOSITORY

ADD_ON = REPOSITORY / "splunk" / "TA-shipper"
SAMPLES = REPOSITORY / "tests" / "data"
SOURCETYPE = SplunkHecSettings.model_fields["sourcetype"].default

#: Event fields that are lists: Splunk calls them ``name{}``.
LISTS = {"objects", "privileges", "parameters", "tags"}


def _conf(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), comment_prefixes=("#",), strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # keys keep their case
    parser.read_string((ADD_ON / "default" / f"{name}.conf").read_text())
    return parser


PROPS = _conf("props")[SOURCETYPE]
EVALS = {key.removeprefix("EVAL-"): value for key, value in PROPS.items() if key.startswith("EVAL-")}
ALIASES = re.findall(r"(\w+) AS (\w+)", PROPS["FIELDALIAS-das_native"])
EVENTTYPES = {name: _conf("eventtypes")[name]["search"] for name in _conf("eventtypes").sections()}


def _names(expression: str) -> set[str]:
    """The fields that an evaluation reads."""
    quoted = set(re.findall(r"'([^']+)'", expression))
    bare = re.sub(r"\"[^\"]*\"|'[^']*'", " ", expression)
    return quoted | set(re.findall(r"\b(?!AND\b|OR\b|NOT\b)[a-z_]\w*\b(?!\s*\()", bare))


# -- what it speaks of -------------------------------------------------------------------------------------------------


def test_it_is_about_the_sourcetype_that_the_output_sends_by_default() -> None:
    assert _conf("props").sections() == [SOURCETYPE]
    assert all(f"sourcetype={SOURCETYPE} " in search for search in EVENTTYPES.values())


@pytest.mark.parametrize("name", EVALS)
def test_an_evaluation_reads_fields_that_an_event_has(name: str) -> None:
    known = {f"{field}{{}}" if field in LISTS else field for field in FIELDS}
    assert _names(EVALS[name]) <= known


def test_an_alias_names_a_field_that_an_event_has() -> None:
    assert {field for field, _ in ALIASES} <= FIELDS.keys()
    assert {name for _, name in ALIASES}.isdisjoint({*FIELDS, *EVALS})


def test_an_evaluation_hides_no_field_of_the_event_that_is_not_to_be_had_otherwise() -> None:
    assert {name for name in EVALS if name in FIELDS} == {field for field, _ in ALIASES}


def test_event_types_name_categories_that_there_are() -> None:
    named = {
        word
        for search in EVENTTYPES.values()
        for word in re.findall(r"\w+", search.partition("category")[2])
        if word != "IN"
    }
    assert named <= set(CATEGORIES)
    assert set(CATEGORIES) - named == {"trail", "other"}


def test_tags_are_those_of_event_types() -> None:
    assert {section.removeprefix("eventtype=") for section in _conf("tags").sections()} == EVENTTYPES.keys()


def test_every_engine_is_a_product() -> None:
    (stanza,) = _conf("transforms").sections()
    assert PROPS["LOOKUP-das_vendor_product"] == f"{stanza} engine OUTPUT vendor_product"
    with (ADD_ON / "lookups" / _conf("transforms")[stanza]["filename"]).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["engine"] for row in rows] == list(ENGINES)
    assert all(row["vendor_product"].startswith("Amazon ") for row in rows)


def test_the_time_of_a_line_is_found_and_no_statement_can_stand_in_its_place() -> None:
    event = Event(schema_version=1, id="0" * 32, time="2026-01-02T03:04:05.000006Z", statement='"time":"1999"')
    line = msgspec.json.encode(event).decode()
    found = re.match(PROPS["TIME_PREFIX"], line)
    assert found is not None
    assert line[found.end() :].startswith("2026-01-02T03:04:05.000006Z")
    assert len("2026-01-02T03:04:05.123456789Z") <= int(PROPS["MAX_TIMESTAMP_LOOKAHEAD"])
    assert re.match(PROPS["TIME_PREFIX"], line.replace('"schema_version":1,', "")) is None


def test_long_events_are_not_cut() -> None:
    assert PROPS["TRUNCATE"] == "0"


# -- what it makes of events -------------------------------------------------------------------------------------------


class _Fields(dict[str, Any]):
    def __missing__(self, name: str) -> None:
        return None


def _case(*pairs: Any) -> Any:
    return next((value for condition, value in zip(pairs[::2], pairs[1::2], strict=True) if condition), None)


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "coalesce": lambda *values: next((value for value in values if value is not None), None),
    "case": _case,
    "if_": lambda condition, yes, no: yes if condition else no,
    "isnotnull": lambda value: value is not None,
    "lower": lambda value: None if value is None else value.lower(),
    "match": lambda value, pattern: value is not None and re.search(pattern, value) is not None,
    "mvjoin": lambda values, between: None if values is None else between.join(values),
    "replace": lambda value, pattern, by: None if value is None else re.sub(pattern, by, value),
    "true": lambda: True,
}


def searched(event: Mapping[str, Any]) -> dict[str, Any]:
    """The event's fields as a search sees them."""
    found = _Fields({f"{name}{{}}" if name in LISTS else name: value for name, value in event.items()})
    seen = dict(found) | {alias: found[name] for name, alias in ALIASES}
    for name, expression in EVALS.items():
        python = re.sub(r"'([^']+)'", r'_found["\1"]', expression).replace(" AND ", " and ").replace(" OR ", " or ")
        python = re.sub(r"\bif\(", "if_(", python)
        scope = _Fields({**found, **FUNCTIONS, "_found": found})
        try:
            seen[name] = eval(python, {"__builtins__": {}}, scope)
        except TypeError:  # Splunk calculates nothing from what is not there
            seen[name] = None
    return {name: value for name, value in seen.items() if value is not None}


def samples(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((SAMPLES / f"{name}.event.json").read_text())
    return found


ALL = [event for path in sorted(SAMPLES.glob("*.event.json")) for event in json.loads(path.read_text())]

#: Fields that a data model is of little use without (CIM, "Databases", "Authentication", "Change").
NEEDED = {
    "read": ["user", "dest", "src", "query", "app", "duration"],
    "authentication": ["action", "app", "dest", "src", "user"],
    "ddl": ["action", "object_category", "change_type", "user", "status", "dest"],
    "privilege": ["action", "object_category", "change_type", "user", "src_user", "status"],
    "audit": ["action", "object_category", "change_type", "status"],
}


@pytest.mark.parametrize(("category", "names"), NEEDED.items())
def test_the_fields_of_a_data_model_are_there(category: str, names: list[str]) -> None:
    events = [searched(event) for event in ALL if event["category"] == category]
    assert events
    for name in names:
        there = [event for event in events if name in event]
        assert there, f"no event of {category} has {name}"


@pytest.mark.parametrize("event", ALL, ids=lambda event: event["id"][-6:])
def test_every_sample_can_be_searched(event: dict[str, Any]) -> None:
    seen = searched(event)
    assert seen.get("das_action") == event.get("action")
    if event["category"] == "authentication":
        assert seen["action"] in ("success", "failure", "pending")
    if event["category"] in ("ddl", "privilege"):
        assert seen["action"] in ("created", "modified", "deleted")


def test_a_failed_login() -> None:
    seen = searched(samples("aurora-postgresql-failed-login")[0])
    expected = {
        "action": "failure",
        "das_action": "login",
        "user": "app",
        "src": "203.0.113.9",
        "src_port": 50122,
        "dest": "10.0.9.8",
        "app": "aurora-postgresql",
        "reason": 'password authentication failed for user "app"',
        "signature_id": "28P01",
    }
    assert {name: seen.get(name) for name in expected} == expected


def test_a_table_that_was_made() -> None:
    seen = searched(samples("aurora-postgresql-ddl")[0])
    expected = {
        "action": "created",
        "object": 'Or"ders',
        "object_category": "table",
        "status": "success",
        "change_type": "database",
        "duration": 0.023455,
    }
    assert {name: seen.get(name) for name in expected} == expected


def test_a_grant() -> None:
    seen = searched(samples("aurora-postgresql-grant")[0])
    expected = {"action": "modified", "object_category": "privilege", "src_user": "app", "change_type": "AAA"}
    assert {name: seen.get(name) for name in expected} == expected


def test_a_change_of_an_account_names_the_account_as_the_user_and_who_did_it_as_the_source() -> None:
    event = {"category": "privilege", "action": "create user", "user": "dba", "target_user": "intern"}
    seen = searched(event)
    assert (seen["user"], seen["src_user"], seen["das_user"]) == ("intern", "dba", "dba")
    assert (seen["action"], seen["object_category"]) == ("created", "user")


def test_a_query_over_several_tables_names_them_all() -> None:
    seen = searched(samples("aurora-mysql-objects")[0])
    assert seen["object"] == "shop.orders, od,d.items"
