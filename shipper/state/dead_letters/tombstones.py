"""What was replayed or purged may be read again by a lane that is behind: tombstones keep it from coming back.

Only records leave one. An event's dead letter stands in the state file only when its lane has passed the event; so one
that comes again was sent again, or is read again on purpose, and to drop it would lose it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

#: A lane may still meet the record of this row's key. Padded text compares as the numbers do; of a finished record
#: `event` is NULL.
_BEHIND = (
    "({0}.output = '*' AND EXISTS (SELECT 1 FROM positions "
    "WHERE positions.partition = {0}.partition AND NOT positions.ended "
    "AND (positions.record IS NULL OR positions.record < {0}.record "
    "OR (positions.record = {0}.record AND positions.event IS NOT NULL))))"
)


def bury(connection: sqlite3.Connection, ids: Sequence[int]) -> None:
    """Deletes dead letters; those that some lane may still meet leave a tombstone."""
    rows = [(letter,) for letter in ids]
    connection.executemany(
        "INSERT OR IGNORE INTO tombstones SELECT partition, record, ordinals, output FROM dead_letters "  # noqa: S608 - made of our own words
        f"WHERE id = ? AND {_BEHIND.format('dead_letters')}",
        rows,
    )
    connection.executemany("DELETE FROM dead_letters WHERE id = ?", rows)


def forget_tombstones(connection: sqlite3.Connection) -> int:
    """Removes those that every lane is past; how many."""
    return connection.execute(f"DELETE FROM tombstones WHERE NOT {_BEHIND.format('tombstones')}").rowcount  # noqa: S608 - made of our own words
