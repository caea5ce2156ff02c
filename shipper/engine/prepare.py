"""Everything before the lanes: a pure function of records and the configuration.

Records in, chunks out: decoded, transformed, matched, rendered and encoded, so that what the lanes get is bytes. It
keeps no state between records and does no I/O but for the key resolver, so it can run in a worker process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from shipper.decode import Decoded, Decoder, Refused
from shipper.engine.chunk import MAX_BYTES, MAX_EVENTS, Chunk, Share
from shipper.errors import Held
from shipper.event import Event
from shipper.formats import compile_format
from shipper.settings import Configuration, FormatSettings, OutputSettings
from shipper.source import Record
from shipper.templates import compile_values, is_constant
from shipper.transforms import compile_transform
from shipper.transforms.match import compile_match
from shipper.values import Value

#: Events that are routed and encoded together.
GROUP = 32

Encode = Callable[[Event, bytes, bytes], bytes]
Predicate = Callable[[Event], bool]


@dataclass(frozen=True, slots=True)
class Route:
    """What one lane takes and how it wants it: rules in the order in which they apply (name, keeps the event?)."""

    lane: str
    rules: tuple[tuple[str, Predicate], ...]
    format: int
    values: Callable[[Event], tuple[str | None, ...]] | None


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
        self._formats: list[Encode] = []
        self._known: dict[tuple[FormatSettings, tuple[tuple[str, str], ...]], int] = {}
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
        return Route(name, tuple(rules), self._known[key], _renderer(values, settings.labels) if values else None)


def _renderer(values: Sequence[Value], labels: Mapping[str, str]) -> Callable[[Event], tuple[str | None, ...]]:
    """Renders what an output asked for; its own labels win over the event's, as in what it writes."""
    render = compile_values(values)
    if not labels or is_constant(values):
        return render

    def render_with_labels(event: Event) -> tuple[str | None, ...]:
        own = event.labels
        event.labels = {**(own or {}), **labels}
        rendered = render(event)
        event.labels = own
        return rendered

    return render_with_labels


class Prepare:
    """Makes chunks of one partition's records."""

    def __init__(self, decoder: Decoder, routes: Routes, reference: Callable[[int], str]) -> None:
        self._decoder = decoder
        self._routes = routes
        self._reference = reference

    def __call__(self, records: Sequence[Record]) -> Iterator[Prepared]:
        """Yields chunks in reading order. Raises ``Held`` after what stands before the record whose key is refused."""
        building = _Building(self._routes)
        decode, reference = self._decoder.decode, self._reference
        for record in records:
            try:
                decoded = decode(record, reference(record.position))
            except Held:
                if building.records:
                    yield building.finish()
                raise
            if len(decoded.events) > MAX_EVENTS:
                if building.records:
                    yield building.finish()
                yield from self._parts(record, decoded)
                building = _Building(self._routes)
                continue
            building.add(record, decoded)
            if building.full():
                yield building.finish()
                building = _Building(self._routes)
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
            building.add(record, part)
            yield building.finish(first_event=start, complete=last)


class _Building:
    """A chunk in the making.

    Events are routed and encoded in small groups, while they are still in the processor's cache, and then let go:
    what grows is bytes. (Measured: a thousand events at once cost half as much again.)
    """

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
        self._count = 0
        self._size = 0
        self._time = 0.0
        # The group: events, and with each the engine's own JSON and its record's frame.
        self._events: list[Event] = []
        self._raw: list[bytes] = []
        self._frames: list[bytes] = []
        # Per format all events' lines (b"" where no lane wants it); per route what it chose, and what it asked for.
        self._lines: list[list[bytes]] = [[] for _ in self._formats]
        self._chosen: list[list[int]] = [[] for _ in self._routes]
        self._values: list[list[tuple[str | None, ...]]] = [[] for _ in self._routes]
        self._filtered: list[dict[str, list[int]]] = [{} for _ in self._routes]

    def add(self, record: Record, decoded: Decoded) -> None:
        """Called for every record: JSON lines are one event each."""
        events, raw = decoded.events, decoded.raw
        self.records.append(record.position)
        self._starts.append(self._count + len(self._events))
        self._last = record
        if len(events) == 1:
            self._events.append(events[0])
            self._raw.append(raw[0])
            self._frames.append(decoded.frame)
            self._size += len(raw[0])
        else:
            self._events += events
            self._raw += raw
            self._frames += [decoded.frame] * len(events)
            self._size += sum(map(len, raw))
        if decoded.refused:
            self._refused.append((record, decoded.refused))
            self._undecodable += [(len(self.records) - 1, str(refused.reason)) for refused in decoded.refused]
        if decoded.heartbeats:
            self._heartbeats[decoded.instance] += decoded.heartbeats
        if len(self._events) >= GROUP:
            self._route()

    def full(self) -> bool:
        """Whether the chunk has reached a bound."""
        return self._count + len(self._events) >= MAX_EVENTS or self._size >= MAX_BYTES // 2

    def finish(self, *, first_event: int = 0, complete: bool = True) -> Prepared:
        """The chunk."""
        if self._events:
            self._route()
        assert self._last is not None
        chunk = Chunk(
            self.records,
            self._starts,
            first_event,
            self._count,
            complete,
            self._undecodable,
            self._last.arrived,
            self._time,
        )
        shares = [self._share(number) for number in range(len(self._routes))]
        return Prepared(chunk, shares, self._refused, self._engines, self._unclassified, self._heartbeats)

    def _route(self) -> None:
        events, base = self._events, self._count
        wanted: list[set[int] | None] = [set() for _ in self._formats]
        for number, route in enumerate(self._routes):
            picked: Sequence[int] = range(len(events))
            if route.rules:
                picked = _choose(route.rules, events, base, self._filtered[number])
                self._chosen[number] += [base + index for index in picked]
                group = wanted[route.format]
                if group is not None:
                    group.update(picked)
            else:
                wanted[route.format] = None  # all of them
            if route.values is not None:
                render = route.values
                self._values[number] += [render(events[index]) for index in picked]
        for encode, lines, some in zip(self._formats, self._lines, wanted, strict=True):
            if some is None or len(some) == len(events):
                lines.extend(map(encode, events, self._raw, self._frames))
            else:
                lines.extend(
                    encode(event, self._raw[index], self._frames[index]) if index in some else b""
                    for index, event in enumerate(events)
                )
        self._time = self._time or int(events[0].id[:12], 16) / 1000
        self._engines.update([event.engine or "unknown" for event in events])
        self._unclassified.update([event.engine or "unknown" for event in events if event.category == "other"])
        self._count += len(events)
        self._events, self._raw, self._frames = [], [], []

    def _share(self, number: int) -> Share:
        route, chosen = self._routes[number], self._chosen[number]
        lines = self._lines[route.format]
        indices = chosen if route.rules and len(chosen) < self._count else None
        picked = lines if indices is None else [lines[index] for index in indices]
        values = self._values[number] if route.values is not None else [()] * len(picked)
        return Share(picked, values, indices, self._filtered[number])


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
