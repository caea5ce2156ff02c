"""Puts what a lane owes from memory into rows of the spool, in the order of the line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from shipper.engine.ledger import Entry, Ledger
from shipper.engine.line import Waiting
from shipper.engine.parcel import Origin, Parcel, Slice
from shipper.engine.spooling import Row, Rows
from shipper.state.dead_letters import DeadLetter
from shipper.state.spool import Place, Spooled

#: Makes a dead letter of an event: its place, its native line, its raw line.
Refuse = Callable[[Place, bytes, bytes | None], DeadLetter]


def spill_parcels(parcels: Sequence[Parcel], rows: Rows, *, raw: bool) -> tuple[list[Ledger], list[Row]]:
    """What parcels still owe from memory; their slices point to the rows then, which stay in memory while they are
    being sent. Returns the ledgers that move."""
    ledgers: list[Ledger] = []
    for parcel in parcels:
        ledgers += _spill_parcel(parcel, rows, raw=raw)
    rows.close()
    sent = {row.id: Row(row) for row in rows.finish()}
    for parcel in parcels:
        parcel.slices = [
            Slice(part.first, part.count, sent[part.origin.id], part.start)
            if isinstance(part.origin, Spooled)
            else part
            for part in parcel.slices
        ]
    return ledgers, list(sent.values())


def spill_queue(queue: Iterable[Waiting], rows: Rows, *, raw: bool, refuse: Refuse | None) -> list[Ledger]:
    """What waits in memory; with ``refuse`` it becomes dead letters instead. Returns the ledgers that move."""
    ledgers: list[Ledger] = []
    for waiting in queue:
        entry = waiting.entry
        assert entry is not None
        begin, end = waiting.start + waiting.taken, waiting.start + len(waiting.events)
        places = entry.places(begin, end)
        native = waiting.native[waiting.taken :]
        own = waiting.events[waiting.taken :] if raw else None
        if refuse is None:
            rows.add(places, native, own, waiting.time)
            entry.settle(begin, end)
        else:
            letters = [
                refuse(place, line, None if own is None else own[index])
                for index, (place, line) in enumerate(zip(_each(places), native, strict=True))
            ]
            entry.settle(begin, end, {("dead_lettered", "spool_full"): end - begin}, letters)
        ledgers.append(entry.ledger)
    return ledgers


def abandoned(origin: Origin) -> bool:
    """Whether what came from there is read again, so that nothing that becomes of it here counts."""
    return isinstance(origin, Entry) and origin.ledger.abandoned


def _spill_parcel(parcel: Parcel, rows: Rows, *, raw: bool) -> list[Ledger]:
    """Puts what a parcel still owes from memory into a row; its slices point there until the row is complete."""
    ledgers: list[Ledger] = []
    slices: list[Slice] = []
    for part, begin, end in parcel.runs(parcel.open):
        start = part.start + begin - part.first
        if not isinstance(part.origin, Entry) or abandoned(part.origin):
            slices.append(Slice(begin, end - begin, part.origin, start))
            continue
        places = part.origin.places(start, start + end - begin)
        own = parcel.batch.events[begin:end] if raw else None
        row, first = rows.add(places, parcel.native[begin:end], own, parcel.time)
        part.origin.settle(start, start + end - begin)
        ledgers.append(part.origin.ledger)
        slices.append(Slice(begin, end - begin, row, first))  # type: ignore[arg-type]  # an origin once it is whole
    parcel.slices = slices
    return ledgers


def _each(places: Iterable[Place]) -> Iterator[Place]:
    """The place of every single event."""
    for place in places:
        for number in range(place.count):
            yield place._replace(ordinal=place.ordinal + number, count=1)
