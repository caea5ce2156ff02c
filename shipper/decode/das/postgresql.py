"""Aurora PostgreSQL, and what is known of no engine.

Source: "Monitoring database activity streams", Amazon Aurora user guide; classes and commands are pgAudit's.
"""

from __future__ import annotations

import re

from shipper.decode.das.activity import Activity, Reading, address, as_text, identifier, unquote
from shipper.decode.das.classification import Kind, postgresql
from shipper.decode.das.native_fields import has_native_fields, native_fields
from shipper.event import SCHEMA_VERSION, Event, Outcome

__all__ = ["event", "unknown"]

#: What pgAudit writes in place of a statement or its parameters (pgAudit's README: log_statement_once, log_parameter).
_PLACEHOLDERS = frozenset({"<previously logged>", "<not logged>", "<none>"})

#: SQLSTATE classes (PostgreSQL manual, appendix A): successful completion, warning, no data.
_FINE_CLASSES = ("00", "01", "02")
_INVALID_AUTHORIZATION = "28"
_INSUFFICIENT_PRIVILEGE = "42501"
_SQLSTATE_LENGTH = 5
_AUTH_FAILURE = "AUTH FAILURE"

#: A name up to a dot, a comma or an argument list; what stands in double quotes belongs to the name.
_QUALIFIER = re.compile(r'((?:[^".(]++|"(?:[^"]++|"")*+")++)\.(.+)', re.DOTALL)


def event(activity: Activity, own: bytes, reading: Reading) -> Event:
    """The event of an Aurora PostgreSQL activity; ``own`` is its compact JSON."""
    code = as_text(activity.exit_code)
    error = activity.error_message or None
    outcome: Outcome = "success"
    failure = None
    failed_login = activity.command == _AUTH_FAILURE
    if error is not None or failed_login or not _fine(code):
        outcome = "failure"
        failure = "denied" if _denied(code) or (failed_login and _fine(code)) else "error"
    return _event(activity, own, reading, outcome, failure)


def unknown(activity: Activity, own: bytes, reading: Reading) -> Event:
    """The event of an activity whose engine is not known: its result is not either, but where it carries an error."""
    if activity.error_message:
        return _event(activity, own, reading, "failure", "error")
    return _event(activity, own, reading, "unknown", None)


def _event(activity: Activity, own: bytes, reading: Reading, outcome: Outcome, failure: str | None) -> Event:
    native = native_fields(activity, reading) if has_native_fields(activity) else None
    time, nanoseconds = reading.time(activity)
    started = reading.moment(activity.start_time, "startTime")
    ended = reading.moment(activity.end_time, "endTime")
    if ended is None and started is not None and activity.log_time and reading.tags is None:
        ended = time, nanoseconds  # logTime is when execution ended
    duration = ended[1] - started[1] if started and ended and ended[1] >= started[1] else None

    text = activity.command_text or None
    if text in _PLACEHOLDERS:
        text = None
    error = activity.error_message or None
    kind: Kind = postgresql(activity.command or "", activity.class_, text)
    category, action = kind
    if category == "authentication" and text is not None:
        error, text = error or (text if failure else None), None

    schema = object_ = None
    if activity.object_name:
        schema, object_ = _qualified(activity.object_name)

    client_ip, client_host = address(activity.remote_host)
    server_ip, server_host = address(activity.server_host)
    return Event(
        schema_version=SCHEMA_VERSION,
        id=reading.ids.event(nanoseconds, own),
        time=time,
        engine=reading.engine,
        category=category,
        action=action,
        outcome=outcome,
        failure=failure,
        code=as_text(activity.exit_code),
        error=error,
        user=activity.db_user_name or None,
        database=activity.database_name or None,
        schema=schema,
        object=object_,
        object_type=activity.object_type or None,
        command=activity.command or None,
        class_=activity.class_ or None,
        statement=text,
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
        duration_ns=duration,
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
        native=native,
        labels=reading.labels,
        tags=reading.tags,
    )


def _fine(code: str | None) -> bool:
    if code is None or code == "0":
        return True
    return len(code) == _SQLSTATE_LENGTH and code.startswith(_FINE_CLASSES)


def _denied(code: str | None) -> bool:
    if code is None or len(code) != _SQLSTATE_LENGTH:
        return False
    return code == _INSUFFICIENT_PRIVILEGE or code.startswith(_INVALID_AUTHORIZATION)


def _qualified(name: str) -> tuple[str | None, str]:
    """Schema and name: split at the first dot outside quotes; a dot among a function's arguments is none."""
    match = _QUALIFIER.fullmatch(name) if "." in name else None
    if match is None:
        return None, unquote(name, '"')
    return unquote(match[1], '"'), unquote(match[2], '"')
