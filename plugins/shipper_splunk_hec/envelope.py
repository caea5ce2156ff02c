"""What is around an event on its way to HEC: time, host, source, sourcetype, index and indexed fields, as bytes.

Metadata does not carry over from one object of a request to the next, so each has its own; and an object with a key
that Splunk does not know ends the request there, with a 200. The event's bytes go in as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import urlencode

import msgspec

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

    def body(self, events: Sequence[bytes], values: Sequence[tuple[str | None, ...]]) -> bytes:
        """One JSON object for each of these events, on end. Column by column: that takes half the time."""
        columns = list(zip(*values, strict=True))
        moments = self._moments(columns[TIME])
        ids = _texts(columns[ID])
        # Each ends the object before it, and there is one "}" too many at the beginning.
        if all(column.count(column[0]) == len(column) for column in columns[HOST:]):
            before, after = self._around(values[0][HOST:])
            heads = [f'}}{{"time":{at}{before}{id_}{after}' for at, id_ in zip(moments, ids, strict=True)]
        else:
            arounds = map(self._around, zip(*columns[HOST:], strict=True))
            rows = zip(moments, ids, arounds, strict=True)
            heads = [f'}}{{"time":{at}{before}{id_}{after}' for at, id_, (before, after) in rows]
        if self._as_text:
            events = [event if event.startswith(b"{") else _quoted(event) for event in events]
        heads[0] = heads[0][1:]
        parts = [b"}"] * (2 * len(events) + 1)
        # No line feed is in a head, so all of them are encoded at once.
        parts[:-1:2] = "\n".join(heads).encode().split(b"\n")
        parts[1::2] = events
        return b"".join(parts)

    def _moments(self, times: Sequence[str | None]) -> list[str]:
        """Seconds since 1970, with microseconds."""
        known, second = self._seconds, self._second
        if all(times):
            return [(known.get(time[:19]) or second(time)) + time[19:26] for time in times if time]
        return [second(time) + time[19:26] if time else "0" for time in times]

    def _around(self, rest: tuple[str | None, ...]) -> tuple[str, str]:
        """What stands between the time and the event's id, and between that and the event."""
        return self._beginnings.get(rest) or self._beginning(rest)

    def _beginning(self, rest: tuple[str | None, ...]) -> tuple[str, str]:
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


def lines(events: Sequence[bytes]) -> bytes:
    """The body of a raw request."""
    return b"\n".join([*events, b""])


def query(value: Sequence[str | None]) -> str:
    """What the raw endpoint wants in the query: the metadata of every line of the request."""
    named = {"host": HOST, "source": SOURCE, "sourcetype": SOURCETYPE, "index": INDEX}
    return urlencode({name: found for name, place in named.items() if (found := value[place])})


def _texts(values: Sequence[str | None]) -> list[str]:
    """The inside of each as a JSON text. They are encoded as one list: inside a text no quote stands alone, so this is
    where one ends and the next begins."""
    listed = _json(values if all(values) else [value or "" for value in values])
    return listed[2:-2].decode().split('","')


def _text(value: str) -> str:
    """The inside of a JSON text."""
    return _json(value).decode()[1:-1]


def _quoted(line: bytes) -> bytes:
    """A line that is no object, as a JSON text; HEC takes either."""
    return _json(line.decode("utf-8", "replace"))
