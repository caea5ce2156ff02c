"""Hands in what has changed in a lane, in one transaction: positions, books, dead letters, rows of the spool and the
bookmark of exactly the same events. The lane's lock guards it.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from sqlite3 import Connection

from shipper.engine.backlog import Backlog
from shipper.engine.dead_letter_box import DeadLetterBox, Fresh
from shipper.engine.ledger import Ledger, Tally
from shipper.engine.spool_disk import SpoolDisk
from shipper.engine.spooling import Flushed, Row
from shipper.state import positions, spool
from shipper.state.dead_letters import DeadLetter
from shipper.state.positions import Move
from shipper.state.spool import Spooled
from shipper.state.writer import Writer


class Commits:
    """The transactions of one lane."""

    def __init__(
        self,
        lane: int,
        writer: Writer,
        letters: DeadLetterBox,
        disk: SpoolDisk,
        backlog: Backlog,
        spooled: Callable[[], None],
    ) -> None:
        """``spooled`` is called, in the writer's thread, when rows were committed: they can be read back now."""
        self._lane = lane
        self._writer = writer
        self._letters = letters
        self._disk = disk
        self._backlog = backlog
        self._spooled = spooled
        #: The books of this run so far, up to the position.
        self.books: Tally = Counter()

    def submit(
        self,
        ledgers: Iterable[Ledger],
        settled: Iterable[Row],
        new: Sequence[Spooled] = (),
        bookmark: bytes | None = None,
    ) -> None:
        """Hands in what has changed in some ledgers, and in rows of which something was ``settled``."""
        moves: list[Move] = []
        letters: list[DeadLetter] = []
        for ledger in dict.fromkeys(ledgers):
            advanced = ledger.advance()
            if advanced is not None:
                moves.append(advanced[0])
                letters += advanced[1]
                self.books.update(advanced[0].tally)
        flushed = self._backlog.flush(settled)
        for part in flushed:
            letters += part.letters
            self.books.update(part.tally)
        self._backlog.add(new)
        if moves or letters or flushed or new or bookmark is not None:
            committed = functools.partial(self._committed, [row.id for row in new]) if new else self._letters.kept
            size = sum(row.size for row in new) + sum(len(letter.data) for letter in letters)
            self._writer.submit(self._transaction(moves, letters, flushed, new, bookmark), committed, size)

    def _committed(self, rows: Sequence[int], letters: Fresh) -> None:
        self._disk.committed(rows)
        self._letters.kept(letters)
        self._spooled()

    def _transaction(
        self,
        moves: Sequence[Move],
        letters: Sequence[DeadLetter],
        flushed: Sequence[Flushed],
        new: Sequence[Spooled],
        bookmark: bytes | None,
    ) -> Callable[[Connection], Fresh]:
        keep = self._letters.keeping(letters)

        def change(connection: Connection) -> Fresh:
            fresh = keep(connection)
            for row in new:
                spool.insert(connection, row)
            positions.settle(connection, self._lane, moves, bookmark)
            for part in flushed:
                part.write(connection, self._lane)
            return fresh

        return change
