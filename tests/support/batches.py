"""Events and batches as the engine hands them to an output."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from shipper.event import Event
from shipper.output import Batch, Value
from shipper.templates import compile_values


def event(number: int, **fields: object) -> Event:
    """An event with an id and a time that are made of the number."""
    known: dict[str, object] = {
        "schema_version": 1,
        "id": f"{number:032x}",
        "time": f"2026-01-02T03:04:05.{number % 1_000_000:06d}Z",
        "category": "read",
        "action": "select",
        "user": "app",
        "rows": number,
    }
    return msgspec.convert({**known, **fields}, Event)


def batch_of(values: Sequence[Value], events: Sequence[Event]) -> Batch:
    """Native JSON, and of each event what the output asks for."""
    lines = [msgspec.json.encode(one) for one in events]
    render = compile_values(values)
    return Batch(lines, [render(one) for one in events], sum(map(len, lines)))
