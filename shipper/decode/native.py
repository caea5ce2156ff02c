"""Reads events that are native events already: written by shipper, kept somewhere, and shipped again."""

from __future__ import annotations

import msgspec

from shipper.decode import Decoded, Reason, Undecodable
from shipper.decode.das.activity import TIME_FROM_ARRIVAL, Reading
from shipper.decode.das.native_fields import MAX_DEPTH, MAX_KEYS, native_name
from shipper.decode.ids import valid
from shipper.decode.json_text import (
    NotJson,
    check,
    compact,
    exceeds_depth,
    members,
    object_start,
    replace_lone_surrogates,
)
from shipper.decode.times import from_nanoseconds, timestamp
from shipper.event import FIELDS, SCHEMA_VERSION, Event

__all__ = ["NativeEvents"]

_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_INTEGERS = ("statement_bytes", "rows", "rows_returned", "client_port", "pid", "duration_ns")
_TIMES = ("started", "ended", "arrived")
_ALWAYS = frozenset({"schema_version", "id", "time"})
_ATTRIBUTES = tuple(FIELDS.values())
#: What is filled in from the origin: configuration's facts, and where it was read.
_FILLED = tuple(attribute for attribute in _ATTRIBUTES if attribute not in _ALWAYS | {"labels"})

_BLANK = Event(schema_version=SCHEMA_VERSION, id="", time="")
_EMPTY = (b"null", b'""')

_decode_event = msgspec.json.Decoder(Event).decode
_decode_text = msgspec.json.Decoder(str).decode
_format = msgspec.json.format


class NativeEvents:
    """Reads native events from one origin. What an event says of itself stands; what it lacks is filled in."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def read(self, data: bytes, position: str, arrived: int) -> Decoded:
        """One event of schema version 1. Its id is kept where it has a valid one.

        Unknown fields and values that do not fit go to ``extra``. Raises ``Undecodable``.
        """
        reading = self._reading
        reading.begin(position, arrived)
        try:
            event = _decode_event(data)
            own = _format(data, indent=-1)
            misfits = _misfits(event)
        except _UNREADABLE:
            event, own, misfits = _tolerant(data)
        if event.schema_version != SCHEMA_VERSION:
            raise Undecodable(Reason.SHAPE, f"a native event of a schema version other than {SCHEMA_VERSION}")
        if misfits:
            for name in misfits & FIELDS.keys() - _ALWAYS:
                setattr(event, FIELDS[name], getattr(_BLANK, FIELDS[name]))
            event.extra = _with_extra(event.extra, own, misfits)
        if b'""' in own or b"{}" in own or b"[]" in own:
            _drop_empty(event)
        nanoseconds = self._settle_time(event, own)
        if not valid(event.id):
            if event.id:
                event.extra = _with_extra(event.extra, own, {"id"})
            reading.identify(event.cluster_id, event.instance_id, several=False)
            event.id = reading.ids.event(nanoseconds, own)
        self._fill(event)
        return Decoded(events=[event], raw=[own], refused=[], instance=event.instance_id or "")

    def _settle_time(self, event: Event, own: bytes) -> int:
        stamp = timestamp(event.time)
        if stamp is None:
            reading = self._reading
            nanoseconds = reading.arrived_nanoseconds if reading.arrived else 0
            stamp = (reading.arrived or from_nanoseconds(0), nanoseconds)
            event.tags = [*(event.tags or ()), TIME_FROM_ARRIVAL]
            if event.time:
                event.extra = _with_extra(event.extra, own, {"time"})
        event.time = stamp[0]
        return stamp[1]

    def _fill(self, event: Event) -> None:
        reading = self._reading
        for attribute in _FILLED:
            if getattr(event, attribute) is None:
                setattr(event, attribute, getattr(reading.event, attribute))
        if reading.event.labels:
            event.labels = {**reading.event.labels, **(event.labels or {})}


def _misfits(event: Event) -> set[str]:
    """Names of fields whose value no encoding can carry or no reader expects."""
    found = {
        name for name in _INTEGERS if (number := getattr(event, name)) is not None and not -(2**63) <= number < 2**63
    }
    for name in _TIMES:
        text = getattr(event, name)
        if text:
            stamp = timestamp(text)
            if stamp is None:
                found.add(name)
            else:
                setattr(event, name, stamp[0])
    if event.client_port is not None and not 0 <= event.client_port <= 0xFFFF:
        found.add("client_port")
    if event.native and (len(event.native) > MAX_KEYS or any(native_name(key) != key for key in event.native)):
        found.add("native")
    return found


def _tolerant(data: bytes) -> tuple[Event, bytes, set[str]]:
    """Reads an event around what does not fit it."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise Undecodable(Reason.JSON_ENCODING, f"not UTF-8 at byte {error.start}") from None
    if exceeds_depth(data, MAX_DEPTH):
        raise Undecodable(Reason.JSON_DEPTH, f"nested deeper than {MAX_DEPTH}")
    sound = replace_lone_surrogates(data)
    try:
        check(sound)
        found = {member.name: sound[member.value : member.end] for member in members(sound, object_start(sound))}
    except (msgspec.DecodeError, NotJson) as error:
        raise Undecodable(Reason.JSON_MALFORMED, str(error)) from None
    misfits = set(found.keys() - FIELDS.keys())
    version = found.get("schema_version")
    if version != b"1":
        raise Undecodable(Reason.SHAPE, f"a native event of a schema version other than {SCHEMA_VERSION}")
    event = Event(schema_version=SCHEMA_VERSION, id=_text("id", found), time=_text("time", found))
    for name in FIELDS.keys() & found.keys() - _ALWAYS:
        try:
            one = _decode_event(b'{"schema_version":1,"id":"","time":"","%s":%s}' % (name.encode(), found[name]))
        except msgspec.MsgspecError:
            misfits.add(name)
        else:
            setattr(event, FIELDS[name], getattr(one, FIELDS[name]))
    misfits |= {name for name in ("id", "time") if not getattr(event, name) and found.get(name, b"null") not in _EMPTY}
    return event, compact(data), misfits | _misfits(event)


def _text(name: str, found: dict[str, bytes]) -> str:
    try:
        return _decode_text(found[name])
    except (KeyError, msgspec.MsgspecError):
        return ""


def _drop_empty(event: Event) -> None:
    """Absent means unknown: an empty text, list or object says nothing."""
    for name in _ATTRIBUTES:
        if name not in _ALWAYS and getattr(event, name) in ("", [], {}):
            setattr(event, name, None)


def _with_extra(extra: str | None, own: bytes, names: set[str]) -> str:
    """``extra`` with these members of the event added, in its own bytes."""
    kept = {member.name: own[member.begin : member.end] for member in members(own, 0) if member.name in names}
    added = b",".join(kept.values()).decode()
    inner = extra[1:-1] if extra and extra[0] == "{" and extra[-1] == "}" else ""
    return "{" + inner + ("," if inner and added else "") + added + "}"
