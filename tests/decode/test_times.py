"""The engines' timestamps, and the event's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipper.decode.times import from_nanoseconds, timestamp, timestamps


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-03-05 11:22:33.123456+00", "2024-03-05T11:22:33.123456Z"),
        ("2024-03-05 11:22:33.123456", "2024-03-05T11:22:33.123456Z"),
        ("2024-03-05 11:22:33.1234567+00", "2024-03-05T11:22:33.1234567Z"),
        ("2024-03-05T11:22:33Z", "2024-03-05T11:22:33.000000Z"),
        ("2024-03-05t11:22:33z", "2024-03-05T11:22:33.000000Z"),
        ("2024-03-05 11:22:33", "2024-03-05T11:22:33.000000Z"),
        ("2024-03-05 11:22:33.5", "2024-03-05T11:22:33.500000Z"),
        ("2024-03-05 11:22:33.12345678901234", "2024-03-05T11:22:33.123456789Z"),
        ("2024-03-05 13:22:33.123456+02", "2024-03-05T11:22:33.123456Z"),
        ("2024-03-05 16:52:33.123456+0530", "2024-03-05T11:22:33.123456Z"),
        ("2024-03-04 23:22:33.123456-12:00", "2024-03-05T11:22:33.123456Z"),
        ("2024-02-29 23:30:00-01", "2024-03-01T00:30:00.000000Z"),
        ("1970-01-01 00:00:00.000000+00", "1970-01-01T00:00:00.000000Z"),
        ("2262-04-11 23:47:16.854775+00", "2262-04-11T23:47:16.854775Z"),
    ],
)
def test_a_time_becomes_utc_and_keeps_its_digits(text: str, expected: str) -> None:
    stamp = timestamp(text)
    assert stamp is not None
    assert stamp[0] == expected
    assert timestamp(text) == stamp  # now its second is known
    moment = datetime.fromisoformat(expected[:26] + "+00:00")
    assert stamp[1] // 1000 == (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert timestamp(expected) == stamp


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2024-03-05",
        "2024-13-05 11:22:33",
        "2023-02-29 11:22:33",
        "2024-03-05 24:00:00",
        "2024-03-05 11:22:60",
        "2024-03-05 11:22:33.",
        "2024-03-05 11:22:33.12x456+00",
        "2024-03-05 11:22:33.1_3456+00",
        "2024-03-05 11:22:33.\uff11\uff12\uff13\uff14\uff15\uff16+00",
        "2024-03-05 11:22:33.123456+00x",
        "2024-03-05 11:22:34.12345\uff167+00",
        "2024-03-05 11:22:35.12345\uff16",
        "2024-03-05 11:22:35.12345x",
        "2024-03-05 11:22:33.123456+000",
        "1969-12-31 23:59:59.999999+00",
        "1970-01-01 00:00:00+01",
        "2262-04-11 23:47:16.854776+00",
        "9999-12-31 23:59:59+00",
        "0001-01-01 00:00:00+01",
        "1709637753",
    ],
)
def test_what_is_no_time_or_out_of_range(text: str) -> None:
    for known in (  # seconds that are known from these are not taken for others
        "2024-03-05 11:22:33.123456+00",
        "2024-03-05 11:22:34.1234567+00",
        "2024-03-05 11:22:35.123456",
        "2262-04-11 23:47:16.000000+00",
    ):
        assert timestamp(known) is not None
    assert timestamp(text) is None


@pytest.mark.parametrize(
    ("nanoseconds", "expected"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1_709_637_753_900_000_000, "2024-03-05T11:22:33.900000Z"),
        (1_709_637_753_900_000_001, "2024-03-05T11:22:33.900000001Z"),
        (2**63 - 1, "2262-04-11T23:47:16.854775807Z"),
    ],
)
def test_nanoseconds_become_a_time(nanoseconds: int, expected: str) -> None:
    assert from_nanoseconds(nanoseconds) == expected


@given(st.integers(0, 2**63 - 1))
def test_a_time_that_was_written_is_read_as_the_same(nanoseconds: int) -> None:
    text = from_nanoseconds(nanoseconds)
    assert timestamp(text) == (text, nanoseconds)
    assert timestamp(text[:-1]) == (text, nanoseconds)
    assert timestamp(text[:-1].replace("T", " ") + "+00") == (text, nanoseconds)


@given(st.text(max_size=40))
def test_any_text_is_a_time_or_none(text: str) -> None:
    stamp = timestamp(text)
    assert stamp is None or stamp[0].endswith("Z")


@given(st.text(alphabet="0123456789 _٣+-:.Z", max_size=30))
def test_three_at_once_are_what_each_is_alone(tail: str) -> None:
    known = "2024-03-05 11:22:33.123456+00"
    assert timestamp(known) is not None
    assert timestamps(known, known, known) is not None
    for odd in (known[:20] + tail, known[:26] + tail, known[: 29 - len(tail)] + tail if tail else "", tail):
        for texts in ((odd, known, known), (known, odd, known), (known, known, odd)):
            together = timestamps(*texts)
            if together is not None:
                alone = [timestamp(text) for text in texts]
                assert [together[:2], together[2:4], together[4:]] == alone
