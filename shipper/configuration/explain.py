"""Says what is wrong with a table in words for the person who wrote it, from what pydantic found.

No message quotes a secret, a value that came from a variable, or the value of an unknown key (which may be a
misspelt secret key).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import date, datetime, time
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel, BeforeValidator, PlainValidator, ValidationError, WrapValidator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from shipper.configuration.places import KeyPath
from shipper.secrets import Secret

_LONGEST_QUOTE = 60

#: pydantic's name of a fault → what is needed instead. ``{…}`` is filled from the fault's own limits.
_NEEDED = {
    "string_type": "text in quotes",
    "path_type": "a path in quotes",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "tuple_type": "a list",
    "list_type": "a list",
    "set_type": "a list",
    "datetime_type": "a time",
    "datetime_from_date_parsing": "a time",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "string_too_short": "text that is not empty",
    "string_too_long": "at most {max_length} characters",
    "too_short": "a list with at least {min_length} entries",
    "too_long": "a list with at most {max_length} entries",
    "size": "a size",
    "duration": "a duration",
    "url": "a URL",
    "resource_id": "a resource id",
    "listen": "an address with a port",
    "start": "a place to begin",
    "spool_after": "more than 0",
    "name": "a name",
}


class Finding(NamedTuple):
    """What is wrong at a path, and what to write instead."""

    path: KeyPath
    message: str
    mend: str = ""


def explain(
    error: ValidationError,
    model: type[BaseModel],
    given: Mapping[str, Any],
    used: Mapping[KeyPath, tuple[str, ...]],
) -> Iterator[Finding]:
    """What pydantic found in one table, one finding per key. Paths, also those of ``used`` (where values come from
    variables), begin at that table."""
    faults: dict[KeyPath, list[tuple[ErrorDetails, bool]]] = {}
    for fault in error.errors(include_url=False):
        path = _path(fault["loc"], given, missing=fault["type"] == "missing")
        faults.setdefault(path, []).append((fault, len(fault["loc"]) > len(path)))
    for path, found in faults.items():
        # Of a union's alternatives, the one that got further inside is the one that was meant.
        if all(alternative for _, alternative in found) and any(
            len(other) > len(path) and other[: len(path)] == path for other in faults
        ):
            continue
        yield _explain(path, [fault for fault, _ in found], model, given, used)


def misread(
    table: BaseModel, given: Mapping[str, Any], whole: Collection[KeyPath], path: KeyPath = ()
) -> Iterator[Finding]:
    """Numbers and booleans in quotes, which pydantic would take: only a value that is one ``${…}`` may be that."""
    for name, field in type(table).model_fields.items():
        key = field.alias or name
        if key not in given:
            continue
        here = (*path, key)
        value, raw = getattr(table, name), given[key]
        if isinstance(value, BaseModel) and isinstance(raw, Mapping):
            yield from misread(value, raw, whole, here)
        elif type(value) in (bool, int, float) and here not in whole and not _reads_itself(type(table), name, field):
            needed = "true or false" if isinstance(value, bool) else "a number"
            if isinstance(raw, str):
                yield Finding(here, f"found {quote(raw)}, {needed} is needed", "write it without quotes")
            elif isinstance(value, bool) is not isinstance(raw, bool):
                yield Finding(here, f"found {quote(raw)}, {needed} is needed")


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name that was probably meant: case, dashes and a few letters aside."""
    plain = {_plain(known): known for known in names}
    longer = [known for known in plain if known.startswith(_plain(name) + "_")]
    if len(longer) == 1:
        return plain[longer[0]]
    found = difflib.get_close_matches(_plain(name), plain, 1)
    return plain[found[0]] if found else None


def one_of(words: Iterable[str]) -> str:
    """``"a", "b"``."""
    return ", ".join(f'"{word}"' for word in words)


def quote(value: object) -> str:
    """A value as a message shows it: short, printable, the insides of lists and tables left out."""
    if isinstance(value, str):
        text = value if len(value) <= _LONGEST_QUOTE else value[:_LONGEST_QUOTE] + "…"
        return '"' + "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text) + '"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, int | float):
        return str(value)
    return "a list" if isinstance(value, list) else "a table"


def key_text(path: KeyPath) -> str:
    """A path as people write it: ``outputs.siem.hosts[0]``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if re.fullmatch(r"[A-Za-z0-9_|-]+", part) else f'"{part}"'
            text += f".{name}" if text else name
    return text


def secret_texts(model: type[BaseModel], given: Mapping[str, Any]) -> Iterator[str]:
    """What the table holds under its secret keys, of references the part that is not public."""
    for name, field in model.model_fields.items():
        value = given.get(field.alias or name)
        if Secret in _types(field.annotation):
            yield from (re.sub(r"\A(file|aws-sm|aws-ssm):", "", text) for text in _texts(value))
        elif isinstance(value, Mapping):
            for inner in _models(field.annotation):
                yield from secret_texts(inner, value)


def _explain(
    path: KeyPath,
    faults: list[ErrorDetails],
    model: type[BaseModel],
    given: Mapping[str, Any],
    used: Mapping[KeyPath, tuple[str, ...]],
) -> Finding:
    kinds = {fault["type"] for fault in faults}
    if "extra_forbidden" in kinds:
        return Finding(path, "unknown key", _nearest_key(str(path[-1]), _models_at(model, path[:-1])))
    field = _field_at(model, path)
    if "missing" in kinds:
        about = (field.description or "").partition(";")[0] if field is not None else ""
        return Finding(path, "is missing" + (f": {about}" if about else ""))
    if "value_error" in kinds:
        fault = next(fault for fault in faults if fault["type"] == "value_error")
        return Finding(path, str(fault.get("ctx", {}).get("error", fault["msg"])))
    found = _found(path, field, given, used)
    allowed = [word for fault in faults for word in _allowed(fault)]
    needed = [text for fault in faults if (text := _needed(fault))]
    if allowed:
        value = _value_at(given, path)
        quotable = isinstance(value, str) and path not in used
        near = nearest(value, allowed) if quotable and isinstance(value, str) else None
        mend = f'did you mean "{near}"?' if near else ""
        choices = one_of(allowed) + "".join(f", or {text}" for text in needed)
        return Finding(path, f"{found}, allowed: {choices}", mend)
    mend = next((fault["msg"] for fault in faults if fault["type"] in _SAYS_WHAT_TO_DO), "")
    if needed:
        return Finding(path, f"{found}, {' or '.join(dict.fromkeys(needed))} is needed", mend)
    message = faults[0]["msg"]
    return Finding(path, f"{found}: {message[:1].lower()}{message[1:]}")


#: Faults of our own settings (``shipper.settings``, ``shipper.units``): their text is the mend.
_SAYS_WHAT_TO_DO = ("size", "duration", "url", "resource_id", "listen", "start", "spool_after", "name")


def _needed(fault: ErrorDetails) -> str:
    limits = {name: f"{limit:g}" if isinstance(limit, float) else limit for name, limit in fault.get("ctx", {}).items()}
    return _NEEDED.get(fault["type"], "").format(**limits)


def _allowed(fault: ErrorDetails) -> list[str]:
    if fault["type"] != "literal_error":
        return []
    return re.findall(r"'([^']*)'", str(fault.get("ctx", {}).get("expected", "")))


def _found(
    path: KeyPath, field: FieldInfo | None, given: Mapping[str, Any], used: Mapping[KeyPath, tuple[str, ...]]
) -> str:
    if field is not None and Secret in _types(field.annotation):
        return "the secret is not usable"
    inside = [names for place, names in used.items() if place[: len(path)] == path]
    if inside:
        names = dict.fromkeys(name for names in inside for name in names)
        return f"found the value of {' and '.join(f'${{{name}}}' for name in names)}"
    return f"found {quote(_value_at(given, path))}"


def _path(loc: tuple[int | str, ...], given: Any, *, missing: bool) -> KeyPath:
    """The parts of pydantic's location that are keys, without the names of the types that it tried."""
    path: KeyPath = ()
    value: Any = given
    part: Any
    for position, part in enumerate(loc):
        if (isinstance(value, Mapping) and part in value) or (
            isinstance(value, list) and isinstance(part, int) and part < len(value)
        ):
            value = value[part]
            path = (*path, part)
        elif missing and position == len(loc) - 1:
            path = (*path, part)
    return path


def _value_at(given: Any, path: KeyPath) -> Any:
    value: Any = given
    for part in path:
        value = value[part]
    return value


def _nearest_key(key: str, models: list[type[BaseModel]]) -> str:
    fields = {field.alias or name: field for model in models for name, field in model.model_fields.items()}
    inner = {
        known: name for name, field in fields.items() for model in _models(field.annotation) for known in _keys(model)
    }
    if exact := next((known for known in inner if _plain(known) == _plain(key)), None):
        return f"did you mean {inner[exact]}.{exact}?"
    if near := nearest(key, fields):
        return f"did you mean {near}?"
    if near := nearest(key, inner):
        return f"did you mean {inner[near]}.{near}?"
    return f"allowed: {', '.join(fields)}" if fields else ""


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")


def _field_at(model: type[BaseModel], path: KeyPath) -> FieldInfo | None:
    for candidate in _models_at(model, path[:-1]) if path else ():
        for name, field in candidate.model_fields.items():
            if (field.alias or name) == path[-1]:
                return field
    # Inside a list or a table of texts: the field that holds it.
    return _field_at(model, path[:-1]) if path and not _models_at(model, path[:-1]) else None


def _models_at(model: type[BaseModel], path: KeyPath) -> list[type[BaseModel]]:
    models = [model]
    for part in path:
        fields = [
            field
            for candidate in models
            for name, field in candidate.model_fields.items()
            if (field.alias or name) == part
        ]
        if fields:
            models = [inner for field in fields for inner in _models(field.annotation)]
        elif not isinstance(part, int):
            models = []
    return models


def _models(annotation: Any) -> list[type[BaseModel]]:
    return [found for found in _types(annotation) if isinstance(found, type) and issubclass(found, BaseModel)]


def _types(annotation: Any) -> list[Any]:
    arguments = get_args(annotation)
    return [found for argument in arguments for found in _types(argument)] if arguments else [annotation]


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, Mapping | list):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(inner)
    elif value is not None:
        yield str(value)


def _reads_itself(model: type[BaseModel], name: str, field: FieldInfo) -> bool:
    """Does the field have a reader of its own, like sizes and durations?"""
    metadata = (*field.metadata, *_types(field.annotation))
    if any(isinstance(entry, BeforeValidator | PlainValidator | WrapValidator) for entry in metadata):
        return True
    validators = model.__pydantic_decorators__.field_validators.values()
    return any(name in entry.info.fields and entry.info.mode != "after" for entry in validators)
