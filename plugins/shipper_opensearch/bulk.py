"""The body of a ``_bulk`` request, joined from bytes that are encoded already, and the answer to it.

opensearch.org, "Bulk": per event an action line and a source line, each ended by a line feed, the last one too.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import msgspec

#: Bytes of an ``_id`` at most; a longer one has the whole request refused.
MAX_ID_BYTES = 512
#: What the answer has to tell: with the status of every item, so that the list keeps its places.
FILTER = "errors,items.*.status,items.*.error"

#: Stands in no JSON as it is.
_SEPARATOR = "\0"
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


@lru_cache(maxsize=2)
def all_created(count: int) -> str:
    """The answer of a server that created every event, as OpenSearch writes it: to compare costs less than to
    decode."""
    return '{"errors":false,"items":[' + ",".join(['{"create":{"status":201}}'] * count) + "]}"


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
        self._stamp = f"\n{{{_encode(timestamp_field).decode()}:" if timestamp_field else None

    def __call__(self, events: Sequence[bytes], rows: Sequence[Row]) -> bytes:
        """Column by column, and what stands before the events encoded all at once: that takes half the time."""
        columns = list(zip(*rows, strict=True))
        actions = self._actions(columns, len(rows))
        stamp = self._stamp
        if stamp is None or {event[:2] for event in events} != {b'{"'}:
            return self._one_by_one(events, actions, columns)
        times = _texts(columns[1])
        heads = [f'\n{action}{stamp}"{time}",' for action, time in zip(actions, times, strict=True)]
        heads[0] = heads[0][1:]
        parts = [b"\n"] * (2 * len(events) + 1)
        parts[:-1:2] = _SEPARATOR.join(heads).encode().split(_SEPARATOR.encode())
        parts[1::2] = [event[1:] for event in events]
        return b"".join(parts)

    def _one_by_one(
        self, events: Sequence[bytes], actions: Sequence[str], columns: Sequence[Sequence[str | None]]
    ) -> bytes:
        """Where there is no stamp, or something that is no object or an empty one: the server says what it thinks of
        that."""
        parts: list[bytes] = []
        for action, time, event in zip(actions, _texts(columns[1]), events, strict=True):
            if self._stamp is not None and event.startswith(b'{"'):
                parts += f'{action}{self._stamp}"{time}",'.encode(), event[1:], b"\n"
            else:
                parts += f"{action}\n".encode(), event, b"\n"
        return b"".join(parts)

    def _actions(self, columns: Sequence[Sequence[str | None]], count: int) -> list[str]:
        ids = _texts(columns[0]) if self._identified else None
        indices = None if self._in_path else _texts(columns[2])
        if ids is not None and indices is None and not self._routed:
            return [f'{{"create":{{"_id":"{id_}"}}}}' for id_ in ids]
        if ids is not None and indices is not None and not self._routed:
            pairs = zip(indices, ids, strict=True)
            return [f'{{"create":{{"_index":"{index}","_id":"{id_}"}}}}' for index, id_ in pairs]
        parts: list[list[str]] = []
        if indices is not None:
            parts.append([f'"_index":"{index}"' for index in indices])
        if ids is not None:
            parts.append([f'"_id":"{id_}"' for id_ in ids])
        if self._routed:
            parts.append([f'"routing":{_encode(routing).decode()}' if routing else "" for routing in columns[3]])
        if not parts:
            return ['{"create":{}}'] * count
        return [f'{{"create":{{{",".join(filter(None, part))}}}}}' for part in zip(*parts, strict=True)]


def _texts(values: Sequence[str | None]) -> list[str]:
    """The inside of each as a JSON text. They are encoded as one list: inside a text no quote stands alone, so this is
    where one ends and the next begins."""
    listed = _encode(values if all(values) else [value or "" for value in values])
    return listed[2:-2].decode().split('","')


def refused_ids(rows: Sequence[Row]) -> list[int]:
    """Events whose id no server takes: it would refuse the whole request for one of them."""
    ids = [row[0] or "" for row in rows]
    if all(ids) and max(map(len, ids)) * 4 <= MAX_ID_BYTES:
        return []
    return [index for index, id_ in enumerate(ids) if not 0 < len(id_.encode()) <= MAX_ID_BYTES]
