"""How configuration names an event's fields: what each one holds, how it is read, and the nearest name to a wrong one.

``match``, templates and outputs' fields all use the JSON names of the event, ``native.KEY`` and ``labels.KEY``.
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Callable, Iterable
from enum import Enum
from operator import attrgetter
from typing import Any

from shipper.event import CATEGORIES, ENGINES, FIELDS, OUTCOMES, Event


class Kind(Enum):
    """What a field holds."""

    TEXT = "text"
    NUMBER = "a whole number"
    FLAG = "true or false"
    TEXTS = "a list of texts"
    TABLE = "a table of texts"


class UnknownField(ValueError):
    """No such field. ``mend`` says what to write instead."""

    def __init__(self, message: str, mend: str) -> None:
        super().__init__(f"{message}; {mend}")
        self.message = message
        self.mend = mend


def _kind(hint: Any) -> Kind:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        (hint,) = (part for part in typing.get_args(hint) if part is not type(None))
    kinds = {int: Kind.NUMBER, bool: Kind.FLAG, list: Kind.TEXTS, dict: Kind.TABLE}
    return kinds.get(typing.get_origin(hint) or hint, Kind.TEXT)


_HINTS = typing.get_type_hints(Event)
#: JSON name → what the field holds, in encoding order.
KINDS: dict[str, Kind] = {name: _kind(_HINTS[attribute]) for name, attribute in FIELDS.items()}
#: Fields of which every possible value is known.
ENUMERATED: dict[str, tuple[str, ...]] = {
    "engine": ENGINES,
    "category": CATEGORIES,
    "outcome": OUTCOMES,
    "failure": ("denied", "error"),
}
_TABLES = tuple(name for name, kind in KINDS.items() if kind is Kind.TABLE)
_NATIVE_KEY = re.compile(r"[a-z0-9_]+")
#: Names that people bring along from the activity stream and from other products.
_ALIASES = {
    "app": "client_application",
    "application": "client_application",
    "commandtext": "statement",
    "databasename": "database",
    "db": "database",
    "dbname": "database",
    "dbusername": "user",
    "errormessage": "error",
    "host": "client_host",
    "ip": "client_ip",
    "objectname": "object",
    "query": "statement",
    "remotehost": "client_host",
    "rowcount": "rows",
    "sourceip": "client_ip",
    "sql": "statement",
    "status": "outcome",
    "table": "object",
    "timestamp": "time",
    "username": "user",
}


def field(name: str) -> tuple[Callable[[Event], Any], Kind]:
    """How to read a field from an event (``None``: absent), and what it holds. Raises ``UnknownField``."""
    if name in FIELDS:
        return attrgetter(FIELDS[name]), KINDS[name]
    table, dot, key = name.partition(".")
    if not dot or table not in _TABLES:
        raise UnknownField(f"an event has no field {name!r}", _nearest_field(name))
    if not key:
        raise UnknownField(f"{name!r} names no value", f"write {table}.KEY")
    if table == "native" and not _NATIVE_KEY.fullmatch(key):
        raise UnknownField(f"no key of native can be {key!r}", "they consist of lower-case letters, digits and _")
    return _reader(attrgetter(table), key), Kind.TEXT


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that a person most likely meant, if any is near."""
    found = difflib.get_close_matches(name.lower(), list(known), 1)
    return found[0] if found else None


def _reader(table: Callable[[Event], dict[str, str] | None], key: str) -> Callable[[Event], str | None]:
    def read(event: Event) -> str | None:
        values = table(event)
        return None if values is None else values.get(key)

    return read


def _nearest_field(name: str) -> str:
    found = _ALIASES.get(re.sub(r"[^a-z]", "", name.lower())) or nearest(name, FIELDS)
    return f"did you mean {found!r}?" if found else f"the fields are {', '.join(FIELDS)}, native.KEY and labels.KEY"
