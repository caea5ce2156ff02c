"""The parcels of a lane that are to be sent again, in the order of the line, and which of them probes a failing output.

The lane's lock guards it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator

from shipper.engine.parcel import PLUGIN, Family, Origin, Parcel

#: Encoded bytes that may wait to be sent again before no new batch is begun.
RETRY_BYTES = 16 * 1024 * 1024
#: Single events that are set aside to find out whether the fault lies in the batch.
SINGLES = 3
#: Events in a row that are tried alone where order is kept: if none of so many passes, it is not they.
RUN = 100
#: The probes of one round while the output fails: the oldest parcel, then another one, then single events.
OLDEST, ANOTHER, ALONE = 3, 1, 3


class Retries:
    """Sorted by the parcels' numbers."""

    def __init__(self, *, ordered: bool, randomness: random.Random) -> None:
        """``ordered``: none overtakes another."""
        self._ordered = ordered
        self._randomness = randomness
        self._parcels: list[Parcel] = []

    def __iter__(self) -> Iterator[Parcel]:
        return iter(self._parcels)

    def __bool__(self) -> bool:
        return bool(self._parcels)

    def put(self, parcels: Iterable[Parcel]) -> None:
        """These are to be sent again when they are due, as far as they still owe anything."""
        self._parcels = [parcel for parcel in (*self._parcels, *parcels) if parcel.open]
        self._parcels.sort(key=lambda parcel: parcel.number)

    def drop(self, gone: Callable[[Origin], bool]) -> None:
        """Nothing more is owed from here of what came from such an origin."""
        for parcel in self._parcels:
            runs = [range(begin, end) for part, begin, end in parcel.runs(parcel.open) if gone(part.origin)]
            if runs:
                dropped = frozenset(index for run in runs for index in run)
                parcel.open = [index for index in parcel.open if index not in dropped]
        self.put(())

    def full(self) -> bool:
        """Whether so much waits that nothing new is begun."""
        return sum(parcel.size for parcel in self._parcels) > RETRY_BYTES

    def due(self, now: float) -> Parcel | None:
        """The first that is due (monotonic seconds)."""
        for parcel in self._parcels:
            if parcel.due <= now:
                return self._take(parcel)
            if self._ordered:
                return None
        return None

    def next_due(self) -> float | None:
        """When something is due."""
        waiting = self._parcels[:1] if self._ordered else self._parcels
        return min((parcel.due for parcel in waiting), default=None)

    def probe(self, probes: int, begin: Callable[[], Parcel | None], *, storm: bool) -> Parcel | None:
        """The parcel whose turn it is while the output fails: the oldest; where that fails again and again others, then
        single events, to learn whether the fault lies in it (delivery.md, Retry). ``begin`` gives a new batch.

        In a ``storm`` of refusals every other turn is another one's, also where order is kept: if that passes, the
        refused ones become dead letters and are overtaken by nobody.
        """
        if not self._parcels:
            return begin()
        turn = probes % (OLDEST + ANOTHER + ALONE)
        if storm:
            return self._another(begin) if probes % 2 else self._take(self._parcels[0])
        if not self._ordered and all(len(one.open) == 1 and one.failures >= OLDEST for one in self._parcels):
            return begin() or self._take(self._parcels[probes % len(self._parcels)])
        if turn < OLDEST or (turn == OLDEST and self._ordered):
            return self._take(self._parcels[0])
        if self._ordered:
            return self._first_single(begin)
        return self._another(begin) if turn == OLDEST else self._single()

    def _another(self, begin: Callable[[], Parcel | None]) -> Parcel:
        """A new one: what waits here has failed, all of it."""
        new = None if self.full() else begin()
        if new is not None:
            return new
        others = [parcel for parcel in self._parcels[1:] if len(parcel.open) > 1] or self._parcels[1:]
        return self._take(self._randomness.choice(others or self._parcels))

    def _single(self) -> Parcel:
        """A parcel of one event: split off the oldest batch, unless enough were."""
        alone = [parcel for parcel in self._parcels if len(parcel.open) == 1]
        whole = next((parcel for parcel in self._parcels if len(parcel.open) > 1), None)
        if whole is None or len(alone) >= SINGLES:
            return self._take(self._randomness.choice(alone or self._parcels))
        return self._split(whole, self._randomness.choice(whole.open))

    def _first_single(self, begin: Callable[[], Parcel | None]) -> Parcel:
        """The first event alone. Where the plugin stumbles over that one, the next that was not tried alone: if it
        passes, the others are guilty, and are overtaken by nobody, for they become dead letters."""
        for parcel in self._parcels[:RUN]:
            if len(parcel.open) > 1:
                return self._split(parcel, parcel.open[0])
            if not parcel.failures or parcel.last is None or parcel.last.reason != PLUGIN:
                return self._take(parcel)
        new = begin() if len(self._parcels) < RUN else None
        if new is None:
            return self._take(self._parcels[0])
        return self._split(new, new.open[0]) if len(new.open) > 1 else new

    def _split(self, whole: Parcel, index: int) -> Parcel:
        """One event of a parcel; the rest waits."""
        self._take(whole)
        whole.family = whole.family or Family()
        rest = [other for other in whole.open if other != index]
        self.put([whole.select(rest, (*whole.number, 1))])
        return whole.select([index], (*whole.number, 0))

    def _take(self, parcel: Parcel) -> Parcel:
        self._parcels = [other for other in self._parcels if other is not parcel]
        return parcel
