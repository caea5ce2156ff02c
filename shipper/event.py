"""The event: one normalized database activity, the same for every engine and every source (interface.md, The event)."""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

SCHEMA_VERSION = 1

Category = Literal[
    "trail",
    "authentication",
    "audit",
    "privilege",
    "ddl",
    "write",
    "function",
    "read",
    "session",
    "admin",
    "other",
]
Outcome = Literal["success", "failure", "unknown"]
Engine = Literal[
    "aurora-postgresql", "aurora-mysql", "oracle", "sqlserver", "mysql", "mariadb", "postgresql", "documentdb"
]
CATEGORIES: tuple[str, ...] = get_args(Category)
OUTCOMES: tuple[str, ...] = get_args(Outcome)
ENGINES: tuple[str, ...] = get_args(Engine)


class Event(msgspec.Struct, omit_defaults=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """One database activity. ``None`` means unknown and is left out of every encoding: no ``null``, no ``""``.

    Times are RFC 3339 UTC with 6 to 9 fraction digits; ``duration_ns`` is nanoseconds; ``statement_bytes`` bytes.
    The order of the fields is the order in which they are encoded.
    """

    schema_version: int
    id: str
    time: str
    engine: str | None = None
    # A factory, because an equal default would be left out of the encoding, and ``other`` is known, not absent.
    category: Category = msgspec.field(default_factory=lambda: "other")
    action: str | None = None
    outcome: Outcome | None = None
    outcome_of: str | None = None
    failure: str | None = None
    code: str | None = None
    error: str | None = None
    user: str | None = None
    session_user: str | None = None
    effective_user: str | None = None
    os_user: str | None = None
    target_user: str | None = None
    auth_method: str | None = None
    privileges: list[str] | None = None
    database: str | None = None
    schema: str | None = None
    object: str | None = None
    object_type: str | None = None
    objects: list[str] | None = None
    command: str | None = None
    class_: str | None = msgspec.field(default=None, name="class")
    statement: str | None = None
    statement_truncated: bool | None = None
    statement_bytes: int | None = None
    parameters: list[str | None] | None = None
    rows: int | None = None
    rows_returned: int | None = None
    client_ip: str | None = None
    client_host: str | None = None
    client_port: int | None = None
    client_application: str | None = None
    server_host: str | None = None
    server_ip: str | None = None
    server_version: str | None = None
    service: str | None = None
    session_id: str | None = None
    statement_id: str | None = None
    substatement_id: str | None = None
    transaction_id: str | None = None
    pid: int | None = None
    started: str | None = None
    ended: str | None = None
    duration_ns: int | None = None
    db_protocol: str | None = None
    network_protocol: str | None = None
    cluster: str | None = None
    instance: str | None = None
    cluster_id: str | None = None
    instance_id: str | None = None
    account: str | None = None
    region: str | None = None
    source_name: str | None = None
    source_partition: str | None = None
    source_position: str | None = None
    arrived: str | None = None
    native: dict[str, str] | None = None
    extra: str | None = None
    labels: dict[str, str] | None = None
    tags: list[str] | None = None


#: JSON name → attribute name, in encoding order (they differ only for ``class``).
FIELDS: dict[str, str] = {field.encode_name: field.name for field in msgspec.structs.fields(Event)}
