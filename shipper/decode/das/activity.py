"""One activity as the engines write it, and the parts of its normalization that all engines share.

Field names and types: "Monitoring database activity streams" in the Amazon Aurora user guide (PostgreSQL, MySQL) and
in the Amazon RDS user guide (Oracle, SQL Server). Real events differ from the documented types (numbers as strings),
so each field takes what was seen of it; what does not fit is kept in ``extra``.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import Annotated

import msgspec

from shipper.decode import Origin
from shipper.decode.ids import Ids
from shipper.decode.times import from_nanoseconds, timestamp, timestamps
from shipper.event import SCHEMA_VERSION, Event

__all__ = [
    "FIELDS",
    "NO_FIELDS",
    "TIME_FROM_ARRIVAL",
    "Activity",
    "Int",
    "Reading",
    "address",
    "addresses",
    "as_text",
    "ports",
    "unquote",
]

#: Set where an event's time is that of its arrival, because the engine's is missing or cannot be read.
TIME_FROM_ARRIVAL = "time_from_arrival"

#: A number that every encoding and every index can carry: 64 bits.
Int = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_TextOrInt = str | Int | None


#: Stands where an event has no ``engineNativeAuditFields``.
NO_FIELDS = msgspec.Raw()


class Activity(msgspec.Struct, forbid_unknown_fields=True, rename="camel", kw_only=True, gc=False):
    """Every field that any engine documents; each may be absent."""

    type: str | None = None
    class_: str | None = msgspec.field(default=None, name="class")
    command: str | None = None
    command_text: str | None = None
    client_application: str | None = None
    database_name: str | None = None
    db_protocol: str | None = None
    db_user_name: str | None = None
    dbid: _TextOrInt = None
    end_time: str | None = None
    engine_native_audit_fields: msgspec.Raw = NO_FIELDS
    error_message: str | None = None
    exit_code: _TextOrInt = None
    log_time: str | None = None
    net_protocol: str | None = None
    object_name: str | None = None
    object_type: str | None = None
    param_list: list[str | Int | None] | str | None = None
    pid: _TextOrInt = None
    remote_host: str | None = None
    remote_port: _TextOrInt = None
    row_count: _TextOrInt = None
    server_host: str | None = None
    server_type: str | None = None
    server_version: str | None = None
    service_name: str | None = None
    session_id: _TextOrInt = None
    start_time: str | None = None
    statement_id: _TextOrInt = None
    substatement_id: _TextOrInt = None
    transaction_id: _TextOrInt = None


#: The names of the fields in the engines' JSON.
FIELDS = frozenset(field.encode_name for field in msgspec.structs.fields(Activity))

_KEEP = 8192
#: A quarter of the time of ``copy.copy``, and half of what it takes to name the fields again.
_copy: Callable[[Event], Event] = Event.__copy__  # type: ignore[attr-defined]  # msgspec's stubs leave it out
_NOWHERE = (None, None)

#: What ``port`` and ``address`` have found: the look-up is worth writing where they would be called for every event.
ports: dict[str | int | None, int] = {}
addresses: dict[str | None, tuple[str | None, str | None]] = {}


def address(text: str | None) -> tuple[str | None, str | None]:
    """An address in its canonical form, or a host's name: exactly one of both, or none where there is no text."""
    known = addresses.get(text)
    if known is None:
        if len(addresses) >= _KEEP:
            addresses.clear()
        known = addresses[text] = _address(text)
    return known


def _address(text: str | None) -> tuple[str | None, str | None]:
    if not text:
        return _NOWHERE
    try:
        parsed = ip_address(text)
    except ValueError:
        return None, text
    if isinstance(parsed, IPv6Address):
        if parsed.scope_id is not None:  # fe80::1%eth0 means something on that host alone
            return None, text
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped), None
    return str(parsed), None


def as_text(value: str | int | None) -> str | None:
    """An identifier or a code as text; absent when empty."""
    if isinstance(value, int):
        return str(value)
    return value or None


def unquote(name: str, quote: str) -> str:
    """A bare name: without the quotes around it, doubled ones inside made one."""
    if len(name) > 1 and name[0] == quote == name[-1]:
        return name[1:-1].replace(quote * 2, quote)
    return name


class Reading:
    """What the events of one record have in common, and what building one of them found.

    ``event`` is what every event begins as a copy of: the facts of the origin and of the record. ``misfits`` are the
    JSON names of fields whose value does not fit the event: they go to ``extra``.
    """

    __slots__ = ("arrived", "arrived_nanoseconds", "engine", "event", "facts", "ids", "misfits")

    def __init__(self, origin: Origin) -> None:
        self.facts = {name: value for name, value in origin.facts.items() if value}
        self.event = Event(
            schema_version=SCHEMA_VERSION,
            id="",
            time="",
            source_name=origin.source or None,
            source_partition=origin.partition or None,
            labels=origin.labels or None,
        )
        for name, value in self.facts.items():
            setattr(self.event, name, value)
        self.ids = Ids(origin.id_key)
        self.arrived: str | None = None
        self.arrived_nanoseconds = 0
        self.engine: str | None = None
        self.misfits: list[str] = []

    def begin(self, position: str, arrived: int) -> None:
        """A record: the source's name for its position, and when it arrived, in nanoseconds since 1970 (0: unknown)."""
        self.event.source_position = position or None
        if arrived != self.arrived_nanoseconds:
            self.arrived_nanoseconds = max(arrived, 0)
            self.arrived = self.event.arrived = from_nanoseconds(arrived) if arrived > 0 else None

    def identify(self, cluster_id: str | None, instance_id: str | None, several: bool) -> None:
        """Where the record says its events come from; ``several``: it lists more than one."""
        self.event.cluster_id = cluster_id or self.facts.get("cluster_id")
        self.event.instance_id = instance = instance_id or self.facts.get("instance_id")
        self.ids.record(instance or "", several)

    def start(self, activity: Activity, own: bytes, *, logged_at_end: bool = False) -> Event:
        """An event with its id and times: ``logTime``, else ``startTime``, else that of arrival, which a tag says.

        ``own`` is the activity's compact JSON. ``logged_at_end``: without an ``endTime``, ``logTime`` is it.
        """
        event = _copy(self.event)
        log_time, start_time, end_time = activity.log_time, activity.start_time, activity.end_time
        stamps = timestamps(log_time, start_time, end_time) if log_time and start_time and end_time else None
        if stamps is not None:
            event.time, nanoseconds, event.started, begun, event.ended, ended = stamps
            if ended >= begun:
                event.duration_ns = ended - begun
        else:
            nanoseconds = self._times(event, activity, logged_at_end)
        event.id = self.ids.event(nanoseconds, own)
        event.engine = self.engine
        return event

    def _times(self, event: Event, activity: Activity, logged_at_end: bool) -> int:
        """Sets the event's times, each on its own; returns that of the event, in nanoseconds."""
        log_time, start_time = activity.log_time, activity.start_time
        stamp = timestamp(log_time) if log_time else None
        started = timestamp(start_time) if start_time else None
        if start_time:
            if started is None:
                self.misfits.append("startTime")
            else:
                event.started = started[0]
        ended = stamp if logged_at_end and started is not None else None
        if activity.end_time:
            ended = timestamp(activity.end_time)
            if ended is None:
                self.misfits.append("endTime")
        if ended is not None:
            event.ended = ended[0]
            if started is not None and ended[1] >= started[1]:
                event.duration_ns = ended[1] - started[1]
        if stamp is None:
            stamp = self._other_time(event, log_time, started)
        event.time, nanoseconds = stamp
        return nanoseconds

    def _other_time(self, event: Event, log_time: str | None, started: tuple[str, int] | None) -> tuple[str, int]:
        if log_time:
            self.misfits.append("logTime")
        if started is not None and not (log_time and self.arrived):
            return started
        event.tags = [TIME_FROM_ARRIVAL]
        if self.arrived is None:  # a file need not say when
            return from_nanoseconds(0), 0
        return self.arrived, self.arrived_nanoseconds

    def integer(self, value: str | int | None, field: str) -> int | None:
        """A number that may come as text; kept in ``extra`` where it is none, or has more than 64 bits."""
        if value is None or value == "":
            return None
        if isinstance(value, int):
            return value
        digits = value.removeprefix("-")
        if digits.isdigit() and digits.isascii() and len(digits) <= 19 and -(2**63) <= (number := int(value)) < 2**63:
            return number
        self.misfits.append(field)
        return None

    def port(self, value: str | int | None) -> int | None:
        """``remotePort``: 0 to 65535; kept in ``extra`` where it is anything else."""
        number = ports.get(value)
        if number is not None:
            return number
        number = self.integer(value, "remotePort")
        if number is None:
            return None
        if not 0 <= number <= 0xFFFF:
            self.misfits.append("remotePort")
            return None
        if len(ports) >= _KEEP:
            ports.clear()
        ports[value] = number
        return number
