"""How kept records that were decoded leave their line: one transaction, and dead letters of what no spool takes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from shipper.engine.dead_letter_box import Fresh
from shipper.engine.lane import Lane
from shipper.engine.letters import event_letter
from shipper.engine.unpacking import Unpacked
from shipper.state import kept_line, kept_records, positions, spool
from shipper.state.dead_letters import DeadLetter
from shipper.state.spool import Spooled


def transaction(
    found: Unpacked, rows: Sequence[Spooled], keeping: Callable[[sqlite3.Connection], Fresh]
) -> Callable[[sqlite3.Connection], Fresh]:
    """Takes the records out, and puts their events (``rows``) into the spools; ``keeping`` keeps the dead letters."""

    def change(connection: sqlite3.Connection) -> Fresh:
        known = kept_line.known_lanes(connection)
        kept_records.delete(connection, [record.id for record in found.records])
        kept_line.exhume(connection, found.letters)
        fresh = keeping(connection)
        for row in rows:
            if row.lane in known:
                spool.insert(connection, row)
        for lane, tally in found.tallies.items():
            for (entry, reason), count in tally.items() if lane in known else ():
                positions.add_to_books(connection, lane, entry, reason, count)
        return fresh

    return change


def bury(found: Unpacked, lane: Lane, now: float) -> list[DeadLetter]:
    """Dead letters of all that a lane was to get, because its spool is full. ``now`` in seconds since 1970 UTC."""
    letters = []
    for piece in found.pieces.pop(lane.id):
        places = [
            place._replace(ordinal=place.ordinal + number, count=1)
            for place in piece.places
            for number in range(place.count)
        ]
        for index, (place, native) in enumerate(zip(places, piece.native, strict=True)):
            raw = None if piece.raw is None else piece.raw[index]
            detail = "the spool was full and spool.when_full is dead_letter"
            letters.append(event_letter(place, lane.name, native, raw, "spool_full", detail, now, 1))
    found.tallies[lane.id]["dead_lettered", "spool_full"] += len(letters)
    return letters


def of_the_row(found: Unpacked) -> list[DeadLetter]:
    """The dead letters behind the last record that was decoded."""
    row = 0
    while row < len(found.outcomes) and not found.outcomes[-1 - row]:
        row += 1
    return found.letters[len(found.letters) - row :]
