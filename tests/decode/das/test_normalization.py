"""How one engine's values become the event's: what the examples of tests/data do not show."""

from __future__ import annotations

import json

import pytest

from shipper.decode import Origin
from shipper.decode.decoder import RecordDecoder
from shipper.event import Event
from shipper.source import Record

BASE = {"command": "SELECT", "logTime": "2024-03-05 11:22:33.123456+00", "serverType": "PostgreSQL"}


class NoKeys:
    def data_key(self, blob: bytes, resource_id: str | None) -> bytes:
        raise AssertionError


def event(**fields: object) -> Event:
    data = json.dumps({**BASE, **fields}).encode()
    decoded = RecordDecoder(Origin("s", "p"), NoKeys()).decode(Record(1, data, 1), "1")
    assert decoded.refused == []
    return decoded.events[0]


def mysql(**fields: object) -> Event:
    return event(**{"serverType": "MySQL", "class": "MAIN", "command": "QUERY", **fields})


@pytest.mark.parametrize(
    ("host", "ip", "name"),
    [
        ("10.0.4.17", "10.0.4.17", None),
        ("2001:DB8:0:0::1", "2001:db8::1", None),
        ("::ffff:10.0.4.17", "10.0.4.17", None),
        ("fe80::1%eth0", None, "fe80::1%eth0"),
        ("010.0.4.17", None, "010.0.4.17"),
        ("10.0.4.17/32", None, "10.0.4.17/32"),
        ("[local]", None, "[local]"),
        ("local machine", None, "local machine"),
        ("client.example.com", None, "client.example.com"),
        ("", None, None),
        (None, None, None),
    ],
)
def test_an_address_is_an_address_or_a_name_and_never_both(host: str | None, ip: str | None, name: str | None) -> None:
    made = event(remoteHost=host, serverHost=host)
    assert (made.client_ip, made.client_host) == (ip, name)
    assert (made.server_ip, made.server_host) == (ip, name)


@pytest.mark.parametrize(
    ("name", "schema", "object_"),
    [
        ("public.orders", "public", "orders"),
        ("orders", None, "orders"),
        ('"a.b"', None, "a.b"),
        ('"a.b".c', "a.b", "c"),
        ('a."b.c"', "a", "b.c"),
        ('"a""b"."c"', 'a"b', "c"),
        ("a.b.c", "a", "b.c"),
        ("public.f(pg_catalog.int4)", "public", "f(pg_catalog.int4)"),
        ("f(pg_catalog.int4)", None, "f(pg_catalog.int4)"),
        (".a", None, ".a"),
        ("a.", None, "a."),
        ('"a.b', None, '"a.b'),
    ],
)
def test_a_postgresql_name_is_split_at_the_first_dot_outside_quotes(
    name: str, schema: str | None, object_: str
) -> None:
    made = event(objectName=name, objectType="TABLE")
    assert (made.schema, made.object, made.object_type) == (schema, object_, "TABLE")


@pytest.mark.parametrize(
    ("name", "object_", "objects"),
    [
        ("orders", "orders", None),
        ("`orders`", "orders", None),
        ("orders,items", None, ["shop.orders", "shop.items"]),
        ("orders, `a,b`.`c``d` ,", None, ["shop.orders", "a,b.c`d"]),
        ("orders,", "orders", None),
        (",", ",", None),
    ],
)
def test_mysql_names_one_object_or_lists_several(name: str, object_: str | None, objects: list[str] | None) -> None:
    made = mysql(objectName=name, databaseName="shop", objectType="TABLE")
    assert (made.object, made.objects) == (object_, objects)


def test_mysqls_object_type_means_nothing_without_an_object() -> None:
    assert mysql(objectName="", objectType="TABLE").object_type is None


@pytest.mark.parametrize(
    ("text", "statement"),
    [
        (r"select \'x\'", "select 'x'"),
        (r"select \\\'", r"select \'"),
        (r"a\nb\tc\rd\be\ff\"g", 'a\nb\tc\rd\be\ff"g'),
        (r"like \'100\%\_\'", r"like '100\%\_'"),
        ("select 1", "select 1"),
        ("select \\", "select \\"),
    ],
)
def test_mysqls_backslashes_are_undone(text: str, statement: str) -> None:
    assert mysql(commandText=text).statement == statement


def test_other_engines_backslashes_stay() -> None:
    assert event(commandText=r"select \'x\'").statement == r"select \'x\'"


@pytest.mark.parametrize("engine", ["PostgreSQL", "MySQL", "oracle", "SQLSERVER"])
def test_empty_values_are_absent(engine: str) -> None:
    names = "class commandText clientApplication databaseName dbProtocol dbUserName dbid endTime errorMessage exitCode "
    names += "netProtocol objectName objectType paramList pid remoteHost remotePort rowCount serverHost serverVersion "
    names += "serviceName sessionId startTime statementId substatementId transactionId"
    empty = event(serverType=engine, **dict.fromkeys(names.split(), ""))
    absent = event(serverType=engine, **dict.fromkeys(names.split()))
    assert empty.extra is None
    for made in (empty, absent):
        made.id = ""
    assert empty == absent


@pytest.mark.parametrize("id_", ["0", "0000000000000000", 0, "", None])
def test_a_transaction_of_zeros_is_none(id_: object) -> None:
    assert event(transactionId=id_).transaction_id is None
    assert event(transactionId="0A00").transaction_id == "0A00"
    assert event(transactionId=10).transaction_id == "10"


@pytest.mark.parametrize(
    ("fields", "outcome", "failure"),
    [
        ({}, "success", None),
        ({"exitCode": 0}, "success", None),
        ({"exitCode": "00000"}, "success", None),
        ({"exitCode": "01000"}, "success", None),
        ({"exitCode": "02000"}, "success", None),
        ({"exitCode": 1}, "failure", "error"),
        ({"exitCode": "42P01"}, "failure", "error"),
        ({"exitCode": "42501"}, "failure", "denied"),
        ({"exitCode": 42501}, "failure", "denied"),
        ({"exitCode": "28000"}, "failure", "denied"),
        ({"exitCode": "28"}, "failure", "error"),
        ({"errorMessage": "x"}, "failure", "error"),
        ({"command": "AUTH FAILURE"}, "failure", "denied"),
        ({"command": "AUTH FAILURE", "exitCode": "53300"}, "failure", "error"),
    ],
)
def test_postgresqls_outcome(fields: dict[str, object], outcome: str, failure: str | None) -> None:
    made = event(**fields)
    assert (made.outcome, made.failure, made.outcome_of) == (outcome, failure, None)


@pytest.mark.parametrize(
    ("fields", "outcome", "failure"),
    [
        ({"exitCode": "0"}, "success", None),
        ({"exitCode": ""}, "success", None),
        ({"exitCode": 0}, "success", None),
        ({"exitCode": "0", "errorMessage": "x"}, "failure", "error"),
        ({"exitCode": "1146"}, "failure", "error"),
        *(({"exitCode": code}, "failure", "denied") for code in ("1044", "1045", "1142", "1143", 1227)),
        ({"command": "FAILED_CONNECT"}, "failure", "denied"),
        ({"command": "FAILED_CONNECT", "exitCode": "1040"}, "failure", "error"),
        ({"class": "AUX", "exitCode": ""}, "unknown", None),
        ({"class": "AUX", "exitCode": "1142"}, "unknown", None),
    ],
)
def test_mysqls_outcome(fields: dict[str, object], outcome: str, failure: str | None) -> None:
    made = mysql(**fields)
    assert (made.outcome, made.failure) == (outcome, failure)


@pytest.mark.parametrize(
    ("code", "outcome", "failure"),
    [
        (0, "success", None),
        ("0", "success", None),
        (942, "failure", "error"),
        (1017, "failure", "denied"),
        (1031, "failure", "denied"),
        ("28000", "failure", "denied"),
        (None, "unknown", None),
    ],
)
def test_oracles_outcome(code: object, outcome: str, failure: str | None) -> None:
    made = event(serverType="oracle", exitCode=code)
    assert (made.outcome, made.failure) == (outcome, failure)


@pytest.mark.parametrize(
    ("fields", "outcome", "outcome_of", "failure"),
    [
        ({"exitCode": 1}, "success", "permission", None),
        ({"exitCode": 0}, "failure", "permission", "denied"),
        ({"exitCode": "1"}, "success", "permission", None),
        ({"exitCode": 2}, "unknown", None, None),
        ({"exitCode": None}, "unknown", None, None),
        ({"exitCode": 0, "command": "LOGIN FAILED"}, "failure", None, "denied"),
        ({"exitCode": 1, "command": "LOGIN SUCCEEDED"}, "success", None, None),
    ],
)
def test_sqlservers_outcome_is_the_other_way_round(
    fields: dict[str, object], outcome: str, outcome_of: str | None, failure: str | None
) -> None:
    made = event(serverType="SQLSERVER", **fields)
    assert (made.outcome, made.outcome_of, made.failure) == (outcome, outcome_of, failure)


@pytest.mark.parametrize("placeholder", ["<previously logged>", "<not logged>", "<none>"])
def test_a_placeholder_is_no_statement(placeholder: str) -> None:
    assert event(commandText=placeholder).statement is None


def test_a_logins_message_is_never_a_statement() -> None:
    failed = event(command="AUTH FAILURE", commandText="no entry for host")
    assert (failed.statement, failed.error) == (None, "no entry for host")
    kept = event(command="AUTH FAILURE", commandText="again", errorMessage="no entry for host")
    assert (kept.statement, kept.error) == (None, "no entry for host")
    succeeded = event(serverType="SQLSERVER", command="LOGIN SUCCEEDED", exitCode=1, commandText="over TCP")
    assert (succeeded.statement, succeeded.error, succeeded.native) == (None, None, {"login_message": "over TCP"})


def test_an_aux_events_text_is_an_objects_name() -> None:
    made = mysql(**{"class": "AUX", "command": "READ", "commandText": "orders", "databaseName": "shop"})
    assert (made.statement, made.object) == (None, "orders")


@pytest.mark.parametrize(
    ("value", "expected"), [(["a", None, 5], ["a", None, "5"]), ("a", ["a"]), ([], None), ("", None)]
)
def test_parameters_are_texts_or_null(value: object, expected: object) -> None:
    assert event(paramList=value).parameters == expected


def test_a_postgresql_statement_ends_when_it_is_logged() -> None:
    made = event(startTime="2024-03-05 11:22:33.100001+00")
    assert (made.ended, made.duration_ns) == (made.time, 23_455_000)
    assert event().ended is None


def test_an_end_before_the_beginning_has_no_duration() -> None:
    made = mysql(startTime="2024-03-05 11:22:33.2+00", endTime="2024-03-05 11:22:33.1+00")
    assert made.started is not None
    assert made.ended is not None
    assert made.duration_ns is None


def test_more_native_fields_than_an_index_bears_are_kept_in_extra_too() -> None:
    many = {f"FIELD_{number}": number for number in range(300)}
    made = event(serverType="oracle", engineNativeAuditFields=many)
    assert made.native is not None
    assert len(made.native) == 200
    assert made.extra is not None
    assert json.loads(made.extra) == {"engineNativeAuditFields": many}


def test_native_names_that_become_one_are_kept_in_extra_too() -> None:
    made = event(serverType="oracle", engineNativeAuditFields={"A B": 1, "a.b": 2, "": 3, "ÄÖ": 4})
    assert made.native == {"a_b": "1", "_": "3", "__": "4"}
    assert made.extra == '{"engineNativeAuditFields":{"A B":1,"a.b":2,"":3,"\\u00c4\\u00d6":4}}'


@pytest.mark.parametrize("engine", ["PostgreSQL", "MySQL"])
def test_native_fields_of_an_engine_that_had_none_are_kept(engine: str) -> None:
    made = event(serverType=engine, engineNativeAuditFields={"NEW": True}, dbid=5)
    assert made.native == {"new": "true", "dbid": "5"}


def test_native_fields_that_are_no_object_go_to_extra() -> None:
    made = event(serverType="oracle", engineNativeAuditFields="none")
    assert (made.native, made.extra) == (None, '{"engineNativeAuditFields":"none"}')


def test_sqlservers_users_are_told_apart_only_where_they_differ() -> None:
    native = {"session_server_principal_name": "app", "database_principal_name": "dbo"}
    made = event(serverType="SQLSERVER", dbUserName="app", engineNativeAuditFields=native)
    assert (made.user, made.session_user, made.effective_user) == ("app", None, "dbo")
