"""One configured source at work: connects, finds its partitions, starts a reader for each, parents before children."""

from __future__ import annotations

import functools
import logging
import sqlite3
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from shipper.clock import EngineClock
from shipper.decode import Decoder, Origin
from shipper.engine.dead_letter_box import DeadLetterBox
from shipper.engine.holds import Holds
from shipper.engine.keeper import Keeper
from shipper.engine.lane import Lane
from shipper.engine.prepare import Prepare, Routes
from shipper.engine.reader import Line, Reader
from shipper.engine.spool_disk import SpoolDisk
from shipper.engine.threads import Pulse, Threads
from shipper.errors import Held
from shipper.observe.metrics import Metrics
from shipper.source import Partition, Source
from shipper.state import gaps, positions
from shipper.state.positions import PartitionRow, Stream
from shipper.state.writer import Writer

log = logging.getLogger("shipper.engine")

#: Seconds between two looks for new partitions.
LISTING_INTERVAL = 30.0


class SourceLine:
    """Reads one source for the lanes that take its events."""

    def __init__(
        self,
        source: Source[Any],
        lanes: Sequence[Lane],
        routes: Routes,
        decoder: Callable[[Origin], Decoder],
        origin: Callable[[Source[Any], str], Origin],
        claim: Callable[[str, str], None],
        everyone: Callable[[], Sequence[Lane]],
        *,
        once: bool,
        reading: bool,
        storm: int,
        disk: SpoolDisk,
        threads: Threads,
        writer: Writer,
        letters: DeadLetterBox,
        holds: Holds,
        metrics: Metrics,
        clock: EngineClock,
    ) -> None:
        """``everyone``: all lanes at work. ``reading``: without it only what was kept is decoded. ``storm``: after how
        many records in a row that cannot be decoded they are not to blame."""
        self._source = source
        self._lanes = lanes
        self._lane_ids = [lane.id for lane in lanes]
        self._routes = routes
        self._decoder = decoder
        self._origin = origin
        self._claim = claim
        self._once = once
        self._reads_on = reading
        self._threads = threads
        self._writer = writer
        self._letters = letters
        self._holds = holds
        self._metrics = metrics
        self._clock = clock
        self._stop = threading.Event()
        self._reading = threading.Event()
        self._stream: Stream | None = None
        self._component = f"source {source.name}"
        self._changed = threading.Event()
        self._readers: dict[str, Reader] = {}
        self._lock = threading.Lock()
        self._running: dict[str, threading.Thread] = {}
        self._rows: dict[str, PartitionRow] = {}
        #: Partitions that are finished for good, and what reading them has brought.
        self._done: set[str] = set()
        self._reads = 0
        self._keeping: threading.Thread | None = None
        self._keeper = Keeper(
            source,
            lanes,
            routes,
            lambda partition: decoder(origin(source, partition)),
            everyone,
            self._changed,
            threshold=storm,
            disk=disk,
            writer=writer,
            letters=letters,
            holds=holds,
            metrics=metrics,
            clock=clock,
        )
        #: Whether all was read to its present end: what is not settled is in a spool, the source's own or an output's.
        self.all_read = not reading
        #: Seconds that the source keeps a record; ``None``: for ever, or not known yet.
        self.retention: float | None = None
        #: With ``--once``: everything was read to its present end, and decoded.
        self.finished = threading.Event()

    def run(self, pulse: Pulse) -> None:
        """The body of the source's own thread."""
        while not self._stop.is_set():
            stream = self._connect(pulse)
            if stream is None:
                return
            try:
                while not self._stop.is_set():
                    pulse()
                    if self._reads_on:
                        with pulse.idle():
                            self.all_read = self._start_readers(stream, self._source.partitions())
                    self._holds.release(self._component)
                    if self.all_read and self._once and self._keeper.idle:
                        self.finished.set()
                        return
                    self._pause(LISTING_INTERVAL, pulse)
            except Held as held:
                # Asked to connect again, because the stream may have been deleted and made anew.
                self._pause(self._holds.hold(self._component, held), pulse)

    def stop(self) -> None:
        """Reading stops."""
        self._stop.set()
        self._reading.set()
        self._keeper.stop()
        self._changed.set()

    @property
    def stream(self) -> Stream | None:
        """What is read; ``None`` before it was found."""
        return self._stream

    @property
    def reads(self) -> int:
        """How many times anything was read; who waits for progress looks whether it changes."""
        readers = sum(reader.reads for reader in list(self._readers.values()))
        return self._reads + readers + self._keeper.done

    def kept(self) -> tuple[int, int]:
        """Records that cannot be decoded yet and wait on disk, and their bytes."""
        return self._keeper.totals()

    def join(self, deadline: float) -> None:
        """Waits for the readers until ``deadline`` (monotonic seconds)."""
        with self._lock:
            running = list(self._running.values())
        if self._stop.is_set() and self._keeping is not None:
            running.append(self._keeping)
        for thread in running:
            thread.join(None if deadline == float("inf") else max(0.0, deadline - self._clock.monotonic()))

    def _connect(self, pulse: Pulse) -> Stream | None:
        while not self._stop.is_set():
            try:
                self._source.connect()
                self._holds.release(self._component)
                break
            except Held as held:
                self._pause(self._holds.hold(self._component, held), pulse)
        else:
            return None
        identity, series = self._source.identity(), self._source.series()
        self._claim(self._source.name, identity)
        self.retention = retention = self._source.retention()
        self._metrics.add_source(self._source.name, retention)
        start = resolve_start(self._source.settings.start, self._clock.now())
        stream = self._writer.call(
            lambda connection: positions.ensure_stream(connection, identity, series, start, retention, self._lane_ids)
        )
        if self._stream is not None and self._stream.id != stream.id:
            self._leave()
        self._stream = stream
        self._keeper.open(series)
        if self._keeping is None:
            self._keeping = self._threads.start(f"keeper {self._source.name}", self._keeper.run)
        self._report_lost(
            self._writer.call(
                lambda connection: positions.forget_predecessors(connection, stream, series, self._lane_ids)
            )
        )
        return stream

    def _leave(self) -> None:
        """Stops reading a stream that is no more: another of the same name has taken its place."""
        self._reading.set()
        self.join(float("inf"))
        self._reading = threading.Event()
        self._reads = self.reads - self._keeper.done
        self._readers, self._rows, self._done = {}, {}, set()
        self._holds.release_all(self._component)

    def _start_readers(self, stream: Stream, partitions: Sequence[Partition]) -> bool:
        """Starts what may be read now; says whether nothing is left to read at present."""
        names = [partition.id for partition in partitions]
        self._let_go(names)
        new = [name for name in names if name not in self._rows and name not in self._done]
        if new:
            now = self._clock.now()
            self._rows |= self._writer.call(
                lambda connection: positions.ensure_partitions(connection, stream, new, self._lane_ids, now)
            )
        if self._source.retention() is not None:
            self._report_lost(
                self._writer.call(
                    lambda connection: positions.forget_vanished(connection, stream, names, self._lane_ids)
                )
            )
        closed = {parent for partition in partitions for parent in partition.parents}
        left = False
        for partition in partitions:
            if partition.id in self._readers or self._ended(partition.id):
                continue
            full = self._source.max_readers is not None and len(self._running) >= self._source.max_readers
            if full or not self._may_begin(partition, names):
                left = True
            else:
                self._start(stream, partition, partition.id in closed)
        return not left and not self._running

    def _may_begin(self, partition: Partition, names: Sequence[str]) -> bool:
        """A child waits for its parents; one that is no longer listed counts as done."""
        return all(self._ended(parent) for parent in partition.parents if parent in names)

    def _ended(self, name: str) -> bool:
        if name in self._done:
            return True
        reader = self._readers.get(name)
        if reader is not None:
            return reader.ended
        return all(standing.ended for standing in self._rows[name].standings.values())

    def _let_go(self, names: Sequence[str]) -> None:
        """Forgets what is known of partitions that are finished: a source may have many in its life."""
        listed = set(names)
        self._done &= listed
        for name in [name for name in self._rows if name not in self._running and self._ended(name)]:
            reader = self._readers.pop(name, None)
            self._reads += reader.reads if reader is not None else 0
            del self._rows[name]
            if name in listed:
                self._done.add(name)

    def _start(self, stream: Stream, partition: Partition, closed: bool) -> None:
        row = self._rows[partition.id]
        decoder = self._decoder(self._origin(self._source, partition.id))
        lines = [
            Line(lane, lane.ledger(self._source.name, stream.id, row, decoder.version, self._source.reference))
            for lane in self._lanes
        ]
        reader = Reader(
            self._source,
            stream,
            partition,
            row,
            lines,
            Prepare(decoder, self._routes, self._source.reference),
            self._keeper,
            once=self._once,
            closed=closed,
            writer=self._writer,
            letters=self._letters,
            holds=self._holds,
            metrics=self._metrics,
            clock=self._clock,
            stop=self._reading,
        )
        self._readers[partition.id] = reader

        def body(pulse: Pulse) -> None:
            try:
                reader.run(pulse)
            finally:
                with self._lock:
                    self._running.pop(partition.id, None)
                self._changed.set()

        with self._lock:
            self._running[partition.id] = self._threads.start(f"reader {self._source.name} {partition.id}", body)

    def _report_lost(self, names: Sequence[str]) -> None:
        now = self._clock.now()
        for name in names:
            self._metrics.gap(self._source.name)
            self._writer.submit(functools.partial(_note_gap, source=self._source.name, partition=name, now=now))
            log.error(
                "%s: a gap: %s is gone and had not been read to its end; what it still held is lost to every output",
                self._component,
                name,
            )

    def _pause(self, seconds: float, pulse: Pulse) -> None:
        """Waits, but not when a reader ends: then children may begin, or all is read."""
        with pulse.idle():
            deadline = self._clock.monotonic() + seconds
            while not self._stop.is_set() and self._clock.monotonic() < deadline:
                if self._clock.wait(self._changed, min(0.5, seconds)):
                    self._changed.clear()
                    return


def _note_gap(connection: sqlite3.Connection, source: str, partition: str, now: float) -> None:
    gaps.note(connection, source, partition, 0.0, now, "vanished", now)


def resolve_start(start: str | datetime, now: float) -> str:
    """``start`` as it is kept from the first run on: ``latest`` becomes the time of that run."""
    if start == "earliest":
        return "earliest"
    moment = datetime.fromtimestamp(now, UTC) if isinstance(start, str) else start
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).isoformat()
