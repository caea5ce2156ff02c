"""RDS for Oracle and for SQL Server: the two engines with native audit fields.

Source: "Monitoring database activity streams", Amazon RDS user guide; the fields come from Oracle's
UNIFIED_AUDIT_TRAIL and from SQL Server's sys.fn_get_audit_file.
"""

from __future__ import annotations

import re

from shipper.decode.das.activity import Activity, Reading, address
from shipper.decode.das.classification import of_command, sqlserver
from shipper.decode.das.common import common
from shipper.event import Event, Outcome

__all__ = ["oracle_event", "sqlserver_event"]

#: ORA-01017 invalid user name or password, ORA-01031 insufficient privileges, ORA-28000 account locked.
_ORACLE_DENIED = frozenset({"1017", "1031", "28000"})
_AUTHENTICATION_TYPE = re.compile(r"\(TYPE=\(([^()]*)\)", re.IGNORECASE)
_NANOSECONDS_PER_MILLISECOND = 1_000_000
_SQLSERVER_OUTCOMES: dict[str | None, Outcome] = {"1": "success", "0": "failure"}


def oracle_event(activity: Activity, own: bytes, reading: Reading) -> Event:
    """The event of an Oracle activity; ``own`` is its compact JSON. ``objectType`` holds the object's schema."""
    event = common(activity, own, reading)
    event.category, event.action = of_command(activity.command or "", activity.class_)
    event.outcome = "unknown"
    if event.code is not None:
        event.outcome = "success" if event.code == "0" else "failure"
        if event.code != "0":
            event.failure = "denied" if event.code in _ORACLE_DENIED else "error"
    event.schema = activity.object_type or None
    event.object = activity.object_name or None
    event.statement = activity.command_text or None
    native = event.native
    if native is not None:
        event.effective_user = _other_than(event.user, native.get("current_user"))
        event.os_user = native.get("os_username")
        event.target_user = native.get("target_user")
        authentication = _AUTHENTICATION_TYPE.search(native.get("authentication_type", ""))
        if authentication is not None:
            event.auth_method = authentication[1] or None
        if event.client_ip is None and event.client_host is None:
            event.client_ip, event.client_host = address(native.get("userhost"))
    return event


def sqlserver_event(activity: Activity, own: bytes, reading: Reading) -> Event:
    """The event of a SQL Server activity; ``own`` is its compact JSON.

    ``exitCode`` is the other way round: 1 is success, 0 failure; but for logins it tells of the permission check alone.
    """
    event = common(activity, own, reading)
    event.category, event.action = sqlserver(activity.command or "", activity.class_, activity.object_type)
    event.outcome = _SQLSERVER_OUTCOMES.get(event.code, "unknown")
    if event.outcome == "failure":
        event.failure = "denied"
    if event.outcome != "unknown" and event.category != "authentication":
        event.outcome_of = "permission"
    event.object = activity.object_name or None
    event.object_type = activity.object_type or None
    event.statement = activity.command_text or None
    native = event.native
    if native is not None:
        event.session_user = _other_than(event.user, native.get("session_server_principal_name"))
        event.effective_user = _other_than(event.user, native.get("database_principal_name"))
        event.target_user = native.get("target_server_principal_name") or native.get("target_database_principal_name")
        event.schema = native.get("schema_name")
        event.rows_returned = _count(native.get("response_rows"))
        milliseconds = _count(native.get("duration_milliseconds"))
        if event.duration_ns is None and milliseconds is not None:
            event.duration_ns = milliseconds * _NANOSECONDS_PER_MILLISECOND
        if event.client_ip is None and event.client_host is None:
            event.client_ip, event.client_host = address(native.get("host_name"))
    return event


def _other_than(user: str | None, other: str | None) -> str | None:
    return other if other != user else None


def _count(text: str | None) -> int | None:
    """A count that fits; anything else stays a native value."""
    if text is None or not (text.isdigit() and text.isascii()) or len(text) > 12:
        return None
    return int(text)
