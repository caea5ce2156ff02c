"""The cap on different targets: who may name a database must not be able to make a thousand files or indices of it.

More than ``max_targets`` different rendered targets within a day go to the same template with every value replaced by
``other`` (interface.md, Templates).
"""

from __future__ import annotations

from collections.abc import Sequence

from shipper.clock import Clock
from shipper.event import SCHEMA_VERSION, Event
from shipper.templates import compile_values
from shipper.values import Target, Value

_DAY = 86_400
_ANY = Event(schema_version=SCHEMA_VERSION, id="0" * 32, time="1970-01-01T00:00:00.000000Z")


class TargetCap:
    """Replaces targets beyond the cap, per lane. ``replaced`` counts the events that it concerned."""

    def __init__(self, values: Sequence[Value], max_targets: int, clock: Clock) -> None:
        rendered = compile_values(values, other=True)(_ANY) if values else ()
        self._slots = [
            (slot, rendered[slot])
            for slot, value in enumerate(values)
            if isinstance(value, Target) and "{" in value.template
        ]
        self._max = max_targets
        self._clock = clock
        self._day = -1
        self._seen: list[set[str | None]] = []
        self.replaced = 0

    def apply(self, values: Sequence[tuple[str | None, ...]]) -> Sequence[tuple[str | None, ...]]:
        """The same values, with targets that are one too many replaced."""
        if not self._slots:
            return values
        day = int(self._clock.now() // _DAY)
        if day != self._day:
            self._day, self._seen = day, [set() for _ in self._slots]
        for (slot, other), seen in zip(self._slots, self._seen, strict=True):
            new = {row[slot] for row in values} - seen
            if not new:
                continue
            admitted = sorted(new, key=str)[: max(0, self._max - len(seen))]
            seen.update(admitted)
            refused = new.difference(admitted)
            if refused:
                self.replaced += sum(row[slot] in refused for row in values)
                values = [(*row[:slot], other, *row[slot + 1 :]) if row[slot] in refused else row for row in values]
        return values
