"""What activities are: category and action of commands and statements, and what hides from neither."""

from __future__ import annotations

import time

import pytest

from shipper.decode.das.classification import mysql_object, mysql_query, of_command, postgresql, sqlserver
from shipper.event import CATEGORIES

MYSQL = {
    "select 1": ("read", "select"),
    "SELECT": ("read", "select"),
    "(select 1) union (select 2)": ("read", "select"),
    ";;select 1": ("read", "select"),
    "select 'into outfile' from t": ("read", "select"),
    "select * into outfile '/x' from t": ("write", "select into"),
    "SELECT a INTO DUMPFILE '/x'": ("write", "select into"),
    "show grants": ("read", "show"),
    "explain delete from t": ("read", "explain"),
    "desc t": ("read", "describe"),
    "describe t": ("read", "describe"),
    "table t": ("read", "table"),
    "INSERT\tINTO t VALUES (1)": ("write", "insert"),
    "update t set a=1": ("write", "update"),
    "delete from t": ("write", "delete"),
    "replace into t values (1)": ("write", "replace"),
    "load data infile 'x' into table t": ("write", "load"),
    "truncate table t": ("write", "truncate"),
    "grant all on *.* to x": ("privilege", "grant"),
    "revoke all on *.* from x": ("privilege", "revoke"),
    "create user x": ("privilege", "create user"),
    "create role r": ("privilege", "create role"),
    "alter user x identified by 'y'": ("privilege", "alter user"),
    "drop role r": ("privilege", "drop role"),
    "rename user a to b": ("privilege", "rename user"),
    "set password for x = 'y'": ("privilege", "set password"),
    "set role r": ("privilege", "set role"),
    "set default role r to x": ("privilege", "set role"),
    "set global server_audit_logging = 0": ("audit", "set"),
    "set @@GLOBAL.server_audit_events = ''": ("audit", "set"),
    "set global `server_audit_logging` = 0": ("audit", "set"),
    "set a = 1, /* x */ global server_audit_excl_users = 'x'": ("audit", "set"),
    "set @x = 'server_audit_logging'": ("session", "set"),
    "set names utf8mb4": ("session", "set"),
    "create table t (a int)": ("ddl", "create table"),
    "create temporary table t (a int)": ("ddl", "create table"),
    "create unique index i on t (a)": ("ddl", "create index"),
    "create or replace view v as select 1": ("ddl", "create view"),
    "create definer=`user`@`%` procedure p() begin end": ("ddl", "create procedure"),
    "create definer=current_user() function f() returns int return 1": ("ddl", "create function"),
    "create algorithm=merge definer=x@localhost sql security definer view v as select 1": ("ddl", "create view"),
    "create resource group g type = user": ("ddl", "create resource group"),
    "alter database shop character set utf8": ("ddl", "alter database"),
    "alter instance rotate innodb master key": ("admin", "alter instance"),
    "drop schema shop": ("ddl", "drop schema"),
    "create nonsense x": ("ddl", "create"),
    "rename table t to u": ("ddl", "rename table"),
    "call p()": ("function", "call"),
    "do sleep(1)": ("function", "do"),
    "use shop": ("session", "use"),
    "begin": ("session", "begin"),
    "start transaction": ("session", "start transaction"),
    "commit": ("session", "commit"),
    "rollback to savepoint s": ("session", "rollback"),
    "prepare s from 'delete from t'": ("session", "prepare"),
    "xa start 'x'": ("session", "xa"),
    "kill 5": ("admin", "kill"),
    "flush privileges": ("admin", "flush"),
    "reset master": ("admin", "reset"),
    "install plugin p soname 'x'": ("admin", "install"),
    "optimize table t": ("admin", "optimize"),
    "analyze table t": ("admin", "analyze"),
    "start slave": ("admin", "start slave"),
    "": ("other", None),
    "hello": ("other", None),
    "12 select": ("other", None),
    # comments
    "/* select */ delete from t": ("write", "delete"),
    "-- select\ndelete from t": ("write", "delete"),
    "# select\ndelete from t": ("write", "delete"),
    "/*!40000 drop table t */": ("ddl", "drop table"),
    "/*! drop */ /* view */ table t": ("ddl", "drop table"),
    "/*!080023 delete */ from t": ("write", "delete"),
    "/*!99999 select 1 */ delete from t": ("write", "delete"),
    "/*M! select 1 */ delete from t": ("write", "delete"),
    "/*+ SET_VAR(x=1) */ select 1": ("read", "select"),
    "/* never ends": ("other", None),
    # common table expressions
    "with a as (select 1) select * from a": ("read", "select"),
    "with a as (select ') delete'), b(x) as (select 2) delete from t": ("write", "delete"),
    "WITH RECURSIVE a AS (SELECT 1 UNION (SELECT 2)) UPDATE t SET a=1": ("write", "update"),
    "with a as (select 1) (select 2)": ("read", "select"),
    "with a as (select 1": ("other", None),
}

POSTGRESQL = {
    ("CONNECT", "MISC", None): ("authentication", "login"),
    ("AUTH FAILURE", "MISC", None): ("authentication", "login"),
    ("DISCONNECT", "MISC", None): ("session", "logout"),
    ("SELECT", "READ", "select 1"): ("read", "select"),
    ("SELECT INTO", "WRITE", "select 1 into t"): ("write", "select into"),
    ("CREATE TABLE AS", "DDL", "create table t as select 1"): ("ddl", "create table"),
    ("CREATE TABLE", None, "create table t ()"): ("ddl", "create table"),
    ("CREATE USER MAPPING", "DDL", "create user mapping for x server s"): ("ddl", "create user mapping"),
    ("ALTER DEFAULT PRIVILEGES", "ROLE", ""): ("privilege", "alter default privileges"),
    ("GRANT ROLE", "ROLE", "grant a to b"): ("privilege", "grant"),
    ("CREATE ROLE", "NONE", "create role a"): ("privilege", "create role"),
    ("EXECUTE", "FUNCTION", "select f()"): ("function", "execute"),
    ("DO", "FUNCTION", "do $$ $$"): ("function", "do"),
    ("ALTER SYSTEM", "DDL", "alter system set a = 1"): ("admin", "alter system"),
    ("ALTER SYSTEM", "DDL", "alter system set pgaudit.log = 'none'"): ("audit", "alter system"),
    ("ALTER ROLE", "ROLE", 'alter role a set "pgaudit"."log" = \'none\''): ("audit", "alter role"),
    ("ALTER DATABASE", "DDL", "alter database d reset pgaudit.log"): ("audit", "alter database"),
    ("SET", "MISC", "SET pgaudit.log = 'none'"): ("audit", "set"),
    ("SET", "MISC", "set local /* x /* nested */ */ pgaudit.log to none"): ("audit", "set"),
    ("RESET", "MISC", "reset pgaudit.log"): ("audit", "reset"),
    ("SET", "MISC", "set application_name = 'pgaudit.log'"): ("session", "set"),
    ("SET", "MISC", "set application_name = $$ pgaudit.log $$"): ("session", "set"),
    ("SET", "MISC", "set a = 1 -- pgaudit.log"): ("session", "set"),
    ("SET", "MISC", "set role auditor"): ("privilege", "set role"),
    ("SET", "MISC", "SET LOCAL ROLE 'auditor'"): ("privilege", "set role"),
    ("SET", "MISC", "set session authorization x"): ("privilege", "set session authorization"),
    ("RESET", "MISC", "reset role"): ("privilege", "set role"),
    ("SET", "MISC", "set application_name = 'role'"): ("session", "set"),
    ("RESET", "MISC", "reset all"): ("session", "reset"),
    ("BEGIN", "MISC", "begin"): ("session", "begin"),
    ("PREPARE", "MISC", "prepare a as select 1"): ("session", "prepare"),
    ("VACUUM", "MISC", "vacuum"): ("admin", "vacuum"),
    ("CHECKPOINT", "MISC", "checkpoint"): ("admin", "checkpoint"),
    ("COPY", "WRITE", "copy t from stdin"): ("write", "copy"),
    ("COPY", "READ", "copy t to stdout"): ("read", "copy"),
    ("COPY", "MISC", "copy (select 1 from t) to stdout"): ("read", "copy"),
    ("COPY", "MISC", 'copy "to" (a) /* to */ from stdin'): ("write", "copy"),
    ("COPY", "MISC", "copy t"): ("other", "copy"),
    ("NEW THING", "MISC", "new thing"): ("other", "new thing"),
    ("", None, None): ("other", None),
}

ORACLE = {
    ("LOGON", "Standard"): ("authentication", "login"),
    ("LOGOFF BY CLEANUP", "Standard"): ("session", "logout"),
    ("AUDIT", "Standard"): ("audit", "audit"),
    ("CREATE AUDIT POLICY", "Standard"): ("audit", "create audit policy"),
    ("CREATE USER", "Standard"): ("privilege", "create user"),
    ("ALTER PROFILE", "Standard"): ("privilege", "alter profile"),
    ("SET ROLE", "Standard"): ("privilege", "set role"),
    ("CHANGE PASSWORD", "Standard"): ("privilege", "change password"),
    ("CREATE PACKAGE BODY", "Standard"): ("ddl", "create package body"),
    ("CREATE OUTLINE", "Standard"): ("ddl", "create outline"),
    ("RENAME", "Standard"): ("ddl", "rename"),
    ("COMMENT", "Standard"): ("ddl", "comment"),
    ("TRUNCATE TABLE", "Standard"): ("write", "truncate"),
    ("PL/SQL EXECUTE", "Standard"): ("function", "execute"),
    ("SELECT", "FineGrainedAudit"): ("read", "select"),
    ("ALTER SYSTEM", "Standard"): ("admin", "alter system"),
    ("ALTER SESSION", "Standard"): ("session", "alter session"),
    ("EXPORT", "Datapump"): ("admin", "export"),
    ("BACKUP", "RMAN_AUDIT"): ("admin", "backup"),
    ("LOAD", "Direct path API"): ("write", "load"),
}

SQLSERVER = {
    ("LOGIN FAILED", "LOGIN", "LOGIN"): ("authentication", "login"),
    ("LOGIN SUCCEEDED", "LOGIN", None): ("authentication", "login"),
    ("DATABASE AUTHENTICATION FAILED", "DATABASE", ""): ("authentication", "login"),
    ("LOGOUT", "LOGIN", ""): ("session", "logout"),
    ("ALTER", "SCHEMA", "SCHEMA"): ("ddl", "alter schema"),
    ("CREATE", "TABLE", ""): ("ddl", "create table"),
    ("CREATE", "SQL LOGIN", "SQL LOGIN"): ("privilege", "create sql login"),
    ("DROP", "SERVER ROLE", ""): ("privilege", "drop server role"),
    ("ADD MEMBER", "ROLE", ""): ("privilege", "add member"),
    ("CHANGE PASSWORD", "LOGIN", ""): ("privilege", "change password"),
    ("IMPERSONATE", "USER", ""): ("privilege", "impersonate"),
    ("DENY", "OBJECT", ""): ("privilege", "deny"),
    ("GRANT WITH GRANT", "OBJECT", ""): ("privilege", "grant"),
    ("ALTER", "SERVER AUDIT", ""): ("audit", "alter server audit"),
    ("DROP", "DATABASE AUDIT SPECIFICATION", ""): ("audit", "drop database audit specification"),
    ("AUDIT SESSION CHANGED", "SERVER AUDIT", ""): ("audit", "audit session changed"),
    ("EXECUTE", "STORED PROCEDURE", ""): ("function", "execute"),
    ("SELECT", "TABLE", "TABLE"): ("read", "select"),
    ("BACKUP LOG", "DATABASE", ""): ("admin", "backup log"),
    ("TRANSACTION BEGIN", "DATABASE", ""): ("session", "transaction begin"),
    ("VIEW SERVER STATE", "SERVER", ""): ("other", "view server state"),
}


@pytest.mark.parametrize("statement", MYSQL)
def test_a_mysql_statement_is_what_its_first_words_say(statement: str) -> None:
    assert mysql_query(statement) == MYSQL[statement]


@pytest.mark.parametrize("statement", MYSQL)
def test_neither_comments_nor_letter_case_hide_a_mysql_statement(statement: str) -> None:
    category, action = MYSQL[statement]
    hidden = "/* x\n*/ -- select\n # update\n" + statement.upper()
    assert mysql_query(hidden) == (category, action)


@pytest.mark.parametrize("activity", POSTGRESQL)
def test_postgresql(activity: tuple[str, str | None, str | None]) -> None:
    assert postgresql(*activity) == POSTGRESQL[activity]


@pytest.mark.parametrize("activity", ORACLE)
def test_oracle(activity: tuple[str, str]) -> None:
    assert of_command(*activity) == ORACLE[activity]
    assert of_command(activity[0].lower(), activity[1]) == ORACLE[activity]


@pytest.mark.parametrize("activity", SQLSERVER)
def test_sqlserver(activity: tuple[str, str, str | None]) -> None:
    assert sqlserver(*activity) == SQLSERVER[activity]


@pytest.mark.parametrize(
    ("command", "type_", "expected"),
    [
        ("READ", "TABLE", ("read", "read")),
        ("WRITE", "TABLE", ("write", "write")),
        ("CREATE", "TABLE", ("ddl", "create table")),
        ("ALTER", None, ("ddl", "alter")),
        ("DROP", "INDEX", ("ddl", "drop index")),
        ("RENAME", "TABLE", ("ddl", "rename table")),
        ("", "TABLE", ("other", None)),
    ],
)
def test_what_a_mysql_statement_did_to_an_object(command: str, type_: str | None, expected: object) -> None:
    assert mysql_object(command, type_) == expected


def test_every_category_is_one_that_the_event_knows() -> None:
    kinds = [*MYSQL.values(), *POSTGRESQL.values(), *ORACLE.values(), *SQLSERVER.values()]
    assert {category for category, _ in kinds} == set(CATEGORIES) - {"trail"}


@pytest.mark.parametrize(
    "unit",
    [
        "/*",
        "/* */",
        "(",
        "with a as (",
        "'",
        "`",
        "\\'",
        "--",
        "-- x\n",
        "/*!",
        "$a$",
        "$a",
        ",",
        ";",
        "a ",
        "into outfil",
    ],
)
def test_megabytes_of_hostile_sql_are_classified_in_good_time(unit: str) -> None:
    sql = unit * (2_000_000 // len(unit))
    begin = time.process_time()
    for statement in (sql, "with a as " + sql, "select " + sql + " outfile", "set " + sql + "server_audit_"):
        mysql_query(statement)
    postgresql("SET", "MISC", sql + "pgaudit. role")
    postgresql("COPY", "MISC", sql)
    assert time.process_time() - begin < 60
