"""What a stream lost before it could be read, shown until somebody has acknowledged it."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gap:
    """What arrived between ``since`` and ``until`` was not read. Times in seconds since 1970 UTC, 0: unknown."""

    id: int
    source: str
    partition: str
    since: float
    until: float
    reason: str
    noticed: float


def note(
    connection: sqlite3.Connection, source: str, partition: str, since: float, until: float, reason: str, now: float
) -> bool:
    """Notes a gap, or that an open one with the same beginning has grown; whether it is new. Times in seconds."""
    known = connection.execute(
        "UPDATE gaps SET until = max(until, ?) WHERE source = ? AND partition = ? AND since = ? AND reason = ? "
        "AND acknowledged IS NULL",
        (until, source, partition, since, reason),
    ).rowcount
    if known:
        return False
    connection.execute(
        "INSERT INTO gaps (source, partition, since, until, reason, noticed) VALUES (?, ?, ?, ?, ?, ?)",
        (source, partition, since, until, reason, now),
    )
    return True


def open_gaps(connection: sqlite3.Connection) -> list[Gap]:
    """Those that nobody has acknowledged, oldest first."""
    rows = connection.execute(
        "SELECT id, source, partition, since, until, reason, noticed FROM gaps WHERE acknowledged IS NULL ORDER BY id"
    ).fetchall()
    return [Gap(*row) for row in rows]


def acknowledge(connection: sqlite3.Connection, now: float) -> int:
    """Marks every open gap as seen at ``now`` (seconds); how many."""
    return connection.execute("UPDATE gaps SET acknowledged = ? WHERE acknowledged IS NULL", (now,)).rowcount
