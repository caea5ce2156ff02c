"""The source's own spool."""

from __future__ import annotations

from shipper.state import kept_records
from state.samples import RECORD, Scene


def test_records_come_back_as_they_were_read_and_in_order(scene: Scene) -> None:
    first = scene.kept_record(RECORD, b"\x00encrypted", ordinals=(1, 3), replayed=True)
    kept_records.keep(scene.connection, [first, scene.kept_record(RECORD - 1, lanes=(scene.b,))])
    found = kept_records.page(scene.connection, scene.stream.id, None, 0, 10)
    first.id = 1
    assert found == [first, scene.kept_record(RECORD - 1, lanes=(scene.b,), id=2)]


def test_a_page_goes_on_behind_an_id_and_ends_at_its_bounds(scene: Scene) -> None:
    kept_records.keep(scene.connection, [scene.kept_record(number, b"x" * 100) for number in range(5)])

    def page(after: int, limit: int, max_bytes: int = 10_000) -> list[int]:
        rows = kept_records.page(scene.connection, scene.stream.id, scene.partition, after, limit, max_bytes)
        return [record.record for record in rows]

    assert page(0, 2) == [0, 1]
    assert page(2, 10) == [2, 3, 4]
    assert page(0, 10, max_bytes=250) == [0, 1]
    assert page(0, 10, max_bytes=1) == [0]


def test_another_partition_and_another_stream_are_not_on_the_page(scene: Scene) -> None:
    kept_records.keep(scene.connection, [scene.kept_record(1)])
    assert kept_records.page(scene.connection, scene.stream.id, scene.partition + 1, 0, 10) == []
    assert kept_records.page(scene.connection, scene.stream.id + 1, None, 0, 10) == []


def test_decoded_records_are_gone_and_their_ids_are_not_used_again(scene: Scene) -> None:
    kept_records.keep(scene.connection, [scene.kept_record(1), scene.kept_record(2)])
    kept_records.delete(scene.connection, [1, 2])
    kept_records.keep(scene.connection, [scene.kept_record(3)])
    assert [record.id for record in kept_records.page(scene.connection, scene.stream.id, None, 0, 10)] == [3]


def test_totals_count_every_source_from_its_oldest_record(scene: Scene) -> None:
    kept_records.keep(
        scene.connection,
        [scene.kept_record(1, b"12"), scene.kept_record(0, b"345"), scene.kept_record(2, b"6", source="billing")],
    )
    assert kept_records.totals(scene.connection) == {"orders": (2, 5, 101.0), "billing": (1, 1, 102.0)}
