"""One process's engine: starts what the configuration names, watches it, and stops it without losing anything."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from shipper.clock import EngineClock, SystemClock
from shipper.engine.dead_letter_box import DeadLetterBox
from shipper.engine.holds import Hold, Holds
from shipper.engine.ledger import Tally
from shipper.engine.requests import Requests
from shipper.engine.spool_disk import SpoolDisk
from shipper.engine.threads import Threads
from shipper.engine.works import Works, build_outputs, refuse_to_forget
from shipper.errors import ShipperError, StateError
from shipper.observe import status
from shipper.observe.logging import ASKED
from shipper.observe.metrics import Metrics
from shipper.observe.server import HttpServer
from shipper.output import Output
from shipper.settings import Configuration
from shipper.state import lanes, positions, spool, vacuum
from shipper.state.file import lock, open_reader, open_state
from shipper.state.room import Room
from shipper.state.writer import Writer

log = logging.getLogger("shipper.engine")

#: Of ``drain_timeout``, the seconds that are kept for spooling, positions and closing (half of it when shorter).
CLOSING = 5.0
#: Seconds in which a run that ends by itself gives back what its backlog took of the disk.
SHRINKING = 10.0
#: Seconds between two looks at whether anything moves.
LOOK = 0.1
#: Seconds between two looks at what lanes owe for too long, and at what people asked for.
TICK = 0.5
#: What a run ends with that leaves a backlog which is safe on disk (interface.md).
EXIT_BACKLOG = 75

Books = dict[str, dict[str, dict[str, int]]]


@dataclass(slots=True)
class Result:
    """How a run ended. ``owed``: events per lane that were read and are neither settled nor spooled; they stay behind
    the position. ``spooled``: events per lane that are safe on disk. ``books``: lane → entry → reason → count, since
    the state file was made; ``dead_lettered``: how many dead letters this run added. ``retention``: the seconds that
    the source which keeps least keeps a record, ``None`` for ever. ``kept``: by source, the records that cannot be
    decoded yet, safe on disk, and their bytes."""

    exit_code: int
    books: Books
    dead_lettered: int = 0
    retention: float | None = None
    owed: dict[str, int] = field(default_factory=dict)
    spooled: dict[str, int] = field(default_factory=dict)
    held: list[Hold] = field(default_factory=list)
    message: str = ""
    kept: dict[str, tuple[int, int]] = field(default_factory=dict)


class Died(ShipperError):
    """A thread died of an error that nobody foresaw."""

    exit_code = 70


class Pipeline:
    """``run`` blocks until ``stop`` is called or, with ``once``, until everything is settled."""

    def __init__(
        self,
        configuration: Configuration,
        *,
        once: bool = False,
        timeout: float | None = None,
        sources: bool = True,
        load_again: Callable[[], Configuration] | None = None,
        clock: EngineClock | None = None,
        randomness: random.Random | None = None,
    ) -> None:
        """``timeout``: seconds after which a ``once`` run gives up, whether it makes progress or not. ``sources``:
        without them only what is on disk already is delivered. ``load_again`` loads the configuration for ``reload``.
        """
        self.metrics = Metrics(clock)
        self._configuration = configuration
        self._once = once
        self._reading = sources
        self._timeout = timeout
        self._load_again = load_again
        self._clock = clock or SystemClock()
        self._randomness = randomness or random.Random()  # noqa: S311 - spreads retries, guards nothing
        self._holds = Holds(self._randomness)
        self._threads = Threads(self._clock, self._on_death)
        self._stop = threading.Event()
        self._reload = threading.Event()
        self._waiting_to_go_over = False
        self._phase = "starting"
        self._error: BaseException | None = None
        self._server: HttpServer | None = None
        self._writer: Writer | None = None
        self._works: Works | None = None
        self._disk: SpoolDisk | None = None
        self.metrics.watch_held(self.held)
        self.metrics.watch_disk(configuration.state.path.parent)
        self.metrics.reloaded(ok=True)
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

    def reload(self) -> None:
        """Asks the running engine to load its configuration again and to go over to it; a wrong one changes nothing."""
        self._reload.set()

    def books(self) -> dict[str, Tally]:
        """The books of this run so far, by lane: (entry, reason) → count."""
        return {} if self._works is None else {lane.name: lane.books.copy() for lane in self._works.lanes}

    def spooled(self) -> dict[str, int]:
        """How many events each lane has on disk."""
        return {} if self._works is None else {lane.name: lane.spooled().events for lane in self._works.lanes}

    def run(self) -> Result:
        """Ships. Raises ``ShipperError`` where nothing could be started."""
        configuration = self._configuration
        outputs = build_outputs(configuration)
        path = configuration.state.path
        with lock(path), closing(open_state(path)) as connection, closing(open_reader(path)) as reading:
            refuse_to_forget(configuration, lanes.owing(connection))
            before = positions.books(connection)
            room = Room(path, configuration.state.reserve)
            disk = self._disk = SpoolDisk(reading, spool.next_id(connection), room)
            letters = DeadLetterBox(connection, configuration.dead_letters.max_bytes, self.metrics, disk)
            in_time = self._run(outputs, Writer(connection, self._clock, room), letters, disk)
            if self._once and in_time:  # nobody waits: it was neither stopped nor late
                vacuum.shrink(connection, self._clock, SHRINKING)
            return self._result(before, positions.books(connection), in_time)

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
        for lane in [] if self._works is None else self._works.lanes:
            if lane.cramped is not None:
                held.append(Hold(f"output {lane.name}", *_CRAMPED[lane.cramped]))
        return held

    def status(self) -> dict[str, Any]:
        """Where everything stands (docs/commands.md, `shipper status`)."""
        configuration, disk = self._configuration, self._disk
        assert disk is not None  # the server begins after it
        stored = disk.ask(lambda connection: status.of_state(connection, configuration))
        return status.running(stored, self._phase, self.held(), self.metrics.registry)

    # -- running -----------------------------------------------------------------------------------------------------

    def _run(self, outputs: Sequence[Output[Any]], writer: Writer, letters: DeadLetterBox, disk: SpoolDisk) -> bool:
        self._writer = writer
        writing = self._threads.start("state", writer.run)
        works = self._works = Works(
            self._configuration,
            once=self._once,
            reading=self._reading,
            threads=self._threads,
            writer=writer,
            letters=letters,
            holds=self._holds,
            metrics=self.metrics,
            clock=self._clock,
            randomness=self._randomness,
            disk=disk,
        )
        if self._configuration.server.listen:
            self._server = HttpServer(self._configuration.server.listen, self.metrics, self)
        try:
            works.start(outputs)
            self._phase = "running"
            in_time = self._wait(works, Requests(works, writer, letters, self.metrics, self._clock, disk, self._stop))
            self._phase = "draining"
            self._drain(works)
        finally:
            works.close()
            writer.close()
            writing.join(CLOSING)
            if writing.is_alive():
                writer.give_up()
                writing.join()
            works.release()
            if self._server is not None:
                self._server.close()
        return in_time

    def _wait(self, works: Works, requests: Requests) -> bool:
        """Until asked to stop or, with ``once``, until all is read and settled. False: it made no progress in time."""
        started = moved = ticked = self._clock.monotonic()
        seen = -1
        while not self._clock.wait(self._stop, LOOK):
            if self._clock.monotonic() - ticked >= TICK:
                ticked = self._clock.monotonic()
                for lane in works.lanes:
                    lane.tick()
                requests.tick()
            if self._reload.is_set() and self._may_go_over():
                self._reload.clear()
                self._go_over(works)
            if not self._once:
                continue
            if all(line.finished.is_set() for line in works.sources.values()):
                for lane in works.lanes:
                    lane.finish()
                if not any(one.busy() for one in works.outputs.values()):
                    return True
            now = self._clock.monotonic()
            progress = sum(lane.books.total() for lane in works.lanes) + sum(
                one.reads for one in works.sources.values()
            )
            if progress != seen:
                seen, moved = progress, now
            late = self._timeout is not None and now - started >= self._timeout
            if late or now - moved >= self._configuration.server.drain_timeout:
                return False
        return not self._once

    def _may_go_over(self) -> bool:
        """Whether the disk takes what that would commit; until then a stop is still heard."""
        blocked = self._writer is not None and self._writer.blocked is not None
        if blocked and not self._waiting_to_go_over:
            log.warning("engine: the configuration is loaded again when the state file takes commits", extra=ASKED)
        self._waiting_to_go_over = blocked
        return not blocked

    def _go_over(self, works: Works) -> None:
        try:
            assert self._load_again is not None
            new = self._load_again()
            fixed = [
                key
                for key, old, now in (
                    ("[state]", self._configuration.state, new.state),
                    ("server.listen", self._configuration.server.listen, new.server.listen),
                )
                if old != now
            ]
            if fixed:
                log.warning("engine: %s is taken over at the next start, not by a reload", " and ".join(fixed))
            log.info("engine: the configuration was loaded again: %s", works.exchange(new))
            self._configuration = new
            self.metrics.reloaded(ok=True)
        except ShipperError as error:
            # No traceback: the message says what is wrong with the file.
            log.error(  # noqa: TRY400
                "engine: the configuration was not taken over, shipping goes on with the old one: %s",
                error,
                extra=ASKED,
            )
            self.metrics.reloaded(ok=False)

    def _drain(self, works: Works) -> None:
        timeout = self._configuration.server.drain_timeout
        if self._stop.is_set():
            log.info(
                "engine: stopping: what is queued is sent, for at most %g s; a second signal exits at once", timeout
            )
        deadline = self._clock.monotonic() + timeout - min(CLOSING, timeout / 2)
        works.stop_reading(deadline)
        for one in works.outputs.values():
            one.leave()
        for one in works.outputs.values():
            one.join(deadline)
        for one in works.outputs.values():
            one.abandon()
        until = self._clock.monotonic() + min(CLOSING, timeout / 2) / 2
        for one in works.outputs.values():
            one.close(max(0.0, until - self._clock.monotonic()))

    def _result(self, before: Books, books: Books, in_time: bool) -> Result:
        assert self._works is not None
        works = self._works
        blocked = self._writer.blocked if self._writer is not None else None
        if isinstance(self._error, ShipperError) and not blocked:
            raise self._error
        if self._error is not None and not blocked:
            raise Died(f"engine: {self._threads.died}; what was not settled stays behind the position; see the log")
        owed = {lane.name: count for lane in works.lanes if (count := lane.unspooled())}
        spooled = {lane.name: count for lane in works.lanes if (count := lane.spooled().events)}
        held = list(self.held())
        kept = {name: line.kept() for name, line in works.sources.items() if line.kept()[0]}
        code = EXIT_BACKLOG if spooled or kept else 0
        unread = self._once and not all(line.all_read for line in works.sources.values())
        if owed or unread or not (in_time or spooled or kept):
            code = 1
        message = ""
        if blocked:
            message = f"the disk under the state file took no commits at the end ({blocked})"
            code, message = 1, f"{message}: positions stand where they were, and what follows them is read again"
        elif not in_time:
            limit = self._timeout or self._configuration.server.drain_timeout
            message = f"not everything was settled: no progress, or none in time ({limit:g} s)"
        letters = _dead_lettered(books) - _dead_lettered(before)
        least = min((line.retention for line in works.sources.values() if line.retention is not None), default=None)
        return Result(code, books, letters, least, owed, spooled, held, message, kept)

    def _on_death(self, _name: str, error: BaseException) -> None:
        if self._phase == "draining" and isinstance(error, StateError):
            return  # it came too late to say anything: what it wanted to be kept is read again
        self._error = self._error or error
        self._stop.set()


#: Why a lane's queue cannot go to its spool: reason of the hold, and what is happening.
_CRAMPED = {
    "disk": ("disk_full", "the disk under the state file is nearly full: nothing is spooled, reading waits"),
    "full": ("spool_full", "its spool is full: its sources wait; make room for it, or raise spool.max_bytes"),
}


def _dead_lettered(books: Books) -> int:
    """Dead letters over all lanes; a record that could not be decoded counts for each of them."""
    return sum(sum(book.get("dead_lettered", {}).values()) for book in books.values())
