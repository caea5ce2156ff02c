"""Dead letters: what could not be decoded, as it was read, and what an output refused, with the reason."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shipper.state.file import as_text

#: ``DeadLetter.output`` of a record that could not be decoded: it concerns every output.
EVERY_OUTPUT = "*"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter. ``reference``: the source's own name for the position. ``ordinals``: which events of the record,
    empty for all of it. ``data``: the record as it was read (still encrypted), or the event's encoded bytes. Times are
    seconds, ``arrived`` nanoseconds, since 1970 UTC."""

    stream: int
    partition: int
    record: int
    reference: str
    ordinals: tuple[int, ...]
    output: str
    source: str
    reason: str
    detail: str
    time: float
    arrived: int
    data: bytes
    resource_id: str | None = None
    event_id: str | None = None
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Kept:
    """A dead letter as it stands in the state file, without its bytes. ``size`` in bytes, times in seconds."""

    id: int
    output: str
    source: str
    partition: str
    record: int
    reference: str
    ordinals: tuple[int, ...]
    reason: str
    detail: str
    attempts: int
    first: float
    last: float
    arrived: int
    resource_id: str | None
    event_id: str | None
    size: int


@dataclass(frozen=True, slots=True)
class Filter:
    """Which dead letters are meant; ``since`` in seconds since 1970 UTC."""

    output: str | None = None
    reason: str | None = None
    since: float | None = None
    id: int | None = None

    def where(self) -> tuple[str, list[object]]:
        """An SQL condition and its parameters."""
        tests = [("output = ?", self.output), ("reason = ?", self.reason), ("last >= ?", self.since)]
        tests.append(("dead_letters.id = ?", self.id))
        used = [(test, value) for test, value in tests if value is not None]
        return " AND ".join(test for test, _ in used) or "1", [value for _, value in used]


def keep(connection: sqlite3.Connection, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
    """Stores dead letters and returns those that are new; one that is met again (after a crash) updates its row."""
    new = []
    for letter in letters:
        (attempts,) = connection.execute(
            "INSERT INTO dead_letters (stream, partition, record, reference, ordinals, output, source, reason, detail, "
            "attempts, first, last, arrived, resource_id, event_id, data) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (partition, record, ordinals, output) DO UPDATE SET reason = excluded.reason, "
            "detail = excluded.detail, attempts = attempts + excluded.attempts, last = excluded.last "
            "RETURNING attempts",
            (
                letter.stream,
                letter.partition,
                as_text(letter.record),
                _bindable(letter.reference),
                json.dumps(letter.ordinals) if letter.ordinals else "",
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
                letter.data,
            ),
        ).fetchone()
        if attempts == letter.attempts:
            new.append(letter)
    return new


def _bindable(text: str) -> str:
    """Text that SQLite takes: a destination's JSON may bring half characters (lone surrogates)."""
    return text.encode("utf-8", "replace").decode("utf-8")


def stored_bytes(connection: sqlite3.Connection) -> int:
    """How many bytes of data all dead letters hold."""
    (size,) = connection.execute("SELECT coalesce(sum(length(data)), 0) FROM dead_letters").fetchone()
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
    """The bytes of one dead letter."""
    row = connection.execute("SELECT data FROM dead_letters WHERE id = ?", (letter,)).fetchone()
    return bytes(row[0]) if row else None
