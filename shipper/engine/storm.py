"""Sends again what was refused in a storm, when it is over."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from typing import Protocol

from shipper.state import dead_letters, spool
from shipper.state.dead_letters import DeadLetter, Filter
from shipper.state.file import as_text
from shipper.state.spool import Totals

_NONE = Totals(0, 0, 0, 0.0)


class Spooling(Protocol):
    """The lane whose letters are replayed."""

    id: int


def replay_of(
    letters: Sequence[DeadLetter], lane: Spooling, first_id: int, now: float
) -> Callable[[sqlite3.Connection], Totals]:
    """A change that moves these dead letters to the end of their lane's line; what is not committed yet, or was purged
    meanwhile, is left. ``first_id``: of as many ids as there are letters; ``now`` in seconds. Returns what the spool
    has gained."""
    wanted = list(letters)

    def change(connection: sqlite3.Connection) -> Totals:
        ids = [found for letter in wanted if (found := _find(connection, letter)) is not None]
        before = spool.totals(connection).get(lane.id, _NONE)
        dead_letters.replay(connection, Filter(ids=tuple(ids)), first_id, limit=len(wanted), now=now)
        return gained(before, spool.totals(connection).get(lane.id, _NONE))

    return change


def gained(before: Totals, after: Totals) -> Totals:
    """What was added to a lane's spool between two looks in one transaction."""
    return Totals(after.rows - before.rows, after.events - before.events, after.bytes - before.bytes, after.oldest)


def _find(connection: sqlite3.Connection, letter: DeadLetter) -> int | None:
    row = connection.execute(
        "SELECT id FROM dead_letters WHERE partition = ? AND record = ? AND ordinals = ? AND output = ?",
        (letter.partition, as_text(letter.record), json.dumps(letter.ordinals), letter.output),
    ).fetchone()
    return None if row is None else int(row[0])
