"""Generated activity has each engine's own shape, and the same seed makes the same records."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from shipper.generate.activity import ENGINES, Generator, PlainRecord
from shipper.generate.sealing import squeeze

START = datetime(2024, 3, 5, 11, 22, 33, tzinfo=UTC)
DEFAULTS: dict[str, Any] = {"seed": 7, "start": START}
NULL = type(None)
TEXT_OR_NULL = (str, NULL)

# Field → the JSON types that the user guides' examples show.
AURORA_POSTGRESQL: dict[str, Any] = {
    "startTime": str,
    "logTime": str,
    "statementId": int,
    "substatementId": int,
    "objectType": TEXT_OR_NULL,
    "command": str,
    "objectName": TEXT_OR_NULL,
    "databaseName": str,
    "dbUserName": str,
    "remoteHost": str,
    "remotePort": str,
    "sessionId": str,
    "rowCount": (int, NULL),
    "commandText": TEXT_OR_NULL,
    "paramList": list,
    "pid": int,
    "clientApplication": str,
    "exitCode": TEXT_OR_NULL,
    "class": str,
    "serverVersion": str,
    "serverType": str,
    "serviceName": str,
    "serverHost": str,
    "netProtocol": str,
    "dbProtocol": str,
    "type": str,
    "errorMessage": TEXT_OR_NULL,
}
AURORA_MYSQL: dict[str, Any] = {
    "logTime": str,
    "type": str,
    "clientApplication": NULL,
    "pid": int,
    "dbUserName": str,
    "databaseName": str,
    "remoteHost": str,
    "remotePort": str,
    "command": str,
    "commandText": str,
    "paramList": NULL,
    "objectType": str,
    "objectName": str,
    "statementId": int,
    "substatementId": int,
    "exitCode": str,
    "sessionId": str,
    "rowCount": int,
    "serverHost": str,
    "serverType": str,
    "serviceName": str,
    "serverVersion": str,
    "startTime": str,
    "endTime": str,
    "transactionId": str,
    "dbProtocol": str,
    "netProtocol": str,
    "errorMessage": str,
    "class": str,
}
ORACLE: dict[str, Any] = {
    "class": str,
    "clientApplication": TEXT_OR_NULL,
    "command": str,
    "commandText": TEXT_OR_NULL,
    "dbid": str,
    "databaseName": str,
    "dbProtocol": str,
    "dbUserName": str,
    "endTime": NULL,
    "errorMessage": NULL,
    "exitCode": int,
    "logTime": str,
    "netProtocol": str,
    "objectName": TEXT_OR_NULL,
    "objectType": TEXT_OR_NULL,
    "paramList": list,
    "pid": int,
    "remoteHost": str,
    "remotePort": TEXT_OR_NULL,
    "rowCount": NULL,
    "serverHost": str,
    "serverType": str,
    "serverVersion": str,
    "serviceName": str,
    "sessionId": int,
    "startTime": NULL,
    "statementId": int,
    "substatementId": NULL,
    "transactionId": str,
    "engineNativeAuditFields": dict,
    "type": str,
}
SQLSERVER: dict[str, Any] = {
    "class": str,
    "clientApplication": str,
    "command": str,
    "commandText": str,
    "databaseName": str,
    "dbProtocol": str,
    "dbUserName": str,
    "endTime": NULL,
    "errorMessage": NULL,
    "exitCode": int,
    "logTime": str,
    "netProtocol": NULL,
    "objectName": str,
    "objectType": str,
    "paramList": NULL,
    "pid": NULL,
    "remoteHost": str,
    "remotePort": NULL,
    "rowCount": int,
    "serverHost": str,
    "serverType": str,
    "serverVersion": str,
    "serviceName": str,
    "sessionId": int,
    "startTime": NULL,
    "statementId": str,
    "substatementId": int,
    "transactionId": str,
    "type": str,
    "engineNativeAuditFields": dict,
}
SHAPES = {
    "aurora-postgresql": AURORA_POSTGRESQL,
    "aurora-mysql": AURORA_MYSQL,
    "oracle": ORACLE,
    "sqlserver": SQLSERVER,
}
TIMES = {
    "aurora-postgresql": r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}\+00",
    "aurora-mysql": r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}\+00",
    "oracle": r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}",
    "sqlserver": r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{7}\+00",
}
IDENTITY = ("sessionId", "statementId", "substatementId", "class", "command", "objectName", "logTime", "commandText")


def generate(engine: str, events: int = 3_000, **settings: Any) -> list[PlainRecord]:
    return list(Generator(engine, **(DEFAULTS | settings)).records(events))


def events_of(records: Iterable[PlainRecord]) -> list[dict[str, Any]]:
    return [
        event
        for record in records
        if not record.heartbeat
        for event in json.loads(record.plaintext)["databaseActivityEventList"]
    ]


@pytest.fixture(scope="module", params=list(ENGINES))
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def events(engine: str) -> list[dict[str, Any]]:
    return events_of(generate(engine))


def commands(events: list[dict[str, Any]]) -> set[str]:
    return {event["command"] for event in events}


def texts(events: list[dict[str, Any]]) -> str:
    return "\0".join(event["commandText"] or "" for event in events)


def test_every_event_has_the_engines_fields_with_the_types_that_were_seen(
    engine: str, events: list[dict[str, Any]]
) -> None:
    shape = SHAPES[engine]
    for event in events:
        assert set(event) == set(shape)
        wrong = {name: value for name, value in event.items() if not isinstance(value, shape[name])}
        assert wrong == {}
        assert event["type"] == "record"
        # bool is an int to Python and not to JSON.
        assert not any(isinstance(value, bool) for value in event.values())


def test_times_are_written_as_the_engine_writes_them(engine: str, events: list[dict[str, Any]]) -> None:
    for event in events:
        for name in ("logTime", "startTime", "endTime"):
            if event.get(name):
                assert re.fullmatch(TIMES[engine], event[name])


def test_no_two_events_are_alike_in_what_makes_an_id(engine: str) -> None:
    records = generate(engine, 20_000)
    seen = [
        (record.instance, *(event[name] for name in IDENTITY)) for record in records for event in events_of([record])
    ]
    assert len(seen) == 20_000
    assert len(set(seen)) == len(seen)


def test_the_same_seed_and_start_make_the_same_records(engine: str) -> None:
    assert generate(engine, 500) == generate(engine, 500)


def test_another_seed_makes_other_records(engine: str) -> None:
    assert generate(engine, 500) != generate(engine, 500, seed=8)


def test_records_hold_exactly_the_events_asked_for(engine: str) -> None:
    for size in (1, 7, 10):
        records = [one for one in generate(engine, 1_003, events_per_record=size) if not one.heartbeat]
        assert sum(one.events for one in records) == 1_003
        assert max(one.events for one in records) == size
        assert [one.events for one in records] == [len(events_of([one])) for one in records]


def test_the_records_wrapper_names_cluster_and_instance(engine: str) -> None:
    for record in generate(engine, 200):
        wrapper = json.loads(record.plaintext)
        assert list(wrapper) == ["type", "clusterId", "instanceId", "databaseActivityEventList"]
        assert wrapper["type"] == "DatabaseActivityMonitoringRecord"
        assert wrapper["instanceId"] == record.instance
        assert re.fullmatch(r"db-[A-Z2-7]{26}", record.instance)
        expected = r"cluster-[A-Z2-7]{26}" if engine.startswith("aurora") else ""
        assert re.fullmatch(expected, wrapper["clusterId"])


def test_heartbeats_come_every_two_seconds_from_every_instance(engine: str) -> None:
    records = generate(engine, 2_000, rate=100.0)
    instances = {one.instance for one in records}
    for instance in instances:
        times = [one.time for one in records if one.heartbeat and one.instance == instance]
        assert 8 <= len(times) <= 12
        assert {later - earlier for earlier, later in pairwise(times)} == {timedelta(seconds=2)}


def test_a_heartbeat_has_nothing_but_its_type_and_the_samples_size(engine: str) -> None:
    heartbeats = [one for one in generate(engine, 2_000) if one.heartbeat]
    for record in heartbeats:
        assert record.events == 0
        assert json.loads(record.plaintext)["databaseActivityEventList"] == [{"type": "heartbeat"}]
        assert b" " not in record.plaintext
    if engine.startswith("aurora"):
        # The published Aurora PostgreSQL sample's ciphertext has 172 bytes; random ids compress to 172 ± 2.
        assert {len(squeeze(one.plaintext)) for one in heartbeats} <= {170, 171, 172, 173, 174}


def test_time_never_runs_back_and_follows_the_rate(engine: str) -> None:
    records = generate(engine, 5_000, rate=500.0)
    times = [one.time for one in records if not one.heartbeat]
    assert times == sorted(times)
    assert times[0] >= START
    assert 9.0 < (times[-1] - START).total_seconds() < 11.0


def test_a_slow_stream_does_not_hold_events_back_until_a_record_is_full(engine: str) -> None:
    records = generate(engine, 60, rate=2.0, events_per_record=1_000)
    assert len([one for one in records if not one.heartbeat]) > 5


def test_an_aurora_cluster_has_a_writer_and_readers_and_readers_do_not_write() -> None:
    generator = Generator("aurora-mysql", seed=7, start=START, instances=3)
    records = list(generator.records(5_000))
    writer = generator.instances[0].id
    assert {one.instance for one in records if one.events} == {one.id for one in generator.instances}
    written = {one.instance for one in records for event in events_of([one]) if event["command"] == "WRITE"}
    assert written == {writer}


def test_an_rds_instance_is_one_and_has_the_resource_id_of_its_stream() -> None:
    records = generate("oracle", 100, resource_id="db-GGGGHHHHIIIIJJJJKKKKLLLL33")
    assert {one.instance for one in records} == {"db-GGGGHHHHIIIIJJJJKKKKLLLL33"}


@pytest.mark.parametrize(
    ("engine_name", "settings", "said"),
    [
        ("mongodb", {}, "not an engine"),
        ("oracle", {"instances": 2}, "has one"),
        ("aurora-mysql", {"instances": 0}, "0 instances"),
        ("sqlserver", {"resource_id": "cluster-X"}, "begin with 'db-'"),
        ("aurora-mysql", {"resource_id": "db-X"}, "begin with 'cluster-'"),
        ("oracle", {"rate": 0}, "above 0"),
        ("oracle", {"events_per_record": 0}, "above 0"),
    ],
)
def test_what_does_not_fit_the_engine_is_refused(engine_name: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Generator(engine_name, **(DEFAULTS | settings))


def test_unicode_quotes_backslashes_and_line_breaks_occur(engine: str, events: list[dict[str, Any]]) -> None:
    text = texts(events)
    for part in ("Łukasz", "田中", "🚚"):
        assert part in text
    if engine == "aurora-mysql":
        # The driver's escape, and the audit's over it; nothing unescaped is left.
        assert "\\'O\\\\\\'Brien\\'" in text
        assert "\n" not in text
        assert re.search(r"(?<!\\)'", text) is None
    else:
        assert "'O''Brien'" in text
        assert "\n" in text
        assert "C:\\temp" in text


def test_failed_logins_come_in_bursts_from_one_address(engine: str, events: list[dict[str, Any]]) -> None:
    failed: dict[str, tuple[str, object]] = {
        "aurora-postgresql": ("AUTH FAILURE", "28P01"),
        "aurora-mysql": ("FAILED_CONNECT", "1045"),
        "oracle": ("LOGON", 1017),
        "sqlserver": ("LOGIN FAILED", 0),
    }
    hosts = [event["remoteHost"] for event in events if (event["command"], event["exitCode"]) == failed[engine]]
    assert max(hosts.count(host) for host in set(hosts)) >= 6


def test_sessions_begin_with_a_login_and_end_with_a_logout() -> None:
    sessions: dict[str, list[str]] = {}
    for event in events_of(generate("aurora-postgresql", 3_000)):
        if event["command"] != "AUTH FAILURE":
            sessions.setdefault(event["sessionId"], []).append(event["command"])
    ended = 0
    for names in sessions.values():
        assert names[0] == "CONNECT"
        assert "CONNECT" not in names[1:]
        assert "DISCONNECT" not in names[:-1]
        ended += names[-1] == "DISCONNECT"
    assert ended > len(sessions) / 2


def test_the_services_own_users_make_their_noise(engine: str, events: list[dict[str, Any]]) -> None:
    users = {event["dbUserName"] for event in events}
    assert {"RDSADMIN", "RDSSEC"} <= users if engine == "oracle" else {"rdsadmin", "rdsproxyadmin"} <= users


def test_a_sensitive_table_is_dumped_whole_by_a_dba(engine: str, events: list[dict[str, Any]]) -> None:
    dumps = [
        event
        for event in events
        if event["dbUserName"].lower() == "dba_jane" and (event["commandText"] or "").startswith("SELECT * FROM")
    ]
    assert dumps
    if engine != "oracle":
        assert max(event["rowCount"] for event in dumps) >= 50_000


def test_privileges_schema_and_auditing_change(engine: str, events: list[dict[str, Any]]) -> None:
    text = texts(events)
    for part in ("CREATE TABLE returns_", "ALTER TABLE returns_", "GRANT SELECT ON", "temp_"):
        assert part in text
    blinding = {
        "aurora-postgresql": "SET pgaudit.log",
        "aurora-mysql": "server_audit_logging",
        "oracle": "NOAUDIT POLICY",
        "sqlserver": "ALTER SERVER AUDIT",
    }
    assert blinding[engine] in text


def test_postgresql_errors_carry_sqlstate_and_message_and_hidden_passwords() -> None:
    events = events_of(generate("aurora-postgresql", 20_000))
    codes = {event["exitCode"] for event in events if event["errorMessage"]}
    assert {"42P01", "23505", "42501", "42601", "57014", "40P01", "28P01"} <= codes
    assert all(event["errorMessage"] for event in events if event["exitCode"])
    assert all(text.endswith("PASSWORD <REDACTED>") for text in texts(events).split("\0") if "PASSWORD" in text)


def test_postgresql_names_every_object_of_a_statement_in_its_own_event() -> None:
    joins: dict[tuple[str, int], list[tuple[int, str]]] = {}
    for event in events_of(generate("aurora-postgresql")):
        if " JOIN " in (event["commandText"] or ""):
            joins.setdefault((event["sessionId"], event["statementId"]), []).append(
                (event["substatementId"], event["objectName"])
            )
    assert [(1, "public.orders"), (2, "public.customers")] in joins.values()


def test_postgresql_has_parameters_copies_and_functions() -> None:
    events = events_of(generate("aurora-postgresql"))
    assert any(event["paramList"] and "$1" in event["commandText"] for event in events)
    assert {"COPY", "BEGIN", "COMMIT", "CREATE ROLE"} <= commands(events)
    assert {"FUNCTION", "ROLE", "DDL", "READ", "WRITE", "MISC"} == {event["class"] for event in events}


def test_a_long_postgresql_statement_fills_more_than_one_frame() -> None:
    records = generate("aurora-postgresql", events_per_record=1)
    assert max(len(squeeze(one.plaintext)) for one in records) > 4096


def test_mysql_statements_have_one_main_event_and_one_auxiliary_event_per_object() -> None:
    statements: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for event in events_of(generate("aurora-mysql", instances=1))[:-1]:
        statements.setdefault((event["sessionId"], event["statementId"]), []).append(event)
    orders = set()
    for parts in statements.values():
        (main,) = (one for one in parts if one["class"] == "MAIN")
        assert main["substatementId"] == 1
        auxiliary = [one for one in parts if one["class"] == "AUX"]
        if main["exitCode"] == "0" and auxiliary:
            assert ",".join(one["objectName"] for one in auxiliary) == main["objectName"]
        for one in auxiliary:
            assert (one["substatementId"], one["exitCode"], one["commandText"]) == (2, "", one["objectName"])
            orders.add(parts.index(one) < parts.index(main))
    assert orders == {True, False}


def test_mysql_numbers_errors_and_transactions_in_strings() -> None:
    events = events_of(generate("aurora-mysql", 20_000))
    assert {"0", "", "1045", "1146", "1062", "1142", "1064", "3024", "1213"} == {event["exitCode"] for event in events}
    assert all(event["errorMessage"] for event in events if event["exitCode"] not in ("", "0"))
    transactions = {event["transactionId"] for event in events}
    assert "0" in transactions
    assert any(int(one) > 1_640_000 for one in transactions)
    assert "IDENTIFIED WITH" in texts(events)


def test_oracle_writes_html_safe_json_and_schemas_as_object_types() -> None:
    records = generate("oracle")
    assert any(rb"\u003d" in one.plaintext for one in records)
    assert not any(mark in one.plaintext for one in records for mark in b"=<>&'")
    events = events_of(records)
    assert {event["objectType"] for event in events} == {None, "SHOP"}
    assert {event["netProtocol"] for event in events} == {"tcp", "beq"}
    assert all((event["remotePort"] is None) == (event["netProtocol"] == "beq") for event in events)
    assert {0, 1017, 942, 1031} <= {event["exitCode"] for event in events_of(generate("oracle", 20_000))}


def test_native_fields_are_empty_where_the_stream_has_none() -> None:
    for name in ("oracle", "sqlserver"):
        assert all(event["engineNativeAuditFields"] == {} for event in events_of(generate(name, 200, native=False)))
        assert all(event["engineNativeAuditFields"] for event in events_of(generate(name, 200)))


def test_sqlserver_splits_a_long_statement_into_numbered_parts() -> None:
    parts: dict[str, list[tuple[int, str]]] = {}
    for event in events_of(generate("sqlserver"))[:-10]:
        parts.setdefault(event["statementId"], []).append((event["substatementId"], event["commandText"]))
    long = [rows for rows in parts.values() if len(rows) > 1]
    assert long
    for rows in long:
        assert [number for number, _ in rows] == list(range(1, len(rows) + 1))
        assert {len(text) for _, text in rows[:-1]} == {4_000}
        assert "".join(text for _, text in rows).startswith("INSERT INTO product_images")


def test_sqlserver_exit_codes_mean_one_for_success() -> None:
    events = events_of(generate("sqlserver", 20_000))
    assert {event["exitCode"] for event in events if event["command"] == "LOGIN SUCCEEDED"} == {1}
    assert {event["exitCode"] for event in events if event["command"] == "LOGIN FAILED"} == {0}
    assert {event["exitCode"] for event in events if event["command"] == "SELECT"} == {0, 1}
    assert {event["remoteHost"] for event in events if event["dbUserName"] == "rdsadmin"} == {"local machine"}


def test_gzip_of_a_record_can_be_opened() -> None:
    record = generate("sqlserver", 10)[0]
    assert gzip.decompress(squeeze(record.plaintext)) == record.plaintext
