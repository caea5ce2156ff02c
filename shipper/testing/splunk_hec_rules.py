"""What a Splunk does with the body of a request to HEC, to the letter: which events it takes, and what it answers.

By Splunk's "Format events for HTTP Event Collector" and "Troubleshoot HTTP Event Collector". Stricter than it has to be
where leniency would hide a mistake: a key that Splunk does not know ends the request there, with a 200.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

#: What Splunk says with each code.
TEXTS: Mapping[int, str] = {
    0: "Success",
    1: "Token disabled",
    2: "Token is required",
    3: "Invalid authorization",
    4: "Invalid token",
    5: "No data",
    6: "Invalid data format",
    7: "Incorrect index",
    8: "Internal server error",
    9: "Server is busy",
    10: "Data channel is missing",
    11: "Invalid data channel",
    12: "Event field is required",
    13: "Event field cannot be blank",
    14: "ACK is disabled",
    15: "Error in handling indexed fields",
    16: "Query string authorization is not enabled",
    17: "HEC is healthy",
    18: "HEC is unhealthy, queues are full",
    19: "HEC is unhealthy, ack service unavailable",
    20: "HEC is unhealthy, queues are full, ack service unavailable",
    21: "Invalid token",
    22: "Token disabled",
    23: "Server is shutting down",
    24: "Queue capacity approaching limit",
    25: "ACK channel capacity approaching limit",
    26: "Queue at capacity",
    27: "ACK channel at capacity",
    28: "Data channel is missing; use sticky sessions",
}
#: Code → HTTP status; 400 is everything else.
STATUS: Mapping[int, int] = {
    **dict.fromkeys((0, 17, 24, 25), 200),
    **dict.fromkeys((2, 3), 401),
    **dict.fromkeys((1, 4), 403),
    **dict.fromkeys((26, 27), 429),
    8: 500,
    **dict.fromkeys((9, 18, 19, 20, 23), 503),
}

_KEYS = frozenset({"event", "time", "host", "source", "sourcetype", "index", "fields"})
_TEXT_KEYS = ("host", "source", "sourcetype", "index")
_decode = json.JSONDecoder().raw_decode


@dataclass(frozen=True, slots=True)
class HecEvent:
    """An event as Splunk took it. ``time`` is in seconds since 1970; ``None`` where Splunk has to find it."""

    event: Any
    time: float | None = None
    host: str | None = None
    source: str | None = None
    sourcetype: str | None = None
    index: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)


class Refused(Exception):
    """An answer that is not a success. ``number`` is its ``invalid-event-number``; ``taken`` came before it."""

    def __init__(self, code: int, *, status: int | None = None, number: int | None = None) -> None:
        super().__init__(TEXTS[code])
        self.code = code
        self.status = status or STATUS.get(code, 400)
        self.number = number
        self.taken: list[HecEvent] = []


def unpack(body: bytes, encoding: str, limit: int) -> bytes:
    """The body as it was before compression. Raises ``Refused``: 415 for anything but gzip, 413 above ``limit``."""
    if encoding not in ("", "identity", "gzip"):
        raise Refused(6, status=415)
    if encoding == "gzip":
        try:
            body = gzip.decompress(body)
        except (OSError, EOFError, zlib.error):
            raise Refused(6) from None
    if len(body) > limit:
        raise Refused(6, status=413)
    if not body:
        raise Refused(5)
    return body


def events_of(
    body: bytes, default: str, indexes: Collection[str], refusal: Callable[[str], int | None]
) -> list[HecEvent]:
    """The events of a request to the event endpoint. ``refusal`` may name a code for the text of an object.

    Raises ``Refused`` at the first object that is not right; what stands before it counts as taken.
    """
    taken: list[HecEvent] = []
    try:
        _take(body, default, indexes, refusal, taken)
    except Refused as refused:
        refused.taken = taken
        raise
    return taken


def lines_of(body: bytes, metadata: Mapping[str, str], default: str, indexes: Collection[str]) -> list[HecEvent]:
    """The events of a request to the raw endpoint: its lines. Raises ``Refused``."""
    index = metadata.get("index", default)
    if index not in indexes:
        raise Refused(7, number=1)
    host, source, sourcetype = (metadata.get(key) for key in ("host", "source", "sourcetype"))
    return [HecEvent(line, None, host, source, sourcetype, index) for line in body.split(b"\n") if line.strip()]


def _take(
    body: bytes, default: str, indexes: Collection[str], refusal: Callable[[str], int | None], taken: list[HecEvent]
) -> None:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise Refused(6, number=0) from None
    place, number = _skip(text, 0), 0
    while place < len(text):
        try:
            found, end = _decode(text, place)
        except ValueError:
            raise Refused(6, number=number) from None
        code = refusal(text[place:end])
        if code is not None:
            raise Refused(code, number=number + (code == 7))
        if not isinstance(found, dict):
            raise Refused(6, number=number)
        if not found.keys() <= _KEYS:
            return  # Splunk says 200 and takes no more
        taken.append(_event(found, number, default, indexes))
        place, number = _skip(text, end), number + 1


def _event(found: dict[str, Any], number: int, default: str, indexes: Collection[str]) -> HecEvent:
    event = found.get("event", _MISSING)
    if event is _MISSING:
        raise Refused(12, number=number)
    if event is None or event is False:
        raise Refused(6, number=number)
    if isinstance(event, str) and not event.strip():
        raise Refused(13, number=number)
    if any(not isinstance(found.get(key, ""), str) for key in _TEXT_KEYS):
        raise Refused(6, number=number)
    fields = found.get("fields", {})
    if not isinstance(fields, dict) or any(isinstance(value, dict | None) for value in fields.values()):
        raise Refused(15, number=number)
    index = found.get("index", default)
    if index not in indexes:
        raise Refused(7, number=number + 1)  # the number is the following event's
    return HecEvent(
        event,
        _seconds(found.get("time"), number),
        found.get("host"),
        found.get("source"),
        found.get("sourcetype"),
        index,
        fields,
    )


_MISSING = object()


def _seconds(time: object, number: int) -> float | None:
    """Seconds, or milliseconds in 13 digits, or nanoseconds in 19."""
    if time is None:
        return None
    try:
        seconds = float(time)  # type: ignore[arg-type]  # what cannot be converted is refused
    except (TypeError, ValueError):
        raise Refused(6, number=number) from None
    if not math.isfinite(seconds) or isinstance(time, bool):
        raise Refused(6, number=number)
    digits = len(str(time)) if str(time).isdecimal() else 0
    return round(seconds / {13: 1e3, 19: 1e9}.get(digits, 1.0), 6)  # Splunk keeps microseconds


def _skip(text: str, place: int) -> int:
    while place < len(text) and text[place] in " \t\r\n":
        place += 1
    return place
