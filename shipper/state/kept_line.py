"""What is asked of the kept records as a line: whose they are, how many, and the last of them.

Everything here runs inside the caller's transaction.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from shipper.state.dead_letters import DeadLetter, Filter, replay
from shipper.state.file import as_text


class Waiting(NamedTuple):
    """What waits of a series of streams: records by partition (id), their bytes, and the largest id of a record."""

    records: dict[int, int]
    bytes: int
    last: int


def waiting(connection: sqlite3.Connection, series: str) -> Waiting:
    """What waits of every stream of a series."""
    records: dict[int, int] = {}
    size = last = 0
    for stream in streams(connection, series):
        rows = connection.execute(
            "SELECT partition, count(*), sum(bytes), max(id) FROM kept_records WHERE stream = ? GROUP BY partition",
            (stream,),
        )
        for partition, count, total, newest in rows.fetchall():
            records[partition] = count
            size += total
            last = max(last, newest)
    return Waiting(records, size, last)


def streams(connection: sqlite3.Connection, series: str) -> list[int]:
    """The ids of the streams of a series, oldest first: one that was made anew does not lose the old one's rest."""
    rows = connection.execute("SELECT id FROM streams WHERE series = ? ORDER BY id", (series,)).fetchall()
    return [stream for (stream,) in rows]


def newest(connection: sqlite3.Connection, stream: int) -> int | None:
    """The id of the stream's newest record."""
    (found,) = connection.execute("SELECT max(id) FROM kept_records WHERE stream = ?", (stream,)).fetchone()
    return None if found is None else int(found)


def partition_name(connection: sqlite3.Connection, partition: int) -> str:
    """The source's own name for a partition."""
    (name,) = connection.execute("SELECT name FROM partitions WHERE id = ?", (partition,)).fetchone()
    return str(name)


def known_lanes(connection: sqlite3.Connection) -> frozenset[int]:
    """Ids of the lanes that were not given up."""
    return frozenset(lane for (lane,) in connection.execute("SELECT id FROM lanes").fetchall())


def exhume(connection: sqlite3.Connection, letters: Iterable[DeadLetter]) -> None:
    """These are to be kept again although they were replayed: their tombstones go. Those speak of what is met by
    reading it again; what was sent again and failed is another matter."""
    connection.executemany(
        "DELETE FROM tombstones WHERE partition = ? AND record = ? AND ordinals = ? AND output = ?",
        [_key(letter) for letter in letters],
    )


def replays(connection: sqlite3.Connection, stream: int, after: int) -> tuple[int, int, int]:
    """Of the stream's records above an id: how many are dead letters that were sent again, their bytes, and the largest
    id of all records."""
    count, size = connection.execute(
        "SELECT count(*), coalesce(sum(bytes), 0) FROM kept_records WHERE stream = ? AND id > ? AND replayed",
        (stream, after),
    ).fetchone()
    return int(count), int(size), newest(connection, stream) or 0


def recall(connection: sqlite3.Connection, letters: Sequence[DeadLetter], now: float) -> None:
    """Moves dead letters of records to the end of their source's line; those that are gone already are left. ``now`` in
    seconds."""
    found = []
    for letter in letters:
        row = connection.execute(
            "SELECT id FROM dead_letters WHERE partition = ? AND record = ? AND ordinals = ? AND output = ?",
            _key(letter),
        ).fetchone()
        if row is not None:
            found.append(int(row[0]))
    # No event of an output is among them, so no row of the spool is made.
    while found and replay(connection, Filter(ids=tuple(found)), 1, now=now).letters:
        pass


def _key(letter: DeadLetter) -> tuple[int, str, str, str]:
    ordinals = json.dumps(letter.ordinals) if letter.ordinals else ""
    return letter.partition, as_text(letter.record), ordinals, letter.output
