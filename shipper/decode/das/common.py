"""The part of an event that is the same for every engine."""

from __future__ import annotations

from shipper.decode.das.activity import NO_FIELDS, Activity, Reading, address, addresses, as_text, ports
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
    if native is not None:
        event.native = native
    # From here on every line runs for every event. Nothing is set that the event would not have (it begins without),
    # and a function is called only for what is not as the engines mostly write it.
    code = activity.exit_code
    if code is not None:
        event.code = (code or None) if type(code) is str else as_text(code)
    if text := activity.error_message:
        event.error = text
    if text := activity.db_user_name:
        event.user = text
    if text := activity.database_name:
        event.database = text
    if text := activity.command:
        event.command = text
    if text := activity.class_:
        event.class_ = text
    if activity.param_list:
        event.parameters = _parameters(activity.param_list)
    number = activity.row_count
    if number is not None:
        event.rows = number if type(number) is int else reading.integer(number, "rowCount")
    if host := activity.remote_host:
        ip, name = addresses.get(host) or address(host)
        if ip is not None:
            event.client_ip = ip
        else:
            event.client_host = name
    number = activity.remote_port
    if number is not None:
        event.client_port = ports.get(number) or reading.port(number)
    if text := activity.client_application:
        event.client_application = text
    if host := activity.server_host:
        ip, name = addresses.get(host) or address(host)
        if ip is not None:
            event.server_ip = ip
        else:
            event.server_host = name
    _connection(event, activity, reading)
    return event


def _connection(event: Event, activity: Activity, reading: Reading) -> None:
    """The server's side of the connection, and the identifiers in it."""
    if text := activity.server_version:
        event.server_version = text
    if text := activity.service_name:
        event.service = text
    identifier = activity.session_id
    if identifier is not None:
        event.session_id = (identifier or None) if type(identifier) is str else as_text(identifier)
    identifier = activity.statement_id
    if identifier is not None:
        event.statement_id = str(identifier) if type(identifier) is int else as_text(identifier)
    identifier = activity.substatement_id
    if identifier is not None:
        event.substatement_id = "1" if identifier == 1 else as_text(identifier)
    identifier = activity.transaction_id
    if identifier is not None and identifier != "0":
        event.transaction_id = _identifier(identifier)
    number = activity.pid
    if number is not None:
        event.pid = number if type(number) is int else reading.integer(number, "pid")
    if text := activity.db_protocol:
        event.db_protocol = text
    if text := activity.net_protocol:
        event.network_protocol = text


def _identifier(value: str | int | None) -> str | None:
    """A transaction's id; absent when it is nothing but zeros."""
    text = as_text(value)
    return text if text is not None and text.strip("0") else None


def _parameters(value: list[str | int | None] | str) -> list[str | None]:
    """Bind values as the engine gave them."""
    if isinstance(value, str):
        return [value]
    return [str(item) if isinstance(item, int) else item for item in value]
