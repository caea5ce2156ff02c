"""Keeps dead letters, counts and lists them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence

from shipper.state.dead_letters.letter import EVERY_OUTPUT, DeadLetter, Filter, Kept
from shipper.state.file import as_text
from shipper.state.positions import add_to_books


def keep(connection: sqlite3.Connection, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
    """Stores dead letters and returns those that are new; one that is met again updates its row. A record that was
    replayed or purged already is not kept again."""
    return [letter for letter in letters if not _is_buried(connection, letter) and _keep(connection, letter)]


def _is_buried(connection: sqlite3.Connection, letter: DeadLetter) -> bool:
    if letter.output != EVERY_OUTPUT:
        return False
    query = "SELECT 1 FROM tombstones WHERE partition = ? AND record = ? AND ordinals = ? AND output = ?"
    key = (letter.partition, as_text(letter.record), _as_list(letter.ordinals), letter.output)
    return connection.execute(query, key).fetchone() is not None


def _keep(connection: sqlite3.Connection, letter: DeadLetter) -> bool:
    """Whether it is new."""
    row, attempts, lanes = connection.execute(
        "INSERT INTO dead_letters (stream, partition, record, reference, ordinals, output, source, reason, detail, "
        "attempts, first, last, arrived, resource_id, event_id, lanes, data, raw) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (partition, record, ordinals, output) DO UPDATE SET reason = excluded.reason, "
        "detail = excluded.detail, attempts = attempts + excluded.attempts, last = excluded.last "
        "RETURNING id, attempts, lanes",
        (
            letter.stream,
            letter.partition,
            as_text(letter.record),
            _bindable(letter.reference),
            _as_list(letter.ordinals),
            letter.output,
            letter.source,
            letter.reason,
            _bindable(letter.detail),
            letter.attempts,
            letter.time,
            letter.time,
            letter.arrived,
            letter.resource_id,
            letter.event_id,
            _as_list(letter.lanes),
            letter.data,
            letter.raw,
        ),
    ).fetchone()
    if attempts == letter.attempts:
        return True
    if letter.output != EVERY_OUTPUT:
        # Its lane was made to read it again, and counts it again: the one that stood here has been sent again.
        for (lane,) in connection.execute("SELECT id FROM lanes WHERE name = ?", (letter.output,)).fetchall():
            add_to_books(connection, lane, "replayed_out", "", letter.events)
    # Met again by a lane that was behind, or one that reads again: it is owed to both.
    owed = sorted({*json.loads(lanes), *letter.lanes}) if lanes and letter.lanes else []
    if owed and _as_list(owed) != lanes:
        connection.execute("UPDATE dead_letters SET lanes = ? WHERE id = ?", (_as_list(owed), row))
    return False


def _as_list(numbers: Sequence[int]) -> str:
    return json.dumps(numbers) if numbers else ""


def _bindable(text: str) -> str:
    """Text that SQLite takes: a destination's JSON may bring half characters (lone surrogates)."""
    return text.encode("utf-8", "replace").decode("utf-8")


def stored_bytes(connection: sqlite3.Connection) -> int:
    """How many bytes of data all dead letters hold. Reads every row, though not its blobs."""
    query = "SELECT coalesce(sum(length(data) + coalesce(length(raw), 0)), 0) FROM dead_letters"
    (size,) = connection.execute(query).fetchone()
    return int(size)


def counts(connection: sqlite3.Connection, chosen: Filter) -> list[tuple[str, str, int]]:
    """Output, reason and number of the chosen dead letters."""
    where, parameters = chosen.where()
    query = f"SELECT output, reason, count(*) FROM dead_letters WHERE {where} GROUP BY 1, 2 ORDER BY 1, 2"  # noqa: S608 - made of our own words
    rows = connection.execute(query, parameters)
    return [(output, reason, count) for output, reason, count in rows]


def listing(connection: sqlite3.Connection, chosen: Filter, page: int = 500) -> Iterator[Kept]:
    """The chosen dead letters, oldest first. Pages by key: an open cursor would let the WAL grow without bound."""
    where, parameters = chosen.where()
    query = (
        "SELECT dead_letters.id, output, source, name, record, reference, ordinals, reason, detail, attempts, "  # noqa: S608 - made of our own words
        "first, last, arrived, resource_id, event_id, length(data) FROM dead_letters "
        "JOIN partitions ON partitions.id = dead_letters.partition "
        f"WHERE {where} AND dead_letters.id > ? ORDER BY dead_letters.id LIMIT ?"
    )
    last = 0
    while True:
        rows = connection.execute(query, [*parameters, last, page]).fetchall()
        for letter, output, source, name, record, reference, ordinals, *rest in rows:
            indices = tuple(json.loads(ordinals)) if ordinals else ()
            yield Kept(letter, output, source, name, int(record), reference, indices, *rest)
        if len(rows) < page:
            return
        last = rows[-1][0]


def data_of(connection: sqlite3.Connection, letter: int) -> bytes | None:
    """The bytes of one dead letter: the record as it was read, or the event's native line."""
    row = connection.execute("SELECT data FROM dead_letters WHERE id = ?", (letter,)).fetchone()
    return bytes(row[0]) if row else None


def raw_of(connection: sqlite3.Connection, letter: int) -> bytes | None:
    """The event's line of the format ``raw``, where the output that refused it has that format."""
    row = connection.execute("SELECT raw FROM dead_letters WHERE id = ?", (letter,)).fetchone()
    return bytes(row[0]) if row and row[0] is not None else None
