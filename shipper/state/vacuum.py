"""Gives pages that deletions have freed back to the disk, a slice at a time."""

from __future__ import annotations

import sqlite3
from contextlib import suppress

from shipper.clock import Clock

#: Pages of one slice: what other commits have to wait for.
SLICE = 1000
#: Free pages that are not worth a slice: the next rows use them.
SPARE = 64
#: Beside steady traffic, free pages serve as the spool's next rows; unless there are very many of them.
SPARE_WHILE_BUSY = 4096


def is_due(connection: sqlite3.Connection, idle: bool) -> bool:
    """Whether a slice is worth its while: more free pages than are soon used again; while changes keep coming, also
    more of them than used ones."""
    free = _number(connection, "freelist_count")
    if idle:
        return free > SPARE
    return free > SPARE_WHILE_BUSY and 2 * free > _number(connection, "page_count")


def take_slice(connection: sqlite3.Connection, pages: int = SLICE) -> int:
    """Frees so many pages at the end of the file; how many free ones remain. Never inside a transaction.

    The file itself becomes smaller with the next checkpoint, which the last slice brings about.
    """
    if connection.in_transaction:
        raise RuntimeError("vacuum: a transaction is open; it would be committed half done")
    # `execute` steps the statement once, which frees one page; `executescript` runs it to its end.
    connection.executescript(f"PRAGMA incremental_vacuum({pages})")
    free = _number(connection, "freelist_count")
    if free <= SPARE:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    return free


def shrink(connection: sqlite3.Connection, clock: Clock, seconds: float) -> None:
    """Frees all pages that are not used, for at most so many seconds: at the end of a run, when nobody waits for a
    commit. What a full disk does not take stays free in the file."""
    until = clock.monotonic() + seconds
    with suppress(sqlite3.OperationalError):
        while is_due(connection, idle=True) and clock.monotonic() < until:
            take_slice(connection)


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    (number,) = connection.execute(f"PRAGMA {pragma}").fetchone()
    return int(number)
