"""What happens to a lane when the configuration gives its output another name, or no longer has it."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from typing import NamedTuple

from shipper.errors import StateError
from shipper.state import spool
from shipper.state.dead_letters import EVERY_OUTPUT
from shipper.state.positions import add_to_books


class Owing(NamedTuple):
    """What one lane still owes: events in the spool, records in the sources' own spools, dead letters (its own, and
    records that could not be decoded)."""

    events: int
    records: int
    letters: int


#: Every dead letter of a record beside every lane that it is owed to.
_OWED_LETTERS = (
    "dead_letters, json_each(CASE lanes WHEN '' THEN (SELECT json_group_array(lane) FROM positions "
    "WHERE positions.partition = dead_letters.partition) ELSE lanes END) AS owed"
)


def owing(connection: sqlite3.Connection) -> dict[str, Owing]:
    """What every lane owes, by its name; one that owes nothing has zeros."""
    events = {lane: totals.events for lane, totals in spool.totals(connection).items()}
    records: dict[int, int] = dict(
        connection.execute("SELECT owed.value, count(*) FROM kept_records, json_each(lanes) AS owed GROUP BY 1")
    )
    whole: dict[int, int] = dict(
        connection.execute(
            f"SELECT owed.value, count(*) FROM {_OWED_LETTERS} WHERE output = ? GROUP BY 1",  # noqa: S608 - made of our own words
            (EVERY_OUTPUT,),
        )
    )
    own: dict[str, int] = dict(connection.execute("SELECT output, count(*) FROM dead_letters GROUP BY output"))
    lanes = connection.execute("SELECT id, name FROM lanes ORDER BY id").fetchall()
    return {
        name: Owing(events.get(lane, 0), records.get(lane, 0), whole.get(lane, 0) + own.get(name, 0))
        for lane, name in lanes
    }


def letters_owed(connection: sqlite3.Connection) -> dict[str, int]:
    """What the dead letters that are kept count in every lane's books, by its name: an event one, a record as many as
    it has ordinals that failed, or one. More than the books say: a lane is still behind what was read for it."""
    records: dict[int, int] = dict(
        connection.execute(
            "SELECT owed.value, sum(CASE ordinals WHEN '' THEN 1 ELSE json_array_length(ordinals) END) "  # noqa: S608 - made of our own words
            f"FROM {_OWED_LETTERS} WHERE output = ? GROUP BY 1",
            (EVERY_OUTPUT,),
        )
    )
    own: dict[str, int] = dict(connection.execute("SELECT output, count(*) FROM dead_letters GROUP BY output"))
    lanes = connection.execute("SELECT id, name FROM lanes ORDER BY id").fetchall()
    return {name: records.get(lane, 0) + own.get(name, 0) for lane, name in lanes}


def rename(connection: sqlite3.Connection, old: str, new: str) -> bool:
    """Gives a lane another name, with all that it owes and where it stands; ``False`` where there is none of the old
    name (any more). A lane that has the new name already gives way if it owes nothing.

    Raises ``StateError`` where it owes something: two backlogs cannot become one unnoticed.
    """
    known = owing(connection)
    if old not in known or old == new:
        return False
    if any(known.get(new, ())):
        message = f"state: output {old} cannot be renamed to {new}, which still owes something itself"
        raise StateError(
            f"{message}; nothing was renamed; run `shipper spool drain --output {new}`, look at "
            f"`shipper dead-letters list --output {new}`, or choose another name"
        )
    if new in known:
        forget(connection, new)
    connection.execute("UPDATE lanes SET name = ? WHERE name = ?", (new, old))
    connection.execute("UPDATE dead_letters SET output = ? WHERE output = ?", (new, old))
    return True


def forget(connection: sqlite3.Connection, name: str) -> None:
    """Removes a lane: its spool (purged), its positions and bookmark, and its share of records that could not be
    decoded. An output of that name begins as a new one.

    Events that it refused stay among the dead letters, to be exported or purged; as long as there are any, its name and
    its books stay too, so that they balance. Called again after that, it removes these as well.
    """
    row = connection.execute("SELECT id FROM lanes WHERE name = ?", (name,)).fetchone()
    if row is None:
        return
    (lane,) = row
    spool.drop(connection, lane)
    _release_letters(connection, lane)
    _release_records(connection, lane)
    connection.execute("DELETE FROM positions WHERE lane = ?", (lane,))
    (letters,) = connection.execute("SELECT count(*) FROM dead_letters WHERE output = ?", (name,)).fetchone()
    if letters:
        connection.execute("UPDATE lanes SET bookmark = NULL WHERE id = ?", (lane,))
        return
    connection.execute("DELETE FROM books WHERE lane = ?", (lane,))
    connection.execute("DELETE FROM lanes WHERE id = ?", (lane,))


def _release_letters(connection: sqlite3.Connection, lane: int) -> None:
    rows = connection.execute(
        f"SELECT dead_letters.id, ordinals, lanes FROM {_OWED_LETTERS} WHERE output = ? AND owed.value = ?",  # noqa: S608 - made of our own words
        (EVERY_OUTPUT, lane),
    ).fetchall()
    purged: Counter[str] = Counter()
    for letter, ordinals, lanes in rows:
        purged["purged"] += len(json.loads(ordinals)) if ordinals else 1
        if not lanes:
            continue  # every lane with a position: this one is about to have none
        others = [other for other in json.loads(lanes) if other != lane]
        if others:
            connection.execute("UPDATE dead_letters SET lanes = ? WHERE id = ?", (json.dumps(others), letter))
        else:
            connection.execute("DELETE FROM dead_letters WHERE id = ?", (letter,))
    for entry, count in purged.items():
        add_to_books(connection, lane, entry, "", count)


def _release_records(connection: sqlite3.Connection, lane: int) -> None:
    rows = connection.execute(
        "SELECT kept_records.id, lanes FROM kept_records, json_each(lanes) AS owed WHERE owed.value = ?", (lane,)
    ).fetchall()
    for record, lanes in rows:
        others = [other for other in json.loads(lanes) if other != lane]
        if others:
            connection.execute("UPDATE kept_records SET lanes = ? WHERE id = ?", (json.dumps(others), record))
        else:
            connection.execute("DELETE FROM kept_records WHERE id = ?", (record,))
