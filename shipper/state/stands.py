"""Positions as people see them, and set them back."""

from __future__ import annotations

import sqlite3
from datetime import datetime
from typing import NamedTuple

from shipper.source import Position, Start
from shipper.state.positions import position_of


class Stand(NamedTuple):
    """One lane's row as people see it; names instead of ids. ``begins`` as stored: 'earliest', or a time."""

    lane: str
    stream: str
    stream_id: int
    partition: str
    position: Position | None
    arrived: int
    tip: float
    ended: bool
    begins: str | None


def stands(connection: sqlite3.Connection) -> list[Stand]:
    """Where every lane stands in every partition, by lane, stream and partition."""
    rows = connection.execute(
        "SELECT lanes.name, identity, stream, partitions.name, record, event, arrived, tip, ended, positions.begins "
        "FROM positions JOIN lanes ON lanes.id = lane JOIN partitions ON partitions.id = partition "
        "JOIN streams ON streams.id = stream ORDER BY lanes.name, stream, partition"
    ).fetchall()
    return [
        Stand(lane, identity, stream, name, position_of(record, event), arrived, tip, bool(ended), begins)
        for lane, identity, stream, name, record, event, arrived, tip, ended, begins in rows
    ]


def begin_again(connection: sqlite3.Connection, lane: int, stream: int, begins: Start, now: float) -> int:
    """Lets a lane read a stream again from a time, or from the oldest record; in how many partitions. One that it had
    read to an end before that time stays ended. What the lane refuses again is kept again. ``now`` in seconds."""
    if isinstance(begins, datetime):
        since, stored = int(begins.timestamp() * 1e9), begins.isoformat()
    else:
        since, stored = -1, "earliest"
    rows = connection.execute(
        "SELECT partition FROM positions JOIN partitions ON partitions.id = partition "
        "WHERE stream = ? AND lane = ? AND NOT (ended AND arrived < ?)",
        (stream, lane, since),
    ).fetchall()
    for (partition,) in rows:
        connection.execute(
            "UPDATE positions SET record = NULL, event = NULL, decoder = '', arrived = 0, tip = ?, ended = 0, "
            "begins = ? WHERE lane = ? AND partition = ?",
            (now, stored, lane, partition),
        )
        connection.execute("DELETE FROM tombstones WHERE partition = ?", (partition,))
    return len(rows)
