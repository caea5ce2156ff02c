"""What commands ask of the shipper that holds the lock: marks in short transactions, carried out by its one writer."""

from __future__ import annotations

import json
import sqlite3
from typing import Any


def ask(connection: sqlite3.Connection, request: dict[str, Any], now: float) -> int:
    """Hands a request in (``now`` in seconds) and returns the id under which ``result`` has its answer."""
    (asked,) = connection.execute(
        "INSERT INTO control (request, asked) VALUES (?, ?) RETURNING id", (json.dumps(request), now)
    ).fetchone()
    return int(asked)


def waiting(connection: sqlite3.Connection) -> list[tuple[int, dict[str, Any]]]:
    """Requests that nobody has carried out yet, oldest first."""
    rows = connection.execute("SELECT id, request FROM control WHERE state = 'waiting' ORDER BY id").fetchall()
    return [(asked, json.loads(request)) for asked, request in rows]


def answer(connection: sqlite3.Connection, asked: int, result: dict[str, Any], failed: bool = False) -> None:
    """Says what came of a request; in the transaction that carries it out, so that it happens once."""
    state = "failed" if failed else "done"
    connection.execute("UPDATE control SET state = ?, answer = ? WHERE id = ?", (state, json.dumps(result), asked))


def result(connection: sqlite3.Connection, asked: int) -> tuple[str, dict[str, Any] | None]:
    """``waiting``, ``done`` or ``failed``, and the answer. A request that was cleaned away has ``failed``."""
    row = connection.execute("SELECT state, answer FROM control WHERE id = ?", (asked,)).fetchone()
    if row is None:
        return "failed", None
    state, answered = row
    return state, None if answered is None else json.loads(answered)


def withdraw(connection: sqlite3.Connection, asked: int) -> bool:
    """Takes a request back that nobody has carried out; whether there was still time."""
    return connection.execute("DELETE FROM control WHERE id = ? AND state = 'waiting'", (asked,)).rowcount > 0


def clean(connection: sqlite3.Connection, older_than: float) -> int:
    """Removes what was asked before a time (seconds), answered or not; how many."""
    return connection.execute("DELETE FROM control WHERE asked < ?", (older_than,)).rowcount
