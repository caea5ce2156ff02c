"""Where every lane stands in every partition, as changes for the writer and as questions to the state file.

Rows are explicit: the transaction that first sees a partition writes a row for every lane, the one that creates a lane
writes a row for every partition. So a lane without a row can never be taken for one that begins anew.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from shipper.source import EARLIEST, END, Position, Start
from shipper.state.file import as_text

#: ``start`` of a stream and ``begins`` of a partition that are known from imported dead letters alone.
_IMPORTED = "imported"


@dataclass(frozen=True, slots=True)
class Stream:
    """What is read; ``start`` is where partitions begin that existed when it was first listed."""

    id: int
    start: Start


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one lane stands in one partition. ``position`` ``None``: nothing is settled. ``arrived`` in nanoseconds,
    ``tip`` in seconds, both since 1970 UTC, 0 for never. ``begins``: where the lane begins again while nothing is
    settled, ``None``: where the partition does."""

    position: Position | None
    decoder: str
    arrived: int
    tip: float
    ended: bool
    begins: Start | None = None


@dataclass(frozen=True, slots=True)
class PartitionRow:
    """A partition as the state knows it: where it begins for a lane that has settled nothing, and every lane's row."""

    id: int
    begin: Start
    standings: dict[int, Standing]


@dataclass(slots=True)
class Move:
    """One lane's progress in one partition since its last move, and what the books say of exactly that stretch."""

    partition: int
    position: Position
    decoder: str
    arrived: int
    tally: Counter[tuple[str, str]] = field(default_factory=Counter)
    ended: bool = False


def ensure_lanes(connection: sqlite3.Connection, names: Sequence[str]) -> dict[str, int]:
    """The lanes' ids by name; creates those that are new."""
    for name in names:
        connection.execute("INSERT INTO lanes (name) VALUES (?) ON CONFLICT DO NOTHING", (name,))
    return dict(connection.execute("SELECT name, id FROM lanes").fetchall())


def ensure_stream(
    connection: sqlite3.Connection,
    identity: str,
    series: str,
    start: str,
    retention: float | None,
    lanes: Sequence[int],
) -> Stream:
    """The stream's row, made when it is first seen; ``start`` counts only then, and a stream that succeeds a known one
    begins at its beginning. Lanes that have no rows here yet get them at the smallest position of the others."""
    found = connection.execute("SELECT id, start FROM streams WHERE identity = ?", (identity,)).fetchone()
    if found is None or found[1] == _IMPORTED:
        (succeeds,) = connection.execute(
            "SELECT count(*) FROM streams WHERE series = ? AND start <> ?", (series, _IMPORTED)
        ).fetchone()
        found = connection.execute(
            "INSERT INTO streams (identity, series, start, retention) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (identity) DO UPDATE SET start = excluded.start, retention = excluded.retention "
            "RETURNING id, start",
            (identity, series, "earliest" if succeeds else start, retention),
        ).fetchone()
    stream_id, resolved = found
    partitions = connection.execute(
        "SELECT id FROM partitions WHERE stream = ? AND begins <> ?", (stream_id, _IMPORTED)
    ).fetchall()
    for (partition,) in partitions:
        _ensure_rows(connection, partition, lanes, lanes, 0.0)
    return Stream(stream_id, _start(resolved))


def ensure_partitions(
    connection: sqlite3.Connection, stream: Stream, names: Sequence[str], lanes: Sequence[int], now: float
) -> dict[str, PartitionRow]:
    """Every named partition with a row for every lane, also for those that read this stream before and are not
    configured at present. Those of the first listing begin at the stream's start, later ones (children of a split, new
    files) at their beginning. ``now`` (seconds): from then on a lane that settles nothing has a gap in the making."""
    (known,) = connection.execute(
        "SELECT count(*) FROM partitions WHERE stream = ? AND begins <> ?", (stream.id, _IMPORTED)
    ).fetchone()
    begins = "beginning" if known else "start"
    away = connection.execute(
        "SELECT DISTINCT lane FROM positions JOIN partitions ON partitions.id = partition WHERE stream = ?",
        (stream.id,),
    ).fetchall()
    every = [*lanes, *(lane for (lane,) in away if lane not in lanes)]
    rows: dict[str, PartitionRow] = {}
    for name in names:
        connection.execute(
            "INSERT INTO partitions (stream, name, begins) VALUES (?, ?, ?) "
            "ON CONFLICT DO UPDATE SET begins = excluded.begins WHERE begins = ?",
            (stream.id, name, begins, _IMPORTED),
        )
        partition, began = connection.execute(
            "SELECT id, begins FROM partitions WHERE stream = ? AND name = ?", (stream.id, name)
        ).fetchone()
        _ensure_rows(connection, partition, every, lanes, now)
        standings = {lane: standing for lane, standing in _standings(connection, partition).items() if lane in lanes}
        rows[name] = PartitionRow(partition, stream.start if began == "start" else EARLIEST, standings)
    return rows


def imported_partition(connection: sqlite3.Connection, identity: str, series: str, name: str) -> tuple[int, int]:
    """Ids of the stream and the partition that an imported dead letter was read from. Where they are made for it, they
    count as never listed: whatever reads them later begins as if they were not there."""
    connection.execute(
        "INSERT INTO streams (identity, series, start) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        (identity, series, _IMPORTED),
    )
    (stream,) = connection.execute("SELECT id FROM streams WHERE identity = ?", (identity,)).fetchone()
    connection.execute(
        "INSERT INTO partitions (stream, name, begins) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        (stream, name, _IMPORTED),
    )
    (partition,) = connection.execute(
        "SELECT id FROM partitions WHERE stream = ? AND name = ?", (stream, name)
    ).fetchone()
    return stream, partition


def forget_vanished(
    connection: sqlite3.Connection, stream: Stream, listed: Sequence[str], lanes: Sequence[int]
) -> list[str]:
    """Partitions that the source no longer lists although one of these lanes had not finished them: reported once, as
    a gap. What an output that left the configuration had not finished is not asked."""
    rows = connection.execute(
        "SELECT name, partition, lane FROM partitions JOIN positions ON positions.partition = partitions.id "
        "WHERE stream = ? AND NOT ended ORDER BY name",
        (stream.id,),
    ).fetchall()
    known = set(listed)
    vanished = [row for row in rows if row[0] not in known and row[2] in lanes]
    for _, partition, lane in vanished:
        connection.execute("UPDATE positions SET ended = 1 WHERE partition = ? AND lane = ?", (partition, lane))
    return list(dict.fromkeys(name for name, _, _ in vanished))


def forget_predecessors(connection: sqlite3.Connection, stream: Stream, series: str, lanes: Sequence[int]) -> list[str]:
    """The same for streams that this one has replaced: deleted, and made anew under the same name."""
    older = connection.execute("SELECT id FROM streams WHERE series = ? AND id < ?", (series, stream.id)).fetchall()
    return [name for (old,) in older for name in forget_vanished(connection, Stream(old, EARLIEST), (), lanes)]


def settle(connection: sqlite3.Connection, lane: int, moves: Sequence[Move], bookmark: bytes | None) -> None:
    """Moves a lane forward, with the books of the stretch and the bookmark that covers exactly it."""
    for move in moves:
        event = None if move.position.event == END else move.position.event
        connection.execute(
            "UPDATE positions SET record = ?, event = ?, decoder = ?, arrived = max(arrived, ?), ended = max(ended, ?) "
            "WHERE lane = ? AND partition = ?",
            (
                as_text(move.position.record) if move.position.record >= 0 else None,
                event,
                move.decoder,
                move.arrived,
                move.ended,
                lane,
                move.partition,
            ),
        )
        for (entry, reason), count in move.tally.items():
            add_to_books(connection, lane, entry, reason, count)
    if bookmark is not None:
        keep_bookmark(connection, lane, bookmark)


def keep_bookmark(connection: sqlite3.Connection, lane: int, bookmark: bytes) -> None:
    """Stores what the lane's output wants to get back after a restart."""
    connection.execute("UPDATE lanes SET bookmark = ? WHERE id = ?", (bookmark, lane))


def bookmark_of(connection: sqlite3.Connection, lane: int) -> bytes | None:
    """What the lane's output asked to keep last."""
    (bookmark,) = connection.execute("SELECT bookmark FROM lanes WHERE id = ?", (lane,)).fetchone()
    return bytes(bookmark) if bookmark is not None else None


def saw_tip(connection: sqlite3.Connection, partition: int, lanes: Sequence[int], now: float) -> None:
    """The reader stood at the tip of the partition at ``now`` (seconds), and these lanes owed nothing of it."""
    for lane in lanes:
        connection.execute("UPDATE positions SET tip = ? WHERE partition = ? AND lane = ?", (now, partition, lane))


def add_to_books(connection: sqlite3.Connection, lane: int, entry: str, reason: str, count: int) -> None:
    """Adds to one line of a lane's books."""
    connection.execute(
        "INSERT INTO books VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count",
        (lane, entry, reason, count),
    )


def books(connection: sqlite3.Connection) -> dict[str, dict[str, dict[str, int]]]:
    """Every lane's books: lane → entry → reason ('' where there is none) → count."""
    found: dict[str, dict[str, dict[str, int]]] = {
        name: {} for (name,) in connection.execute("SELECT name FROM lanes ORDER BY id")
    }
    rows = connection.execute("SELECT name, entry, reason, count FROM books JOIN lanes ON lanes.id = books.lane")
    for name, entry, reason, count in rows:
        found[name].setdefault(entry, {})[reason] = count
    return found


def _ensure_rows(
    connection: sqlite3.Connection, partition: int, lanes: Sequence[int], configured: Sequence[int], now: float
) -> None:
    standings = _standings(connection, partition)
    missing = [lane for lane in lanes if lane not in standings]
    if not missing:
        return
    # A new lane starts where its sources stand: at the smallest position among the other configured lanes.
    others = [standing for lane, standing in standings.items() if lane in configured] or standings.values()
    smallest = min(
        others,
        key=lambda standing: (standing.ended, standing.position or Position(-1, 0)),
        default=Standing(None, "", 0, now, False),
    )
    position, begins = smallest.position, smallest.begins
    for lane in missing:
        connection.execute(
            "INSERT INTO positions (lane, partition, record, event, decoder, arrived, tip, ended, begins) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                lane,
                partition,
                as_text(position.record) if position else None,
                None if position is None or position.event == END else position.event,
                smallest.decoder,
                smallest.arrived,
                smallest.tip,
                smallest.ended,
                begins.isoformat() if isinstance(begins, datetime) else begins and "earliest",
            ),
        )


def _standings(connection: sqlite3.Connection, partition: int) -> dict[int, Standing]:
    rows = connection.execute(
        "SELECT lane, record, event, decoder, arrived, tip, ended, begins FROM positions WHERE partition = ?",
        (partition,),
    )
    return {
        lane: Standing(
            position_of(record, event), decoder, arrived, tip, bool(ended), None if begins is None else _start(begins)
        )
        for lane, record, event, decoder, arrived, tip, ended, begins in rows
    }


def position_of(record: str | None, event: int | None) -> Position | None:
    """A stored position."""
    return None if record is None else Position(int(record), END if event is None else event)


def _start(stored: str) -> Start:
    return EARLIEST if stored == "earliest" else datetime.fromisoformat(stored)
