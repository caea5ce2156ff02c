"""Takes dead letters away: sends them again, or purges them, with the books of every lane that they are owed to.

Each call moves one page, so that a transaction stays small whatever there is.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from shipper.state import spool
from shipper.state.dead_letters.letter import EVERY_OUTPUT, Filter
from shipper.state.dead_letters.tombstones import bury
from shipper.state.positions import add_to_books
from shipper.state.spool import Place, Spooled

#: Dead letters and bytes of one page, and bounds of the rows that replayed events are joined into.
PAGE = 500
PAGE_BYTES = 8 * 1024 * 1024
ROW_EVENTS = 1000
ROW_BYTES = 1024 * 1024


class Replayed(NamedTuple):
    """What one page sent again: ``letters`` in all, of them ``records`` that went to their source's own spool; the
    events that each lane (id) got in its spool. ``last_id``: the last spool row's id (one less than the first one that
    was offered: none); ``last_letter``: the last dead letter's id (``Filter.after`` goes on behind it); ``bytes`` that
    the dead letters no longer hold."""

    letters: int
    events_by_lane: dict[int, int]
    records: int
    last_id: int
    last_letter: int
    bytes: int


class _Chosen(NamedTuple):
    id: int
    partition: int
    output: str
    ordinals: str
    lanes: str
    bytes: int

    @property
    def events(self) -> int:
        return len(json.loads(self.ordinals)) if self.ordinals else 1


_COLUMNS = "id, partition, output, ordinals, lanes, length(data) + coalesce(length(raw), 0)"


def replay(
    connection: sqlite3.Connection,
    chosen: Filter,
    first_id: int,
    limit: int = PAGE,
    now: float = 0.0,
    lanes: Collection[int] | None = None,
) -> Replayed:
    """Sends one page of the chosen dead letters again, oldest first: an event goes to the end of its lane's spool, in
    rows with ids from ``first_id`` on (never more rows than letters), a record to its source's own spool, for the lanes
    and ordinals that it is owed to. ``now`` in seconds.

    ``lanes``: ids of those that somebody serves; what is owed to others stays a dead letter for them. ``letters`` is 0
    then, and ``last_letter`` tells whether there was anything behind ``Filter.after``.
    """
    found = _chosen(connection, chosen, limit, lanes)
    if not found:
        return Replayed(0, {}, 0, first_id - 1, chosen.after or 0, 0)
    tally: Counter[tuple[int, str]] = Counter()
    gone = [letter for letter in found if letter.output != EVERY_OUTPUT]
    records = []
    for letter in [letter for letter in found if letter.output == EVERY_OUTPUT]:
        owed = _owed(connection, letter)
        served = owed if lanes is None else [lane for lane in owed if lane in lanes]
        if not served and owed:
            continue  # nobody would take its events
        records.append(letter)
        connection.execute(
            "INSERT INTO kept_records (stream, partition, source, record, reference, resource_id, arrived, time, "
            "lanes, ordinals, replayed, bytes, data) SELECT stream, partition, source, record, reference, resource_id, "
            "arrived, ?, ?, ordinals, 1, length(data), data FROM dead_letters WHERE id = ?",
            (now, json.dumps(served), letter.id),
        )
        tally.update({(lane, "replayed_out"): letter.events for lane in served})
        rest = [lane for lane in owed if lane not in served]
        if rest:
            connection.execute("UPDATE dead_letters SET lanes = ? WHERE id = ?", (json.dumps(rest), letter.id))
        else:
            gone.append(letter)
    by_lane: Counter[int] = Counter()
    last_id = first_id - 1
    for row in _rows(connection, [letter.id for letter in found if letter.output != EVERY_OUTPUT], first_id, now):
        spool.insert(connection, row)
        by_lane[row.lane] += row.events
        last_id = row.id
    for lane, events in by_lane.items():
        tally[lane, "replayed_out"] += events
        tally[lane, "replayed"] += events
    _write(connection, tally)
    bury(connection, [letter.id for letter in gone])
    size = sum(letter.bytes for letter in gone)
    sent = len(records) + sum(letter.output != EVERY_OUTPUT for letter in gone)
    return Replayed(sent, dict(by_lane), len(records), last_id, found[-1].id, size)


def purge(connection: sqlite3.Connection, chosen: Filter, limit: int = PAGE, entry: str = "purged") -> int:
    """Deletes one page of the chosen dead letters for good, under ``entry`` in the books; how many they were."""
    where, parameters = chosen.where(by_age=True)
    return _purge(connection, where, parameters, limit, entry)


def expire(connection: sqlite3.Connection, older_than: float, limit: int = PAGE) -> int:
    """Deletes one page of those that were last met before ``older_than`` (seconds), expired in the books."""
    return _purge(connection, "last < ?", [older_than], limit, "expired")


def _purge(connection: sqlite3.Connection, where: str, parameters: Sequence[object], limit: int, entry: str) -> int:
    query = f"SELECT {_COLUMNS} FROM dead_letters WHERE {where} LIMIT ?"  # noqa: S608 - made of our own words
    found = [_Chosen(*row) for row in connection.execute(query, (*parameters, limit)).fetchall()]
    tally: Counter[tuple[int, str]] = Counter()
    for letter in found:
        for lane in _owed(connection, letter):
            tally[lane, entry] += letter.events
    _write(connection, tally)
    bury(connection, [letter.id for letter in found])
    return len(found)


def _chosen(connection: sqlite3.Connection, chosen: Filter, limit: int, lanes: Collection[int] | None) -> list[_Chosen]:
    """One page, oldest first; it ends early when its letters are large."""
    where, parameters = chosen.where()
    served = "SELECT name FROM lanes"
    if lanes is not None:
        served += " WHERE id IN (SELECT value FROM json_each(?))"
        parameters.append(json.dumps(list(lanes)))
    # The plus keeps SQLite from walking an index on output, whose order is another one.
    query = (
        f"SELECT {_COLUMNS} FROM dead_letters WHERE {where} AND (+output = '*' OR +output IN ({served})) "  # noqa: S608 - made of our own words
        "ORDER BY id LIMIT ?"
    )
    found: list[_Chosen] = []
    size = 0
    for row in connection.execute(query, (*parameters, limit)).fetchall():
        letter = _Chosen(*row)
        size += letter.bytes
        if found and size > PAGE_BYTES:
            break
        found.append(letter)
    return found


def _owed(connection: sqlite3.Connection, letter: _Chosen) -> list[int]:
    """Ids of the lanes that a dead letter is owed to; of an output that is forgotten: none."""
    if letter.output != EVERY_OUTPUT:
        rows = connection.execute("SELECT id FROM lanes WHERE name = ?", (letter.output,))
    elif letter.lanes:
        rows = connection.execute(
            "SELECT id FROM lanes WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id", (letter.lanes,)
        )
    else:
        rows = connection.execute("SELECT lane FROM positions WHERE partition = ? ORDER BY lane", (letter.partition,))
    return [lane for (lane,) in rows.fetchall()]


def _rows(connection: sqlite3.Connection, ids: Iterable[int], first_id: int, now: float) -> Iterable[Spooled]:
    """The events as rows of the spool, each lane's in order."""
    open_rows: dict[tuple[int, bool], Spooled] = {}
    done: list[Spooled] = []
    for letter in ids:
        lane, stream, partition, source, record, reference, arrived, ordinals, data, raw = connection.execute(
            "SELECT lanes.id, stream, partition, source, record, reference, arrived, ordinals, data, raw "
            "FROM dead_letters JOIN lanes ON lanes.name = output WHERE dead_letters.id = ?",
            (letter,),
        ).fetchone()
        ordinal = json.loads(ordinals)[0] if ordinals else 0
        place = Place(stream, partition, source, int(record), reference, arrived, ordinal, 1)
        event = Spooled(0, lane, now, 0.0, [place], [data], None if raw is None else [raw])
        key = (lane, raw is None)
        row = open_rows.get(key)
        # What an older version kept may hold a line feed: such an event gets a row of its own.
        if b"\n" in data or b"\n" in (raw or b""):
            if row is not None:
                done.append(open_rows.pop(key))
            done.append(event)
        elif row is None:
            open_rows[key] = event
        elif row.events >= ROW_EVENTS or row.size + event.size > ROW_BYTES:
            done.append(row)
            open_rows[key] = event
        else:
            row.places.append(place)
            row.native.append(data)
            if row.raw is not None and raw is not None:
                row.raw.append(raw)
    done.extend(open_rows.values())
    for number, row in enumerate(done, first_id):
        row.id = number
    return done


def _write(connection: sqlite3.Connection, tally: Counter[tuple[int, str]]) -> None:
    for (lane, entry), count in tally.items():
        add_to_books(connection, lane, entry, "", count)
