"""A batch on its way to the destination, and where each of its events came from: memory or the spool."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from shipper.output import Batch, Failure
from shipper.state.dead_letters import DeadLetter
from shipper.state.spool import Place

Key = tuple[str, str]
#: What becomes of the copy of a dead letter that its output refuses: there is the dead letter itself.
GIVEN_UP: Key = ("filtered", "dead_letter")

#: ``Failure.reason`` of what a plugin raised by mistake.
PLUGIN = "plugin"


class Origin(Protocol):
    """What holds events until they are settled: an entry of a ledger, or a row of the spool. Items are its events."""

    def places(self, start: int, stop: int) -> list[Place]:
        """Where the items ``start … stop-1`` stand in their partitions."""

    def settle(self, start: int, stop: int, tally: Mapping[Key, int], letters: Sequence[DeadLetter]) -> None:
        """Nothing more is owed of the items ``start … stop-1``."""


@dataclass(slots=True)
class Slice:
    """Consecutive events of a batch that came from one origin: the batch's ``first … first+count-1`` are the origin's
    items ``start …``."""

    first: int
    count: int
    origin: Origin
    start: int


@dataclass(slots=True)
class Family:
    """What was one batch before it was halved, because the fault seemed to lie in it."""

    #: Some event of it was stored.
    passed: bool = False


@dataclass(slots=True)
class Parcel:
    """A batch, its slices, and what was tried so far. ``open`` are the indices that nothing is known to have become of.

    ``number`` orders parcels as the line does; what is split off stands in its place. Times are monotonic seconds but
    for ``time``, the oldest event's (seconds since 1970, 0: unknown); ``since`` is when the first event was offered,
    ``begun`` when it was first sent.
    """

    batch: Batch
    native: Sequence[bytes]
    slices: list[Slice]
    open: list[int]
    number: tuple[int, ...]
    time: float
    since: float
    begun: float = 0.0
    held: float = 0.0
    attempts: int = 0
    due: float = 0.0
    #: Attempts in a row of which nothing passed, and how many requests of the lane had passed before the first of them.
    failures: int = 0
    passes_before: int = 0
    #: The fault seems to lie in it, for others pass: it is halved until the guilty event is alone.
    suspect: bool = False
    #: Others of the same request were stored when it failed last.
    apart: bool = False
    family: Family | None = None
    #: Its events were refused in a row, and then others passed: what is refused of it now is refused for good.
    judged: bool = False
    at_once: bool = False
    last: Failure | None = None

    @property
    def size(self) -> int:
        """Encoded bytes of what is open."""
        if len(self.open) == len(self.batch):
            return self.batch.size
        return sum(len(self.batch.events[index]) for index in self.open)

    def content(self) -> Batch:
        """What is open, to be sent."""
        return _part(self.batch, self.open)

    def runs(self, indices: Sequence[int]) -> Iterator[tuple[Slice, int, int]]:
        """The given indices (ascending) as runs: the slice, and the run's first and last-plus-one index."""
        if len(indices) == len(self.batch):
            for part in self.slices:
                yield part, part.first, part.first + part.count
            return
        slices = iter(self.slices)
        part = next(slices)
        begin = end = -1
        for index in indices:
            if index == end and index < part.first + part.count:
                end += 1
                continue
            if begin >= 0:
                yield part, begin, end
            while index >= part.first + part.count:
                part = next(slices)
            begin, end = index, index + 1
        if begin >= 0:
            yield part, begin, end

    def select(self, indices: Sequence[int], number: tuple[int, ...]) -> Parcel:
        """A parcel of its own for some of the open events, with the same history."""
        slices = []
        first = 0
        for part, begin, end in self.runs(indices):
            slices.append(Slice(first, end - begin, part.origin, part.start + begin - part.first))
            first += end - begin
        return Parcel(
            batch=_part(self.batch, indices),
            native=[self.native[index] for index in indices],
            slices=slices,
            open=list(range(len(indices))),
            number=number,
            time=self.time,
            since=self.since,
            begun=self.begun,
            held=self.held,
            attempts=self.attempts,
            due=self.due,
            failures=0,
            passes_before=self.passes_before,
            suspect=self.suspect,
            apart=self.apart,
            family=self.family,
            judged=self.judged,
            last=self.last,
        )

    def split(self, at: int) -> tuple[Parcel, Parcel]:
        """Two parcels: the first ``at`` open events, and the others."""
        return self.select(self.open[:at], (*self.number, 0)), self.select(self.open[at:], (*self.number, 1))

    def halves(self) -> tuple[Parcel, Parcel]:
        """Two parcels with half of the open events each."""
        return self.split((len(self.open) + 1) // 2)


def _part(batch: Batch, indices: Sequence[int]) -> Batch:
    if len(indices) == len(batch):
        return batch
    events = [batch.events[index] for index in indices]
    return Batch(events, [batch.values[index] for index in indices], sum(map(len, events)))


@dataclass(slots=True)
class Verdict:
    """What one request did to a parcel's open events, as the delivery reads the plugin's report.

    ``stored`` and ``already_stored`` were taken; ``refused`` are dead letters to be; ``again`` are sent again.
    """

    stored: list[int] = field(default_factory=list)
    already_stored: list[int] = field(default_factory=list)
    refused: dict[int, tuple[str, Failure]] = field(default_factory=dict)
    again: list[int] = field(default_factory=list)
    bookmark: bytes | None = None

    def become(self, index: int, already: frozenset[int], letters: Mapping[int, DeadLetter]) -> Key:
        """What a settled event has become, as a line of the books. ``already``: as ``already_stored``."""
        if index in self.refused:
            return ("dead_lettered", self.refused[index][0]) if index in letters else GIVEN_UP
        return ("already_stored", "") if index in already else ("delivered", "")
