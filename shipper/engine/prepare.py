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
from shipper.templates import compile_values
from shipper.transforms import compile_transform
from shipper.transforms.match import compile_match
from shipper.values import Value

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
        return Route(name, tuple(rules), self._known[key], compile_values(values) if values else None)


class Prepare:
    """Makes chunks of one partition's records."""

    def __init__(self, decoder: Decoder, routes: Routes, reference: Callable[[int], str]) -> None:
        self._decoder = decoder
        self._routes = routes
        self._reference = reference

    def __call__(self, records: Sequence[Record]) -> Iterator[Prepared]:
        """Yields chunks in reading order. Raises ``Held`` after what stands before the record whose key is refused."""
        building = _Building()
        decode, reference = self._decoder.decode, self._reference
        for record in records:
            try:
                decoded = decode(record, reference(record.position))
            except Held:
                if building.chunk.records:
                    yield self._finish(building)
                raise
            if len(decoded.events) > MAX_EVENTS:
                yield from self._parts(building, record, decoded)
                building = _Building()
                continue
            building.add(record, decoded)
            if len(building.events) >= MAX_EVENTS or building.size >= MAX_BYTES // 2:
                yield self._finish(building)
                building = _Building()
        if building.chunk.records:
            yield self._finish(building)

    def _parts(self, building: _Building, record: Record, decoded: Decoded) -> Iterator[Prepared]:
        """A record with more events than a chunk takes, in several chunks."""
        if building.chunk.records:
            yield self._finish(building)
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
            building = _Building()
            building.add(record, part)
            building.chunk.first_event = start
            building.chunk.complete = last
            yield self._finish(building)

    def _finish(self, building: _Building) -> Prepared:
        events, chunk = building.events, building.chunk
        chunk.count = len(events)
        chosen = [_choose(route.rules, events) for route in self._routes.routes]
        encoded = self._encode(building, [indices for indices, _ in chosen])
        shares = []
        for route, (indices, filtered) in zip(self._routes.routes, chosen, strict=True):
            lines = encoded[route.format]
            picked = events if indices is None else [events[index] for index in indices]
            render = route.values
            shares.append(
                Share(
                    events=lines if indices is None else [lines[index] for index in indices],
                    values=[()] * len(picked) if render is None else [render(event) for event in picked],
                    indices=indices,
                    filtered=filtered,
                )
            )
        prepared = Prepared(chunk, shares, building.refused, heartbeats=building.heartbeats)
        if events:
            chunk.time = int(events[0].id[:12], 16) / 1000
            prepared.engines.update([event.engine or "unknown" for event in events])
            prepared.unclassified.update([event.engine or "unknown" for event in events if event.category == "other"])
        return prepared

    def _encode(self, building: _Building, chosen: Sequence[list[int] | None]) -> list[list[bytes]]:
        """Each format's lines, one per event; ``b""`` for an event that no lane wants in it."""
        encoded: list[list[bytes]] = []
        frames = building.frames
        for number, encode in enumerate(self._routes.formats):
            wanted = [
                indices for route, indices in zip(self._routes.routes, chosen, strict=True) if route.format == number
            ]
            if any(indices is None for indices in wanted):
                encoded.append(list(map(encode, building.events, building.raw, frames)))
            else:
                lines = [b""] * len(building.events)
                for index in set().union(*(indices or () for indices in wanted)):
                    lines[index] = encode(building.events[index], building.raw[index], frames[index])
                encoded.append(lines)
        return encoded


class _Building:
    """A chunk in the making."""

    __slots__ = ("chunk", "events", "frames", "heartbeats", "raw", "refused", "size")

    def __init__(self) -> None:
        self.chunk = Chunk()
        self.events: list[Event] = []
        self.raw: list[bytes] = []
        self.frames: list[bytes] = []
        self.refused: list[tuple[Record, list[Refused]]] = []
        self.heartbeats: Counter[str] = Counter()
        self.size = 0

    def add(self, record: Record, decoded: Decoded) -> None:
        chunk = self.chunk
        chunk.records.append(record.position)
        chunk.starts.append(len(self.events))
        chunk.arrived = record.arrived
        self.events += decoded.events
        self.raw += decoded.raw
        self.frames += [decoded.frame] * len(decoded.events)
        self.size += sum(map(len, decoded.raw))
        if decoded.refused:
            self.refused.append((record, decoded.refused))
            chunk.refused += [(len(chunk.records) - 1, str(refused.reason)) for refused in decoded.refused]
        if decoded.heartbeats:
            self.heartbeats[decoded.instance] += decoded.heartbeats


def _choose(
    rules: Sequence[tuple[str, Predicate]], events: Sequence[Event]
) -> tuple[list[int] | None, dict[str, list[int]]]:
    """The numbers of the events that every rule keeps (``None``: all of them), and what each rule dropped."""
    indices: list[int] | None = None
    filtered: dict[str, list[int]] = {}
    for name, keeps in rules:
        before: Sequence[int] = range(len(events)) if indices is None else indices
        kept = [index for index in before if keeps(events[index])]
        if len(kept) < len(before):
            remaining = set(kept)
            filtered.setdefault(name, []).extend(index for index in before if index not in remaining)
            indices = kept
    return indices, filtered
