"""Where readers and lanes put dead letters: counts them, says when there is no more room, and copies them to an output.

``dead_letters.output`` names an output that gets a copy of each: the event, tagged, with the reason; for a record that
cannot be decoded an event that tells of it and carries it. A copy never makes another dead letter.
"""

from __future__ import annotations

import sqlite3
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from shipper.decode.ids import Ids
from shipper.decode.times import from_nanoseconds
from shipper.engine.spool_disk import SpoolDisk
from shipper.engine.spooling import Rows
from shipper.errors import Held
from shipper.event import SCHEMA_VERSION, Event
from shipper.observe.metrics import Metrics
from shipper.state import dead_letters, positions, spool
from shipper.state.dead_letters import EVERY_OUTPUT, DeadLetter, Filter
from shipper.state.spool import Place, Spooled, Totals

#: The ordinal of a copy: no event of a record has it.
COPY = -1
#: The tag of a copy, and what tells of a record that cannot be decoded.
TAG, ACTION = "dead_letter", "dead letter"
#: Bytes of an undecodable record that its copy carries; a larger one is in the state file only.
MAX_RECORD = 256 * 1024

_decode = msgspec.json.Decoder(Event).decode


class Taker(Protocol):
    """The lane of the output that gets copies."""

    name: str
    id: int

    def adopt(self, totals: Totals) -> None: ...


@dataclass(frozen=True, slots=True)
class Fresh:
    """Dead letters that were not there before, and the rows with their copies."""

    letters: Sequence[DeadLetter]
    copies: Sequence[Spooled]
    ids: Sequence[int]


class DeadLetterBox:
    """Bounded by ``max_bytes`` of data; full holds the component that would write."""

    def __init__(self, connection: sqlite3.Connection, max_bytes: int, metrics: Metrics, disk: SpoolDisk) -> None:
        self._max_bytes = max_bytes
        self._metrics = metrics
        self._disk = disk
        self._taker: Taker | None = None
        self._bytes = 0
        self._counts = Counter({EVERY_OUTPUT: 0})
        self.count_again(connection)

    def copy_to(self, taker: Taker | None) -> None:
        """The lane that gets a copy of what is kept from now on."""
        self._taker = taker

    def has_room(self) -> bool:
        """Whether another one may be kept."""
        return self._bytes < self._max_bytes

    def full(self) -> Held:
        """Why nobody may keep another one: nobody may make room by losing the next."""
        return Held(
            "dead_letters_full",
            f"the dead letters hold {self._bytes:,} bytes, of {self._max_bytes:,} allowed",
            "see why with `shipper dead-letters list`, or raise dead_letters.max_bytes",
        )

    def require_room(self) -> None:
        """Raises ``Held`` while the dead letters are full."""
        if not self.has_room():
            raise self.full()

    def keeping(self, letters: Sequence[DeadLetter]) -> Callable[[sqlite3.Connection], Fresh]:
        """A change that keeps these; ``kept`` has to be told what it returned, after the commit."""
        taker = self._taker
        wanted = [] if taker is None else [letter for letter in letters if letter.output != taker.name]
        if taker is None or not wanted:
            return lambda connection: Fresh(dead_letters.keep(connection, letters), (), ())
        ids = self._disk.reserve(len(wanted))

        def change(connection: sqlite3.Connection) -> Fresh:
            fresh = dead_letters.keep(connection, letters)
            numbers = iter(ids)
            rows = Rows(taker.id, lambda: next(numbers), max(letter.time for letter in letters))
            for letter in fresh:
                if letter.output != taker.name:
                    rows.add([_place(letter)], [_copy(letter)], None, letter.arrived / 1e9)
            for row in rows.finish():
                spool.insert(connection, row)
            count = sum(row.events for row in rows.finish())
            if count:
                positions.add_to_books(connection, taker.id, "offered", "", count)
            return Fresh(fresh, rows.finish(), ids)

        return change

    def kept(self, fresh: Fresh) -> None:
        """What ``keeping`` returned has been committed."""
        for letter in fresh.letters:
            self._bytes += letter.size
            self._counts[letter.output] += 1
            self._metrics.dead_letters(letter.output, self._counts[letter.output])
        self._disk.committed(fresh.ids)
        taker = self._taker
        if taker is not None and fresh.copies:
            events = sum(row.events for row in fresh.copies)
            self._metrics.count(taker.name, {("offered", ""): events})
            taker.adopt(Totals(len(fresh.copies), events, sum(row.size for row in fresh.copies), fresh.copies[0].time))

    def count_again(self, connection: sqlite3.Connection) -> None:
        """Some were replayed, purged or imported: looks how many there are."""
        self._bytes = dead_letters.stored_bytes(connection)
        found: Counter[str] = Counter()
        for output, _, count in dead_letters.counts(connection, Filter()):
            found[output] += count
        for output in {*self._counts, *found}:
            self._counts[output] = found[output]
            self._metrics.dead_letters(output, found[output])


def _place(letter: DeadLetter) -> Place:
    return Place(
        letter.stream, letter.partition, letter.source, letter.record, letter.reference, letter.arrived, COPY, 1
    )


def _copy(letter: DeadLetter) -> bytes:
    """The native line of a dead letter's copy."""
    facts = {"dead_letter_output": letter.output, "dead_letter_reason": letter.reason}
    if letter.detail:
        facts["dead_letter_detail"] = letter.detail
    try:
        event = _decode(letter.data) if letter.output != EVERY_OUTPUT else _tells_of(letter)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        event = _tells_of(letter)
    event.native = {**(event.native or {}), **facts}
    event.tags = [*(event.tags or ()), TAG]
    return msgspec.json.encode(event)


def _tells_of(letter: DeadLetter) -> Event:
    """An event about a record that is none: its id is that of its bytes, as for any event."""
    ids = Ids(b"")
    ids.record(f"{letter.stream}/{letter.partition}/{letter.record}", several=False)
    event = Event(
        schema_version=SCHEMA_VERSION,
        id=ids.event(max(0, letter.arrived), letter.data),
        time=from_nanoseconds(max(0, letter.arrived)),
        category="other",
        action=ACTION,
        source_name=letter.source,
        source_position=letter.reference,
    )
    if len(letter.data) <= MAX_RECORD:
        event.extra = msgspec.json.encode({"record": b64encode(letter.data).decode()}).decode()
    return event
