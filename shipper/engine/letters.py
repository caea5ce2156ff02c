"""Makes dead letters of events and of records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from shipper.decode import Refused
from shipper.source import Record, Source
from shipper.state.dead_letters import EVERY_OUTPUT, DeadLetter
from shipper.state.spool import Place

#: Characters of a destination's words that a dead letter keeps.
DETAIL = 500


class _Identified(msgspec.Struct):
    id: str


def event_letter(
    place: Place, output: str, native: bytes, raw: bytes | None, reason: str, detail: str, now: float, attempts: int
) -> DeadLetter:
    """The dead letter of one event of an output. ``place`` is where that one stands; ``raw``: as the format ``raw``
    writes it, where the output has that; ``now`` in seconds since 1970 UTC."""
    return DeadLetter(
        stream=place.stream,
        partition=place.partition,
        record=place.record,
        reference=place.reference,
        ordinals=(place.ordinal,),
        output=output,
        source=place.source,
        reason=reason,
        detail=detail[:DETAIL],
        time=now,
        arrived=place.arrived,
        data=native,
        raw=raw,
        event_id=_event_id(native),
        attempts=attempts,
    )


def record_letter(
    source: Source[Any],
    stream: int,
    partition: int,
    record: Record,
    parts: Sequence[Refused],
    now: float,
    lanes: tuple[int, ...],
) -> DeadLetter:
    """The dead letter of a record, or of those parts of it that could not be decoded, owed to ``lanes`` (ids)."""
    return DeadLetter(
        stream=stream,
        partition=partition,
        record=record.position,
        reference=source.reference(record.position),
        ordinals=tuple(part.ordinal for part in parts if part.ordinal is not None),
        output=EVERY_OUTPUT,
        source=source.name,
        reason=str(parts[0].reason),
        detail=parts[0].detail,
        time=now,
        arrived=record.arrived,
        data=record.data,
        resource_id=source.resource_id,
        lanes=lanes,
    )


def _event_id(native: bytes) -> str | None:
    try:
        return msgspec.json.decode(native, type=_Identified).id
    except msgspec.MsgspecError:
        return None  # what a former version kept need not be an event
