"""Aurora MySQL: one statement is a MAIN event and an AUX event for each object that it touched.

Source: "Monitoring database activity streams", Amazon Aurora user guide, and published decrypted events, from which it
differs: ``exitCode``, ``sessionId`` and ``transactionId`` come as text, absent values as ``""``, SQL with backslashes
before its quotes, and an AUX event's ``commandText`` is the object's name.
"""

from __future__ import annotations

import re

from shipper.decode.das.activity import Activity, Reading, unquote
from shipper.decode.das.classification import mysql_object, mysql_query, of_command
from shipper.decode.das.common import common
from shipper.decode.das.statements import unescape
from shipper.event import Event

__all__ = ["event"]

#: MySQL server error codes: ER_DBACCESS_DENIED_ERROR, ER_ACCESS_DENIED_ERROR, ER_TABLEACCESS_DENIED_ERROR,
#: ER_COLUMNACCESS_DENIED_ERROR, ER_SPECIFIC_ACCESS_DENIED_ERROR.
_DENIED = frozenset({"1044", "1045", "1142", "1143", "1227"})
_OK = (None, "0")

#: Names between commas or dots; a comma or a dot in backticks belongs to the name.
_NAMES = re.compile(r"(?:[^`,]++|`(?:[^`]++|``)*+`?)++")
_SEVERAL = re.compile(r"[,.`]")
_PARTS = re.compile(r"(?:[^`.]++|`(?:[^`]++|``)*+`?)++")


def event(activity: Activity, own: bytes, reading: Reading) -> Event:
    """The event of an Aurora MySQL activity; ``own`` is its compact JSON."""
    event = common(activity, own, reading)
    command = activity.command or ""
    text = activity.command_text or None
    object_name = activity.object_name
    if activity.class_ == "AUX":
        if not object_name:
            object_name = text
        event.category, event.action = mysql_object(command, activity.object_type)
        event.outcome = "unknown"
    else:
        if text is not None and "\\" in text:
            text = unescape(text)
        if command == "QUERY" and text is not None:
            event.category, action = mysql_query(text)
            event.action = action or "query"
        else:
            event.category, event.action = of_command(command)
        code = event.code
        event.outcome = "success"
        if code not in _OK or event.error is not None or command == "FAILED_CONNECT":
            event.outcome = "failure"
            refused_login = command == "FAILED_CONNECT" and code in _OK
            event.failure = "denied" if refused_login or code in _DENIED else "error"
        event.statement = text
    if object_name:
        event.object_type = activity.object_type or None
        if object_name.isidentifier() or not _SEVERAL.search(object_name):
            event.object = object_name
        else:
            _objects(event, object_name)
    return event


def _objects(event: Event, text: str) -> None:
    """Schema and name of one object, or the qualified names of several.

    Of several no one stands as *the* object: a rule about one table must not answer for the others.
    """
    parsed = [_qualified(name) for match in _NAMES.findall(text) if (name := match.strip())]
    if len(parsed) == 1:
        event.schema, event.object = parsed[0]
    elif parsed:
        event.objects = [".".join(filter(None, (schema or event.database, name))) for schema, name in parsed]
    else:
        event.object = text


def _qualified(name: str) -> tuple[str | None, str]:
    parts = _PARTS.findall(name)
    if len(parts) != 2:
        return None, unquote(name, "`")
    return unquote(parts[0], "`"), unquote(parts[1], "`")
