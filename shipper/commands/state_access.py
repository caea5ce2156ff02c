"""How commands reach the state file: they read it at any time; what they change, the running shipper changes for them.

While a shipper runs, it alone moves things: a command writes a request into the state file and waits for the answer.
Where none runs, the command takes the lock and acts itself.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from shipper.errors import StateError
from shipper.state import control, vacuum
from shipper.state.file import InUse, lock, open_state, read_state

#: Seconds without an answer, and without any progress that can be seen, after which a request is taken back.
PATIENCE = 30.0
#: Seconds between two looks for an answer.
LOOK = 0.2

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """Something to be done to the state file. ``request`` is what a running shipper is asked
    (``shipper.state.control``); ``act`` does the same where none runs, in transactions of its own; ``left`` counts what
    is still to be done."""

    request: Mapping[str, Any]
    act: Callable[[sqlite3.Connection], Answer]
    left: Callable[[sqlite3.Connection], int] | None = None


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """The state file for reading only, also beside a running shipper. Raises ``StateError``."""
    with closing(read_state(path)) as connection:
        yield connection


@contextmanager
def writing_beside(path: Path) -> Iterator[sqlite3.Connection]:
    """The state file for short transactions beside whoever holds its lock. Raises ``StateError``."""
    read_state(path).close()  # never made here, and never brought up to date beneath a running shipper
    with closing(open_state(path)) as connection:
        yield connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """One transaction; taken back where something is raised."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def page_by_page(connection: sqlite3.Connection, change: Callable[[sqlite3.Connection], int]) -> int:
    """Applies a change, a transaction each time, until it finds nothing more to do; the sum of what it returned."""
    count = 0
    while True:
        with transaction(connection):
            done = change(connection)
        if not done:
            return count
        count += done


def shrink(connection: sqlite3.Connection) -> None:
    """Gives pages that deletions have freed back to the disk."""
    while vacuum.is_due(connection, idle=True):
        vacuum.take_slice(connection)


def carry_out(path: Path, change: Change) -> tuple[Answer, bool]:
    """Has a change made; the answer, and whether a running shipper has made it. Raises ``StateError``."""
    require_state(path)
    with explained(path), ExitStack() as stack:
        try:
            stack.enter_context(lock(path))
        except InUse as in_use:
            return _ask(path, change, in_use)
        return change.act(stack.enter_context(closing(open_state(path)))), False


def require_state(path: Path) -> None:
    """Raises ``StateError`` where there is no state file: a command makes none."""
    if not path.exists():
        raise StateError(f"state: there is no state file {path}; name the configuration that shipper runs with (-c)")


def _ask(path: Path, change: Change, in_use: InUse) -> tuple[Answer, bool]:
    with writing_beside(path) as connection:
        with transaction(connection):
            number = control.ask(connection, dict(change.request), time.time())
        try:
            answered = _wait(path, connection, change, number, in_use)
        finally:
            # Harmless once it is answered; nobody reads what comes of it otherwise.
            with transaction(connection):
                control.withdraw(connection, number)
    if answered is not None:
        return answered, True
    return carry_out(path, change)


def _wait(path: Path, connection: sqlite3.Connection, change: Change, number: int, in_use: InUse) -> Answer | None:
    """The answer; ``None`` where nobody is there any more to give one."""
    progress = _Progress()
    moved = time.monotonic()
    try:
        while True:
            state, answer = control.result(connection, number)
            if state == "done":
                return answer or {}
            if state == "failed":
                why = (answer or {}).get("error", "the request was cleaned away unanswered")
                raise StateError(f"state: the running shipper has not done it: {why}")
            if progress.says(None if change.left is None else change.left(connection)):
                moved = time.monotonic()
            if _free(path):
                state, answer = control.result(connection, number)  # it may have answered before it went
                return answer if state == "done" else None
            if time.monotonic() - moved >= PATIENCE:
                raise StateError(
                    f"{in_use}; it was asked and has not answered for {PATIENCE:g} s, so the request was taken back; "
                    "what it has begun already it may finish; see its log, and whether its disk is full"
                ) from in_use
            time.sleep(LOOK)
    finally:
        progress.close()


def _free(path: Path) -> bool:
    """Whether whoever held the lock has gone."""
    try:
        with lock(path):
            return True
    except InUse:
        return False


class _Progress:
    """A line on the terminal that says how much is left."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._left: int | None = None
        self._said = False

    def says(self, left: int | None) -> bool:
        """Whether something has happened since the last time."""
        moved = left is not None and self._left is not None and left != self._left
        self._left = left
        if self._shown:
            self._said = True
            rest = "" if left is None else f": {left:,} left"
            click.echo(f"\r\x1b[Kwaiting for the running shipper{rest}", nl=False, err=True)
        return moved

    def close(self) -> None:
        if self._said:
            click.echo("\r\x1b[K", nl=False, err=True)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Says what is to be done where SQLite cannot write. Raises ``StateError``."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StateError(
            f"state: {path} takes no change: {error}; what is done so far is kept; make room on its disk, or let this "
            "user write there, and try again"
        ) from error
