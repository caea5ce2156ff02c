"""What waits in a lane's line is counted as its destination counts: encoded bytes, and what is added to each event."""

from __future__ import annotations

import pytest

from shipper.engine.line import Line, Waiting
from shipper.engine.parcel import Origin

OVERHEAD = 50


def waiting(origin: Origin, line: Line, sizes: list[int]) -> Waiting:
    events = [b"x" * size for size in sizes]
    return Waiting(origin, events, [()] * len(events), events, 0, 0, line.size_of(events), 0.0, 0.0)


@pytest.mark.parametrize(
    ("max_bytes", "taken"), [(1000, 4), (50, 1), (150, 1), (151, 1), (310, 2), (459, 2), (460, 3), (9000, 4)]
)
def test_a_batch_takes_what_fits_and_at_least_one_event(max_bytes: int, taken: int) -> None:
    line = Line(10, max_bytes, OVERHEAD)
    origin: Origin = None  # type: ignore[assignment]  # nobody asks it
    line.put(waiting(origin, line, [100, 110, 100, 120]))
    assert len(line.cut((1,)).batch) == taken


def test_what_is_left_is_counted_with_what_is_added_to_each_event() -> None:
    line = Line(10, 320, OVERHEAD)
    origin: Origin = None  # type: ignore[assignment]  # nobody asks it
    line.put(waiting(origin, line, [100, 110, 100, 121]))
    line.cut((1,))
    assert (line.events, line.bytes) == (2, 100 + 121 + 2 * OVERHEAD)
    line.cut((2,))
    assert (line.events, line.bytes) == (1, 121 + OVERHEAD)
    line.cut((3,))
    assert (line.events, line.bytes) == (0, 0)
