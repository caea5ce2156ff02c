"""A lane, its delivery and a real state file, driven by hand: one thread, a clock that a test moves, commits on order.

Nothing sleeps and nothing runs beside the test. ``pump`` lets the output work through what is due within so many
seconds of the rig's clock; ``commit`` writes what was handed in; ``kill`` forgets what was not.
"""

from __future__ import annotations

import random
import sqlite3
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from shipper.engine.chunk import Chunk, Share
from shipper.engine.dead_letter_box import DeadLetterBox
from shipper.engine.delivery import Delivery
from shipper.engine.holds import Holds
from shipper.engine.lane import Lane
from shipper.engine.ledger import Ledger
from shipper.engine.spool_disk import SpoolDisk
from shipper.engine.threads import Pulse
from shipper.observe.metrics import Metrics
from shipper.output import Output
from shipper.source import END, Position
from shipper.state import dead_letters, positions, spool
from shipper.state.dead_letters import Filter
from shipper.state.file import open_reader, open_state
from shipper.state.positions import PartitionRow
from shipper.state.room import Room
from shipper.state.writer import Writer

T = TypeVar("T")

#: Seconds between two ticks, as in the engine.
TICK = 0.5


class Idle(Exception):
    """Somebody would wait for news now, for at most so many seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"idle for {seconds:g} s")
        self.seconds = seconds


class HandClock:
    """Stands still but for ``wait``, which moves it on, and what the test does."""

    def __init__(self) -> None:
        self.wall = 1_700_000_000.0
        self.passed = 1000.0

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.passed

    def move(self, seconds: float) -> None:
        self.wall += seconds
        self.passed += seconds

    def wait(self, event: threading.Event, seconds: float) -> bool:
        if not event.is_set():
            self.move(seconds)
        return event.is_set()

    def wait_for_news(self, condition: threading.Condition, seconds: float) -> None:
        raise Idle(seconds)


class HandWriter(Writer):
    """Writes when it is told to. ``refuses``: the disk takes nothing."""

    def __init__(self, connection: sqlite3.Connection, clock: HandClock) -> None:
        super().__init__(connection, clock)
        self._pending: deque[tuple[Callable[[sqlite3.Connection], Any], Callable[[Any], None] | None]] = deque()

    def submit(
        self, change: Callable[[sqlite3.Connection], T], committed: Callable[[T], None] | None = None, size: int = 0
    ) -> None:
        self._pending.append((change, committed))

    def call(self, change: Callable[[sqlite3.Connection], T]) -> T:
        results: list[T] = []
        self.submit(change, results.append)
        self.commit()
        return results[0]

    def commit(self) -> int:
        """One transaction with everything that was handed in."""
        group = list(self._pending)
        self._pending.clear()
        if group:
            results = self._commit([(change, None, None, 0) for change, _ in group])
            for (_, committed), result in zip(group, results, strict=True):
                if committed is not None:
                    committed(result)
        return len(group)


class HandRoom(Room):
    """A disk whose room is a switch."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, None)
        self.low = False

    def short(self) -> bool:
        return self.low


@dataclass
class Partition:
    """What a source has: records, in order, with their events' ids."""

    name: str
    records: dict[int, list[str]] = field(default_factory=dict)
    ledger: Ledger | None = None
    row: PartitionRow | None = None


class Site:
    """What outlives a kill: the state file, the records of the source, and the clock."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "shipper.db"
        self.clock = HandClock()
        self.partitions: dict[str, Partition] = {}
        self.count = 0

    def records(self, *sizes: int, partition: str = "p") -> list[int]:
        """New records with these numbers of events, named e0, e1 …"""
        known = self.partitions.setdefault(partition, Partition(partition)).records
        made = []
        for size in sizes:
            number = (max(known) if known else 10**56) + 10
            known[number] = [f"e{self.count + index}" for index in range(size)]
            self.count += size
            made.append(number)
        return made


def event(name: str, padding: int = 0) -> bytes:
    """A native line."""
    return msgspec.json.encode(
        {
            "schema_version": 1,
            "id": name,
            "time": "2026-01-01T00:00:00.000000Z",
            **({"statement": "x" * padding} if padding else {}),
        }
    )


def name_of(line: bytes) -> str:
    """The id of a native line's event."""
    found: str = msgspec.json.decode(line)["id"]
    return found


class Rig:
    """One lane at work on a site."""

    def __init__(
        self,
        site: Site,
        output: Output[Any],
        *,
        storm: int = 100,
        letters: int = 10**9,
        decoder: str = "1",
        padding: int = 0,
        seed: int = 1,
    ) -> None:
        self.site = site
        self.clock = site.clock
        self.output = output
        self.padding = padding
        self.connection = open_state(site.path)
        self._reading = open_reader(site.path)
        self.writer = HandWriter(self.connection, self.clock)
        self.room = HandRoom(site.path)
        self.metrics = Metrics()
        self.holds = Holds(random.Random(seed))
        self.disk = SpoolDisk(self._reading, spool.next_id(self.connection), self.room)
        self.letters = DeadLetterBox(self.connection, letters, self.metrics, self.disk)
        self.id = positions.ensure_lanes(self.connection, [output.name])[output.name]
        self.stream = positions.ensure_stream(self.connection, "arn/1", "arn", "earliest", None, [self.id])
        self.lane = Lane(
            output.name, self.id, output, self.writer, self.letters, self.metrics, self.clock, self.disk,
            random.Random(seed), storm=storm,
        )  # fmt: skip
        found = spool.totals(self.connection)
        if self.id in found:
            self.lane.adopt(found[self.id])
        self.delivery = Delivery(self.lane, self.writer, self.letters, self.holds, self.metrics, self.clock)
        self._ticked = self.clock.monotonic()
        self._decoder = decoder
        self.never = threading.Event()
        #: Records that were offered, by partition.
        self.offered: dict[str, int] = {}
        for partition in site.partitions.values():
            self.begin(partition)

    # -- the source ------------------------------------------------------------------------------------------------

    def begin(self, partition: Partition) -> Ledger:
        """The partition is known from now on; reading begins where the lane stands."""
        rows = positions.ensure_partitions(self.connection, self.stream, [partition.name], [self.id], 1000.0)
        partition.row = rows[partition.name]
        partition.ledger = self.lane.ledger("s", self.stream.id, partition.row, self._decoder)
        return partition.ledger

    def read(self, partition: str = "p", *, at_once: int = 1000) -> None:
        """Offers everything that this run has not offered yet, in chunks of so many records."""
        known = self.site.partitions[partition]
        ledger = known.ledger or self.begin(known)
        after = self.offered.get(partition)
        if after is None:
            settled = ledger.settled
            after = -1 if settled is None else settled.record if settled.event == END else settled.record - 1
        due = [record for record in known.records if record > after]
        for start in range(0, len(due), at_once):
            records = due[start : start + at_once]
            if not self.offer(ledger, known, records):
                return
            self.offered[partition] = records[-1]

    def offer(self, ledger: Ledger, partition: Partition, records: Sequence[int], indices: list[int] | None = None
    ) -> bool:  # fmt: skip
        """One chunk of whole records; ``indices`` are the events that the output takes, ``None``: all."""
        names = [name for record in records for name in partition.records[record]]
        starts = [sum(len(partition.records[one]) for one in records[:number]) for number in range(len(records))]
        chunk = Chunk(list(records), starts, count=len(names), arrived=1, time=1000.0)
        chosen = names if indices is None else [names[index] for index in indices]
        native = [event(name, self.padding) for name in chosen]
        filtered = {} if indices is None else {"match": [n for n in range(len(names)) if n not in indices]}
        encoded, values = self.lane.rendering(native, None)
        return self.lane.offer(ledger, chunk, Share(encoded, values, indices, filtered, native), self.never)

    def add(self, *sizes: int, partition: str = "p", at_once: int = 1000) -> None:
        """New records arrive and are read."""
        self.site.records(*sizes, partition=partition)
        self.read(partition, at_once=at_once)

    # -- time ------------------------------------------------------------------------------------------------------

    def pump(self, seconds: float = 0.0, until: Callable[[], object] | None = None) -> None:
        """Sends what is due within so many seconds, ticking as the engine does; ends early when ``until`` holds."""
        end = self.clock.monotonic() + seconds
        while True:
            pause = self.run()
            while self.writer.commit():
                pause = self.run()
            now = self.clock.monotonic()
            if pause is None or now >= end or (until is not None and until()):
                return
            self.clock.move(min(pause, TICK, end - now))
            if self.clock.monotonic() - self._ticked >= TICK:
                self._ticked = self.clock.monotonic()
                self.lane.tick()
                self.writer.commit()

    def run(self) -> float | None:
        """The sender works until it would wait; for how long, ``None``: it has ended."""
        try:
            self.delivery.run(positions.bookmark_of(self.connection, self.id), Pulse(self.clock))
        except Idle as idle:
            return idle.seconds
        return None

    # -- ends ------------------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """The process dies: what was not committed is lost."""
        self._reading.close()
        self.connection.close()
        for partition in self.site.partitions.values():
            partition.ledger = None

    def stop(self) -> None:
        """An orderly end."""
        self.lane.finish(spool_too=False)
        self.run()
        self.lane.stop()
        self.delivery.abandon()
        self.lane.close()
        self.writer.commit()
        self.kill()

    # -- what there is ---------------------------------------------------------------------------------------------

    def books(self) -> dict[str, dict[str, int]]:
        """The lane's books as committed."""
        return positions.books(self.connection)[self.output.name]

    def spooled(self) -> list[str]:
        """The events on disk, in the order of the line."""
        return [name_of(line) for row in spool.page(self.connection, self.id, 0, 10**12) for line in row.native]

    def dead(self) -> list[str]:
        """The events among the dead letters."""
        found = dead_letters.listing(self.connection, Filter())
        return [one.event_id or "" for one in found]

    def reasons(self) -> Counter[str]:
        return Counter(one.reason for one in dead_letters.listing(self.connection, Filter()))

    def position(self, partition: str = "p") -> Position | None:
        row = self.site.partitions[partition].row
        assert row is not None
        return positions._standings(self.connection, row.id)[self.id].position

    def passed(self, partition: str = "p") -> list[str]:
        """The events that the committed position has left behind."""
        position = self.position(partition)
        found: list[str] = []
        for record, names in self.site.partitions[partition].records.items():
            if position is None or record > position.record:
                continue
            found += names if record < position.record or position.event == END else names[: position.event]
        return found

    def balance(self) -> int:
        """What the books lack: 0 when they balance. Committed figures alone."""
        books = {entry: sum(counts.values()) for entry, counts in self.books().items()}
        pending = len(self.spooled())
        come = books.get("offered", 0) + books.get("replayed", 0)
        dead = books.get("dead_lettered", 0)  # less what was replayed, purged and expired: both sides have these
        gone = sum(books.get(entry, 0) for entry in ("filtered", "delivered", "already_stored"))
        return come - gone - dead - pending


def names(parcels: Iterable[Any]) -> list[str]:
    """The open events of parcels."""
    return [name_of(parcel.native[index]) for parcel in parcels for index in parcel.open]
