"""One activity as the engines write it, and the parts of its normalization that all engines share.

Field names and types: "Monitoring database activity streams" in the Amazon Aurora user guide (PostgreSQL, MySQL) and
in the Amazon RDS user guide (Oracle, SQL Server). Real events differ from the documented types (numbers as strings),
so each field takes what was seen of it; what does not fit is kept in ``extra``.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from typing import Annotated

import msgspec

from shipper.decode import Origin
from shipper.decode.ids import Ids
from shipper.decode.times import from_nanoseconds, timestamp

__all__ = ["FIELDS", "TIME_FROM_ARRIVAL", "Activity", "Reading", "address", "as_text", "identifier", "unquote"]

#: Set where an event's time is that of its arrival, because the engine's is missing or cannot be read.
TIME_FROM_ARRIVAL = "time_from_arrival"

_Int = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_TextOrInt = str | _Int | None


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
    engine_native_audit_fields: dict[str, msgspec.Raw] | None = None
    error_message: str | None = None
    exit_code: _TextOrInt = None
    log_time: str | None = None
    net_protocol: str | None = None
    object_name: str | None = None
    object_type: str | None = None
    param_list: list[str | _Int | None] | str | None = None
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
_NOWHERE = (None, None)
_addresses: dict[str | None, tuple[str | None, str | None]] = {}


def address(text: str | None) -> tuple[str | None, str | None]:
    """An address in its canonical form, or a host's name: exactly one of both, or none where there is no text."""
    known = _addresses.get(text)
    if known is None:
        if len(_addresses) >= _KEEP:
            _addresses.clear()
        known = _addresses[text] = _address(text)
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


def identifier(value: str | int | None) -> str | None:
    """A transaction's id; absent when it is nothing but zeros."""
    text = as_text(value)
    return text if text is not None and text.strip("0") else None


def unquote(name: str, quote: str) -> str:
    """A bare name: without the quotes around it, doubled ones inside made one."""
    if len(name) > 1 and name[0] == quote == name[-1]:
        return name[1:-1].replace(quote * 2, quote)
    return name


class Reading:
    """What the events of one record have in common, and what building one of them found.

    ``misfits`` are the JSON names of fields whose value does not fit the event: they go to ``extra``. ``tags`` are the
    event's. Both belong to the event at hand and are taken with ``finish``.
    """

    __slots__ = (
        "account",
        "arrived",
        "arrived_nanoseconds",
        "cluster",
        "cluster_id",
        "engine",
        "facts",
        "ids",
        "instance",
        "instance_id",
        "labels",
        "misfits",
        "position",
        "rare_facts",
        "region",
        "source",
        "source_partition",
        "tags",
    )

    def __init__(self, origin: Origin) -> None:
        self.facts = facts = {name: value for name, value in origin.facts.items() if value}
        self.cluster = facts.get("cluster")
        self.instance = facts.get("instance")
        self.account = facts.get("account")
        self.region = facts.get("region")
        self.rare_facts = {
            name: value
            for name, value in facts.items()
            if name not in {"cluster", "instance", "account", "region", "cluster_id", "instance_id"}
        }
        self.source = origin.source or None
        self.source_partition = origin.partition or None
        self.labels = origin.labels or None
        self.ids = Ids(origin.id_key)
        self.position: str | None = None
        self.arrived: str | None = None
        self.arrived_nanoseconds = 0
        self.cluster_id: str | None = None
        self.instance_id: str | None = None
        self.engine: str | None = None
        self.misfits: list[str] = []
        self.tags: list[str] | None = None

    def begin(self, position: str, arrived: int) -> None:
        """A record: the source's name for its position, and when it arrived, in nanoseconds since 1970 (0: unknown)."""
        self.position = position or None
        if arrived != self.arrived_nanoseconds or self.arrived is None:
            self.arrived_nanoseconds = arrived
            self.arrived = from_nanoseconds(arrived) if arrived > 0 else None

    def identify(self, cluster_id: str | None, instance_id: str | None, several: bool) -> None:
        """Where the record says its events come from; ``several``: it lists more than one."""
        self.cluster_id = cluster_id or self.facts.get("cluster_id")
        self.instance_id = instance_id or self.facts.get("instance_id")
        self.ids.record(self.instance_id or "", several)

    def time(self, activity: Activity) -> tuple[str, int]:
        """The event's time, as text and in nanoseconds: ``logTime``, else ``startTime``, else that of arrival."""
        if activity.log_time:
            stamp = timestamp(activity.log_time)
            if stamp is not None:
                return stamp
            self.misfits.append("logTime")
        elif activity.start_time:
            stamp = timestamp(activity.start_time)
            if stamp is not None:
                return stamp
        if self.arrived is None and activity.start_time:
            stamp = timestamp(activity.start_time)
            if stamp is not None:
                return stamp
        self.tags = [TIME_FROM_ARRIVAL]
        if self.arrived is None:  # a file need not say when
            return from_nanoseconds(0), 0
        return self.arrived, self.arrived_nanoseconds

    def moment(self, text: str | None, field: str) -> tuple[str, int] | None:
        """The time in a field, as text and in nanoseconds; kept in ``extra`` where it is none."""
        if not text:
            return None
        stamp = timestamp(text)
        if stamp is None:
            self.misfits.append(field)
        return stamp

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
        number = self.integer(value, "remotePort")
        if number is not None and not 0 <= number <= 0xFFFF:
            self.misfits.append("remotePort")
            return None
        return number

    def parameters(self, value: list[str | int | None] | str | None) -> list[str | None] | None:
        """Bind values as the engine gave them; absent when there are none."""
        if not value:
            return None
        if isinstance(value, str):
            return [value]
        return [str(item) if isinstance(item, int) else item for item in value]
