"""Decodes records that were kept: what each of their lanes gets in its spool, and what it says in its books."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

from shipper.clock import EngineClock
from shipper.decode import Decoded, Decoder, Refused
from shipper.engine.chunk import Chunk
from shipper.engine.lane import Lane
from shipper.engine.ledger import Ledger, Tally
from shipper.engine.letters import record_letter
from shipper.engine.prepare import NATIVE, Prepare, Prepared, Route, Routes
from shipper.errors import Held
from shipper.event import Event
from shipper.source import Record, Source
from shipper.state.dead_letters import DeadLetter
from shipper.state.kept_records import KeptRecord
from shipper.state.spool import Place

#: Bytes of events after which no further record is unpacked: they are in memory until they are in the spool.
MAX_BYTES = 4 * 1024 * 1024
#: Where refused records are left: how many are unpacked together, and seconds after which no further one is asked for.
_PART = 50
_SECONDS = 5.0
#: Decoders that are kept for partitions that come again.
_KEEP = 64

#: Whether a record is passed over that is refused like this.
Leave = Callable[[KeptRecord, Held], bool]


@dataclass(slots=True)
class Piece:
    """Events of one chunk that go to one lane, as the spool keeps them. ``time``: the oldest one's, in seconds."""

    places: list[Place]
    native: Sequence[bytes]
    raw: Sequence[bytes] | None
    time: float

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(map(len, self.native)) + (sum(map(len, self.raw)) if self.raw is not None else 0)


@dataclass(slots=True)
class Unpacked:
    """What kept records have become. ``outcomes``: of each of ``records``, whether it was decoded. ``pieces`` and
    ``tallies`` by lane (id). ``held``: why the record that follows, ``refused``, cannot be decoded now. ``left``: those
    among them that were passed over for that, and why the last one was."""

    records: list[KeptRecord] = field(default_factory=list)
    outcomes: list[bool] = field(default_factory=list)
    pieces: dict[int, list[Piece]] = field(default_factory=dict)
    tallies: dict[int, Tally] = field(default_factory=dict)
    letters: list[DeadLetter] = field(default_factory=list)
    prepared: list[Prepared] = field(default_factory=list)
    size: int = 0
    held: Held | None = None
    refused: KeptRecord | None = None
    left: list[KeptRecord] = field(default_factory=list)
    why: Held | None = None

    @property
    def last(self) -> int:
        """The id of the last record that was taken or left; 0 where none was."""
        return max((one[-1].id for one in (self.records, self.left) if one), default=0)


class Unpacking:
    """Makes events of one source's kept records. One thread at a time."""

    def __init__(
        self,
        source: Source[Any],
        lanes: Sequence[Lane],
        routes: Routes,
        decoder: Callable[[int], Decoder],
        clock: EngineClock,
    ) -> None:
        """``routes`` are those of ``lanes``, in their order; ``decoder`` makes one for a partition (id)."""
        self._source = source
        self._lanes = {lane.id: number for number, lane in enumerate(lanes)}
        self._raw = [lane.settings.format.type == "raw" for lane in lanes]
        self._routes = _for_the_spool(routes, self._raw)
        self._all = _with_everything(self._routes)
        self._decoder = decoder
        self._clock = clock
        self._choosing: dict[int, Choosing] = {}

    def forget_decoders(self) -> None:
        """The source was found anew: what is known of it may have changed."""
        self._choosing.clear()

    def __call__(self, records: Sequence[KeptRecord], leave: Leave | None = None) -> Unpacked:
        """As many of these as are unpacked at once, from the first on; at least one, unless its key is refused, and
        ``leave`` does not say that it may be passed over."""
        found = Unpacked()
        begun = self._clock.monotonic()
        at = 0
        while at < len(records):
            # Where some are left, what follows is begun anew: in small parts, for there may be hundreds.
            part = records[at:] if leave is None else records[at : at + _PART]
            before = len(found.records)
            held = self._unpack_groups(part, found)
            at += len(found.records) - before
            if held is not None:
                if leave is None or not leave(records[at], held):
                    found.held, found.refused = held, records[at]
                    break
                found.left.append(records[at])
                found.why = held
                at += 1
            if leave is None or found.size >= MAX_BYTES or self._clock.monotonic() - begun > _SECONDS:
                break
        return found

    def first_decoded(self, records: Sequence[KeptRecord], *, sound: bool) -> int | None:
        """The id of the first of these whose key can be had; ``sound``: that can be decoded."""
        begun = self._clock.monotonic()
        for kept in records:
            choosing = self._choosing_of(kept.partition)
            choosing.ordinals = kept.ordinals
            record = Record(kept.record, kept.data, kept.arrived)
            try:
                decoded = choosing.decode(record, kept.reference)
            except Held:
                if self._clock.monotonic() - begun > _SECONDS:
                    break
                continue
            if decoded.events or not (sound and decoded.refused):
                return kept.id
        return None

    def _unpack_groups(self, records: Sequence[KeptRecord], found: Unpacked) -> Held | None:
        for group in _groups(records):
            try:
                self._unpack(group, found)
            except Held as held:
                return held
            if found.size >= MAX_BYTES:
                break
        return None

    def _unpack(self, group: Sequence[KeptRecord], found: Unpacked) -> None:
        first = group[0]
        choosing = self._choosing_of(first.partition)
        choosing.ordinals = first.ordinals
        by_position = {kept.record: kept for kept in group}
        foreign = any(lane not in self._lanes for lane in first.lanes)
        prepare = Prepare(choosing, self._all if foreign else self._routes, self._source.reference)
        # What is cut off at the end of the group is a record of which some chunks are there: it is not taken.
        for prepared in prepare([Record(kept.record, kept.data, kept.arrived) for kept in group]):
            self._take(first, prepared, choosing, by_position, found)
            if found.size >= MAX_BYTES and prepared.chunk.complete:
                return

    def _take(
        self,
        first: KeptRecord,
        prepared: Prepared,
        choosing: Choosing,
        by_position: dict[int, KeptRecord],
        found: Unpacked,
    ) -> None:
        chunk = prepared.chunk
        found.prepared.append(replace(prepared, shares=[], chunk=Chunk()))
        for lane in first.lanes:
            number = self._lanes.get(lane, len(self._lanes))
            share = prepared.shares[number]
            ledger = Ledger(first.partition, self._source.name, first.stream, None, "", self._source.reference)
            entry = ledger.open(chunk, share)
            assert entry is not None  # it stands nowhere yet
            tally = entry.arrival()
            if first.replayed:
                tally["replayed", ""] = tally.pop(("offered", ""), 0)
            found.tallies.setdefault(lane, Counter()).update(+tally)
            if not entry.owed:
                continue
            raw = share.events if number < len(self._raw) and self._raw[number] else None
            native = share.events if share.native is None else share.native
            places = entry.places(0, entry.owed)
            if choosing.ordinals:
                places = list(_renumbered(places, choosing.numbers))
            piece = Piece(places, native, raw, chunk.time)
            found.pieces.setdefault(lane, []).append(piece)
            found.size += piece.size
        now = self._clock.now()
        for record, parts in prepared.refused:
            kept = by_position[record.position]
            found.letters.append(
                record_letter(self._source, kept.stream, kept.partition, record, parts, now, lanes=kept.lanes)
            )
        if chunk.complete:
            found.records += [by_position[position] for position in chunk.records]
            found.outcomes += decodes(prepared)

    def _choosing_of(self, partition: int) -> Choosing:
        known = self._choosing.get(partition)
        if known is None:
            if len(self._choosing) >= _KEEP:
                self._choosing.clear()
            known = self._choosing[partition] = Choosing(self._decoder(partition))
        return known


class Choosing:
    """A decoder that gives only some events of a record: the ordinals that a kept record is owed to."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self.version = decoder.version
        #: What is chosen: indices in the record's list of events, empty for all; or as ``since`` says.
        self.ordinals: tuple[int, ...] = ()
        #: Of what was chosen of the last record, the numbers among all its events.
        self.numbers: list[int] = []

    def decode(self, record: Record, reference: str) -> Decoded:
        """The chosen events; what could not be decoded of them stands in ``refused`` by its ordinal."""
        decoded = self._decoder.decode(record, reference)
        if not self.ordinals:
            return decoded
        if self.ordinals[0] < 0:
            begin = -self.ordinals[0] if self.ordinals == since(-self.ordinals[0], self.version) else 0
            self.numbers = list(range(begin, len(decoded.events)))
            refused = decoded.refused
        else:
            wanted = frozenset(self.ordinals)
            listed = range(len(decoded.events)) if decoded.ordinals is None else decoded.ordinals
            self.numbers = [number for number, ordinal in enumerate(listed) if ordinal in wanted]
            refused = [
                Refused(ordinal, part.reason, part.detail)
                for part in decoded.refused
                for ordinal in (self.ordinals if part.ordinal is None else (part.ordinal,))
                if ordinal in wanted
            ]
        return Decoded(
            [decoded.events[number] for number in self.numbers],
            [decoded.raw[number] for number in self.numbers],
            decoded.frame,
            refused,
            decoded.heartbeats,
            decoded.instance,
        )

    def events(
        self, _records: Sequence[Record], _reference: Callable[[int], str]
    ) -> tuple[Sequence[Event], Sequence[bytes]]:
        """None: every record goes through ``decode``."""
        return (), ()


def since(event: int, version: str) -> tuple[int, int]:
    """``KeptRecord.ordinals`` of a record that a lane had half settled: from the event of this number on, if it is
    decoded by the same version of the decoder; else all of it, for the events may be others."""
    return -event, zlib.crc32(version.encode())


def decodes(prepared: Prepared) -> list[bool]:
    """Of every record of a chunk, whether anything of it could be decoded; a heartbeat counts."""
    chunk = prepared.chunk
    if not prepared.refused:
        return [True] * len(chunk.records)
    refused = {record.position for record, _ in prepared.refused}
    ends = [*chunk.starts[1:], chunk.count]
    return [
        begin < end or position not in refused or (chunk.first_event > 0 and number == 0)
        for number, (position, begin, end) in enumerate(zip(chunk.records, chunk.starts, ends, strict=True))
    ]


def _for_the_spool(routes: Routes, raw: Sequence[bool]) -> Routes:
    """The same rules; but events are rendered when they leave the spool, not now."""
    spooling = copy(routes)
    spooling.routes = [
        replace(route, format=route.format if own else NATIVE, values=None)
        for route, own in zip(routes.routes, raw, strict=True)
    ]
    return spooling


def _with_everything(routes: Routes) -> Routes:
    """With one more at the end, for lanes that the configuration gives no rules here: all events, native."""
    more = copy(routes)
    more.routes = [*routes.routes, Route("", (), NATIVE, None)]
    return more


def _groups(records: Sequence[KeptRecord]) -> Iterator[Sequence[KeptRecord]]:
    """Runs of records that are unpacked together: of one partition, in order, owed to the same lanes, all of each."""
    start = 0
    for number in range(1, len(records) + 1):
        if number < len(records):
            one, other = records[number - 1], records[number]
            same = (one.partition, one.lanes, one.replayed) == (other.partition, other.lanes, other.replayed)
            if same and not one.ordinals and not other.ordinals and one.record < other.record:
                continue
        yield records[start:number]
        start = number


def _renumbered(places: Sequence[Place], numbers: Sequence[int]) -> Iterator[Place]:
    """Places whose ordinals count the chosen events alone, with those that count all of the record's."""
    for place in places:
        run = numbers[place.ordinal : place.ordinal + place.count]
        begin = 0
        for end in range(1, len(run) + 1):
            if end == len(run) or run[end] != run[end - 1] + 1:
                yield place._replace(ordinal=run[begin], count=end - begin)
                begin = end
