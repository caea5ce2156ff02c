"""The part of an event that is the same for every engine."""

from __future__ import annotations

from shipper.decode.das.activity import NO_FIELDS, Activity, Reading, address, as_text
from shipper.decode.das.native_fields import native_fields
from shipper.event import Event

__all__ = ["common"]


def common(activity: Activity, own: bytes, reading: Reading, *, logged_at_end: bool = False) -> Event:
    """An event with everything but what each engine says in its own way: what was done, to what, and how it ended.

    ``own`` is the activity's compact JSON; ``logged_at_end`` as for ``Reading.start``. Raises what ``native_fields``
    raises.
    """
    native = None
    if activity.engine_native_audit_fields is not NO_FIELDS or activity.dbid is not None:
        native = native_fields(activity, reading)
    event = reading.start(activity, own, logged_at_end=logged_at_end)
    event.native = native
    code = activity.exit_code
    event.code = (code or None) if type(code) is str else as_text(code)
    event.error = activity.error_message or None
    event.user = activity.db_user_name or None
    event.database = activity.database_name or None
    event.command = activity.command or None
    event.class_ = activity.class_ or None
    if activity.param_list:
        event.parameters = _parameters(activity.param_list)
    rows = activity.row_count
    event.rows = rows if rows is None or type(rows) is int else reading.integer(rows, "rowCount")
    event.client_ip, event.client_host = address(activity.remote_host)
    event.client_port = reading.port(activity.remote_port)
    event.client_application = activity.client_application or None
    event.server_ip, event.server_host = address(activity.server_host)
    event.server_version = activity.server_version or None
    event.service = activity.service_name or None
    session = activity.session_id
    event.session_id = (session or None) if type(session) is str else as_text(session)
    statement = activity.statement_id
    event.statement_id = str(statement) if type(statement) is int else as_text(statement)
    event.substatement_id = "1" if activity.substatement_id == 1 else as_text(activity.substatement_id)
    transaction = activity.transaction_id
    if transaction is not None and transaction != "0":
        event.transaction_id = _identifier(transaction)
    pid = activity.pid
    event.pid = pid if pid is None or type(pid) is int else reading.integer(pid, "pid")
    event.db_protocol = activity.db_protocol or None
    event.network_protocol = activity.net_protocol or None
    return event


def _identifier(value: str | int | None) -> str | None:
    """A transaction's id; absent when it is nothing but zeros."""
    text = as_text(value)
    return text if text is not None and text.strip("0") else None


def _parameters(value: list[str | int | None] | str) -> list[str | None]:
    """Bind values as the engine gave them."""
    if isinstance(value, str):
        return [value]
    return [str(item) if isinstance(item, int) else item for item in value]
