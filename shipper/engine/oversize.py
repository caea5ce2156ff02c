"""Events that are larger than the destination takes: cut, or set aside, before they are sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from shipper.engine.line import Waiting
from shipper.engine.rendering import Rendering


def fitting(
    waiting: Waiting, limit: int, rendering: Rendering, *, truncate: bool, refuse: Callable[[Waiting, int], None]
) -> Iterator[Waiting]:
    """The same events without those of more than ``limit`` encoded bytes, in runs.

    With ``truncate`` they are cut where that helps; the others go to ``refuse``, with their index.
    """
    events, native = list(waiting.events), list(waiting.native)
    begin = 0
    for index, line in enumerate(waiting.events):
        if len(line) <= limit:
            continue
        shorter = rendering.truncated(native[index], limit) if truncate else None
        if shorter is not None:
            native[index], events[index] = shorter, rendering([shorter], None)[0][0]
            continue
        refuse(waiting, index)
        if index > begin:
            yield _run(waiting, events, native, begin, index)
        begin = index + 1
    if begin < len(events):
        yield _run(waiting, events, native, begin, len(events))


def _run(waiting: Waiting, events: list[bytes], native: list[bytes], begin: int, end: int) -> Waiting:
    return Waiting(
        waiting.origin,
        events[begin:end],
        waiting.values[begin:end],
        native[begin:end],
        waiting.start + begin,
        0,
        0,
        waiting.since,
        waiting.time,
        waiting.entry,
    )
