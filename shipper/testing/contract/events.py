"""The events that the contract sends: ordinary ones, and such as a hostile database user would make."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from shipper.event import SCHEMA_VERSION, Event
from shipper.output import Batch, Limits, Value
from shipper.templates import compile_values

#: Stands in every statement: audit data, which has no place in a log or in an error.
MARK = "audit-data-4711"
#: Bytes of the largest statement that is tried, as far as the destination's limits allow.
LARGEST = 1_000_000

_encode = msgspec.json.Encoder().encode


def event(number: int, **fields: object) -> Event:
    """An ordinary event; its id is made of the number."""
    known: dict[str, object] = {
        "engine": "aurora-postgresql",
        "category": "read",
        "action": "select",
        "outcome": "success",
        "user": "app",
        "database": "orders",
        "statement": f"SELECT '{MARK}', {number}",
        "client_ip": "192.0.2.7",
        "rows": number,
    }
    return msgspec.convert({**_required(number), **known, **fields}, Event)


def bare(number: int) -> Event:
    """An event of which nothing is known but that it happened."""
    return msgspec.convert(_required(number), Event)


def _required(number: int) -> dict[str, object]:
    return {
        "schema_version": SCHEMA_VERSION,
        "id": f"{number:032x}",
        "time": f"2026-01-02T03:04:05.{number % 1_000_000:06d}Z",
    }


def batch_of(values: Sequence[Value], events: Sequence[Event]) -> Batch:
    """A batch as the engine makes it: native JSON, and per event what the output asked for."""
    lines = [_encode(one) for one in events]
    render = compile_values(values) if values else lambda _event: ()
    return Batch(lines, [render(one) for one in events], sum(map(len, lines)))


def sized(number: int, size: int) -> Event:
    """An event of ``size`` encoded bytes, or of as many as it needs at least."""
    short = event(number, statement=MARK)
    return event(number, statement=MARK + "x" * (size - len(_encode(short))))


def room(limits: Limits) -> int:
    """The bytes of the largest event that is tried against such limits."""
    bounds = [bound for bound in (limits.max_event_bytes, limits.max_bytes) if bound is not None]
    return min([LARGEST + 1_000, *(bound - limits.overhead for bound in bounds)])


def _statement(text: str) -> Callable[[int], Event]:
    return lambda number: event(number, statement=f"{text} {MARK} {text}")


def _everywhere(text: str) -> Callable[[int], Event]:
    """The text in every field that a database user chooses."""
    return lambda number: event(
        number,
        user=text,
        database=text,
        schema=text,
        object=text,
        objects=[text, text],
        client_application=text,
        parameters=[text, None],
        native={text: text},
        extra=text,
        labels={"team": text},
        tags=[text],
    )


#: What an event is like → makes one.
HOSTILE: dict[str, Callable[[int], Event]] = {
    "every optional field absent": bare,
    "unicode of every plane": _everywhere("Zoë 日本 عربى \U0001d4b3 🐘 \U0010fffd"),
    "characters that join and turn around": _everywhere("e\u0301 \u202eabc\u202c 👩\u200d💻 \ufeff"),
    "control characters": _everywhere("".join(map(chr, [*range(32), *range(127, 160)]))),
    "line and paragraph separators": _everywhere("a\u2028b\u2029c\x85d\x0be\x0cf"),
    "line feeds and carriage returns": _everywhere("one\ntwo\r\nthree\r"),
    "replacement and non-characters": _everywhere("\ufffd \ufffe \uffff"),
    "quotes and backslashes": _everywhere('"\\"\'`\\\\" \\u0041 \\n'),
    "another event inside": _everywhere('"}\n{"schema_version":1,"id":"0"}\n{"x":"'),
    "templates and formats": _everywhere("{user} {{user}} %s %d %(user)s {0} ${jndi:ldap://x} $(id) `id`"),
    "paths": _everywhere("../../../etc/passwd\0/.\\..\\con:"),
    "markup": _everywhere("<script>alert(1)</script> ]]> &amp; <!-- --> =1+1 @SUM(A1)"),
    "header injection": _everywhere("x\r\nHost: elsewhere\r\n\r\nGET / HTTP/1.1"),
    "empty texts": _everywhere(" "),
    "long names": _everywhere("n" * 10_000),
    "names of devices and words": _everywhere("null"),
    "large numbers": lambda number: event(number, rows=2**63 - 1, duration_ns=2**63 - 1, client_port=65_535, pid=0),
    "many objects": lambda number: event(number, objects=[f"schema.table_{index}" for index in range(5_000)]),
    "terminal commands": _statement("\x1b[2J\x1b]0;owned\x07\x9b31m"),
}
