"""The source's own spool: records that cannot be decoded now, as they were read, still encrypted, in order.

Everything here runs inside the caller's transaction.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from shipper.state.file import as_text

#: Bytes of data that one page holds at most, unless a single record is larger.
PAGE_BYTES = 16 * 1024 * 1024


@dataclass(slots=True)
class KeptRecord:
    """One record, owed to ``lanes`` (ids). ``ordinals``: which of its events, empty for all. ``replayed``: it is a dead
    letter that was sent again. ``arrived`` in nanoseconds, ``time`` (when it was kept) in seconds, since 1970 UTC."""

    id: int
    stream: int
    partition: int
    source: str
    record: int
    reference: str
    resource_id: str | None
    arrived: int
    time: float
    lanes: tuple[int, ...]
    ordinals: tuple[int, ...]
    replayed: bool
    data: bytes


def keep(connection: sqlite3.Connection, records: Sequence[KeptRecord]) -> None:
    """Appends records in this order; their ids are assigned here, whatever they carry."""
    connection.executemany(
        "INSERT INTO kept_records (stream, partition, source, record, reference, resource_id, arrived, time, lanes, "
        "ordinals, replayed, bytes, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                record.stream,
                record.partition,
                record.source,
                as_text(record.record),
                record.reference,
                record.resource_id,
                record.arrived,
                record.time,
                json.dumps(record.lanes),
                json.dumps(record.ordinals) if record.ordinals else "",
                record.replayed,
                len(record.data),
                record.data,
            )
            for record in records
        ],
    )


def page(
    connection: sqlite3.Connection,
    stream: int,
    partition: int | None,
    after: int,
    limit: int,
    max_bytes: int = PAGE_BYTES,
) -> list[KeptRecord]:
    """The stream's next records above an id, oldest first, of one partition or (``None``) of all: at most ``limit``,
    and no more than ``max_bytes`` of data, but at least one if there is one."""
    where, values = (
        ("stream = ?", [stream]) if partition is None else ("stream = ? AND partition = ?", [stream, partition])
    )
    records: list[KeptRecord] = []
    size = 0
    cursor = connection.execute(
        "SELECT id, stream, partition, source, record, reference, resource_id, arrived, time, lanes, ordinals, "  # noqa: S608 - made of our own words
        f"replayed, data FROM kept_records WHERE {where} AND id > ? ORDER BY id LIMIT ?",
        (*values, after, limit),
    )
    for row in cursor:
        record = _read(*row)
        size += len(record.data)
        if records and size > max_bytes:
            break
        records.append(record)
    cursor.close()  # an open one would keep the WAL from being cut
    return records


def delete(connection: sqlite3.Connection, ids: Sequence[int]) -> None:
    """Removes records that have been decoded, or that became dead letters."""
    connection.executemany("DELETE FROM kept_records WHERE id = ?", [(record,) for record in ids])


def totals(connection: sqlite3.Connection) -> dict[str, tuple[int, int, float]]:
    """By source name: how many records wait, their bytes, and since when (seconds) the oldest; from the index alone."""
    # Beside min(), SQLite takes the other columns from the row that holds the minimum.
    rows = connection.execute("SELECT source, count(*), sum(bytes), min(id), time FROM kept_records GROUP BY source")
    return {source: (count, size, time) for source, count, size, _, time in rows}


def _read(
    row: int,
    stream: int,
    partition: int,
    source: str,
    record: str,
    reference: str,
    resource_id: str | None,
    arrived: int,
    time: float,
    lanes: str,
    ordinals: str,
    replayed: int,
    data: bytes,
) -> KeptRecord:
    owed = tuple(json.loads(lanes))
    which = tuple(json.loads(ordinals)) if ordinals else ()
    number = int(record)
    return KeptRecord(
        row, stream, partition, source, number, reference, resource_id, arrived, time, owed, which, bool(replayed), data
    )
