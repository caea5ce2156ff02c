"""Makes dead letters of events."""

from __future__ import annotations

import msgspec

from shipper.state.dead_letters import DeadLetter
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


def _event_id(native: bytes) -> str | None:
    try:
        return msgspec.json.decode(native, type=_Identified).id
    except msgspec.MsgspecError:
        return None  # what a former version kept need not be an event
