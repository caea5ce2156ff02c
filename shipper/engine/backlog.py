"""A lane's part of the spool: which rows are on disk, which of them are in memory, and whether more may be written.

The lane's lock guards it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from shipper.engine.line import Waiting
from shipper.engine.rendering import Rendering
from shipper.engine.spool_disk import SpoolDisk
from shipper.engine.spooling import Flushed, Row
from shipper.settings import SpoolSettings
from shipper.state.spool import Spooled, Totals

#: Bytes that are read back at once: about two batches.
LOAD_BYTES = 2_000_000

EMPTY = Totals(0, 0, 0, 0.0)


class Backlog:
    """Rows that are not in memory stand in the line between what was read back and the queue."""

    def __init__(self, lane: int, settings: SpoolSettings, disk: SpoolDisk) -> None:
        self._lane = lane
        self._settings = settings
        self._disk = disk
        self._rows: dict[int, Row] = {}
        self._cursor = 0
        #: Settled before they were read back: until their deletion is committed they can be read all the same.
        self._done: set[int] = set()
        #: What is on disk and not settled, also what is in memory of it.
        self.totals = EMPTY
        self.loading = False

    @property
    def unread(self) -> int:
        """Rows on disk that are not in memory."""
        return self.totals.rows - len(self._rows)

    @property
    def rows(self) -> Iterable[Row]:
        """Those in memory."""
        return list(self._rows.values())

    def obstacle(self, size: int) -> str | None:
        """Why so many more bytes are not written: ``disk``, ``full``, or ``None``: they are."""
        if self._disk.short():
            return "disk"
        return "full" if self.totals.rows and self.totals.bytes + size > self._settings.max_bytes else None

    def read(self) -> list[Spooled]:
        """The next rows that have been committed. Outside the lane's lock: it waits for the disk."""
        return self._disk.page(self._lane, self._cursor, LOAD_BYTES)

    def load(self, rows: Sequence[Spooled], rendering: Rendering, now: float) -> list[Waiting]:
        """Takes rows into memory, rendered with the configuration in force; ``now`` in monotonic seconds."""
        loaded: list[Waiting] = []
        for spooled in rows:
            known = spooled.id in self._rows or spooled.id in self._done
            if not known and self.unread <= 0:
                break  # committed, and not adopted yet
            self._cursor = spooled.id
            if known:
                continue  # went to disk while it was being sent
            row = self._rows[spooled.id] = Row(spooled)
            events, values = rendering(spooled.native, spooled.raw)
            loaded.append(Waiting(row, events, values, spooled.native, 0, 0, 0, now, spooled.oldest))
        self._done = {row for row in self._done if row > self._cursor}
        return loaded

    def add(self, rows: Sequence[Spooled]) -> None:
        """These are being written."""
        for row in rows:
            self.adopt(Totals(1, row.events, row.size, row.time))

    def keep(self, rows: Iterable[Row]) -> None:
        """These are being written, and are in memory, because they are being sent."""
        self._rows |= {row.row.id: row for row in rows}

    def adopt(self, totals: Totals) -> None:
        """So much was added to what is on disk."""
        oldest = min(filter(None, (self.totals.oldest, totals.oldest)), default=0.0)
        before = self.totals
        self.totals = Totals(
            before.rows + totals.rows, before.events + totals.events, before.bytes + totals.bytes, oldest
        )

    def settled(self, events: int) -> None:
        """So many events of rows in memory are settled."""
        self.totals = self.totals._replace(events=self.totals.events - events)

    def flush(self, rows: Iterable[Row]) -> list[Flushed]:
        """What has to be written of rows of which something was settled; a row that owes nothing is let go."""
        flushed = []
        for row in rows:
            change = row.flush()
            if change is None:
                continue
            flushed.append(change)
            before, row.size = row.size, 0 if change.rest is None else change.rest.size
            self.totals = self.totals._replace(bytes=self.totals.bytes - before + row.size)
            if change.rest is None:
                self._rows.pop(row.row.id, None)
                if row.row.id > self._cursor:
                    self._done.add(row.row.id)
                left = self.totals.rows - 1
                self.totals = self.totals._replace(rows=left) if left else EMPTY
        if self._done and not self.totals.rows:
            # Nothing is on disk but what is being deleted, and what is being written by others, with larger numbers.
            self._cursor = max(self._cursor, min(max(self._done), self._disk.complete()))
            self._done = {row for row in self._done if row > self._cursor}
        return flushed
