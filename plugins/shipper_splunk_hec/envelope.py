"""What is around an event on its way to HEC: time, host, source, sourcetype, index and indexed fields, as bytes.

Metadata does not carry over from one object of a request to the next, so each has its own; and an object with a key
that Splunk does not know ends the request there, with a 200. The event's bytes go in as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import urlencode

import msgspec

from shipper.output import Batch
from shipper.values import Field, Target, Text, Value
from shipper_splunk_hec.settings import SplunkHecSettings

#: Bytes of an ordinary envelope, at most.
OVERHEAD = 400
#: Places of what ``values`` asks for; indexed fields follow.
TIME, ID, HOST, SOURCE, SOURCETYPE, INDEX = range(6)
#: Envelopes that are remembered, and the longest of them (bytes): attackers choose some of the values.
_REMEMBERED = 4096
_LONGEST = 1024

_json = msgspec.json.Encoder().encode


def values(settings: SplunkHecSettings) -> list[Value]:
    """What the output wants to know of each event."""
    nothing = Text("")
    return [
        Field("time"),
        Field("id"),
        Text(settings.host) if settings.host else nothing,
        Text(settings.source) if settings.source else nothing,
        Text(settings.sourcetype),
        Target(settings.index, lower=True) if settings.index else nothing,
        *(Field(name) for name in settings.indexed_fields),
    ]


class Envelopes:
    """Makes the body of a request out of events. Threads may share one: what is remembered is never changed."""

    def __init__(self, settings: SplunkHecSettings) -> None:
        self._names = [_text(name) for name in settings.indexed_fields]
        self._as_text = settings.format.type == "raw"
        self._beginnings: dict[tuple[str | None, ...], tuple[str, str]] = {}
        self._seconds: dict[str, str] = {}

    def body(self, batch: Batch, indices: Sequence[int]) -> bytes:
        """One JSON object for each of these events, on end."""
        parts: list[bytes] = []
        add = parts.append
        known, seconds, end = self._beginnings, self._seconds, b"}"
        for index in indices:
            values = batch.values[index]
            around = known.get(values[HOST:]) or self._beginning(values[HOST:])
            time, identity = values[TIME], values[ID]
            moment = (seconds.get(time[:19]) or self._second(time)) + time[19:26] if time else "0"
            if identity is None or not identity.isalnum():
                identity = _text(identity or "")
            event = batch.events[index]
            add(f'{{"time":{moment}{around[0]}{identity}{around[1]}'.encode())
            add(_quoted(event) if self._as_text and not event.startswith(b"{") else event)
            add(end)
        return b"".join(parts)

    def _beginning(self, rest: tuple[str | None, ...]) -> tuple[str, str]:
        """What stands between the time and the event's id, and between that and the event."""
        host, source, sourcetype, index, *fields = rest
        named = (("host", host), ("source", source), ("sourcetype", sourcetype), ("index", index))
        before = "".join(f',"{name}":{_json(value).decode()}' for name, value in named if value)
        pairs = zip(self._names, fields, strict=True)
        after = "".join(f',"{name}":{_json(value).decode()}' for name, value in pairs if value)
        made = f'{before},"fields":{{"event_id":"', f'"{after}}},"event":'
        if len(made[0]) + len(made[1]) <= _LONGEST:
            if len(self._beginnings) >= _REMEMBERED:
                self._beginnings = {}
            self._beginnings[rest] = made
        return made

    def _second(self, time: str) -> str:
        """The seconds since 1970 of the second that a time is in; most events share theirs with others."""
        moment = datetime.fromisoformat(time[:19]).replace(tzinfo=UTC)
        if len(self._seconds) >= _REMEMBERED:
            self._seconds = {}
        second = self._seconds[time[:19]] = str(int(moment.timestamp()))
        return second


def lines(batch: Batch, indices: Sequence[int]) -> bytes:
    """The body of a raw request."""
    return b"\n".join([*(batch.events[index] for index in indices), b""])


def query(value: Sequence[str | None]) -> str:
    """What the raw endpoint wants in the query: the metadata of every line of the request."""
    named = {"host": HOST, "source": SOURCE, "sourcetype": SOURCETYPE, "index": INDEX}
    return urlencode({name: found for name, place in named.items() if (found := value[place])})


def _text(value: str) -> str:
    """The inside of a JSON text."""
    return _json(value).decode()[1:-1]


def _quoted(line: bytes) -> bytes:
    """A line that is no object, as a JSON text; HEC takes either."""
    return _json(line.decode("utf-8", "replace"))
