"""Aurora PostgreSQL, and what is known of no engine.

Source: "Monitoring database activity streams", Amazon Aurora user guide; classes and commands are pgAudit's.
"""

from __future__ import annotations

import re

from shipper.decode.das.activity import Activity, Reading, as_text, unquote
from shipper.decode.das.classification import postgresql
from shipper.decode.das.common import common
from shipper.event import Event, Outcome

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
    outcome: Outcome = "success"
    failure = None
    failed_login = activity.command == _AUTH_FAILURE
    if activity.error_message or failed_login or not _fine(code):
        outcome = "failure"
        failure = "denied" if _denied(code) or (failed_login and _fine(code)) else "error"
    return _event(activity, own, reading, outcome, failure)


def unknown(activity: Activity, own: bytes, reading: Reading) -> Event:
    """The event of an activity whose engine is not known: its result is not either, but where it carries an error."""
    if activity.error_message:
        return _event(activity, own, reading, "failure", "error")
    return _event(activity, own, reading, "unknown", None)


def _event(activity: Activity, own: bytes, reading: Reading, outcome: Outcome, failure: str | None) -> Event:
    event = common(activity, own, reading, logged_at_end=True)
    text = activity.command_text or None
    if text in _PLACEHOLDERS:
        text = None
    event.category, event.action = postgresql(activity.command or "", activity.class_, text)
    event.outcome, event.failure = outcome, failure
    event.statement = text
    if activity.object_name:
        event.schema, event.object = _qualified(activity.object_name)
        event.object_type = activity.object_type or None
    return event


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
