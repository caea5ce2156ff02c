"""Event ids: golden values, and what changes one."""

from __future__ import annotations

import pytest

from shipper.decode.ids import VERSION, Ids, valid

OWN = b'{"command":"SELECT","logTime":"2024-03-05 11:22:33.123456+00"}'
TIME = 1_709_637_753_123_456_000


def ids(key: bytes = b"", instance: str = "db-A", several: bool = True) -> Ids:
    made = Ids(key)
    made.record(instance, several)
    return made


# These values are the promise of ids.VERSION: they never change without it.
@pytest.mark.parametrize(
    ("key", "instance", "expected"),
    [
        (
            b"",
            "db-A",
            [
                "018e0e59d923c60dc44d1ff33f7f8a67",
                "018e0e59d923ef0a87f0069259281952",
                "018e0e59d923d127c3005d513f2a1d69",
            ],
        ),
        (
            b"",
            "",
            [
                "018e0e59d923f948e3b9e3d157b14114",
                "018e0e59d92352366c38f23003d0923c",
                "018e0e59d923ed55806c87ba592264fb",
            ],
        ),
        (
            b"secret",
            "db-A",
            [
                "018e0e59d923053d36f6f4d3ca0fbfe7",
                "018e0e59d923c24d3f6ef8cc9b3bded5",
                "018e0e59d92376b4f4e70dd72ee2968b",
            ],
        ),
        (
            b"k" * 65,
            "db-\u00e9",
            [
                "018e0e59d923b6568ebda36f8a3b6385",
                "018e0e59d923eb1b32ab82e07f98327a",
                "018e0e59d923a61774390b1ad660ab99",
            ],
        ),
    ],
)
def test_golden_ids_of_three_equal_events(key: bytes, instance: str, expected: list[str]) -> None:
    assert VERSION == 1
    made = ids(key, instance)
    assert [made.event(TIME, OWN) for _ in range(3)] == expected


def test_an_id_begins_with_the_time_in_milliseconds() -> None:
    made = ids().event(TIME, OWN)
    assert valid(made)
    assert int(made[:12], 16) == TIME // 1_000_000


def test_ids_sort_by_time() -> None:
    made = ids(several=False)
    assert made.event(0, OWN) < made.event(TIME, OWN) < made.event(2**63 - 1, OWN)


def test_instance_key_and_content_each_change_an_id() -> None:
    different = {
        ids().event(TIME, OWN),
        ids(b"key").event(TIME, OWN),
        ids(b"k" * 64).event(TIME, OWN),
        ids(b"k" * 65).event(TIME, OWN),
        ids(instance="db-B").event(TIME, OWN),
        ids().event(TIME, OWN + b" "),
    }
    assert len(different) == 6


def test_equal_events_are_told_apart_by_their_number_among_equals_not_by_their_place() -> None:
    made = ids()
    first, other, second = made.event(TIME, OWN), made.event(TIME, b"{}"), made.event(TIME, OWN)
    assert len({first, other, second}) == 3
    again = ids()
    assert [again.event(TIME, OWN), again.event(TIME, OWN)] == [first, second]


def test_the_count_of_equals_begins_anew_with_each_record() -> None:
    made = ids()
    first = made.event(TIME, OWN)
    made.record("db-A", True)
    assert made.event(TIME, OWN) == first


def test_an_event_alone_has_the_id_of_a_first_one() -> None:
    assert ids(several=False).event(TIME, OWN) == ids().event(TIME, OWN)


def test_many_instances_change_nothing() -> None:
    made = ids()
    expected = made.event(TIME, OWN)
    for number in range(1000):
        made.record(f"db-{number}", True)
    made.record("db-A", True)
    assert made.event(TIME, OWN) == expected


@pytest.mark.parametrize(
    "text", ["", "0" * 31, "0" * 33, "0" * 31 + "g", "0" * 31 + "A", "0" * 31 + "\n", "\uff10" * 32]
)
def test_what_is_no_id(text: str) -> None:
    assert not valid(text)
