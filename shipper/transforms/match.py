"""The match language: a TOML table of conditions, compiled at start to one function of an event (docs/match.md).

Field names and values come from the configuration and are trusted; the events are not: everything here takes time
linear in an event's size, whatever it contains.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import re2

from shipper.event import Event
from shipper.fields import ENUMERATED, Kind, UnknownField, field, nearest

Test = Callable[[Event], bool]

#: Modifiers that say how a text compares; at most one of them. Without any: the whole text.
_COMPARISONS = ("contains", "startswith", "endswith", "re", "cidr", "gt", "gte", "lt", "lte", "exists")
_ORDERINGS = ("gt", "gte", "lt", "lte")
MODIFIERS = (*_COMPARISONS, "cased", "all")
#: Tables inside tables; far beyond what a person writes.
_MAX_DEPTH = 32
_MAX_PATTERN = 10_000
#: Longer than any address with a zone.
_MAX_ADDRESS = 64
_NUMBER = re.compile(r"-?\d{1,40}(\.\d{1,40})?([eE][+-]?\d{1,3})?")
_WHOLE = re.compile(r"-?\d{1,18}")


class MatchError(ValueError):
    """A match table is wrong. ``key`` is the dotted path inside it, ``mend`` what to write instead."""

    def __init__(self, key: str, message: str, mend: str = "") -> None:
        super().__init__("".join((f"{key}: " if key else "", message, f"; {mend}" if mend else "")))
        self.key = key
        self.message = message
        self.mend = mend


def compile_match(table: Mapping[str, Any], *, cased: bool = False) -> Test:
    """A function that says whether an event matches: every key of the table must hold, a list means any of.

    ``cased``: texts compare exactly, as in ``drop``. Raises ``MatchError``.
    """
    return _table(table, cased, "", 0)


class _Condition(NamedTuple):
    """One key of a table: ``path`` for messages, how it compares, and the values, never empty."""

    path: str
    name: str
    comparison: str
    cased: bool
    every: bool
    values: Sequence[Any]


def _table(table: Any, cased: bool, path: str, depth: int) -> Test:
    if not isinstance(table, Mapping):
        raise MatchError(path, f"is {_words(table)}, not a table", 'write { field = "value" }')
    if not table:
        raise MatchError(path, "an empty table matches every event", "give at least one condition")
    if depth > _MAX_DEPTH:
        raise MatchError(path, f"tables are nested more than {_MAX_DEPTH} deep")
    tests: list[tuple[int, Test]] = []
    for key, value in table.items():
        here = f"{path}.{key}" if path else key
        if key == "not":
            tests.append((_DEAR, _inverse(_table(value, cased, here, depth + 1))))
        elif key == "any":
            tests.append((_DEAR, _any_of(value, cased, here, depth + 1)))
        elif key in ("native", "labels") and isinstance(value, Mapping):
            tests += [_condition(f"{key}.{inner}", value[inner], cased, f"{here}.{inner}") for inner in value]
        else:
            tests.append(_condition(key, value, cased, here))
    # The conditions have no effects, so the cheap ones may be asked first.
    return _conjunction([test for _, test in sorted(tests, key=lambda pair: pair[0])])


def _any_of(tables: Any, cased: bool, path: str, depth: int) -> Test:
    if not isinstance(tables, Sequence) or isinstance(tables, str) or not tables:
        raise MatchError(path, f"is {_words(tables)}, not a list of tables", "write any = [{ … }, { … }]")
    tests = [_table(table, cased, f"{path}.{index}", depth) for index, table in enumerate(tables)]

    def matches(event: Event) -> bool:
        return any(test(event) for test in tests)

    return matches


def _inverse(test: Test) -> Test:
    def matches(event: Event) -> bool:
        return not test(event)

    return matches


def _conjunction(tests: list[Test]) -> Test:
    if len(tests) == 1:
        return tests[0]
    if len(tests) == 2:
        first, second = tests
        return lambda event: first(event) and second(event)

    def matches(event: Event) -> bool:
        return all(test(event) for test in tests)

    return matches


# Rough cost of a condition, to order them by.
_CHEAP, _SCANS, _DEAR = range(3)


def _condition(key: str, value: Any, cased: bool, path: str) -> tuple[int, Test]:
    name, *modifiers = key.split("|")
    try:
        read, kind = field(name)
    except UnknownField as error:
        raise MatchError(path, error.message, error.mend) from None
    comparison = _comparison(modifiers, path)
    every = "all" in modifiers
    values: list[Any] = value if isinstance(value, list) else [value]
    if not values:
        raise MatchError(path, "an empty list matches no event")
    if every and not isinstance(value, list):
        raise MatchError(path, "all needs a list of values", f"write {key.replace('|all', '')!r}, or a list")
    condition = _Condition(path, name, comparison, cased or "cased" in modifiers, every, values)
    if comparison == "exists":
        return _CHEAP, _exists(read, condition, value)
    if kind is Kind.TABLE:
        raise MatchError(path, f"{name} is a table of values", f"write {name}.KEY")
    if comparison in _ORDERINGS:
        return _CHEAP, _ordered(read, kind, condition, value)
    if kind in (Kind.NUMBER, Kind.FLAG):
        if modifiers:
            raise MatchError(path, f"{name} holds {kind.value}: |{modifiers[0]} means nothing for it")
        return _CHEAP, _member(read, frozenset(_typed(kind, condition, each) for each in values))
    return _text(read, kind, condition)


def _comparison(modifiers: list[str], path: str) -> str:
    for modifier in modifiers:
        if modifier not in MODIFIERS:
            near = nearest(modifier, MODIFIERS)
            mend = f"did you mean |{near}?" if near else f"the modifiers are {', '.join(MODIFIERS)}"
            raise MatchError(path, f"there is no modifier |{modifier}", mend)
    if len(set(modifiers)) < len(modifiers):
        raise MatchError(path, "a modifier stands twice")
    found = [modifier for modifier in modifiers if modifier in _COMPARISONS]
    if len(found) > 1:
        raise MatchError(path, f"|{found[0]} and |{found[1]} exclude each other", "write two keys: both must hold")
    comparison = found[0] if found else ""
    if comparison in ("cidr", "exists", *_ORDERINGS) and len(modifiers) > 1:
        raise MatchError(path, f"|{comparison} stands alone")
    if comparison == "re" and "cased" in modifiers:
        raise MatchError(path, "|re tells capitals from small letters anyway", "leave out |cased; (?i) ignores case")
    return comparison


def _exists(read: Callable[[Event], Any], condition: _Condition, value: Any) -> Test:
    if not isinstance(value, bool):
        raise MatchError(condition.path, f"is {_words(value)}", "write true or false")
    if value:
        return lambda event: read(event) is not None
    return lambda event: read(event) is None


def _member(read: Callable[[Event], Any], values: frozenset[Any]) -> Test:
    return lambda event: read(event) in values


def _typed(kind: Kind, condition: _Condition, value: Any) -> int | bool:
    """A number or a boolean; also as text, because ``${NAME}`` always gives one."""
    if kind is Kind.FLAG:
        if isinstance(value, bool):
            return value
        if value in ("true", "false"):
            return bool(value == "true")
    elif isinstance(value, int) and not isinstance(value, bool):
        return value
    elif isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value)
    raise MatchError(condition.path, f"{condition.name} holds {kind.value}, not {_words(value)}")


def _ordered(read: Callable[[Event], Any], kind: Kind, condition: _Condition, value: Any) -> Test:
    comparison, path = condition.comparison, condition.path
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = _number(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise MatchError(path, f"|{comparison} compares with one number, not with {_words(value)}")
    limit = value
    if kind is Kind.TEXT and "." in condition.name:
        text_of = read

        def read(event: Event) -> int | float | None:  # values of native and labels are numbers' JSON text
            text = text_of(event)
            return _number(text) if text is not None and _NUMBER.fullmatch(text) else None

    elif kind is not Kind.NUMBER:
        raise MatchError(path, f"{condition.name} holds {kind.value}; |{comparison} compares numbers")
    if comparison == "gt":
        return lambda event: (found := read(event)) is not None and found > limit
    if comparison == "gte":
        return lambda event: (found := read(event)) is not None and found >= limit
    if comparison == "lt":
        return lambda event: (found := read(event)) is not None and found < limit
    return lambda event: (found := read(event)) is not None and found <= limit


def _number(text: str) -> int | float:
    return int(text) if _WHOLE.fullmatch(text) else float(text)


def _text(read: Callable[[Event], Any], kind: Kind, condition: _Condition) -> tuple[int, Test]:
    """Conditions on texts and on lists of texts, of which any element may match."""
    name, comparison, path = condition.name, condition.comparison, condition.path
    texts = [_checked_text(condition, value) for value in condition.values]
    if comparison == "cidr":
        test = _network_test(condition, texts)
        return _CHEAP, _of_any(read, [test], kind)
    if name in ENUMERATED:
        texts = [_known(condition, text) for text in texts]
    if not comparison and not condition.every and kind is Kind.TEXT:
        return _CHEAP, _whole(read, texts, condition.cased or name in ENUMERATED)
    if not comparison and condition.every and kind is Kind.TEXT:
        raise MatchError(path, f"{name} has one value, which cannot equal all of a list", "leave out |all")
    # With |all every value needs a test of its own; otherwise one test takes all values.
    groups = [[text] for text in texts] if condition.every else [texts]
    tests = [_text_test(condition, group) for group in groups]
    return _CHEAP if not comparison else _DEAR if comparison == "re" else _SCANS, _of_any(read, tests, kind)


def _whole(read: Callable[[Event], Any], texts: list[str], cased: bool) -> Test:
    if cased:
        return _member(read, frozenset(texts))
    folded = frozenset(text.casefold() for text in texts)

    def matches(event: Event) -> bool:
        value = read(event)
        return value is not None and value.casefold() in folded

    return matches


def _of_any(read: Callable[[Event], Any], tests: list[Callable[[str], bool]], kind: Kind) -> Test:
    """Every test must hold: for a list, each for at least one element."""
    if kind is Kind.TEXTS:

        def matches(event: Event) -> bool:
            values = read(event)
            return values is not None and all(
                any(test(value) for value in values if value is not None) for test in tests
            )

    elif len(tests) == 1:
        (only,) = tests

        def matches(event: Event) -> bool:
            value = read(event)
            return value is not None and only(value)

    else:

        def matches(event: Event) -> bool:
            value = read(event)
            return value is not None and all(test(value) for test in tests)

    return matches


def _text_test(condition: _Condition, texts: list[str]) -> Callable[[str], bool]:
    if condition.comparison == "re":
        return _pattern_test(condition, texts)
    cased = condition.cased
    wanted = tuple(texts) if cased else tuple(text.casefold() for text in texts)
    exact: Callable[[str], bool]
    match condition.comparison:
        case "startswith":
            exact = lambda value: value.startswith(wanted)  # noqa: E731 - the four read best side by side
        case "endswith":
            exact = lambda value: value.endswith(wanted)  # noqa: E731
        case "contains":
            exact = lambda value: any(text in value for text in wanted)  # noqa: E731
        case _:
            exact = frozenset(wanted).__contains__
    return exact if cased else lambda value: exact(value.casefold())


def _pattern_test(condition: _Condition, patterns: list[str]) -> Callable[[str], bool]:
    # One RE2 each: unlike its Set, it falls back to a slower way instead of failing when an event exhausts its memory.
    searches = [_compile_pattern(condition, pattern).search for pattern in patterns]

    def matches(value: str) -> bool:
        # Bytes spare RE2's wrapper the counting of characters; a lone surrogate must not be an escape from a rule.
        text = value.encode("utf-8", "surrogatepass")
        return any(search(text) is not None for search in searches)

    return matches


def _compile_pattern(condition: _Condition, pattern: str) -> Any:
    if len(pattern) > _MAX_PATTERN:
        raise MatchError(condition.path, f"the pattern is longer than {_MAX_PATTERN} characters")
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        found = error.args[0]
        detail = found.decode("utf-8", "replace") if isinstance(found, bytes) else str(found)
        mend = "the syntax is RE2's: no look-around, no back-references"
        raise MatchError(condition.path, f"{pattern!r} is no pattern: {detail}", mend) from None


def _network_test(condition: _Condition, texts: list[str]) -> Callable[[str], bool]:
    if condition.name not in ("client_ip", "server_ip") and "." not in condition.name:
        raise MatchError(condition.path, f"{condition.name} holds no address", "use client_ip or server_ip")
    networks = [_network(condition, text) for text in texts]

    @lru_cache(maxsize=4096)
    def inside(value: str) -> bool:
        try:
            address = ipaddress.ip_address(value)
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in networks)

    # Longer texts are no addresses and must not fill the cache.
    return lambda value: len(value) <= _MAX_ADDRESS and inside(value)


def _network(condition: _Condition, text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        pass
    try:
        wider = str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        raise MatchError(
            condition.path, f"{text!r} is not a network", 'write for example "10.0.0.0/8" or "fd00::/8"'
        ) from None
    raise MatchError(condition.path, f"{text!r} names an address inside a network", f"write {wider!r}")


def _checked_text(condition: _Condition, value: Any) -> str:
    if not isinstance(value, str):
        mend = f'write "{value}"' if isinstance(value, int | float) and not isinstance(value, bool) else ""
        raise MatchError(condition.path, f"{condition.name} holds text, not {_words(value)}", mend)
    if not value:
        raise MatchError(
            condition.path, "no event has an empty text", f'write "{condition.name}|exists" = false for an absent field'
        )
    return value


def _known(condition: _Condition, text: str) -> str:
    """A value that the field can have, as events spell it; for partial comparisons one that can match at all."""
    name = condition.name
    known = ENUMERATED[name]
    if not condition.comparison:
        spelled = text if condition.cased else text.lower()
        if spelled in known:
            return spelled
    elif any(_text_test(condition, [text])(value) for value in known):
        return text
    near = nearest(text, known)
    hint = f"did you mean {near!r}? " if near else ""
    raise MatchError(condition.path, f"no {name} is {text!r}", f"{hint}it can be {', '.join(known)}")


def _words(value: Any) -> str:
    """A configured value for a message: short, and with its kind where that is the point."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:59] + "…"
