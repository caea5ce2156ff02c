"""What a dead letter is, before and after it is stored, and which of them are meant."""

from __future__ import annotations

import json
from dataclasses import dataclass

#: ``DeadLetter.output`` of a record that could not be decoded: it concerns every output.
EVERY_OUTPUT = "*"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter. ``reference``: the source's own name for the position. ``ordinals``: which events of the record,
    empty for all of it. ``data``: the record as it was read (still encrypted), or the event's native line; ``raw``: the
    event's line of that format, where the output has it. ``lanes``: ids of the lanes that a record is owed to, empty
    for every lane that reads its partition. Times are seconds, ``arrived`` nanoseconds, since 1970 UTC."""

    stream: int
    partition: int
    record: int
    reference: str
    ordinals: tuple[int, ...]
    output: str
    source: str
    reason: str
    detail: str
    time: float
    arrived: int
    data: bytes
    resource_id: str | None = None
    event_id: str | None = None
    attempts: int = 1
    lanes: tuple[int, ...] = ()
    raw: bytes | None = None

    @property
    def events(self) -> int:
        """What it counts in the books of every lane that it is owed to: a whole record counts as one."""
        return len(self.ordinals) or 1

    @property
    def size(self) -> int:
        """Bytes of what it keeps."""
        return len(self.data) + len(self.raw or b"")


@dataclass(frozen=True, slots=True)
class Kept:
    """A dead letter as it stands in the state file, without its bytes. ``size`` in bytes, times in seconds."""

    id: int
    output: str
    source: str
    partition: str
    record: int
    reference: str
    ordinals: tuple[int, ...]
    reason: str
    detail: str
    attempts: int
    first: float
    last: float
    arrived: int
    resource_id: str | None
    event_id: str | None
    size: int

    @property
    def events(self) -> int:
        """What it counts in the books of every lane that it is owed to: a whole record counts as one."""
        return len(self.ordinals) or 1


@dataclass(frozen=True, slots=True)
class Filter:
    """Which dead letters are meant; every test that is set must hold. ``since`` in seconds since 1970 UTC, by when they
    were last met; ``ids``: any of these; ``after``: only larger ids, to go on where a page ended."""

    output: str | None = None
    reason: str | None = None
    since: float | None = None
    id: int | None = None
    ids: tuple[int, ...] | None = None
    event_id: str | None = None
    source: str | None = None
    after: int | None = None

    def where(self, by_age: bool = False) -> tuple[str, list[object]]:
        """An SQL condition and its parameters. ``by_age``: the order does not matter, an index on it may be walked."""
        tests: list[tuple[str, object]] = [
            ("output = ?", self.output),
            ("reason = ?", self.reason),
            ("last >= ?" if by_age else "+last >= ?", self.since),
            ("dead_letters.id = ?", self.id),
            (
                "dead_letters.id IN (SELECT value FROM json_each(?))",
                None if self.ids is None else json.dumps(self.ids),
            ),
            ("event_id = ?", self.event_id),
            ("source = ?", self.source),
            ("dead_letters.id > ?", self.after),
        ]
        used = [(test, value) for test, value in tests if value is not None]
        return " AND ".join(test for test, _ in used) or "1", [value for _, value in used]
