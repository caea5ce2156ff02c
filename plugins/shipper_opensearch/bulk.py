"""The body of a ``_bulk`` request, joined from bytes that are encoded already, and the answer to it.

opensearch.org, "Bulk": per event an action line and a source line, each ended by a line feed, the last one too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import msgspec

#: Bytes of an ``_id`` at most; a longer one has the whole request refused.
MAX_ID_BYTES = 512
#: What the answer has to tell: with the status of every item, so that the list keeps its places.
FILTER = "errors,items.*.status,items.*.error"

_ESCAPED = re.compile(r'["\\\x00-\x1f]')
_encode = msgspec.json.encode

#: Per event, in the order of ``Output.values``: its id, its time, its index and its routing.
Row = Sequence[str | None]


class Cause(msgspec.Struct, omit_defaults=True):
    """What the server says about an error. The words may have values of the event in them."""

    type: str = ""
    reason: str | None = None
    caused_by: Cause | None = None


class Item(msgspec.Struct):
    """What became of one event."""

    status: int
    error: Cause | None = None


class _Create(msgspec.Struct):
    create: Item


class Answer(msgspec.Struct):
    """The answer to a request that was taken: an item per event, in the order of the request."""

    items: list[_Create]
    errors: bool = True


_decode = msgspec.json.Decoder(Answer).decode


def items_of(content: str, count: int) -> list[_Create]:
    """The items of an answer. Raises ``ValueError`` where it is not what a server answers to ``count`` events."""
    try:
        answer = _decode(content)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise ValueError(f"{type(error).__name__} in {len(content)} characters") from None
    if len(answer.items) != count:
        raise ValueError(f"{len(answer.items)} items for {count} events")
    return answer.items


class BodyWriter:
    """Joins bodies. ``in_path``: every event goes to the index in the request's path, and no line names it."""

    def __init__(self, *, timestamp_field: str | None, in_path: bool, routed: bool, identified: bool) -> None:
        self._in_path = in_path
        self._routed = routed
        self._identified = identified
        self._stamp = f"\n{{{_encode(timestamp_field).decode()}:" if timestamp_field else "\n{"

    def __call__(self, events: Sequence[bytes], rows: Sequence[Row]) -> bytes:
        return b"".join(self._parts(events, rows))

    def _parts(self, events: Sequence[bytes], rows: Sequence[Row]) -> Iterator[bytes]:
        stamped = len(self._stamp) > 2
        times = _texts([row[1] for row in rows]) if stamped else [""] * len(rows)
        stamp = self._stamp
        for action, time, event in zip(self._actions(rows), times, events, strict=True):
            if stamped and event.startswith(b'{"'):
                yield f"{action}{stamp}{time},".encode()
                yield event[1:]
            else:  # not an object, or an empty one: the server says what it thinks of it
                yield f"{action}\n".encode()
                yield event
            yield b"\n"

    def _actions(self, rows: Sequence[Row]) -> list[str]:
        ids = _texts([row[0] for row in rows]) if self._identified else None
        indices = None if self._in_path else _texts([row[2] for row in rows])
        if ids is not None and indices is None and not self._routed:
            return [f'{{"create":{{"_id":{id_}}}}}' for id_ in ids]
        if ids is not None and indices is not None and not self._routed:
            pairs = zip(indices, ids, strict=True)
            return [f'{{"create":{{"_index":{index},"_id":{id_}}}}}' for index, id_ in pairs]
        columns: list[list[str]] = []
        if indices is not None:
            columns.append([f'"_index":{index}' for index in indices])
        if ids is not None:
            columns.append([f'"_id":{id_}' for id_ in ids])
        if self._routed:
            columns.append([f'"routing":{_encode(row[3]).decode()}' if row[3] else "" for row in rows])
        if not columns:
            return ['{"create":{}}'] * len(rows)
        return [f'{{"create":{{{",".join(filter(None, parts))}}}}}' for parts in zip(*columns, strict=True)]


def _texts(values: Sequence[str | None]) -> list[str]:
    """Each as JSON. Ids, times and names of indices hardly ever need escaping: one look tells for all of them."""
    if _ESCAPED.search("".join([value or "" for value in values])):
        return [_encode(value or "").decode() for value in values]
    return [f'"{value}"' for value in values]


def refused_ids(rows: Sequence[Row]) -> list[int]:
    """Events whose id no server takes: it would refuse the whole request for one of them."""
    ids = [row[0] or "" for row in rows]
    if all(ids) and max(map(len, ids)) * 4 <= MAX_ID_BYTES:
        return []
    return [index for index, id_ in enumerate(ids) if not 0 < len(id_.encode()) <= MAX_ID_BYTES]
