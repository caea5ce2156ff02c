"""Values that are too long for the managed mapping: cut in what this index gets, and tagged.

A ``flat_object`` indexes each of its values, with the path in front, as one term; Lucene takes none of more than
32 766 bytes and refuses the whole document otherwise. Only events larger than that are looked into.
"""

from __future__ import annotations

from typing import Any

import msgspec

#: Bytes of a term (Lucene, IndexWriter.MAX_TERM_LENGTH).
MAX_TERM = 32_766
#: The tag of an event of which something was cut.
TAG = "cut_for_opensearch"
_MARK = "…"
#: Bytes of room for a value; a key that leaves less is left out.
LEAST = 100


def fitted(event: bytes) -> bytes:
    """The event as it is, or with what is too long in ``native`` and ``labels`` cut."""
    if len(event) <= MAX_TERM:
        return event
    try:
        fields: Any = msgspec.json.decode(event)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return event  # it is no event: as the server likes it
    if not isinstance(fields, dict):
        return event
    cut = {name: table for name in ("native", "labels") if (table := _cut(name, fields.get(name))) is not None}
    if not cut:
        return event
    return msgspec.json.encode({**fields, **cut, "tags": [*fields.get("tags", ()), TAG]})


def _cut(name: str, table: Any) -> dict[str, str] | None:
    """What is left of a table; nothing where all of it fits."""
    if not isinstance(table, dict):
        return None
    kept = {
        key: _shortened(value, _room(name, key)) if isinstance(value, str) else value
        for key, value in table.items()
        if _room(name, key) > LEAST
    }
    return None if kept == table else kept


def _room(name: str, key: str) -> int:
    """Bytes that a value may have beside its path: ``native.native.key=value``, as OpenSearch 2.19 writes it."""
    return MAX_TERM - 2 * len(name) - len(key.encode("utf-8", "surrogatepass")) - 3


def _shortened(value: str, room: int) -> str:
    encoded = value.encode("utf-8", "surrogatepass")
    if len(encoded) <= room:
        return value
    return encoded[: room - len(_MARK.encode())].decode("utf-8", "ignore") + _MARK
