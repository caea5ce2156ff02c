"""Carries out what commands ask of a running shipper, and what the configuration asks to be done now and then.

Commands write a request into the state file (``shipper.state.control``); it is carried out in small transactions by the
one writer, so that a large one delays nobody.
"""

from __future__ import annotations

import functools
import logging
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeVar

from shipper.clock import Clock
from shipper.engine.dead_letter_box import DeadLetterBox
from shipper.engine.lane import Lane
from shipper.engine.spool_disk import SpoolDisk
from shipper.engine.storm import gained
from shipper.engine.works import Works
from shipper.errors import ShipperError, StateError
from shipper.observe.metrics import Metrics
from shipper.source import EARLIEST, StopSignal
from shipper.state import control, dead_letters, gaps, lanes, positions, spool, stands
from shipper.state.dead_letters import Filter
from shipper.state.spool import Totals
from shipper.state.writer import Writer

log = logging.getLogger("shipper.engine")

#: Rows or dead letters of one transaction.
PAGE = 200
#: Seconds between two looks for dead letters that are too old, and for requests that nobody waits for any more.
CLEANING = 60.0
#: Seconds for which an answer is kept.
KEPT = 3600.0

_NONE = Totals(0, 0, 0, 0.0)

Books = Mapping[str, Mapping[str, Mapping[str, int]]]
T = TypeVar("T")


class _Interrupted(StateError):
    """A stop came in the middle."""


class Requests:
    """Asked for now and then by the engine's own thread."""

    def __init__(
        self,
        works: Works,
        writer: Writer,
        letters: DeadLetterBox,
        metrics: Metrics,
        clock: Clock,
        disk: SpoolDisk,
        stop: StopSignal,
    ) -> None:
        """``stop`` ends a long request between two pages."""
        self._works = works
        self._writer = writer
        self._letters = letters
        self._metrics = metrics
        self._clock = clock
        self._disk = disk
        self._stop = stop
        self._cleaned = float("-inf")
        self._does: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
            "replay": self._replay,
            "purge": self._purge,
            "imported": self._imported,
            "spool_move": self._spool_move,
            "spool_drop": self._spool_drop,
            "position_set": self._position_set,
            "acknowledge_gaps": self._acknowledge_gaps,
        }

    def tick(self) -> None:
        """Carries out what waits."""
        if self._writer.blocked is not None:
            return
        for number, request in self._disk.ask(control.waiting):
            self._carry_out(number, request)
        now = self._clock.monotonic()
        if now - self._cleaned >= CLEANING:
            self._cleaned = now
            self._writer.submit(lambda connection: control.clean(connection, self._clock.now() - KEPT))
            self._writer.submit(dead_letters.forget_tombstones)
            self._expire()

    def _carry_out(self, number: int, request: Mapping[str, Any]) -> None:
        try:
            does = self._does.get(str(request.get("do")))
            if does is None:
                raise StateError(f"this shipper does not know the request {request.get('do')!r}; use its own version")
            answer, failed = does(request), False
            log.info("engine: %s, as asked: %s", request["do"], answer)
        except (
            ShipperError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
        ) as error:  # another version may have asked
            answer, failed = {"error": str(error)}, True
            log.warning("engine: %s was asked for and not done: %s", request.get("do"), error)
        self._writer.call(lambda connection: control.answer(connection, number, answer, failed))

    # -- dead letters --------------------------------------------------------------------------------------------------

    def _replay(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Moves dead letters to the ends of their lines, page by page."""
        chosen = Filter(**request.get("filter", {}))
        served = {lane.id: lane for lane in self._works.lanes}
        events = records = after = 0
        while True:
            page = Filter(**{**request.get("filter", {}), "after": after or chosen.after})
            with self._ids() as first:
                replayed, grown = self._counted(
                    functools.partial(_replay_page, chosen=page, first_id=first, now=self._clock.now(), lanes=served)
                )
            for lane, totals in grown.items():
                served[lane].adopt(totals)
            events += replayed.letters - replayed.records
            records += replayed.records
            if replayed.last_letter <= (after or chosen.after or 0):
                break
            after = replayed.last_letter
            self._breathe()
        self._count_again()
        return {"events": events, "records": records}

    def _purge(self, request: Mapping[str, Any]) -> dict[str, Any]:
        chosen = Filter(**request.get("filter", {}))
        count = self._page_by_page(lambda connection: dead_letters.purge(connection, chosen, PAGE))
        self._count_again()
        return {"purged": count}

    def _imported(self, _request: Mapping[str, Any]) -> dict[str, Any]:
        self._count_again()
        return {}

    def _expire(self) -> None:
        age = self._works.configuration.dead_letters.max_age
        if age is None:
            return
        before = self._clock.now() - age
        try:
            count = self._page_by_page(lambda connection: dead_letters.expire(connection, before, PAGE))
        except _Interrupted:
            return  # the next run goes on
        if count:
            log.warning("engine: %d dead letters were older than dead_letters.max_age and are gone", count)
            self._count_again()

    def _count_again(self) -> None:
        self._writer.call(self._letters.count_again)

    # -- the spool -----------------------------------------------------------------------------------------------------

    def _spool_move(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Appends the backlog of an output that is not at work to the end of another's."""
        to = self._lane(request["to"])
        source = self._away(request["output"])
        moved = 0
        while True:
            with self._ids() as first:
                events, totals = self._counted(functools.partial(_move_page, source=source, to=to.id, first_id=first))
            if not events:
                return {"events": moved}
            to.adopt(totals)
            moved += events
            self._breathe()

    def _spool_drop(self, request: Mapping[str, Any]) -> dict[str, Any]:
        source = self._away(request["output"])
        count = self._page_by_page(lambda connection: spool.drop(connection, source, PAGE))
        self._writer.call(lambda connection: lanes.forget(connection, request["output"]))
        return {"events": count}

    # -- positions -----------------------------------------------------------------------------------------------------

    def _position_set(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Lets one output read a source again from a time, while the others stay where they are."""
        lane, source = self._lane(request["output"]), str(request["source"])
        line = self._works.sources.get(source)
        if line is None or line.stream is None:
            raise StateError(f"there is no source {source!r} at work; sources: {', '.join(self._works.sources)}")
        if not self._works.outputs[lane.name].feeds_from(source):
            raise StateError(f"the output {lane.name!r} does not take events of {source!r}")
        time = request["time"]
        begins = EARLIEST if time == "earliest" else datetime.fromisoformat(time)
        stream, found = line.stream, 0

        def change() -> None:
            nonlocal found
            found = self._writer.call(
                lambda connection: stands.begin_again(connection, lane.id, stream.id, begins, self._clock.now())
            )

        self._works.reread([source], change)
        return {"partitions": found}

    def _acknowledge_gaps(self, _request: Mapping[str, Any]) -> dict[str, Any]:
        return {"gaps": self._writer.call(lambda connection: gaps.acknowledge(connection, self._clock.now()))}

    # -- helpers -------------------------------------------------------------------------------------------------------

    def _lane(self, name: str) -> Lane:
        if name not in self._works.outputs:
            raise StateError(f"there is no output {name!r} at work; outputs: {', '.join(self._works.outputs)}")
        return self._works.outputs[name].lane

    def _away(self, name: str) -> int:
        """The id of a lane that nobody serves: of one at work, part is in memory and under way."""
        if name in self._works.outputs:
            raise StateError(
                f"the output {name!r} is at work; take it out of the configuration first (and reload), or let it drain"
            )
        row = self._disk.ask(
            lambda connection: connection.execute("SELECT id FROM lanes WHERE name = ?", (name,)).fetchone()
        )
        if row is None:
            raise StateError(f"the state file knows no output {name!r}; see: shipper spool list")
        return int(row[0])

    @contextmanager
    def _ids(self) -> Iterator[int]:
        """The first of the ids that one page may need."""
        ids = self._disk.reserve(PAGE)
        try:
            yield ids.start
        finally:
            self._disk.committed(ids)

    def _page_by_page(self, change: Callable[[sqlite3.Connection], int]) -> int:
        count = 0
        while done := self._counted(change):
            count += done
            self._breathe()
        return count

    def _breathe(self) -> None:
        """Between two pages: a long request keeps no position from moving, and hears a stop."""
        if self._stop.is_set():
            raise _Interrupted("engine: shipper was stopped in the middle; what was done stays done: ask again")
        for lane in self._works.lanes:
            lane.tick()

    def _counted(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """Carries out a change of the state file, and lets the metrics follow the books."""

        def with_books(connection: sqlite3.Connection) -> tuple[T, dict[str, Counter[tuple[str, str]]]]:
            before = positions.books(connection)
            result = change(connection)
            return result, _entered(before, positions.books(connection))

        result, entered = self._writer.call(with_books)
        for output, tally in entered.items():
            if output in self._works.outputs:
                self._metrics.count(output, tally)
        return result


#: Lines of the books that are metrics too, under the same name or another: what is sent again is offered again.
_COUNTED = {"replayed": "offered", "purged": "purged", "expired": "expired"}


def _entered(before: Books, after: Books) -> dict[str, Counter[tuple[str, str]]]:
    """What was entered into the books between two looks, by output."""
    found: dict[str, Counter[tuple[str, str]]] = {}
    for output, book in after.items():
        for entry, name in _COUNTED.items():
            earlier = before.get(output, {}).get(entry, {})
            count = sum(book.get(entry, {}).values()) - sum(earlier.values())
            if count > 0:
                found.setdefault(output, Counter())[name, ""] += count
    return found


def _move_page(connection: sqlite3.Connection, source: int, to: int, first_id: int) -> tuple[int, Totals]:
    before = spool.totals(connection).get(to, _NONE)
    events = spool.move(connection, source, to, first_id, PAGE)
    return events, gained(before, spool.totals(connection).get(to, _NONE))


def _replay_page(
    connection: sqlite3.Connection, chosen: Filter, first_id: int, now: float, lanes: Mapping[int, Lane]
) -> tuple[dead_letters.Replayed, dict[int, Totals]]:
    before = spool.totals(connection)
    replayed = dead_letters.replay(connection, chosen, first_id, PAGE, now, tuple(lanes))
    after = spool.totals(connection)
    grown = {lane: gained(before.get(lane, _NONE), after[lane]) for lane in replayed.events_by_lane}
    return replayed, grown
