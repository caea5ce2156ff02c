"""Templates: texts with ``{field}`` in them, compiled at start to functions of an event (interface.md, Templates).

Written by the operator: the literal text, defaults, time formats. Under the influence of attackers: every value that
an event brings. In a target the latter can therefore add no separator, no ``..``, and nothing longer than 100
characters; in a text, no control character.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from itertools import repeat
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec

from shipper.event import Event
from shipper.fields import KINDS, Kind, UnknownField, field
from shipper.values import Field, Target, Value

Render = Callable[[Event], str]

#: A value in a target is cut to this many characters.
MAX_VALUE = 100
#: What stands in a target for a value that the event does not have, and for every value of one target too many.
NONE = "none"
OTHER = "other"

_TIMES = ("time", "arrived", "started", "ended")
_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")
_SAFE = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_DOTS = re.compile(r"\.{2,}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6,9}Z", re.ASCII)
#: Longer values are not worth remembering, and an attacker could fill the memory with them.
_MAX_CACHED = 128


def compile_values(values: Sequence[Value], *, other: bool = False) -> Callable[[Event], tuple[str | None, ...]]:
    """A function that renders what an output asked for; the same order, one text (or ``None``) per value.

    ``other``: every value inside a target is ``other``, for what exceeds ``max_targets``. Raises ``ValueError`` like
    ``check_template``.
    """
    render = compile_rows(values, other=other)
    return lambda event: render([event])[0]


def compile_rows(
    values: Sequence[Value], *, other: bool = False
) -> Callable[[Sequence[Event]], list[tuple[str | None, ...]]]:
    """The same for many events at once, column by column: a field that is text, and what is the same for every event,
    cost no call of a Python function per event."""
    renders = [_render(value, other) for value in values]
    if all(isinstance(render, _Constant) for render in renders):
        constant = tuple(render.text for render in renders if isinstance(render, _Constant))
        return lambda events: [constant] * len(events)

    def render_all(events: Sequence[Event]) -> list[tuple[str | None, ...]]:
        columns: list[Iterable[str | None]] = [
            repeat(render.text) if isinstance(render, _Constant) else map(render, events) for render in renders
        ]
        return list(zip(*columns, strict=False))  # what is the same for every event has no end

    return render_all


def is_constant(values: Sequence[Value]) -> bool:
    """Whether every event gets the same values."""
    return not any(
        isinstance(value, Field) or any(not isinstance(part, str) for part in _parse(value.template))
        for value in values
    )


#: Fields that nobody who may use the database can choose: the service's own, and the configuration's.
_GIVEN = frozenset(
    {"time", "arrived", "engine", "cluster", "cluster_id", "instance", "instance_id", "account", "region", "labels"}
    | {"source_name", "source_partition"}
)


def is_chosen_by_users(value: Value) -> bool:
    """Whether it is a target that depends on what a user of the database may choose: a database's name, but no time."""
    if not isinstance(value, Target):
        return False
    parts = [part for part in _parse(value.template) if not isinstance(part, str)]
    return any(part.name.split(".")[0] not in _GIVEN for part in parts)


def check_template(text: str, *, target: bool) -> None:
    """Raises ``ValueError`` that says what is wrong with a template and how to mend it.

    Both kinds: braces, field names, time formats, control characters. A target also: a literal beginning, no ``..``.
    """
    if _CONTROL.search(text):
        raise ValueError(f"the template {text!r} contains a control character; take it out")
    parts = _parse(text)
    if target:
        _check_target(text, parts)


class _Part(NamedTuple):
    """One ``{…}``: ``strftime`` is the format of a time, ``default`` stands for an absent value."""

    name: str
    strftime: str | None
    default: str | None


class _Constant:
    """A value that does not depend on the event."""

    __slots__ = ("text",)

    def __init__(self, text: str | None) -> None:
        self.text = text

    def __call__(self, event: Event) -> str | None:
        return self.text


# Parsing


def _parse(template: str) -> list[str | _Part]:
    """Literal texts and parts in turn; neighbouring literals are joined."""
    parts: list[str | _Part] = []
    literal: list[str] = []
    end = 0
    for token in _TOKEN.finditer(template):
        literal.append(template[end : token.start()])
        end = token.end()
        if token[0] in ("{{", "}}"):
            literal.append(token[0][0])
        elif token[1] is None:
            raise ValueError(
                f"the template {template!r} has a {token[0]!r} without its other half; "
                f"write {token[0] * 2!r} for the character itself"
            )
        else:
            if any(literal):
                parts.append("".join(literal))
            literal = []
            parts.append(_part(template, token[1]))
    literal.append(template[end:])
    if any(literal):
        parts.append("".join(literal))
    return parts


def _part(template: str, inside: str) -> _Part:
    name, dash, default = inside.partition(":-")
    if dash:
        _check_field(template, name)
        return _Part(name, None, default)
    name, colon, strftime = inside.partition(":")
    _check_field(template, name)
    if not colon:
        return _Part(name, None, None)
    if name not in _TIMES:
        raise ValueError(
            f"the template {template!r} formats {name!r}, which is no time; "
            f"write {{{name}:-TEXT}} for a default, and formats only for {', '.join(_TIMES)}"
        )
    _time_pieces(template, strftime)
    return _Part(name, strftime, None)


def _check_field(template: str, name: str) -> None:
    try:
        _, kind = field(name)
    except UnknownField as error:
        raise ValueError(f"the template {template!r}: {error.message}; {error.mend}") from None
    if kind is Kind.TABLE:
        raise ValueError(f"the template {template!r} names a table of values; write {{{name}.KEY}}")
    if kind is Kind.TEXTS:
        raise ValueError(f"the template {template!r} names {name}, which holds a list; templates take single values")


def _check_target(text: str, parts: list[str | _Part]) -> None:
    beginning = parts[0] if parts and isinstance(parts[0], str) else ""
    if not beginning:
        raise ValueError(
            f"the template {text!r} begins with a value, which whoever uses the database may choose; "
            "begin it with literal text"
        )
    if len(parts) > 1 and not beginning.strip("/."):
        raise ValueError(
            f"the template {text!r} would let a value choose a top-level directory; "
            f"begin it with a literal one, for example 'audit{beginning}…'"
        )
    for part in parts:
        if isinstance(part, _Part) and part.default and _reduce(part.default) != part.default:
            raise ValueError(
                f"the template {text!r} has the default {part.default!r}; in a target it may only contain "
                f"A-Z a-z 0-9 _ - and single inner dots, at most {MAX_VALUE} characters"
            )
    if ".." in "".join(part if isinstance(part, str) else _sample(text, part) for part in parts):
        raise ValueError(f"the template {text!r} contains '..', which could lead elsewhere; write the place itself")


def _sample(template: str, part: _Part) -> str:
    """A value of harmless characters in the place of a part."""
    if part.strftime is None:
        return NONE
    return "".join(piece if isinstance(piece, str) else "0" for piece in _time_pieces(template, part.strftime))


# Rendering


def _render(value: Value, other: bool) -> Callable[[Event], str | None]:
    if isinstance(value, Field):
        return _field_text(value.name)
    target = isinstance(value, Target)
    check_template(value.template, target=target)
    parts = _parse(value.template)
    if isinstance(value, Target) and other:
        parts = [part if isinstance(part, str) else OTHER for part in parts]
    if all(isinstance(part, str) for part in parts):
        text = "".join(part for part in parts if isinstance(part, str))
        return _Constant(_lowered(text, value) if target else text or None)
    render = _concatenation([part if isinstance(part, str) else _value(part, target) for part in parts])
    if not isinstance(value, Target):
        return lambda event: render(event) or None
    return (lambda event: render(event).lower()) if value.lower else render


def _lowered(text: str, value: Value) -> str:
    return text.lower() if isinstance(value, Target) and value.lower else text


def _concatenation(parts: list[str | Render]) -> Render:
    first, *rest = parts
    if not rest and not isinstance(first, str):
        return first
    if isinstance(first, str) and len(rest) == 1 and not isinstance(rest[0], str):
        literal, value = first, rest[0]
        return lambda event: literal + value(event)
    renders: list[Render] = [_literal(part) if isinstance(part, str) else part for part in parts]

    def concatenate(event: Event) -> str:
        return "".join([render(event) for render in renders])

    return concatenate


def _literal(text: str) -> Render:
    return lambda event: text


def _value(part: _Part, target: bool) -> Render:
    """Renders one ``{…}``."""
    if part.strftime is not None:
        return _time(part.name, part.strftime, NONE if target else "")
    text = _field_text(part.name)
    if target:
        absent = part.default or NONE

        def reduced(event: Event) -> str:
            value = text(event)
            if value is None:
                return absent
            return (_remembered(value) if len(value) <= _MAX_CACHED else _reduce(value)) or absent

        return reduced
    missing = part.default or ""

    def cleaned(event: Event) -> str:
        value = text(event)
        if value is None:
            return missing
        return value if value.isascii() and value.isprintable() else _CONTROL.sub("", value) or missing

    return cleaned


def _reduce(value: str) -> str:
    """What of a value may stand in a target; empty if nothing is left."""
    return _DOTS.sub(".", _UNSAFE.sub("_", value[:MAX_VALUE])).strip(".")


_remembered = lru_cache(maxsize=4096)(_reduce)


def _field_text(name: str) -> Callable[[Event], str | None]:
    """A field as text: numbers in digits, booleans as true and false, lists and tables as JSON."""
    read, kind = field(name)
    if kind is Kind.TEXT:
        return read
    encode = msgspec.json.encode

    def text(event: Event) -> str | None:
        value = read(event)
        return None if value is None else encode(value).decode()

    return text


# Times: RFC 3339 UTC of fixed shape, so most directives are slices of the text.

_SLICES: Mapping[str, tuple[int, int]] = {
    "Y": (0, 4),
    "m": (5, 7),
    "d": (8, 10),
    "H": (11, 13),
    "M": (14, 16),
    "S": (17, 19),
    "f": (20, 26),
    "y": (2, 4),
    "F": (0, 10),
    "T": (11, 19),
}
_EPOCH = "1970-01-01T00:00:00.000000Z"
#: Directives that need the calendar; each holds for a whole day.
_CALENDAR = frozenset("jGVu")


def _time_pieces(template: str, strftime: str) -> list[str | tuple[str]]:
    """Literal texts, and directives as tuples of one letter."""
    pieces: list[str | tuple[str]] = []
    rest = strftime
    while rest:
        literal, percent, after = rest.partition("%")
        if literal:
            pieces.append(literal)
        if not percent:
            break
        letter, rest = after[:1], after[1:]
        if letter == "%":
            pieces.append("%")
        elif letter in _SLICES or letter in _CALENDAR:
            pieces.append((letter,))
        else:
            known = " ".join(f"%{each}" for each in (*_SLICES, *sorted(_CALENDAR), "%"))
            raise ValueError(f"the template {template!r} has the time format %{letter}; known are {known}")
    if not any(isinstance(piece, tuple) for piece in pieces):
        raise ValueError(f"the template {template!r} has a time format without any directive; write {{time:%Y.%m.%d}}")
    return pieces


def _time(name: str, strftime: str, absent: str) -> Render:
    """Renders a time; the text up to the finest directive is looked up, so that a day or a second is made once."""
    pieces = _time_pieces(strftime, strftime)
    needed = max(_SLICES.get(piece[0], (0, 10))[1] for piece in pieces if isinstance(piece, tuple))
    read: Callable[[Event], str | None] = field(name)[0]
    prefix = itemgetter(slice(0, needed))
    known: dict[str, str] = {}

    def render(event: Event) -> str:
        value = read(event)
        if value is None:
            return absent
        found = known.get(prefix(value))
        if found is None:
            found = _formatted(prefix(value), pieces)
            if found is None:
                return absent
            if len(known) >= 4096:
                known.clear()
            known[prefix(value)] = found
        return found

    return render


def _formatted(prefix: str, pieces: list[str | tuple[str]]) -> str | None:
    """``None`` where the text does not begin like a time."""
    value = prefix + _EPOCH[len(prefix) :]
    if not _TIME.fullmatch(value):
        return None
    try:
        day = datetime.fromisoformat(value[:19])
    except ValueError:
        return None
    return "".join(piece if isinstance(piece, str) else _directive(piece[0], value, day) for piece in pieces)


def _directive(letter: str, value: str, day: datetime) -> str:
    if letter in _SLICES:
        start, end = _SLICES[letter]
        return value[start:end]
    year, week, weekday = day.isocalendar()
    calendar: dict[str, Any] = {
        "j": f"{day.timetuple().tm_yday:03}",
        "G": f"{year:04}",
        "V": f"{week:02}",
        "u": str(weekday),
    }
    return str(calendar[letter])


assert set(_TIMES) <= set(KINDS)
