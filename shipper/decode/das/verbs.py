"""The words of commands and statements, and what activity they are: one table for every engine."""

from __future__ import annotations

from collections.abc import Sequence

from shipper.event import Category

__all__ = ["DDL", "UNKNOWN", "VERBS", "Kind", "of_words"]

#: Category and action.
Kind = tuple[Category, str | None]

UNKNOWN: Kind = ("other", None)

#: First word → category, and the action where that is not the whole command in lower case.
VERBS: dict[str, Kind] = {
    "CONNECT": ("authentication", "login"),
    "FAILED_CONNECT": ("authentication", "login"),
    "LOGON": ("authentication", "login"),
    "LOGIN": ("authentication", "login"),
    "CHANGEUSER": ("authentication", "change user"),
    "DISCONNECT": ("session", "logout"),
    "LOGOFF": ("session", "logout"),
    "LOGOUT": ("session", "logout"),
    "AUDIT": ("audit", None),
    "NOAUDIT": ("audit", None),
    "GRANT": ("privilege", "grant"),
    "REVOKE": ("privilege", "revoke"),
    "DENY": ("privilege", "deny"),
    "IMPERSONATE": ("privilege", None),
    "REASSIGN": ("privilege", None),
    "COMMENT": ("ddl", "comment"),
    "REFRESH": ("ddl", None),
    "INSERT": ("write", "insert"),
    "UPDATE": ("write", "update"),
    "DELETE": ("write", "delete"),
    "MERGE": ("write", "merge"),
    "REPLACE": ("write", "replace"),
    "TRUNCATE": ("write", "truncate"),
    "LOAD": ("write", "load"),
    "IMPORT": ("write", None),
    "WRITE": ("write", None),
    "CALL": ("function", "call"),
    "EXECUTE": ("function", "execute"),
    "EXEC": ("function", "execute"),
    "DO": ("function", "do"),
    "SELECT": ("read", "select"),
    "SHOW": ("read", "show"),
    "EXPLAIN": ("read", "explain"),
    "DESCRIBE": ("read", "describe"),
    "DESC": ("read", "describe"),
    "FETCH": ("read", "fetch"),
    "TABLE": ("read", "table"),
    "VALUES": ("read", "values"),
    "HANDLER": ("read", "handler"),
    "HELP": ("read", "help"),
    "READ": ("read", None),
    "SET": ("session", None),
    "USE": ("session", None),
    "BEGIN": ("session", None),
    "START": ("session", None),
    "COMMIT": ("session", None),
    "ROLLBACK": ("session", None),
    "ABORT": ("session", None),
    "END": ("session", None),
    "SAVEPOINT": ("session", None),
    "RELEASE": ("session", None),
    "TRANSACTION": ("session", None),
    "XA": ("session", None),
    "PREPARE": ("session", None),
    "DEALLOCATE": ("session", None),
    "DISCARD": ("session", None),
    "DECLARE": ("session", None),
    "CLOSE": ("session", None),
    "MOVE": ("session", None),
    "LISTEN": ("session", None),
    "UNLISTEN": ("session", None),
    "NOTIFY": ("session", None),
    "LOCK": ("session", None),
    "UNLOCK": ("session", None),
    "RESET": ("session", None),
    "KILL": ("admin", None),
    "SHUTDOWN": ("admin", None),
    "RESTART": ("admin", None),
    "BACKUP": ("admin", None),
    "RESTORE": ("admin", None),
    "VACUUM": ("admin", None),
    "ANALYZE": ("admin", None),
    "CHECKPOINT": ("admin", None),
    "REINDEX": ("admin", None),
    "CLUSTER": ("admin", None),
    "FLUSH": ("admin", None),
    "OPTIMIZE": ("admin", None),
    "REPAIR": ("admin", None),
    "CHECK": ("admin", None),
    "CHECKSUM": ("admin", None),
    "INSTALL": ("admin", None),
    "UNINSTALL": ("admin", None),
    "PURGE": ("admin", None),
    "CHANGE": ("admin", None),
    "STOP": ("admin", None),
    "CLONE": ("admin", None),
    "DBCC": ("admin", None),
}

#: First words that say more together than the first alone; the longest that fits counts.
_PHRASES: dict[tuple[str, ...], Kind] = {
    ("AUTH", "FAILURE"): ("authentication", "login"),
    ("CHANGE", "USER"): ("authentication", "change user"),
    ("DATABASE", "AUTHENTICATION"): ("authentication", "login"),
    ("DATABASE", "LOGOUT"): ("session", "logout"),
    ("SET", "ROLE"): ("privilege", "set role"),
    ("SET", "DEFAULT", "ROLE"): ("privilege", "set role"),
    ("SET", "PASSWORD"): ("privilege", "set password"),
    ("SET", "SESSION", "AUTHORIZATION"): ("privilege", "set session authorization"),
    ("RESET", "SESSION", "AUTHORIZATION"): ("privilege", "set session authorization"),
    ("RESET", "ROLE"): ("privilege", "set role"),
    ("CHANGE", "PASSWORD"): ("privilege", "change password"),
    ("CHANGE", "OWN", "PASSWORD"): ("privilege", "change password"),
    ("CHANGE", "USERS", "LOGIN"): ("privilege", None),
    ("CHANGE", "DEFAULT", "DATABASE"): ("privilege", None),
    ("CHANGE", "DEFAULT", "LANGUAGE"): ("privilege", None),
    ("CHANGE", "LOGIN", "CREDENTIAL"): ("privilege", None),
    ("RESET", "PASSWORD"): ("privilege", "change password"),
    ("RESET", "OWN", "PASSWORD"): ("privilege", "change password"),
    ("MUST", "CHANGE", "PASSWORD"): ("privilege", "change password"),
    ("PASSWORD", "EXPIRATION"): ("privilege", None),
    ("PASSWORD", "POLICY"): ("privilege", None),
    ("UNLOCK", "ACCOUNT"): ("privilege", None),
    ("ADD", "MEMBER"): ("privilege", None),
    ("DROP", "MEMBER"): ("privilege", None),
    ("DISABLE",): ("privilege", None),
    ("ENABLE",): ("privilege", None),
    ("TAKE", "OWNERSHIP"): ("privilege", None),
    ("CHANGE", "OWNER"): ("privilege", None),
    ("ALTER", "SYSTEM"): ("admin", "alter system"),
    ("ALTER", "INSTANCE"): ("admin", "alter instance"),
    ("ALTER", "SESSION"): ("session", "alter session"),
    ("SELECT", "INTO"): ("write", "select into"),
    ("IMPORT", "FOREIGN", "SCHEMA"): ("ddl", "import foreign schema"),
    ("SECURITY", "LABEL"): ("ddl", "security label"),
    ("DECLARE", "CURSOR"): ("read", "declare cursor"),
    ("START", "TRANSACTION"): ("session", "start transaction"),
    ("START", "SLAVE"): ("admin", "start slave"),
    ("START", "REPLICA"): ("admin", "start replica"),
    ("START", "GROUP_REPLICATION"): ("admin", "start group_replication"),
    ("PL/SQL", "EXECUTE"): ("function", "execute"),
    ("SERVER", "STARTED"): ("admin", None),
    ("SERVER", "SHUTDOWN"): ("admin", None),
    ("SERVER", "PAUSED"): ("admin", None),
    ("SERVER", "CONTINUE"): ("admin", None),
}
_LONGEST_PHRASE = max(map(len, _PHRASES))

DDL = frozenset({"CREATE", "ALTER", "DROP", "RENAME"})

_MODIFIER_NAMES = """
    OR REPLACE TEMPORARY TEMP GLOBAL LOCAL UNIQUE FULLTEXT SPATIAL UNLOGGED RECURSIVE PUBLIC EDITIONABLE NONEDITIONABLE
    FORCE BITMAP IGNORE ONLINE OFFLINE AGGREGATE TRUSTED PROCEDURAL CONSTRAINT UNDO PRIVATE CLUSTERED NONCLUSTERED
"""
#: What may stand between CREATE and the type of what is created.
_MODIFIERS = frozenset(_MODIFIER_NAMES.split())

_TYPE_NAMES = """
    ACCESS METHOD,AGGREGATE,APPLICATION ROLE,ASSEMBLY,AUDIT POLICY,CAST,CERTIFICATE,CLUSTER,COLLATION,CONTEXT,
    CONVERSION,CREDENTIAL,DATABASE,DATABASE AUDIT SPECIFICATION,DATABASE LINK,DATABASE ROLE,DEFAULT PRIVILEGES,
    DIRECTORY,DOMAIN,EVENT,EVENT TRIGGER,EXTENSION,FOREIGN DATA WRAPPER,FOREIGN TABLE,FUNCTION,GROUP,INDEX,JAVA,
    LANGUAGE,LARGE OBJECT,LIBRARY,LOGFILE GROUP,LOGIN,MATERIALIZED VIEW,MATERIALIZED VIEW LOG,OPERATOR,
    OPERATOR CLASS,OPERATOR FAMILY,OWNED,PACKAGE,PACKAGE BODY,PLUGGABLE DATABASE,POLICY,PROCEDURE,PROFILE,
    PUBLICATION,RESOURCE GROUP,ROLE,ROLLBACK SEGMENT,RULE,SCHEMA,SEQUENCE,SERVER,SERVER AUDIT,
    SERVER AUDIT SPECIFICATION,SERVER ROLE,STATISTICS,SUBSCRIPTION,SYNONYM,TABLE,TABLESPACE,TEXT SEARCH,
    TRANSFORM,TRIGGER,TYPE,TYPE BODY,USER,USER MAPPING,VIEW
"""
#: Types of objects, as words.
_TYPES = frozenset(tuple(name.split()) for name in _TYPE_NAMES.split(","))
_LONGEST_TYPE = max(map(len, _TYPES))
_ACCOUNTS = frozenset({"USER", "ROLE", "LOGIN"})
_ACCOUNT_TYPES = frozenset({"PROFILE", "GROUP", "WINDOWS GROUP", "DEFAULT PRIVILEGES"})


def of_words(words: Sequence[str], *, typed: bool) -> Kind:
    """Category and action of the words of a command, in upper case; no action where it is the whole command.

    ``typed``: the words are a statement's, so an object's type is only what is known to be one.
    """
    if not words:
        return UNKNOWN
    for length in range(min(_LONGEST_PHRASE, len(words)), 0, -1):
        found = _PHRASES.get(tuple(words[:length]))
        if found is not None:
            return found
    if words[0] in DDL:
        return _ddl(words[0], _object_type(words[1:], typed))
    return VERBS.get(words[0], UNKNOWN)


def _ddl(verb: str, type_: tuple[str, ...]) -> Kind:
    action = " ".join((verb, *type_)).lower()
    if "AUDIT" in type_:
        return "audit", action
    if type_ and (type_[-1] in _ACCOUNTS or " ".join(type_) in _ACCOUNT_TYPES):
        return "privilege", action
    return "ddl", action


def _object_type(words: Sequence[str], typed: bool) -> tuple[str, ...]:
    at = 0
    while at < len(words):
        word = words[at]
        if word in {"DEFINER", "ALGORITHM"}:
            at = _after_clause(words, at + 1)
        elif word == "SQL" and words[at + 1 : at + 2] == ["SECURITY"]:
            at += 3  # SQL SECURITY DEFINER
        elif word in _MODIFIERS and not (word == "AGGREGATE" and not typed):
            at += 1
        else:
            break
    for length in range(min(_LONGEST_TYPE, len(words) - at), 0, -1):
        type_ = tuple(words[at : at + length])
        if type_ in _TYPES:
            return type_
    return () if typed else tuple(words[at:])


def _after_clause(words: Sequence[str], at: int) -> int:
    """Behind ``= 'app'@'host'``, ``= CURRENT_USER()`` or ``= MERGE``."""
    if words[at : at + 1] == ["="]:
        at += 1
    at += 1
    while at < len(words) and (words[at] in ("@", "'", "(", ")") or words[at].startswith("@")):
        at += 1
    return at
