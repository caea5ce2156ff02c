"""Rows of the spool: what is left of one that was settled in part."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from shipper.engine.spooling import Row
from shipper.state.spool import Place, Spooled


def test_a_row_that_is_half_settled_keeps_each_events_place() -> None:
    places = [Place(1, 2, "s", 10 + number // 2, "r", 0, number % 2 * 3, 1 + number % 2) for number in range(6)]
    count = sum(place.count for place in places)
    each = [(p.record, p.ordinal + n) for p in places for n in range(p.count)]
    row = Row(Spooled(1, 1, 0.0, 0.0, places, [b"%d" % n for n in range(count)]))
    row.settle(1, 3, {("delivered", ""): 2}, ())
    row.settle(6, 7, {("delivered", ""): 1}, ())
    flushed = row.flush()
    assert flushed is not None
    assert flushed.rest is not None
    left = [index for index in range(count) if index not in (1, 2, 6)]
    assert flushed.rest.native == [b"%d" % index for index in left]
    assert [(p.record, p.ordinal + n) for p in flushed.rest.places for n in range(p.count)] == [each[i] for i in left]
    assert [place.count for place in row.places(0, count)] == [place.count for place in places]


class Counted(list[Place]):
    """Counts how often one of its places is looked at."""

    looks = 0

    def __getitem__(self, index: Any) -> Any:
        self.looks += 1
        return super().__getitem__(index)

    def __iter__(self) -> Iterator[Place]:
        for place in super().__iter__():
            self.looks += 1
            yield place


def test_writing_what_is_left_of_a_row_costs_no_more_than_its_length() -> None:
    """Every event in a record of its own, every other one settled."""
    count = 2000
    places = Counted(Place(1, 2, "s", number, "r", 0, 0, 1) for number in range(count))
    row = Row(Spooled(1, 1, 0.0, 0.0, places, [b"x"] * count))
    for index in range(0, count, 2):
        row.settle(index, index + 1, {}, ())
    row.flush()
    for index in range(count):
        row.places(index, index + 1)
    assert places.looks < 10 * count
