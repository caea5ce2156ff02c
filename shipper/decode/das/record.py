"""A decrypted record: the list of its events, each read on its own, so that a bad one does not take others along.

Source: "Monitoring database activity streams" in the Amazon Aurora and Amazon RDS user guides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice

import msgspec

from shipper.decode import Decoded, Origin, Reason, Refused, Undecodable
from shipper.decode.das.activity import FIELDS, Activity, Reading
from shipper.decode.das.engine import engine_name, engine_of_version
from shipper.decode.das.mysql import event as mysql_event
from shipper.decode.das.native_fields import MAX_DEPTH
from shipper.decode.das.postgresql import event as postgresql_event
from shipper.decode.das.postgresql import unknown as unknown_event
from shipper.decode.das.rds import oracle_event, sqlserver_event
from shipper.decode.json_text import (
    COMPACT_EVENT,
    NotJson,
    check,
    compact,
    elements,
    exceeds_depth,
    laid_out,
    members,
    object_start,
    replace_lone_surrogates,
)
from shipper.event import Event
from shipper.source import Record as Source

__all__ = ["MAX_EVENTS", "RECORD_TYPE", "Record", "Records", "refusal"]

#: What ``type`` says in every decrypted record (singular; the envelope's is plural).
RECORD_TYPE = "DatabaseActivityMonitoringRecord"

#: More events in one record are refused: a megabyte on the wire unpacks to some ten thousand.
MAX_EVENTS = 100_000
#: A longer list is read piece by piece, so that its length is known before it fills the memory.
_LARGE_BYTES = 4 << 20
#: Bound of the small caches.
_KEEP = 256

_HEARTBEAT = "heartbeat"
_BARE_HEARTBEAT = b'{"type":"heartbeat"}'

Builder = Callable[[Activity, bytes, Reading], Event]
_BUILDERS: dict[str | None, Builder] = {
    "aurora-postgresql": postgresql_event,
    "postgresql": postgresql_event,
    "aurora-mysql": mysql_event,
    "mysql": mysql_event,
    "mariadb": mysql_event,
    "oracle": oracle_event,
    "sqlserver": sqlserver_event,
}

#: What msgspec raises for text that it cannot take: damage, wrong types, not UTF-8, nested too deeply.
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, NotJson)

_decode_activity = msgspec.json.Decoder(Activity).decode
_text_or_null: msgspec.json.Decoder[str | None] = msgspec.json.Decoder(str | None)
_format = msgspec.json.format


class Record(msgspec.Struct, rename="camel", gc=False):
    """A decrypted record; fields that no documentation names are passed over."""

    database_activity_event_list: list[msgspec.Raw]
    type: str | None = RECORD_TYPE
    cluster_id: str | None = None
    instance_id: str | None = None


decode_record = msgspec.json.Decoder(Record).decode


class Records:
    """Reads the decrypted records, and the events outside any record, of one origin."""

    def __init__(self, origin: Origin) -> None:
        self._reading = Reading(origin)
        self._alone = Reading(origin)
        self._alone.identify(None, None, several=False)
        self._configured_engine = origin.engine or None
        self._engines: dict[str | None, tuple[str | None, Builder]] = {}
        self._frames: dict[tuple[str | None, str | None], bytes] = {}

    def record(self, data: bytes, position: str, arrived: int, version: str) -> Decoded:
        """All events of a decrypted record; the envelope's version hints at the engine. Raises ``Undecodable``."""
        record = self._split(data)
        if record.type is not None and record.type != RECORD_TYPE:
            raise Undecodable(Reason.SHAPE, f"the record's type is not {RECORD_TYPE}")
        raws = record.database_activity_event_list
        if len(raws) > MAX_EVENTS:
            raise _too_many()
        reading = self._reading
        reading.begin(position, arrived)
        reading.identify(record.cluster_id, record.instance_id, several=len(raws) > 1)
        decoded = Decoded(
            events=[], raw=[], refused=[], frame=self._frame(record), instance=reading.event.instance_id or ""
        )
        left_out: list[int] = []
        for ordinal, raw in enumerate(raws):
            element = bytes(raw)
            if element == _BARE_HEARTBEAT:
                decoded.heartbeats += 1
                left_out.append(ordinal)
                continue
            try:
                found = self._event(element, reading, version, bare=False)
            except Undecodable as error:
                decoded.refused.append(Refused(ordinal, error.reason, error.detail))
                left_out.append(ordinal)
                continue
            if found is None:
                decoded.heartbeats += 1
                left_out.append(ordinal)
            else:
                decoded.events.append(found[0])
                decoded.raw.append(found[1])
        if left_out:
            gone = frozenset(left_out)
            decoded.ordinals = [ordinal for ordinal in range(len(raws)) if ordinal not in gone]
        return decoded

    def bare(self, data: bytes, position: str, arrived: int, version: str = "") -> Decoded:
        """An event that stands for itself, as in Oracle's documentation. Raises ``Undecodable`` where it is none."""
        reading = self._alone
        reading.begin(position, arrived)
        found = self._event(data, reading, version, bare=True)
        instance = reading.event.instance_id or ""
        if found is None:
            return Decoded(events=[], raw=[], heartbeats=1, instance=instance)
        return Decoded([found[0]], [found[1]], instance=instance)

    def sound(
        self, records: Sequence[Source], reference: Callable[[int], str], max_bytes: int
    ) -> tuple[list[Event], list[bytes]]:
        """The events of the first records that are each one compact, sound event of an engine that is known: what
        ``bare`` makes of them, without what it takes to tell what else a record might be (a seventh of the time)."""
        reading = self._alone
        known = self._engines.get
        events: list[Event] = []
        raws: list[bytes] = []
        try:
            for record in records:
                raw = record.data
                if not raw.startswith(COMPACT_EVENT) or len(raw) > max_bytes or b"\n" in raw:
                    break
                activity = _decode_activity(raw)
                found = known(activity.server_type)
                if found is None or activity.type != "record" or activity.command is None or activity.log_time is None:
                    break
                reading.begin(reference(record.position), record.arrived)
                reading.engine, build = found
                event = build(activity, raw, reading)
                if reading.misfits:
                    break
                if event.category == "authentication" and event.statement is not None:
                    _move_login_message(event)
                events.append(event)
                raws.append(raw)
        except _UNREADABLE:
            pass  # for ``bare`` to say what is wrong with it
        reading.misfits = []
        return events, raws

    def _event(self, raw: bytes, reading: Reading, version: str, *, bare: bool) -> tuple[Event, bytes] | None:
        """What one element of a record is, with its own JSON; ``None`` for a heartbeat. Raises ``Undecodable``."""
        try:
            activity = _decode_activity(raw)
            if activity.type != "record" and not _is_record(activity, reading):
                return None
            if activity.command is None or activity.log_time is None:
                _check_shape(activity, bare)
            own = _format(raw, indent=-1) if laid_out(raw) else raw
            reading.engine, build = self._engines.get(activity.server_type) or self._engine(activity, version)
            event = build(activity, own, reading)
        except _UNREADABLE:
            tolerated = self._tolerant(raw, reading, version, bare)
            if tolerated is None:
                return None
            event, own = tolerated
        else:
            if reading.misfits:
                event.extra = _extra(own, reading.misfits)
                reading.misfits = []
        if event.category == "authentication" and event.statement is not None:
            _move_login_message(event)
        return event, own

    def _tolerant(self, raw: bytes, reading: Reading, version: str, bare: bool) -> tuple[Event, bytes] | None:
        """The same for an event that the typed decode refuses; ``None`` for a heartbeat."""
        reading.misfits = []
        activity, own, unfit = _read_around(raw)
        reading.misfits = unfit
        if not _is_record(activity, reading):
            reading.misfits = []
            return None
        try:
            _check_shape(activity, bare)
            reading.engine, build = self._engine(activity, version)
            event = build(activity, own, reading)
            if reading.misfits:
                event.extra = _extra(own, reading.misfits)
        finally:
            reading.misfits = []
        return event, own

    def _engine(self, activity: Activity, version: str) -> tuple[str | None, Builder]:
        named = engine_name(activity.server_type)
        engine = (
            named
            or engine_name(activity.db_protocol)
            or engine_name(activity.service_name)
            or self._configured_engine
            or engine_of_version(version)
        )
        found = (engine, _BUILDERS.get(engine, unknown_event))
        if named is not None:
            if len(self._engines) >= _KEEP:
                self._engines.clear()
            self._engines[activity.server_type] = found
        return found

    def _split(self, data: bytes) -> Record:
        if len(data) <= _LARGE_BYTES:
            try:
                return decode_record(data)
            except _UNREADABLE:
                pass
        try:
            return _split_damaged(data)
        except NotJson as error:
            raise refusal(data, str(error)) from None

    def _frame(self, record: Record) -> bytes:
        key = (record.cluster_id, record.instance_id)
        frame = self._frames.get(key)
        if frame is None:
            if len(self._frames) >= _KEEP:
                self._frames.clear()
            names = {"type": RECORD_TYPE, "clusterId": record.cluster_id, "instanceId": record.instance_id}
            present = {name: value for name, value in names.items() if value is not None}
            frame = self._frames[key] = msgspec.json.encode(present)[:-1] + b',"databaseActivityEventList":['
        return frame


def refusal(data: bytes, detail: str) -> Undecodable:
    """Why text is refused that is no record and no event: encoding, depth, not JSON at all, or just another shape."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return Undecodable(Reason.JSON_ENCODING, f"not UTF-8 at byte {error.start}")
    if exceeds_depth(data, MAX_DEPTH):
        return Undecodable(Reason.JSON_DEPTH, f"nested deeper than {MAX_DEPTH}")
    try:
        check(replace_lone_surrogates(data))
    except msgspec.DecodeError as error:
        return Undecodable(Reason.JSON_MALFORMED, str(error))
    return Undecodable(Reason.SHAPE, detail)


def _split_damaged(data: bytes) -> Record:
    """What typed decoding does, for a record of which some part cannot be decoded."""
    found = {member.name: data[member.value : member.end] for member in members(data, object_start(data))}
    listed = found.get("databaseActivityEventList", b"null")
    if not listed.startswith(b"["):
        raise Undecodable(Reason.SHAPE, "databaseActivityEventList is not a list")
    raws = list(islice(elements(listed), MAX_EVENTS + 1))
    if len(raws) > MAX_EVENTS:
        raise _too_many()
    return Record(
        database_activity_event_list=[msgspec.Raw(raw) for raw in raws],
        type=_wrapper_text("type", found),
        cluster_id=_wrapper_text("clusterId", found),
        instance_id=_wrapper_text("instanceId", found),
    )


def _wrapper_text(name: str, found: dict[str, bytes]) -> str | None:
    try:
        return _text_or_null.decode(replace_lone_surrogates(found.get(name, b"null")))
    except UnicodeDecodeError:
        raise Undecodable(Reason.JSON_ENCODING, f"the record's {name} is not UTF-8") from None
    except (msgspec.MsgspecError, RecursionError):
        raise Undecodable(Reason.SHAPE, f"the record's {name} is not text") from None


def _too_many() -> Undecodable:
    return Undecodable(Reason.TOO_LARGE, f"more than {MAX_EVENTS} events in one record")


def _is_record(activity: Activity, reading: Reading) -> bool:
    """Whether it is an activity and no heartbeat. A type that nobody knows is shipped as an activity."""
    if activity.type == _HEARTBEAT:
        return False
    if activity.type and activity.type != "record":
        reading.misfits.append("type")
    return True


def _check_shape(activity: Activity, bare: bool) -> None:
    if bare:
        if activity.command is None or (activity.log_time is None and activity.db_user_name is None):
            raise Undecodable(Reason.SHAPE, "neither an activity stream's record nor one of its events")
    elif activity.command is None and activity.class_ is None and activity.log_time is None:
        raise Undecodable(Reason.SHAPE, "an event without command, class and logTime")


def _move_login_message(event: Event) -> None:
    """A login carries a message where other activities carry SQL: its error where it failed, else a native value."""
    assert event.statement is not None
    if event.outcome != "failure":
        event.native = {**(event.native or {}), "login_message": event.statement}
    elif event.error is None:
        event.error = event.statement
    event.statement = None


def _read_around(raw: bytes) -> tuple[Activity, bytes, list[str]]:
    """What an event says in the fields that are known and fit, its compact JSON, and the names of the other fields.

    Raises ``Undecodable`` where it is not one sound JSON object.
    """
    try:
        object_start(raw)
    except NotJson as error:
        raise refusal(raw, "an event that is not an object") from error
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        raise Undecodable(Reason.JSON_ENCODING, f"not UTF-8 at byte {error.start} of the event") from None
    if exceeds_depth(raw, MAX_DEPTH):
        raise Undecodable(Reason.JSON_DEPTH, f"nested deeper than {MAX_DEPTH}")
    sound = replace_lone_surrogates(raw)
    try:
        sound = _format(sound, indent=-1)
    except msgspec.DecodeError as error:
        raise Undecodable(Reason.JSON_MALFORMED, str(error)) from None
    own = compact(raw) if b"\\u" in raw else sound
    known: dict[str, bytes] = {}
    unfit: list[str] = []
    for member in members(sound, 0):
        if member.name in FIELDS:
            known[member.name] = sound[member.begin : member.end]
        else:
            unfit.append(member.name)
    try:
        activity = _decode_activity(_joined(known.values()))
    except msgspec.MsgspecError:
        fitting = {name: member for name, member in known.items() if _fits(member)}
        unfit += known.keys() - fitting.keys()
        activity = _decode_activity(_joined(fitting.values()))
    return activity, own, unfit


def _fits(member: bytes) -> bool:
    try:
        _decode_activity(_joined((member,)))
    except msgspec.MsgspecError:
        return False
    return True


def _joined(parts: Iterable[bytes]) -> bytes:
    return b"{" + b",".join(parts) + b"}"


def _extra(own: bytes, names: Iterable[str]) -> str:
    """The JSON of these members of an event, in their order and in the engine's own bytes; the last of equal names."""
    wanted = frozenset(names)
    kept = {member.name: own[member.begin : member.end] for member in members(own, 0) if member.name in wanted}
    return _joined(kept.values()).decode()
