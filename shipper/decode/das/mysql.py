"""Aurora MySQL: one statement is a MAIN event and an AUX event for each object that it touched.

Source: "Monitoring database activity streams", Amazon Aurora user guide, and published decrypted events, from which it
differs: ``exitCode``, ``sessionId`` and ``transactionId`` come as text, absent values as ``""``, SQL with backslashes
before its quotes, and an AUX event's ``commandText`` is the object's name.
"""

from __future__ import annotations

import re

from shipper.decode.das.activity import Activity, Reading, address, as_text, identifier, unquote
from shipper.decode.das.classification import Kind, mysql_object, mysql_query, of_command
from shipper.decode.das.native_fields import has_native_fields, native_fields
from shipper.decode.das.statements import unescape
from shipper.event import SCHEMA_VERSION, Event, Outcome

__all__ = ["event"]

#: MySQL server error codes: ER_DBACCESS_DENIED_ERROR, ER_ACCESS_DENIED_ERROR, ER_TABLEACCESS_DENIED_ERROR,
#: ER_COLUMNACCESS_DENIED_ERROR, ER_SPECIFIC_ACCESS_DENIED_ERROR.
_DENIED = frozenset({"1044", "1045", "1142", "1143", "1227"})
_OK = (None, "0")

#: Names between commas or dots; a comma or a dot in backticks belongs to the name.
_NAMES = re.compile(r"(?:[^`,]++|`(?:[^`]++|``)*+`?)++")
_PARTS = re.compile(r"(?:[^`.]++|`(?:[^`]++|``)*+`?)++")


def event(activity: Activity, own: bytes, reading: Reading) -> Event:
    """The event of an Aurora MySQL activity; ``own`` is its compact JSON."""
    native = native_fields(activity, reading) if has_native_fields(activity) else None
    time, nanoseconds = reading.time(activity)
    started = reading.moment(activity.start_time, "startTime")
    ended = reading.moment(activity.end_time, "endTime")
    duration = ended[1] - started[1] if started and ended and ended[1] >= started[1] else None

    command = activity.command or ""
    text = activity.command_text or None
    code = as_text(activity.exit_code)
    error = activity.error_message or None
    object_name = activity.object_name
    outcome: Outcome
    failure = None
    if activity.class_ == "AUX":
        if not object_name:
            object_name = text
        text = None
        category, action = mysql_object(command, activity.object_type)
        outcome = "unknown"
    else:
        if text is not None and "\\" in text:
            text = unescape(text)
        kind: Kind | None = mysql_query(text) if command == "QUERY" and text else None
        category, action = kind or of_command(command)
        if kind is not None and action is None:
            action = "query"
        outcome = "success"
        if code not in _OK or error is not None or command == "FAILED_CONNECT":
            outcome = "failure"
            failed_login = command == "FAILED_CONNECT" and code in _OK
            failure = "denied" if failed_login or code in _DENIED else "error"
        if category == "authentication" and text is not None:
            error, text = error or (text if failure else None), None

    schema = object_ = objects = object_type = None
    if object_name:
        object_type = activity.object_type or None
        schema, object_, objects = _objects(object_name, activity.database_name)

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
        code=code,
        error=error,
        user=activity.db_user_name or None,
        database=activity.database_name or None,
        schema=schema,
        object=object_,
        object_type=object_type,
        objects=objects,
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


def _objects(text: str, database: str | None) -> tuple[str | None, str | None, list[str] | None]:
    """Schema and name of one object, or the qualified names of several.

    Of several no one stands as *the* object: a rule about one table must not answer for the others.
    """
    if "," not in text and "." not in text and "`" not in text:
        return None, text, None
    names = [name for name in (match.strip() for match in _NAMES.findall(text)) if name]
    parsed = [_qualified(name) for name in names]
    if len(parsed) == 1:
        return *parsed[0], None
    if not parsed:
        return None, text, None
    return None, None, [".".join(filter(None, (schema or database, name))) for schema, name in parsed]


def _qualified(name: str) -> tuple[str | None, str]:
    parts = _PARTS.findall(name)
    if len(parts) != 2:
        return None, unquote(name, "`")
    return unquote(parts[0], "`"), unquote(parts[1], "`")
