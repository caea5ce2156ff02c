"""The index template that shipper manages: how OpenSearch keeps the fields of the native event.

``dynamic`` is off and no value is refused for its form (``ignore_malformed``), so whoever may log in to a database can
neither blow the mapping up nor have an event refused. What is not indexed still stands in ``_source``.
"""

from __future__ import annotations

from typing import Any, get_type_hints

from shipper.event import FIELDS, Event

#: Of the mapping below; goes up with every change of it.
VERSION = 1
#: Over templates without a priority, and below the ones that people make on purpose for the same names.
PRIORITY = 100
#: Characters of a keyword that are indexed: a term has 32 766 bytes at most (Lucene), a character up to four.
IGNORE_ABOVE = 8_191

_TIMES = {"time", "arrived", "started", "ended"}
_ADDRESSES = {"client_ip", "server_ip"}
_TEXTS = {"statement", "error"}
_TABLES = {"native", "labels"}
_STORED_ONLY = {"extra"}


def properties(timestamp_field: str | None) -> dict[str, Any]:
    """The fields of the native event, and the copy of its time."""
    hints = get_type_hints(Event)
    found = {name: _field(name, hints[attribute]) for name, attribute in FIELDS.items()}
    if timestamp_field:
        found[timestamp_field] = {"type": "date_nanos"}
    return found


def _field(name: str, hint: Any) -> dict[str, Any]:
    if name in _TIMES:
        return {"type": "date_nanos", "ignore_malformed": True}
    if name in _ADDRESSES:
        return {"type": "ip", "ignore_malformed": True}
    if name in _TEXTS:
        return {"type": "text"}
    if name in _TABLES:
        return {"type": "flat_object"}
    if name in _STORED_ONLY:
        return {"type": "keyword", "index": False, "doc_values": False}
    if bool in (hint, *getattr(hint, "__args__", ())):
        return {"type": "boolean"}
    if int in (hint, *getattr(hint, "__args__", ())):
        return {"type": "long", "ignore_malformed": True}
    return {"type": "keyword", "ignore_above": IGNORE_ABOVE}


def stem(place: str) -> str:
    """The literal beginning of a template for a place, without separators at its end."""
    return place.partition("{")[0].rstrip("-_.") or place.partition("{")[0]


def patterns(place: str) -> list[str]:
    """The names that the template is for. A plain name may be an alias: its indices are ``name-000001`` and so on."""
    literal, brace, _ = place.partition("{")
    return [f"{literal}*"] if brace else [literal, f"{literal}-*"]


def template_name(place: str) -> str:
    return f"shipper-{stem(place)}"


def index_template(place: str, *, stream: bool, timestamp_field: str | None, native: bool) -> dict[str, Any]:
    """The body of ``PUT _index_template``. ``native``: events have the native fields, and not a format's own."""
    mappings: dict[str, Any] = {"_meta": {"made_by": "shipper", "version": VERSION}}
    if native:
        mappings |= {"dynamic": False, "properties": properties(timestamp_field)}
    elif timestamp_field:
        mappings |= {"properties": {timestamp_field: {"type": "date_nanos"}}}
    body: dict[str, Any] = {
        "index_patterns": patterns(place),
        "priority": PRIORITY,
        "version": VERSION,
        "_meta": {"made_by": "shipper"},
        "template": {"mappings": mappings},
    }
    if stream:
        body["data_stream"] = {"timestamp_field": {"name": timestamp_field}}
    return body


def policy(place: str) -> dict[str, Any]:
    """The body of ``PUT _plugins/_ism/policies``: a data stream begins a new index by age or size. It deletes nothing:
    how long an audit trail is kept is not shipper's decision."""
    return {
        "policy": {
            "description": "made by shipper: rolls over, deletes nothing",
            "default_state": "rolling",
            "states": [
                {
                    "name": "rolling",
                    "actions": [{"rollover": {"min_index_age": "30d", "min_primary_shard_size": "30gb"}}],
                    "transitions": [],
                }
            ],
            "ism_template": [{"index_patterns": patterns(place), "priority": PRIORITY}],
        }
    }
