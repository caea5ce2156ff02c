"""The fields that only one engine has, as flat text values under ``native``.

One level, lower-case names, text values and a bounded number of them: a free object would break or explode the mapping
of an index.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from shipper.decode.das.activity import Activity, Int, Reading
from shipper.decode.json_text import compact, exceeds_depth, replace_lone_surrogates

__all__ = ["MAX_DEPTH", "MAX_KEYS", "native_fields", "native_name"]

MAX_KEYS = 200
#: Deeper JSON is refused: readers behind us recurse, and msgspec does too (it gives up near 1 000).
MAX_DEPTH = 200

_FIELD = "engineNativeAuditFields"
_PLAIN_NAME = re.compile(r"[a-z0-9_]{1,100}", re.ASCII)
_NOT_IN_NAMES = re.compile(r"[^a-z0-9_]", re.ASCII)
_NAME_LENGTH = 100
_QUOTE, _LIST, _OBJECT = b'"[{'

_NONE = (b"", b"null", b"{}")
_KEEP = 4096
_names: dict[str, str] = {}

# Most values are text and whole numbers; whatever has any other goes the longer way, which keeps numbers as they are.
_decode_flat = msgspec.json.Decoder(dict[str, str | Int | bool | None]).decode
_decode_any = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_string = msgspec.json.Decoder(str).decode


def native_fields(activity: Activity, reading: Reading) -> dict[str, str] | None:
    """``engineNativeAuditFields`` and Oracle's ``dbid``; null and empty values are absent.

    What is no object is kept in ``extra``; an object also, where two of its names become one, or there are more than
    ``MAX_KEYS``. Raises ``UnicodeDecodeError`` for text that is not UTF-8, ``RecursionError`` for too deep nesting.
    """
    native: dict[str, str] = {}
    text = bytes(activity.engine_native_audit_fields)
    if text not in _NONE and not _add(native, text):
        reading.misfits.append(_FIELD)
    if activity.dbid is not None and activity.dbid != "" and "dbid" not in native:
        native["dbid"] = str(activity.dbid)
    return native or None


def _add(native: dict[str, str], text: bytes) -> bool:
    """Adds the members of an object; says whether all found their place."""
    values: Mapping[str, str | int | None]
    try:
        values = _decode_flat(text)
    except msgspec.ValidationError:
        try:
            values = {key: _text(bytes(value)) for key, value in _decode_any(text).items()}
        except msgspec.ValidationError:
            return False
    complete = True
    for key, value in values.items():
        if value is None or value == "":
            continue
        name = _names.get(key) or native_name(key)
        if name in native or len(native) >= MAX_KEYS:
            complete = False
        elif value is True or value is False:
            native[name] = "true" if value else "false"
        else:
            native[name] = value if isinstance(value, str) else str(value)
    return complete


def native_name(key: str) -> str:
    """A key of ``native``: lower case, ``[a-z0-9_]``, at most 100 characters."""
    name = key
    if not _PLAIN_NAME.fullmatch(key):
        name = _NOT_IN_NAMES.sub("_", key.lower())[:_NAME_LENGTH] or "_"
    if len(key) <= _NAME_LENGTH:
        if len(_names) >= _KEEP:
            _names.clear()
        _names[key] = name
    return name


def _text(value: bytes) -> str | None:
    """A string, the JSON text of a number or a boolean, the compact JSON text of anything nested; ``None`` for null."""
    first = value[0]
    if first == _QUOTE:
        return _decode_string(value)
    if first in (_LIST, _OBJECT):
        if exceeds_depth(value, MAX_DEPTH):
            raise RecursionError("nested too deeply")
        return replace_lone_surrogates(compact(value)).decode()
    return None if value == b"null" else value.decode()
