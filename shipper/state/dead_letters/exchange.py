"""Dead letters as JSON lines, to be taken to another state file: everything by name, nothing by this file's ids."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from typing import Annotated

import msgspec

from shipper.errors import StateError
from shipper.state import positions
from shipper.state.dead_letters.letter import EVERY_OUTPUT, Filter
from shipper.state.schema import DIGITS

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _Line(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One dead letter. ``outputs``: names of those that a record is owed to. ``data`` and ``raw`` in base64."""

    stream: str
    series: str
    partition: str
    record: Annotated[str, msgspec.Meta(pattern=f"^[0-9]{{1,{DIGITS}}}$")]
    reference: str
    ordinals: list[_Count] = []
    output: Annotated[str, msgspec.Meta(min_length=1)]
    source: str
    reason: str
    detail: str
    attempts: _Count
    first: float
    last: float
    arrived: _Count
    resource_id: str | None = None
    event_id: str | None = None
    outputs: list[str] = []
    data: bytes
    raw: bytes | None = None


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Line)


def export_lines(connection: sqlite3.Connection, chosen: Filter) -> Iterator[bytes]:
    """The chosen dead letters, oldest first, one JSON object each (without the line feed). One at a time is read, so
    that neither memory nor the WAL grows."""
    where, parameters = chosen.where()
    query = (
        "SELECT dead_letters.id, identity, series, name, record, reference, ordinals, output, source, reason, detail, "  # noqa: S608 - made of our own words
        "attempts, first, last, arrived, resource_id, event_id, partition, lanes, data, raw FROM dead_letters "
        "JOIN partitions ON partitions.id = partition JOIN streams ON streams.id = dead_letters.stream "
        f"WHERE {where} AND dead_letters.id > ? ORDER BY dead_letters.id LIMIT 1"
    )
    last = 0
    while (row := connection.execute(query, (*parameters, last)).fetchone()) is not None:
        last, identity, series, name, record, reference, ordinals, output, *rest = row
        source, reason, detail, attempts, first, met, arrived, resource_id, event_id, partition, lanes, data, raw = rest
        yield _encoder.encode(
            _Line(
                stream=identity,
                series=series,
                partition=name,
                record=record.lstrip("0") or "0",
                reference=reference,
                ordinals=json.loads(ordinals) if ordinals else [],
                output=output,
                source=source,
                reason=reason,
                detail=detail,
                attempts=attempts,
                first=first,
                last=met,
                arrived=arrived,
                resource_id=resource_id,
                event_id=event_id,
                outputs=_names(connection, partition, lanes) if output == EVERY_OUTPUT else [],
                data=data,
                raw=raw,
            )
        )


def import_line(connection: sqlite3.Connection, line: bytes) -> bool:
    """Stores one line of an export; whether it was new. In the books it counts as replayed into each lane that it is
    owed to, and as dead-lettered there.

    What the state file has not heard of is added: streams, partitions and outputs by name. In a file whose outputs have
    read something already, a record is owed to those of its outputs that are among them, or to all of them where none
    is. Raises ``StateError`` for a line that is no dead letter.
    """
    try:
        letter = _decoder.decode(line)
    except (msgspec.DecodeError, RecursionError) as error:
        message = f"dead letters: a line is not one that `shipper dead-letters export` wrote: {error}"
        raise StateError(f"{message}; it was not imported; give the export as it is") from error
    stream, partition = positions.imported_partition(connection, letter.stream, letter.series, letter.partition)
    lanes = _lanes(connection, letter)
    key = (
        partition,
        letter.record.zfill(DIGITS),
        json.dumps(letter.ordinals) if letter.ordinals else "",
        letter.output,
    )
    # Whoever imports it wants it, also where the same one was purged.
    connection.execute("DELETE FROM tombstones WHERE partition = ? AND record = ? AND ordinals = ? AND output = ?", key)
    new = connection.execute(
        "INSERT INTO dead_letters (stream, partition, record, ordinals, output, reference, source, reason, detail, "
        "attempts, first, last, arrived, resource_id, event_id, lanes, data, raw) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (
            stream,
            *key,
            letter.reference,
            letter.source,
            letter.reason,
            letter.detail,
            max(letter.attempts, 1),
            letter.first,
            letter.last,
            letter.arrived,
            letter.resource_id,
            letter.event_id,
            json.dumps(lanes) if letter.output == EVERY_OUTPUT else "",
            letter.data,
            letter.raw,
        ),
    ).rowcount
    if not new:
        return False
    for lane in lanes:
        positions.add_to_books(connection, lane, "replayed", "", len(letter.ordinals) or 1)
        positions.add_to_books(connection, lane, "dead_lettered", letter.reason, len(letter.ordinals) or 1)
    return True


def _names(connection: sqlite3.Connection, partition: int, lanes: str) -> list[str]:
    if lanes:
        query = "SELECT name FROM lanes WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id"
        rows = connection.execute(query, (lanes,))
    else:
        query = "SELECT name FROM lanes JOIN positions ON lane = lanes.id WHERE partition = ? ORDER BY lanes.id"
        rows = connection.execute(query, (partition,))
    return [name for (name,) in rows.fetchall()]


def _lanes(connection: sqlite3.Connection, letter: _Line) -> list[int]:
    if letter.output != EVERY_OUTPUT:
        return [positions.ensure_lanes(connection, [letter.output])[letter.output]]
    # Lanes that read something; others may be there only because an event of theirs was imported before.
    reading: dict[str, int] = dict(
        connection.execute("SELECT name, id FROM lanes WHERE id IN (SELECT lane FROM positions)").fetchall()
    )
    if not reading:
        known = positions.ensure_lanes(connection, letter.outputs)
        return sorted({known[name] for name in letter.outputs})
    return sorted({reading[name] for name in letter.outputs if name in reading} or reading.values())
