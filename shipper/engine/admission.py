"""What happens to an output's events before they wait in its line: targets are capped, and none is larger than the
destination takes. What is too large is cut, or becomes a dead letter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from shipper.clock import Clock
from shipper.engine.dead_letter_box import COPY
from shipper.engine.letters import event_letter
from shipper.engine.line import Line, Waiting
from shipper.engine.parcel import GIVEN_UP, Key
from shipper.engine.rendering import Rendering
from shipper.engine.targets import TargetCap
from shipper.output import Output
from shipper.state.dead_letters import DeadLetter
from shipper.state.spool import Place


class Admission:
    """The rules of one output."""

    def __init__(
        self, output: Output[Any], rendering: Rendering, clock: Clock, aside: Callable[[Waiting, Key], None]
    ) -> None:
        """``aside`` is told of an event that is settled at once, and what became of it."""
        settings, limits = output.settings, output.limits
        own = [limit - limits.overhead for limit in (limits.max_event_bytes,) if limit is not None]
        #: Encoded bytes of the largest event that is sent; ``None``: any.
        self.max_event_bytes: int | None = min((*own, *filter(None, [settings.max_event_bytes])), default=None)
        self._output = output.name
        self._truncate = settings.oversize == "truncate"
        self._raw = settings.format.type == "raw"
        self._rendering = rendering
        self._cap = TargetCap(output.values(), settings.max_targets, clock)
        self._clock = clock
        self._aside = aside

    def admit(self, line: Line, waiting: Waiting) -> None:
        """Puts events into a line."""
        waiting.values = self._cap.apply(waiting.values)
        large = self.max_event_bytes is not None and max(map(len, waiting.events)) > self.max_event_bytes
        for part in self._fitting(waiting) if large else (waiting,):
            part.size = line.size_of(part.events)
            line.put(part)

    def refused(
        self,
        place: Place,
        native: bytes,
        raw: bytes | None,
        reason: str = "spool_full",
        detail: str = "the spool was full and spool.when_full is dead_letter",
    ) -> DeadLetter:
        """The dead letter of an event that was not sent."""
        return event_letter(place, self._output, native, raw, reason, detail, self._clock.now(), 1)

    def _fitting(self, waiting: Waiting) -> Iterator[Waiting]:
        """The same events without those that are too large, in runs; where cutting helps they are cut."""
        limit = self.max_event_bytes or 0
        events, native = list(waiting.events), list(waiting.native)
        begin = 0
        for index, line in enumerate(waiting.events):
            if len(line) <= limit:
                continue
            shorter = self._rendering.truncated(native[index], limit) if self._truncate else None
            if shorter is not None:
                native[index], events[index] = shorter, self._rendering([shorter], None)[0][0]
                continue
            self._set_aside(waiting, index)
            if index > begin:
                yield _run(waiting, events, native, begin, index)
            begin = index + 1
        if begin < len(events):
            yield _run(waiting, events, native, begin, len(events))

    def _set_aside(self, waiting: Waiting, index: int) -> None:
        """An event is too large: it becomes a dead letter, unless it is the copy of one."""
        item, line = waiting.start + index, waiting.events[index]
        (place,) = waiting.origin.places(item, item + 1)
        detail = f"{len(line)} bytes, of {self.max_event_bytes} that one event may have"
        letter = self.refused(place, waiting.native[index], line if self._raw else None, "too_large", detail)
        become: Key = ("dead_lettered", "too_large") if place.ordinal != COPY else GIVEN_UP
        waiting.origin.settle(item, item + 1, {become: 1}, [letter] if place.ordinal != COPY else [])
        self._aside(waiting, become)


def _run(waiting: Waiting, events: list[bytes], native: list[bytes], begin: int, end: int) -> Waiting:
    return Waiting(
        waiting.origin,
        events[begin:end],
        waiting.values[begin:end],
        native[begin:end],
        waiting.start + begin,
        0,
        0,
        waiting.since,
        waiting.time,
        waiting.entry,
    )
