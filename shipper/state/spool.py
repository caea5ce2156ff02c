"""The tail of each lane's line on disk: rows of up to a thousand events, oldest first.

Everything here runs inside the caller's transaction. Ids are handed out by the caller, so that a lane knows its rows
before they are committed; they only grow, also when the spool has been empty.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from shipper.errors import StateError
from shipper.state.positions import add_to_books

#: The reason in the books of what was purged from the spool: it was no dead letter, so none less is left.
PURGED = "spool"


class Place(NamedTuple):
    """Where ``count`` consecutive events of one record were read, from ``ordinal`` on. ``arrived`` in nanoseconds."""

    stream: int
    partition: int
    source: str
    record: int
    reference: str
    arrived: int
    ordinal: int
    count: int  # type: ignore[assignment] # hides tuple.count, which nobody asks of a place


@dataclass(slots=True)
class Spooled:
    """One row. ``places`` say, in the order of the lines, where the events were read. ``native``: one native line per
    event; ``raw``: the same events' lines of that format, where the output has it. No line holds a line feed, unless it
    is the only one. ``time``: when it was spooled, ``oldest``: the oldest event's time (0: unknown); seconds, UTC."""

    id: int
    lane: int
    time: float
    oldest: float
    places: list[Place]
    native: list[bytes]
    raw: list[bytes] | None = None

    @property
    def events(self) -> int:
        """How many events it holds."""
        return len(self.native)

    @property
    def size(self) -> int:
        """Bytes on disk of the joined lines, both kinds together."""
        return _joined(self.native) + (_joined(self.raw) if self.raw is not None else 0)


class Totals(NamedTuple):
    """What one lane has in the spool. ``bytes`` without what SQLite adds; ``oldest``: when its oldest row was spooled,
    in seconds."""

    rows: int
    events: int
    bytes: int
    oldest: float


_COLUMNS = "id, lane, events, time, oldest, places, native, raw"
_places = msgspec.msgpack.Decoder(list[tuple[int, int, str, str, str, int, int, int]])


def next_id(connection: sqlite3.Connection) -> int:
    """An id above every one that was ever used."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'spool'").fetchone()
    return int(row[0]) + 1 if row else 1


def insert(connection: sqlite3.Connection, row: Spooled) -> None:
    """Appends a row under its own id. Raises ``ValueError`` where places and lines do not cover the same events."""
    connection.execute(
        "INSERT INTO spool (id, lane, events, bytes, time, oldest, places, native, raw) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (row.id, row.lane, *_written(row)),
    )


def replace(connection: sqlite3.Connection, row: Spooled) -> None:
    """Writes what is left of a row. Raises ``ValueError`` as ``insert`` does."""
    connection.execute(
        "UPDATE spool SET events = ?, bytes = ?, time = ?, oldest = ?, places = ?, native = ?, raw = ? WHERE id = ?",
        (*_written(row), row.id),
    )


def delete(connection: sqlite3.Connection, ids: Sequence[int]) -> None:
    """Removes rows whose outcome is being committed; ids that are gone already do no harm."""
    connection.executemany("DELETE FROM spool WHERE id = ?", [(row,) for row in ids])


def page(connection: sqlite3.Connection, lane: int, after: int, max_bytes: int) -> list[Spooled]:
    """The lane's next rows above an id, oldest first: at least one if there is one, and as many as fit."""
    last, size = None, 0
    cursor = connection.execute("SELECT id, bytes FROM spool WHERE lane = ? AND id > ? ORDER BY id", (lane, after))
    for row, its_size in cursor:
        size += its_size
        if last is not None and size > max_bytes:
            break
        last = row
    cursor.close()  # an open one would keep the WAL from being cut
    if last is None:
        return []
    query = f"SELECT {_COLUMNS} FROM spool WHERE lane = ? AND id > ? AND id <= ? ORDER BY id"  # noqa: S608 - our own words
    return [_read(*row) for row in connection.execute(query, (lane, after, last)).fetchall()]


def totals(connection: sqlite3.Connection) -> dict[int, Totals]:
    """What every lane has in the spool, by its id; from the index alone. A lane without rows is not in it."""
    # Beside min(), SQLite takes the other columns from the row that holds the minimum.
    rows = connection.execute("SELECT lane, count(*), sum(events), sum(bytes), min(id), time FROM spool GROUP BY lane")
    return {lane: Totals(count, events, size, time) for lane, count, events, size, _, time in rows}


def move(connection: sqlite3.Connection, lane: int, to: int, first_id: int, limit: int | None = None) -> int:
    """Appends a lane's rows to the end of another's line, under ids from ``first_id`` on; how many events that were.

    ``limit``: at most so many rows, oldest first; the caller goes on until nothing is left. Without it the whole spool
    passes through the WAL at once. The books: purged here, replayed there.
    """
    ids = _oldest(connection, lane, limit)
    events = _events(connection, lane, ids)
    for new, old in enumerate(ids, first_id):
        connection.execute("UPDATE spool SET id = ?, lane = ? WHERE id = ?", (new, to, old))
    if ids:
        # An UPDATE does not tell AUTOINCREMENT.
        last = first_id + len(ids) - 1
        connection.execute("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'spool'", (last,))
        add_to_books(connection, lane, "purged", PURGED, events)
        add_to_books(connection, to, "replayed", "", events)
    return events


def drop(connection: sqlite3.Connection, lane: int, limit: int | None = None) -> int:
    """Deletes a lane's rows (``limit``: at most so many, oldest first), purged in its books; how many events."""
    ids = _oldest(connection, lane, limit)
    events = _events(connection, lane, ids)
    delete(connection, ids)
    if ids:
        add_to_books(connection, lane, "purged", PURGED, events)
    return events


def _oldest(connection: sqlite3.Connection, lane: int, limit: int | None) -> list[int]:
    query = "SELECT id FROM spool WHERE lane = ? ORDER BY id LIMIT ?"
    return [row for (row,) in connection.execute(query, (lane, -1 if limit is None else limit)).fetchall()]


def _events(connection: sqlite3.Connection, lane: int, ids: Sequence[int]) -> int:
    if not ids:
        return 0
    query = "SELECT sum(events) FROM spool WHERE lane = ? AND id >= ? AND id <= ?"
    (events,) = connection.execute(query, (lane, ids[0], ids[-1])).fetchone()
    return int(events)


def _joined(lines: Sequence[bytes]) -> int:
    return sum(map(len, lines)) + max(len(lines) - 1, 0)


def _written(row: Spooled) -> tuple[int, int, float, float, bytes, bytes, bytes | None]:
    covered = sum(place.count for place in row.places)
    if not row.native or covered != len(row.native) or (row.raw is not None and len(row.raw) != len(row.native)):
        lines = f"{len(row.native)} native lines" + (f", {len(row.raw)} raw lines" if row.raw is not None else "")
        raise ValueError(f"spool: a row of {lines} and places of {covered} events was not written")
    native = b"\n".join(row.native)
    raw = None if row.raw is None else b"\n".join(row.raw)
    places = msgspec.msgpack.encode([(*place[:3], str(place.record), *place[4:]) for place in row.places])
    return len(row.native), len(native) + len(raw or b""), row.time, row.oldest, places, native, raw


def _read(
    row: int, lane: int, events: int, time: float, oldest: float, places: bytes, native: bytes, raw: bytes | None
) -> Spooled:
    lines = _lines(row, events, native)
    raw_lines = None if raw is None else _lines(row, events, raw)
    read = [
        Place(stream, partition, source, int(record), reference, arrived, ordinal, count)
        for stream, partition, source, record, reference, arrived, ordinal, count in _places.decode(places)
    ]
    return Spooled(row, lane, time, oldest, read, lines, raw_lines)


def _lines(row: int, events: int, joined: bytes) -> list[bytes]:
    # A single line is taken as it is: what an old dead letter kept may hold a line feed.
    lines = [joined] if events == 1 else joined.split(b"\n")
    if len(lines) != events:
        message = f"state: row {row} of the spool holds {len(lines)} lines where {events} were written"
        raise StateError(f"{message}; nothing was sent of it; restore the file from a copy")
    return lines
