"""Everything before the lanes: a pure function of records and the configuration.

Records in, chunks out: decoded, transformed, matched, rendered and encoded, so that what the lanes get is bytes. It
keeps no state between records and does no I/O but for the key resolver, so it can run in a worker process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain

from shipper.decode import Decoded, Decoder, Refused
from shipper.engine.chunk import MAX_BYTES, MAX_EVENTS, Chunk, Share
from shipper.engine.rendering import Values, renderer
from shipper.errors import Held
from shipper.event import Event
from shipper.formats import Encode, compile_format
from shipper.settings import Configuration, FormatSettings, OutputSettings
from shipper.source import Record
from shipper.transforms import compile_transform
from shipper.transforms.match import compile_match
from shipper.values import Value

#: Records that are decoded, routed and encoded together, and their bytes: events are let go while they are still in the
#: processor's cache. (Measured: a thousand events at once cost half as much again.) A divisor of a chunk's events.
GROUP = 50
GROUP_BYTES = 50 * 1024

#: The index of the native format among the encoders.
NATIVE = 0

Predicate = Callable[[Event], bool]


@dataclass(frozen=True, slots=True)
class Route:
    """What one lane takes and how it wants it: rules in the order in which they apply (name, keeps the event?)."""

    lane: str
    rules: tuple[tuple[str, Predicate], ...]
    format: int
    values: Values | None


@dataclass(slots=True)
class Prepared:
    """A chunk, each lane's share of it in the order of the routes, and what there is to say about reading it.

    ``refused`` are the records that have something undecodable, with what; ``engines`` counts events by engine and
    ``unclassified`` those of category ``other``; ``heartbeats`` counts by instance.
    """

    chunk: Chunk
    shares: list[Share]
    refused: list[tuple[Record, list[Refused]]] = field(default_factory=list)
    engines: Counter[str] = field(default_factory=Counter)
    unclassified: Counter[str] = field(default_factory=Counter)
    heartbeats: Counter[str] = field(default_factory=Counter)


class Routes:
    """The compiled rules of every lane that takes a source's events. Formats that are the same are encoded once."""

    def __init__(self, configuration: Configuration, outputs: Mapping[str, Sequence[Value]]) -> None:
        """``outputs``: what each lane's output asks for of every event."""
        # The first is what spools and dead letters keep, whatever an output writes.
        self._formats: list[Encode] = [compile_format(FormatSettings(), {})]
        self._known: dict[tuple[FormatSettings, tuple[tuple[str, str], ...]], int] = {(FormatSettings(), ()): NATIVE}
        transforms = {name: compile_transform(table) for name, table in configuration.transforms.items()}
        self.routes = [
            self._route(name, configuration.outputs[name], values, transforms) for name, values in outputs.items()
        ]

    @property
    def formats(self) -> Sequence[Encode]:
        """The distinct encoders; ``Route.format`` is an index."""
        return self._formats

    def _route(
        self, name: str, settings: OutputSettings, values: Sequence[Value], transforms: Mapping[str, Predicate]
    ) -> Route:
        chosen = tuple(transforms) if settings.transforms is None else settings.transforms
        rules = [(transform, transforms[transform]) for transform in chosen]
        if settings.match is not None:
            rules.append(("match", compile_match(settings.match)))
        key = (settings.format, tuple(sorted(settings.labels.items())))
        if key not in self._known:
            self._known[key] = len(self._formats)
            self._formats.append(compile_format(settings.format, settings.labels))
        render = renderer(values, settings.labels) if values else None
        return Route(name, tuple(rules), self._known[key], render)


class Prepare:
    """Makes chunks of one partition's records."""

    def __init__(self, decoder: Decoder, routes: Routes, reference: Callable[[int], str]) -> None:
        self._decoder = decoder
        self._routes = routes
        self._reference = reference

    def __call__(self, records: Sequence[Record]) -> Iterator[Prepared]:
        """Yields chunks in reading order. Raises ``Held`` after what stands before the record whose key is refused."""
        building = _Building(self._routes)
        for group in _groups(records):
            # Lines of a file are mostly one event each: that costs less than what a record may be in general.
            events, raws = self._decoder.events(group, self._reference)
            if events:
                size = sum(map(len, raws))
                if building.records and not building.takes(len(events), size):
                    yield building.finish()
                    building = _Building(self._routes)
                if building.takes(len(events), size):
                    building.add_events(group[: len(events)], events, raws, size)
                    group = group[len(events) :]  # noqa: PLW2901 - what is left of it
            decoded, held = self._decode(group)
            raw = list(chain.from_iterable([one.raw for one in decoded]))
            size = sum(map(len, raw))
            if not building.takes(len(raw), size):
                if building.records:
                    yield building.finish()
                    building = _Building(self._routes)
                if not building.takes(len(raw), size):
                    yield from self._one_by_one(group, decoded)
                    decoded = []
            if decoded:
                building.add(group[: len(decoded)], decoded, raw, size)
            if building.records and (building.full() or held):
                yield building.finish()
                building = _Building(self._routes)
            if held:
                raise held
        if building.records:
            yield building.finish()

    def _decode(self, group: Sequence[Record]) -> tuple[list[Decoded], Held | None]:
        """The records before the first whose key cannot be had, and that hold."""
        decode, reference = self._decoder.decode, self._reference
        decoded: list[Decoded] = []
        try:
            for record in group:
                decoded.append(decode(record, reference(record.position)))
        except Held as held:
            return decoded, held
        return decoded, None

    def _one_by_one(self, group: Sequence[Record], decoded: Sequence[Decoded]) -> Iterator[Prepared]:
        """Records with so many events that a chunk does not take them together."""
        building = _Building(self._routes)
        for record, one in zip(group, decoded, strict=False):
            size = sum(map(len, one.raw))
            if building.records and not building.takes(len(one.events), size):
                yield building.finish()
                building = _Building(self._routes)
            if len(one.events) > MAX_EVENTS:
                yield from self._parts(record, one)
            else:
                building.add([record], [one], one.raw, size)
        if building.records:
            yield building.finish()

    def _parts(self, record: Record, decoded: Decoded) -> Iterator[Prepared]:
        """A record with more events than a chunk takes, in several chunks."""
        for start in range(0, len(decoded.events), MAX_EVENTS):
            last = start + MAX_EVENTS >= len(decoded.events)
            part = Decoded(
                decoded.events[start : start + MAX_EVENTS],
                decoded.raw[start : start + MAX_EVENTS],
                decoded.frame,
                decoded.refused if last else [],
                decoded.heartbeats if last else 0,
                decoded.instance,
            )
            building = _Building(self._routes)
            building.add([record], [part], part.raw, sum(map(len, part.raw)))
            yield building.finish(first_event=start, complete=last)


class _Building:
    """A chunk in the making: what grows is bytes, the events are let go."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes.routes
        self._formats = routes.formats
        self.records: list[int] = []
        self._starts: list[int] = []
        self._last: Record | None = None
        self._refused: list[tuple[Record, list[Refused]]] = []
        self._undecodable: list[tuple[int, str]] = []
        self._heartbeats: Counter[str] = Counter()
        self._engines: Counter[str] = Counter()
        self._unclassified: Counter[str] = Counter()
        self._size = 0
        self._time = 0.0
        #: How many events there are.
        self.count = 0
        # Per format all events' lines (b"" where no lane wants it); per route what it chose, and what it asked for.
        self._lines: list[list[bytes]] = [[] for _ in self._formats]
        self._chosen: list[list[int]] = [[] for _ in self._routes]
        self._values: list[list[tuple[str | None, ...]]] = [[] for _ in self._routes]
        self._filtered: list[dict[str, list[int]]] = [{} for _ in self._routes]

    def add(self, group: Sequence[Record], decoded: Sequence[Decoded], raw: Sequence[bytes], size: int) -> None:
        """Routes and encodes the events of some records. ``raw``: the engine's own JSON of all of them, ``size`` bytes
        together."""
        starts = list(accumulate([len(one.raw) for one in decoded], initial=self.count))
        del starts[-1]
        first = len(self.records)
        self.records += [record.position for record in group]
        self._starts += starts
        self._last = group[-1]
        self._size += size
        for number, one in enumerate(decoded):
            if one.refused:
                self._refused.append((group[number], one.refused))
                self._undecodable += [(first + number, str(refused.reason)) for refused in one.refused]
            if one.heartbeats:
                self._heartbeats[one.instance] += one.heartbeats
        if raw:
            frames = [b""] * len(raw)
            if any(one.frame for one in decoded):
                frames = list(chain.from_iterable([[one.frame] * len(one.events) for one in decoded]))
            self._route(list(chain.from_iterable([one.events for one in decoded])), raw, frames)

    def add_events(self, group: Sequence[Record], events: Sequence[Event], raw: Sequence[bytes], size: int) -> None:
        """The same for records that are one event each."""
        self.records += [record.position for record in group]
        self._starts += range(self.count, self.count + len(events))
        self._last = group[-1]
        self._size += size
        self._route(events, raw, [b""] * len(events))

    def takes(self, count: int, size: int) -> bool:
        """Whether so many more events, of so many bytes together, are within the bounds. The engine's own JSON is
        measured; what is encoded of it has at most about twice its size."""
        return self.count + count <= MAX_EVENTS and self._size + size <= MAX_BYTES // 2

    def full(self) -> bool:
        """Whether the chunk has reached a bound."""
        return not self.takes(1, 0)

    def finish(self, *, first_event: int = 0, complete: bool = True) -> Prepared:
        """The chunk."""
        assert self._last is not None
        chunk = Chunk(
            self.records,
            self._starts,
            first_event,
            self.count,
            complete,
            self._undecodable,
            self._last.arrived,
            self._time,
        )
        shares = [self._share(number) for number in range(len(self._routes))]
        return Prepared(chunk, shares, self._refused, self._engines, self._unclassified, self._heartbeats)

    def _route(self, events: Sequence[Event], raw: Sequence[bytes], frames: Sequence[bytes]) -> None:
        base = self.count
        wanted: list[set[int] | None] = [set() for _ in self._formats]
        for number, route in enumerate(self._routes):
            picked: Sequence[int] = range(len(events))
            if route.rules:
                picked = _choose(route.rules, events, base, self._filtered[number])
                self._chosen[number] += [base + index for index in picked]
                for one in {route.format, NATIVE}:
                    group = wanted[one]
                    if group is not None:
                        group.update(picked)
            else:
                wanted[route.format] = wanted[NATIVE] = None  # all of them
            if route.values is not None:
                every = len(picked) == len(events)
                self._values[number] += route.values(events if every else [events[index] for index in picked])
        for encode, lines, some in zip(self._formats, self._lines, wanted, strict=True):
            if some is None or len(some) == len(events):
                lines.extend(encode(events, raw, frames))
            else:
                chosen = [index for index in range(len(events)) if index in some]
                encoded = iter(
                    encode(
                        [events[index] for index in chosen],
                        [raw[index] for index in chosen],
                        [frames[index] for index in chosen],
                    )
                )
                lines.extend([next(encoded) if index in some else b"" for index in range(len(events))])
        self._time = self._time or int(events[0].id[:12], 16) / 1000
        engines = {event.engine for event in events}
        if len(engines) == 1:
            self._engines[engines.pop() or "unknown"] += len(events)
        else:
            self._engines.update([event.engine or "unknown" for event in events])
        unclassified = [event.engine or "unknown" for event in events if event.category == "other"]
        if unclassified:
            self._unclassified.update(unclassified)
        self.count += len(events)

    def _share(self, number: int) -> Share:
        route, chosen = self._routes[number], self._chosen[number]
        lines = self._lines[route.format]
        indices = chosen if route.rules and len(chosen) < self.count else None
        picked = lines if indices is None else [lines[index] for index in indices]
        values = self._values[number] if route.values is not None else [()] * len(picked)
        native = None
        if route.format != NATIVE:
            own = self._lines[NATIVE]
            native = own if indices is None else [own[index] for index in indices]
        return Share(picked, values, indices, self._filtered[number], native)


def _groups(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """Records to be taken together: fewer where they are large. The first speaks for its neighbours."""
    start = 0
    while start < len(records):
        count = min(GROUP, max(1, GROUP_BYTES // (len(records[start].data) + 1)))
        yield records[start : start + count]
        start += count


def _choose(
    rules: Sequence[tuple[str, Predicate]], events: Sequence[Event], base: int, filtered: dict[str, list[int]]
) -> Sequence[int]:
    """The numbers of the events that every rule keeps; those that one drops go to ``filtered``, counted from
    ``base``."""
    kept: Sequence[int] = range(len(events))
    for name, keeps in rules:
        before, kept = kept, [index for index in kept if keeps(events[index])]
        if len(kept) < len(before):
            remaining = set(kept)
            filtered.setdefault(name, []).extend(base + index for index in before if index not in remaining)
    return kept
