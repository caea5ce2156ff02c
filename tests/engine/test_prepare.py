"""From records to chunks: bounds, routes, shared encodings, and what is left when a key cannot be had."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any

import pytest

from shipper.decode import Decoded, Reason, Refused
from shipper.engine.chunk import MAX_BYTES, MAX_EVENTS
from shipper.engine.prepare import Prepare, Prepared, Routes
from shipper.errors import Held
from shipper.event import Event
from shipper.settings import Configuration, OutputSettings, TransformSettings
from shipper.source import END, Position, Record
from shipper.values import Field, Target, Value


class Numbers:
    """Decodes ``b"3"`` to three events; ``x`` is refused, ``h`` is a heartbeat, ``k`` waits for a key."""

    version = "1"

    def __init__(self) -> None:
        self.made = 0
        self.size = 10

    def events(
        self, records: Sequence[Record], reference: Callable[[int], str]
    ) -> tuple[Sequence[Event], Sequence[bytes]]:
        """``e`` is an event that stands for itself."""
        alone = list(takewhile(lambda record: record.data == b"e", records))
        return [self._event(reference(record.position)) for record in alone], [b"y" * self.size] * len(alone)

    def decode(self, record: Record, reference: str) -> Decoded:
        if record.data == b"k":
            raise Held("key_disabled", "no key")
        if record.data == b"x":
            return Decoded([], [], refused=[Refused(None, Reason.SHAPE, "x")])
        if record.data == b"h":
            return Decoded([], [], heartbeats=1, instance="db-1")
        events = [self._event(reference) for _ in range(1 if record.data == b"e" else int(record.data))]
        return Decoded(events, [b"y" * self.size] * len(events), b'{"list":[')

    def _event(self, reference: str) -> Event:
        self.made += 1
        return Event(
            schema_version=1,
            id=f"{self.made:032x}",
            time="2026-01-01T00:00:00.000000Z",
            engine="oracle",
            category="read" if self.made % 2 else "write",
            user=f"u{self.made}",
            source_position=reference,
            labels={"env": "prod"},
        )


def records(*data: bytes) -> list[Record]:
    return [Record(number, one, number * 10) for number, one in enumerate(data, 1)]


def routes(
    outputs: dict[str, dict[str, Any]], values: dict[str, list[Value]] | None = None, **transforms: Any
) -> Routes:
    configuration = Configuration(
        outputs={name: OutputSettings.model_validate({"type": "t", **table}) for name, table in outputs.items()},
        transforms={name: TransformSettings.model_validate(table) for name, table in transforms.items()},
    )
    return Routes(configuration, {name: (values or {}).get(name, []) for name in outputs})


def prepare(data: list[Record], to: Routes, decoder: Numbers | None = None) -> list[Prepared]:
    return list(Prepare(decoder or Numbers(), to, str)(data))


def test_a_chunk_says_where_its_events_stand() -> None:
    (one,) = prepare(records(b"2", b"0", b"1"), routes({"a": {}}))
    assert [one.chunk.position(index) for index in range(4)] == [(1, 0), (1, 1), (3, 0), (3, END)]
    assert (one.chunk.count, one.chunk.arrived) == (3, 30)
    assert one.engines == {"oracle": 3}


def test_events_that_stand_for_themselves_have_their_records_positions() -> None:
    (one,) = prepare(records(b"e", b"e", b"2", b"e", b"x"), routes({"a": {}}))
    ends = [(1, 0), (2, 0), (3, 0), (3, 1), (4, 0), (5, END)]
    assert [one.chunk.position(index) for index in range(6)] == ends
    assert one.chunk.refused == [(4, "shape")]
    assert len(one.shares[0].events) == 5


def test_events_that_stand_for_themselves_are_bounded_like_others() -> None:
    chunks = prepare(records(*[b"e"] * 2500), routes({"a": {}}))
    assert [one.chunk.count for one in chunks] == [1000, 1000, 500]
    decoder = Numbers()
    decoder.size = MAX_BYTES // 100
    chunks = prepare(records(*[b"e"] * 200), routes({"a": {}}), decoder)
    assert [one.chunk.count for one in chunks] == [50, 50, 50, 50]


def test_a_chunk_is_bounded_by_events() -> None:
    chunks = prepare(records(*[b"100"] * 25), routes({"a": {}}))
    assert [one.chunk.count for one in chunks] == [1000, 1000, 500]


def test_a_chunk_is_bounded_by_bytes() -> None:
    decoder = Numbers()
    decoder.size = MAX_BYTES // 4
    chunks = prepare(records(*[b"1"] * 5), routes({"a": {}}), decoder)
    assert [one.chunk.count for one in chunks] == [2, 2, 1]


def test_a_record_with_more_events_than_a_chunk_takes_is_cut() -> None:
    chunks = prepare(records(b"1", b"2500", b"1"), routes({"a": {}}))
    assert [one.chunk.count for one in chunks] == [1, MAX_EVENTS, MAX_EVENTS, 500, 1]
    assert [one.chunk.complete for one in chunks] == [True, False, False, True, True]
    ends = [one.chunk.position(one.chunk.count) for one in chunks]
    assert ends == [(1, END), (2, 1000), (2, 2000), (2, END), (3, END)]
    assert chunks[2].chunk.index(Position(2, 1500)) == 500


def test_what_is_refused_and_heartbeats_stand_with_their_chunk() -> None:
    (one,) = prepare(records(b"1", b"x", b"h", b"1"), routes({"a": {}}))
    assert one.chunk.refused == [(1, "shape")]
    assert [(record.position, [part.detail for part in parts]) for record, parts in one.refused] == [(2, ["x"])]
    assert one.heartbeats == {"db-1": 1}


def test_a_key_that_cannot_be_had_gives_what_stands_before_it_first() -> None:
    chunks = Prepare(Numbers(), routes({"a": {}}), str)(records(b"2", b"k", b"1"))
    assert next(chunks).chunk.records == [1]
    with pytest.raises(Held):
        next(chunks)


def test_outputs_with_the_same_format_share_the_encoded_bytes() -> None:
    (one,) = prepare(records(b"3"), routes({"a": {}, "b": {}}))
    first, second = one.shares
    assert all(mine is its for mine, its in zip(first.events, second.events, strict=True))


def test_rules_choose_and_say_what_they_dropped() -> None:
    to = routes(
        {"all": {"transforms": []}, "some": {"match": {"category": "read"}}},
        quiet={"type": "drop", "match": {"user": ["u1", "u40"]}},
    )
    (one,) = prepare(records(*[b"1"] * 100), to)
    everything, some = one.shares
    assert everything.indices is None
    assert len(everything.events) == 100
    assert some.indices == [index for index in range(0, 100, 2) if index != 0]
    assert some.filtered == {"quiet": [0, 39], "match": [index for index in range(1, 100, 2) if index != 39]}
    assert [json.loads(line)["user"] for line in some.events] == [f"u{index + 1}" for index in some.indices]


def test_an_output_gets_what_it_asked_for_of_its_own_events() -> None:
    values: list[Value] = [Target("x/{category}"), Field("user")]
    (one,) = prepare(records(b"4"), routes({"a": {"match": {"category": "write"}}}, {"a": values}))
    assert one.shares[0].values == [("x/write", "u2"), ("x/write", "u4")]


def test_an_outputs_own_labels_win_in_what_it_writes_and_in_its_templates() -> None:
    values: list[Value] = [Target("x/{labels.env}")]
    to = routes({"a": {}, "b": {"labels": {"env": "test"}}}, {"a": values, "b": values})
    (one,) = prepare(records(b"1"), to)
    assert [share.values for share in one.shares] == [[("x/prod",)], [("x/test",)]]
    assert [json.loads(share.events[0])["labels"]["env"] for share in one.shares] == ["prod", "test"]


def test_the_format_raw_writes_the_record_with_one_event_in_it() -> None:
    (one,) = prepare(records(b"1"), routes({"a": {"format": {"type": "raw"}}}))
    assert one.shares[0].events == [b'{"list":[' + b"y" * 10 + b"]}"]
