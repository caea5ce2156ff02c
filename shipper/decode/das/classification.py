"""What an activity is, the same for every engine: its category and its action (docs: the event's category and action).

Engines name a class and a command; only Aurora MySQL leaves it to the statement. The words of a
command or of a statement give both. Where nothing fits, the category is ``other``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from shipper.decode.das.statements import copies_in, leading_words, main_verb, mentions, selects_into_file
from shipper.decode.das.verbs import DDL, UNKNOWN, VERBS, Kind, of_words
from shipper.event import Category

__all__ = ["Kind", "mysql_object", "mysql_query", "of_command", "postgresql", "sqlserver"]

#: pgAudit's classes; those that are not here say nothing.
_POSTGRESQL_CLASSES: dict[str, Category] = {
    "READ": "read",
    "WRITE": "write",
    "DDL": "ddl",
    "ROLE": "privilege",
    "FUNCTION": "function",
}
_PGAUDIT = "pgaudit."
_PGAUDIT_COMMANDS = ("SET", "RESET", "ALTER")
_SERVER_AUDIT = "server_audit_"

#: Oracle's audit types that say more than the command.
_ORACLE_CLASSES: dict[str, Category] = {"datapump": "admin", "rman_audit": "admin", "direct path api": "write"}


@lru_cache(maxsize=1024)
def of_command(command: str, class_: str | None = None) -> Kind:
    """Category and action of an engine's command; for Oracle with its class (the audit type)."""
    words = command.upper().split()
    category, action = of_words(words, typed=False)
    if class_ is not None and category != "authentication":
        category = _ORACLE_CLASSES.get(class_.lower(), category)
    return category, action or " ".join(words).lower() or None


def postgresql(command: str, class_: str | None, statement: str | None) -> Kind:
    """Category and action in Aurora PostgreSQL: of logins by the command (their class is MISC), else by class first."""
    kind = _postgresql(command, class_)
    if statement is None:
        return kind
    if command.startswith(_PGAUDIT_COMMANDS) and mentions(statement, _PGAUDIT, mysql=False):
        return "audit", kind[1]
    if command in ("SET", "RESET"):
        return _set_role(statement) or kind
    if command == "COPY" and kind[0] == "other":
        direction = copies_in(statement)
        if direction is not None:
            return ("write" if direction else "read"), "copy"
    return kind


def _set_role(statement: str) -> Kind | None:
    """SET ROLE and SET SESSION AUTHORIZATION, which PostgreSQL's command does not tell from any other SET."""
    lowered = statement.lower()
    if "role" not in lowered and "authorization" not in lowered:
        return None
    words = leading_words(statement, mysql=False)
    if words[2:3] == ["ROLE"] and words[1] in ("LOCAL", "SESSION"):
        del words[1]
    kind = of_words(words, typed=True)
    return kind if kind[0] == "privilege" else None


@lru_cache(maxsize=1024)
def _postgresql(command: str, class_: str | None) -> Kind:
    category, action = of_command(command)
    if category != "authentication" and action not in ("logout", "alter system"):
        category = _POSTGRESQL_CLASSES.get(class_ or "", category)
    return category, action


@lru_cache(maxsize=1024)
def sqlserver(command: str, class_: str | None, object_type: str | None) -> Kind:
    """Category and action in SQL Server, where the command names no object type: the class or ``objectType`` does."""
    words = command.upper().split()
    if len(words) == 1 and words[0] in DDL:
        words += (object_type or class_ or "").upper().split()
    category, action = of_words(words, typed=False)
    return category, action or " ".join(words).lower() or None


@lru_cache(maxsize=256)
def mysql_object(command: str, object_type: str | None) -> Kind:
    """Category and action of Aurora MySQL's AUX events: what a statement did to one object."""
    words = command.upper().split()
    if len(words) == 1 and words[0] in DDL:
        words += (object_type or "").upper().split()
    category, action = of_words(words, typed=False)
    return category, action or " ".join(words).lower() or None


def mysql_query(statement: str) -> Kind:
    """Category and action of a MySQL statement, by its first word after comments; after ``WITH …`` by the verb."""
    verb, space, _ = statement[:_SIMPLE_LENGTH].partition(" ")
    if space:
        simple = _MYSQL_SIMPLE.get(verb.upper())
        if simple is not None:
            return simple if simple is not _SELECT or not selects_into_file(statement) else _SELECT_INTO
    return _mysql_short(statement) if len(statement) <= _SHORT else _mysql_words(statement)


def _mysql_words(statement: str) -> Kind:
    words = leading_words(statement)
    if not words:
        return UNKNOWN
    verb = words[0]
    if verb == "WITH":
        verb = main_verb(statement) or ""
        words = [verb]
    if verb == "SELECT":
        return _SELECT_INTO if selects_into_file(statement) else _SELECT
    if verb == "SET":
        return _mysql_set(statement, words)
    if verb == "RESET":
        return "admin", "reset"
    category, action = of_words(words, typed=True)
    if category == "other":
        return UNKNOWN
    return category, action or verb.lower()


#: COMMIT, SET autocommit=0, SHOW WARNINGS ...: the same few texts, over and over.
_mysql_short = lru_cache(maxsize=1024)(_mysql_words)


def _mysql_set(statement: str, words: Sequence[str]) -> Kind:
    category, action = of_words(words, typed=True)
    if category == "session" and mentions(statement, _SERVER_AUDIT, mysql=True):
        category = "audit"
    return category, action or "set"


_SELECT: Kind = ("read", "select")
_SELECT_INTO: Kind = ("write", "select into")
#: MySQL's statements of which the first word, followed by a space, says all.
_MYSQL_SIMPLE: dict[str, Kind] = {
    "SELECT": _SELECT,
    **{verb: VERBS[verb] for verb in ("INSERT", "UPDATE", "DELETE", "REPLACE", "CALL", "SHOW")},
}
_SIMPLE_LENGTH = max(map(len, _MYSQL_SIMPLE)) + 1
#: Characters of a statement that may well come again.
_SHORT = 64
