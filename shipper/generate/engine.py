"""What the generator asks of an engine: its SQL dialect, and its own shape of an audit event for one step."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import ClassVar, Literal

#: One audit event as the engine's JSON has it.
Fields = dict[str, object]

Kind = Literal["read", "write", "ddl", "role", "function", "misc"]
#: What goes wrong with a statement, whatever the engine calls it.
Fault = Literal["no_table", "duplicate", "denied", "syntax", "timeout", "deadlock"]
FAULTS: tuple[Fault, ...] = ("no_table", "duplicate", "denied", "syntax", "timeout", "deadlock")


@dataclass(frozen=True, slots=True)
class Instance:
    """A database instance: ``id`` is its resource id (``db-…``), ``name`` its identifier, ``address`` an IP."""

    id: str
    name: str
    address: str
    writer: bool
    pid: int


@dataclass(slots=True)
class Session:
    """One connection. ``opened`` is set by its login, in microseconds since 1970-01-01 UTC."""

    instance: Instance
    user: str
    application: str
    host: str
    port: int
    database: str
    number: int
    pid: int
    local: bool = False
    opened: int = 0
    statements: int = 0
    transaction: int = 0


@dataclass(frozen=True, slots=True)
class Statement:
    """``verb`` is the command's standard name (``CREATE TABLE``); ``tables`` are unqualified lower-case names."""

    verb: str
    kind: Kind
    text: str
    tables: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    rows: int = 0
    object_type: str = "TABLE"
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that a session does; a statement where ``action`` is ``statement``. ``took`` is in microseconds."""

    session: Session
    action: Literal["login", "refused", "statement", "logout"]
    statement: Statement | None = None
    took: int = 0


@dataclass(slots=True)
class Engine(ABC):
    """One engine's dialect and event shape, with the counters that the engine keeps."""

    rng: random.Random
    #: RDS for Oracle and SQL Server: was the stream started with engine-native audit fields?
    native: bool = True
    _counters: dict[str, int] = field(default_factory=dict)

    name: ClassVar[str]
    #: The envelope's version, and how the engine encrypts.
    version: ClassVar[str]
    suite: ClassVar[int]
    frame_length: ClassVar[int]
    spaced: ClassVar[bool] = False
    #: An Aurora cluster's stream carries several instances; an RDS instance's only its own.
    clustered: ClassVar[bool]
    #: The service's own users, whose noise every stream carries: the first works locally, the other from a host.
    service_user: ClassVar[str]
    service_remote_user: ClassVar[str] = "rdsproxyadmin"
    service_application: ClassVar[str]
    #: What a DBA types into.
    shell: ClassVar[str]
    #: Which statement the service's user runs again and again.
    service_query: ClassVar[str]

    @abstractmethod
    def events(self, step: Step, at: int) -> list[Fields]:
        """The audit events of a step that ends at ``at`` (microseconds since 1970-01-01 UTC)."""

    def encode(self, encoded: bytes) -> bytes:
        """The record's JSON as this engine's encoder writes it."""
        return encoded

    def next(self, counter: str, start: int = 1) -> int:
        """Counts up from ``start``."""
        value = self._counters.get(counter, start)
        self._counters[counter] = value + 1
        return value

    # The dialect: what differs between engines in the statements that the workload uses.

    @abstractmethod
    def mark(self, number: int) -> str:
        """The placeholder of a prepared statement's ``number``-th parameter."""

    def quote(self, text: str) -> str:
        """A string literal as drivers write it."""
        return "'" + text.replace("'", "''") + "'"

    def first(self, columns: str, table: str, rows: int) -> str:
        return f"SELECT {columns} FROM {table} ORDER BY 1 LIMIT {rows}"

    def begin(self) -> Statement:
        return Statement("BEGIN", "misc", "BEGIN")

    @abstractmethod
    def call(self, routine: str, argument: int) -> Statement:
        """Runs a stored routine."""

    @abstractmethod
    def load(self, table: str, rows: int) -> Statement:
        """Loads a file into a table."""

    @abstractmethod
    def create_user(self, user: str) -> Statement:
        """Makes a login, its password hidden as the engine hides it."""

    @abstractmethod
    def grant(self, privilege: str, table: str, user: str) -> Statement:
        """Grants a privilege on a table."""

    @abstractmethod
    def make_admin(self, user: str) -> Statement:
        """Makes a user all-powerful."""

    @abstractmethod
    def blind(self) -> Statement:
        """Tries to turn auditing off."""


def stamp(at: int) -> str:
    """``2024-03-05 11:22:33.123456``: microseconds since 1970-01-01 UTC, without an offset."""
    second, micro = divmod(at, 1_000_000)
    return f"{_second(second)}.{micro:06d}"


@lru_cache(maxsize=1024)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%d %H:%M:%S")
