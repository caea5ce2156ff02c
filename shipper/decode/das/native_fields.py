"""The fields that only one engine has, as flat text values under ``native``.

One level, lower-case names, text values and a bounded number of them: a free object would break or explode the mapping
of an index.
"""

from __future__ import annotations

import re

import msgspec

from shipper.decode.das.activity import Activity, Reading
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

_decode_string = msgspec.json.Decoder(str).decode


def native_fields(activity: Activity, reading: Reading) -> dict[str, str] | None:
    """``engineNativeAuditFields`` and Oracle's ``dbid``; null and empty values are absent.

    Where two names become one, or there are more than ``MAX_KEYS``, the whole object is kept in ``extra`` too. Raises
    ``ValueError`` for text that is not UTF-8 and ``RecursionError`` for values nested too deeply.
    """
    native: dict[str, str] = {}
    lost = False
    for key, raw in (activity.engine_native_audit_fields or {}).items():
        value = _text(memoryview(raw))
        if not value:
            continue
        name = native_name(key)
        if name in native or len(native) >= MAX_KEYS:
            lost = True
        else:
            native[name] = value
    if activity.dbid is not None and activity.dbid != "" and "dbid" not in native:
        native["dbid"] = str(activity.dbid)
    if lost:
        reading.misfits.append(_FIELD)
    return native or None


def native_name(key: str) -> str:
    """A key of ``native``: lower case, ``[a-z0-9_]``, at most 100 characters."""
    if _PLAIN_NAME.fullmatch(key):
        return key
    return _NOT_IN_NAMES.sub("_", key.lower())[:_NAME_LENGTH] or "_"


def _text(value: memoryview) -> str | None:
    first = value[0]
    if first == _QUOTE:
        return _decode_string(value)
    text = bytes(value)
    if first in (_LIST, _OBJECT):
        if exceeds_depth(text, MAX_DEPTH):
            raise RecursionError("nested too deeply")
        return replace_lone_surrogates(compact(text)).decode()
    return None if text == b"null" else text.decode()
