"""RDS for Oracle and for SQL Server: the two engines with native audit fields.

Source: "Monitoring database activity streams", Amazon RDS user guide; the fields come from Oracle's
UNIFIED_AUDIT_TRAIL and from SQL Server's sys.fn_get_audit_file.
"""

from __future__ import annotations

import re

from shipper.decode.das.activity import Activity, Reading, address, as_text, identifier
from shipper.decode.das.classification import of_command, sqlserver
from shipper.decode.das.native_fields import native_fields
from shipper.event import SCHEMA_VERSION, Event, Outcome

__all__ = ["oracle_event", "sqlserver_event"]

#: ORA-01017 invalid user name or password, ORA-01031 insufficient privileges, ORA-28000 account locked.
_ORACLE_DENIED = frozenset({"1017", "1031", "28000"})
_AUTHENTICATION_TYPE = re.compile(r"\(TYPE=\(([^()]*)\)", re.IGNORECASE)
_NANOSECONDS_PER_MILLISECOND = 1_000_000


def oracle_event(activity: Activity, own: bytes, reading: Reading) -> Event:
    """The event of an Oracle activity; ``own`` is its compact JSON. ``objectType`` holds the object's schema."""
    native = native_fields(activity, reading)
    known = native or {}
    code = as_text(activity.exit_code)
    outcome: Outcome = "unknown"
    failure = None
    if code is not None:
        outcome = "success" if code == "0" else "failure"
        if code != "0":
            failure = "denied" if code in _ORACLE_DENIED else "error"
    category, action = of_command(activity.command or "", activity.class_)
    user = activity.db_user_name or None
    effective = known.get("current_user")
    authentication = _AUTHENTICATION_TYPE.search(known.get("authentication_type", ""))
    event = _event(activity, own, reading)
    event.category, event.action = category, action
    event.outcome, event.failure, event.code = outcome, failure, code
    event.effective_user = effective if effective != user else None
    event.os_user = known.get("os_username")
    event.target_user = known.get("target_user")
    event.auth_method = (authentication[1] or None) if authentication else None
    event.schema = activity.object_type or None
    event.native = native
    if event.client_ip is None and event.client_host is None:
        event.client_ip, event.client_host = address(known.get("userhost"))
    return _without_login_text(event)


def sqlserver_event(activity: Activity, own: bytes, reading: Reading) -> Event:
    """The event of a SQL Server activity; ``own`` is its compact JSON.

    ``exitCode`` is the other way round: 1 is success, 0 failure; but for logins it tells of the permission check alone.
    """
    native = native_fields(activity, reading)
    known = native or {}
    code = as_text(activity.exit_code)
    category, action = sqlserver(activity.command or "", activity.class_, activity.object_type)
    outcome: Outcome = "success" if code == "1" else "failure" if code == "0" else "unknown"
    user = activity.db_user_name or None
    session_user = known.get("session_server_principal_name")
    event = _event(activity, own, reading)
    event.category, event.action = category, action
    event.outcome, event.code = outcome, code
    if outcome != "unknown" and category != "authentication":
        event.outcome_of = "permission"
    if outcome == "failure":
        event.failure = "denied"
    event.session_user = session_user if session_user != user else None
    effective = known.get("database_principal_name")
    event.effective_user = effective if effective != user else None
    event.target_user = known.get("target_server_principal_name") or known.get("target_database_principal_name")
    event.schema = known.get("schema_name")
    event.object_type = activity.object_type or None
    event.rows_returned = _number(known.get("response_rows"))
    milliseconds = _number(known.get("duration_milliseconds"))
    if event.duration_ns is None and milliseconds is not None:
        event.duration_ns = milliseconds * _NANOSECONDS_PER_MILLISECOND
    event.native = native
    if event.client_ip is None and event.client_host is None:
        event.client_ip, event.client_host = address(known.get("host_name"))
    return _without_login_text(event)


def _event(activity: Activity, own: bytes, reading: Reading) -> Event:
    """What both engines say in the same way."""
    time, nanoseconds = reading.time(activity)
    started = reading.moment(activity.start_time, "startTime")
    ended = reading.moment(activity.end_time, "endTime")
    client_ip, client_host = address(activity.remote_host)
    server_ip, server_host = address(activity.server_host)
    return Event(
        schema_version=SCHEMA_VERSION,
        id=reading.ids.event(nanoseconds, own),
        time=time,
        engine=reading.engine,
        error=activity.error_message or None,
        user=activity.db_user_name or None,
        database=activity.database_name or None,
        object=activity.object_name or None,
        command=activity.command or None,
        class_=activity.class_ or None,
        statement=activity.command_text or None,
        parameters=reading.parameters(activity.param_list),
        rows=reading.integer(activity.row_count, "rowCount"),
        client_ip=client_ip,
        client_host=client_host,
        client_port=reading.port(activity.remote_port),
        client_application=activity.client_application or None,
        server_host=server_host,
        server_ip=server_ip,
        server_version=activity.server_version or None,
        service=activity.service_name or None,
        session_id=as_text(activity.session_id),
        statement_id=as_text(activity.statement_id),
        substatement_id=as_text(activity.substatement_id),
        transaction_id=identifier(activity.transaction_id),
        pid=reading.integer(activity.pid, "pid"),
        started=started[0] if started else None,
        ended=ended[0] if ended else None,
        duration_ns=ended[1] - started[1] if started and ended and ended[1] >= started[1] else None,
        db_protocol=activity.db_protocol or None,
        network_protocol=activity.net_protocol or None,
        cluster=reading.cluster,
        instance=reading.instance,
        cluster_id=reading.cluster_id,
        instance_id=reading.instance_id,
        account=reading.account,
        region=reading.region,
        source_name=reading.source,
        source_partition=reading.source_partition,
        source_position=reading.position,
        arrived=reading.arrived,
        labels=reading.labels,
        tags=reading.tags,
    )


def _without_login_text(event: Event) -> Event:
    """A login carries a message where other activities carry SQL: an error where it failed, else a native value."""
    if event.category == "authentication" and event.statement is not None:
        if event.outcome == "failure":
            event.error = event.error or event.statement
        else:
            event.native = {**(event.native or {}), "login_message": event.statement}
        event.statement = None
    return event


def _number(text: str | None) -> int | None:
    """A count that fits; anything else stays a native value."""
    if text is None or not (text.isdigit() and text.isascii()) or len(text) > 12:
        return None
    return int(text)
