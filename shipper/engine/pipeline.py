"""Builds the way of an event from a configuration, runs it, and stops it without losing anything."""

from __future__ import annotations

import functools
import logging
import random
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any

from shipper.clock import Clock, SystemClock
from shipper.decode import Decoder, Origin
from shipper.decode.decoder import RecordDecoder
from shipper.engine.data_keys import key_resolver
from shipper.engine.dead_letter_box import DeadLetterBox
from shipper.engine.delivery import Delivery
from shipper.engine.holds import Hold, Holds
from shipper.engine.lane import Lane
from shipper.engine.ledger import Tally
from shipper.engine.prepare import Routes
from shipper.engine.source_line import SourceLine
from shipper.engine.spool_disk import SpoolDisk
from shipper.engine.threads import Threads
from shipper.errors import ConfigurationError, Problem, ShipperError
from shipper.observe.metrics import Metrics, Queue
from shipper.observe.server import HttpServer
from shipper.output import Output
from shipper.plugins import missing_modules, output_class
from shipper.settings import Configuration, SourceSettings
from shipper.source import Source
from shipper.sources import source_class
from shipper.state import positions, spool
from shipper.state.file import lock, open_reader, open_state
from shipper.state.room import Room
from shipper.state.spool import Totals
from shipper.state.writer import Writer

log = logging.getLogger("shipper.engine")

#: Of ``drain_timeout``, the seconds that are kept for spooling, positions and closing (half of it when shorter).
CLOSING = 5.0
#: Seconds between two looks at whether anything moves.
LOOK = 0.1
#: Seconds between two looks at what lanes owe for too long.
TICK = 0.5
#: What a run ends with that leaves a backlog which is safe on disk (interface.md).
EXIT_BACKLOG = 75

Books = dict[str, dict[str, dict[str, int]]]


@dataclass(slots=True)
class Result:
    """How a run ended. ``owed``: events per lane that were read and are neither settled nor spooled; they stay behind
    the position. ``spooled``: events per lane that are safe on disk. ``books``: lane → entry → reason → count, since
    the state file was made; ``dead_lettered``: how many dead letters this run added. ``retention``: the seconds that
    the source which keeps least keeps a record, ``None`` for ever."""

    exit_code: int
    books: Books
    dead_lettered: int = 0
    retention: float | None = None
    owed: dict[str, int] = field(default_factory=dict)
    spooled: dict[str, int] = field(default_factory=dict)
    held: list[Hold] = field(default_factory=list)
    message: str = ""


class Died(ShipperError):
    """A thread died of an error that nobody foresaw."""

    exit_code = 70


class Pipeline:
    """One process's engine. ``run`` blocks until ``stop`` is called or, with ``once``, until everything is settled."""

    def __init__(
        self,
        configuration: Configuration,
        *,
        once: bool = False,
        timeout: float | None = None,
        sources: bool = True,
        clock: Clock | None = None,
        randomness: random.Random | None = None,
    ) -> None:
        """``timeout``: seconds after which a ``once`` run gives up, whether it makes progress or not. ``sources``:
        without them only what the spool holds is delivered."""
        self.metrics = Metrics(clock)
        self._configuration = configuration
        self._once = once
        self._reading = sources
        self._timeout = timeout
        self._clock = clock or SystemClock()
        self._randomness = randomness or random.Random()  # noqa: S311 - spreads retries, guards nothing
        self._holds = Holds(self._randomness)
        self._threads = Threads(self._clock, self._on_death)
        self._stop = threading.Event()
        self._phase = "starting"
        self._error: BaseException | None = None
        self._closing = ExitStack()
        self._server: HttpServer | None = None
        self._writer: Writer | None = None
        self._claimed: dict[str, str] = {}
        self._lanes: list[Lane] = []
        self._sources: list[SourceLine] = []
        self._senders: list[threading.Thread] = []
        self._deliveries: list[Delivery] = []
        self.metrics.watch_held(self.held)
        self.metrics.watch_disk(configuration.state.path.parent)
        for name in configuration.sources:
            self.metrics.add_source(name)

    @property
    def url(self) -> str | None:
        """Where health and metrics are answered; ``None`` before the start and where there is no server."""
        return self._server.url if self._server else None

    @property
    def stopping(self) -> bool:
        """Whether ``stop`` was called."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Asks the running engine to stop: reading ends, what is queued is sent, positions are committed."""
        self._stop.set()

    def books(self) -> dict[str, Tally]:
        """The books of this run so far, by lane: (entry, reason) → count."""
        return {lane.name: lane.books.copy() for lane in self._lanes}

    def spooled(self) -> dict[str, int]:
        """How many events each lane has on disk."""
        return {lane.name: lane.spooled().events for lane in self._lanes}

    def run(self) -> Result:
        """Ships. Raises ``ShipperError`` where nothing could be started."""
        configuration = self._configuration
        outputs = _outputs(configuration)
        with lock(configuration.state.path):
            connection = open_state(configuration.state.path)
            before = positions.books(connection)
            letters = DeadLetterBox(connection, configuration.dead_letters.max_bytes, self.metrics)
            try:
                writer = self._writer = Writer(connection, self._clock)
                writing = self._threads.start("state", writer.run)
                room = Room(configuration.state.path, configuration.state.reserve)
                disk = SpoolDisk(
                    self._closing.enter_context(closing(open_reader(configuration.state.path))),
                    spool.next_id(connection),
                    room,
                )
                if configuration.server.listen:
                    self._server = HttpServer(configuration.server.listen, self.metrics, self)
                try:
                    self._start(outputs, writer, letters, disk, spool.totals(connection))
                    self._phase = "running"
                    in_time = self._wait()
                    self._phase = "draining"
                    self._drain()
                finally:
                    for line in self._sources:
                        line.stop()
                    for lane in self._lanes:
                        lane.stop()
                    writer.close()
                    writing.join(CLOSING)
                    if writing.is_alive():
                        writer.give_up()
                        writing.join()
                    for output in outputs:
                        output.close()
                    self._closing.close()
                    if self._server is not None:
                        self._server.close()
                return self._result(before, positions.books(connection), in_time)
            finally:
                connection.close()

    # -- what the HTTP server asks (shipper.observe.vitals) ----------------------------------------------------------

    def healthy(self) -> tuple[bool, dict[str, Any]]:
        """Whether all threads make progress, and which do not."""
        stalled = self._threads.stalled()
        return not stalled and self._threads.died is None, {"died": self._threads.died, "stalled": stalled}

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether everything has started and nothing drains yet."""
        return self._phase == "running", {"phase": self._phase}

    def held(self) -> Sequence[Hold]:
        """What waits for a person."""
        held = self._holds.current()
        if self._writer is not None and self._writer.blocked is not None:
            held.append(Hold("state", "disk_full", f"the state file cannot be written: {self._writer.blocked}"))
        return held

    # -- starting ----------------------------------------------------------------------------------------------------

    def _start(
        self,
        outputs: Sequence[Output[Any]],
        writer: Writer,
        letters: DeadLetterBox,
        disk: SpoolDisk,
        spooled: Mapping[int, Totals],
    ) -> None:
        configuration = self._configuration
        names = [output.name for output in outputs]
        ids = writer.call(lambda connection: positions.ensure_lanes(connection, names))
        for output in outputs:
            lane = Lane(
                output.name,
                ids[output.name],
                output,
                writer,
                letters,
                self.metrics,
                self._clock,
                disk,
                self._randomness,
                configuration.dead_letters.storm,
            )
            if ids[output.name] in spooled:
                lane.spooled_at_start(spooled[ids[output.name]])
            bookmark = writer.call(functools.partial(positions.bookmark_of, lane=lane.id))
            delivery = Delivery(lane, writer, letters, self._holds, self.metrics, self._clock)
            self._lanes.append(lane)
            rules = [*configuration.transforms, "match"]
            self.metrics.add_output(lane.name, rules, Queue(lane.owed, lane.queued_bytes, lane.spool_figures))
            self._deliveries.append(delivery)
            for number in range(1 if output.ordered else output.settings.concurrency):
                self._senders.append(
                    self._threads.start(f"sender {lane.name} {number}", functools.partial(delivery.run, bookmark))
                )
        id_key = configuration.event.id_key.reveal().encode() if configuration.event.id_key else b""
        for name, settings in configuration.sources.items() if self._reading else ():
            self._sources.append(self._source_line(name, settings, id_key, writer, letters))
        for line in self._sources:
            self._threads.start("source", line.run)

    def _source_line(
        self, name: str, settings: SourceSettings, id_key: bytes, writer: Writer, letters: DeadLetterBox
    ) -> SourceLine:
        configuration = self._configuration
        source: Source[Any] = source_class(settings.type)(name, settings)
        self._closing.callback(source.close)
        lanes = [lane for lane in self._lanes if lane.settings.sources is None or name in lane.settings.sources]
        keys = key_resolver(settings, self._clock, self.metrics, self._closing)
        labels = {**configuration.labels, **settings.labels}

        def origin(source: Source[Any], partition: str) -> Origin:
            return Origin(source.name, partition, source.resource_id, settings.engine, source.facts(), labels, id_key)

        def decoder(origin: Origin) -> Decoder:
            return RecordDecoder(origin, keys, settings.decode)

        return SourceLine(
            source,
            lanes,
            Routes(configuration, {lane.name: lane.output.values() for lane in lanes}),
            decoder,
            origin,
            self._claim,
            once=self._once,
            threads=self._threads,
            writer=writer,
            letters=letters,
            holds=self._holds,
            metrics=self.metrics,
            clock=self._clock,
        )

    # -- running and stopping ----------------------------------------------------------------------------------------

    def _wait(self) -> bool:
        """Until asked to stop or, with ``once``, until all is read and settled. False: it made no progress in time."""
        started = moved = self._clock.monotonic()
        seen = -1
        ticked = started
        while not self._clock.wait(self._stop, LOOK):
            if self._clock.monotonic() - ticked >= TICK:
                ticked = self._clock.monotonic()
                for lane in self._lanes:
                    lane.tick()
            if not self._once:
                continue
            if all(line.finished.is_set() for line in self._sources):
                for lane in self._lanes:
                    lane.finish()
                if not any(sender.is_alive() for sender in self._senders):
                    return True
            now = self._clock.monotonic()
            progress = sum(lane.books.total() for lane in self._lanes) + sum(line.reads for line in self._sources)
            if progress != seen:
                seen, moved = progress, now
            late = self._timeout is not None and now - started >= self._timeout
            if late or now - moved >= self._configuration.server.drain_timeout:
                return False
        return not self._once

    def _drain(self) -> None:
        timeout = self._configuration.server.drain_timeout
        if self._stop.is_set():
            log.info(
                "engine: stopping: what is queued is sent, for at most %g s; a second signal exits at once", timeout
            )
        deadline = self._clock.monotonic() + timeout - min(CLOSING, timeout / 2)
        for line in self._sources:
            line.stop()
        for line in self._sources:
            line.join(deadline)
        for lane in self._lanes:
            lane.finish()
        for sender in self._senders:
            sender.join(max(0.0, deadline - self._clock.monotonic()))
        for lane in self._lanes:
            lane.stop()
        for delivery in self._deliveries:
            delivery.abandon()
        for sender in self._senders:
            sender.join(min(CLOSING, timeout / 2) / 2)
        for lane in self._lanes:
            lane.close()

    def _result(self, before: Books, books: Books, in_time: bool) -> Result:
        blocked = self._writer.blocked if self._writer is not None else None
        if isinstance(self._error, ShipperError) and not blocked:
            raise self._error
        if self._error is not None and not blocked:
            raise Died(f"engine: {self._threads.died}; what was not settled stays behind the position; see the log")
        owed = {lane.name: count for lane in self._lanes if (count := lane.unspooled())}
        spooled = {lane.name: count for lane in self._lanes if (count := lane.spooled().events)}
        held = list(self.held())
        code = 0
        if owed or (self._once and not in_time):
            code = 1
            if not owed and spooled and all(line.finished.is_set() for line in self._sources):
                code = EXIT_BACKLOG
        elif spooled:
            code = EXIT_BACKLOG
        message = ""
        if blocked:
            message = f"the disk under the state file took no commits at the end ({blocked})"
            code, message = 1, f"{message}: positions stand where they were, and what follows them is read again"
        elif not in_time:
            limit = self._timeout or self._configuration.server.drain_timeout
            message = f"not everything was settled: no progress, or none in time ({limit:g} s)"
        letters = _dead_lettered(books) - _dead_lettered(before)
        kept = [line.retention for line in self._sources if line.retention is not None]
        return Result(code, books, letters, min(kept, default=None), owed, spooled, held, message)

    def _on_death(self, _name: str, error: BaseException) -> None:
        self._error = self._error or error
        self._stop.set()

    def _claim(self, source: str, identity: str) -> None:
        """Two sources on one stream would share positions, and each would pass what the other has not settled."""
        owner = self._claimed.setdefault(identity, source)
        if owner != source:
            message = f"sources {owner!r} and {source!r} read the same: {identity}; shipper stops"
            raise ConfigurationError(Problem(message, f"sources.{source}", mend="take one of them out"))


def _dead_lettered(books: Books) -> int:
    """Dead letters over all lanes; a record that could not be decoded counts for each of them."""
    return sum(sum(book.get("dead_lettered", {}).values()) for book in books.values())


def _outputs(configuration: Configuration) -> list[Output[Any]]:
    """The configured outputs, with everything that is missing said at once."""
    classes = {name: output_class(settings.type) for name, settings in configuration.outputs.items()}
    missing = [
        Problem(problem.message, f"outputs.{name}.type", mend=problem.mend)
        for name, plugin in classes.items()
        if (problem := missing_modules(configuration.outputs[name].type, plugin)) is not None
    ]
    if missing:
        raise ConfigurationError(*missing)
    return [plugin(name, configuration.outputs[name]) for name, plugin in classes.items()]
