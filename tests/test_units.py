"""Sizes and durations are read and written as people do."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from shipper.units import DurationOrNever, Size, format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8MB", 8_000_000),
        ("8MiB", 8_388_608),
        ("1.5kB", 1500),
        ("1 KB", 1000),
        ("2GiB", 2 << 30),
        ("1TB", 10**12),
        ("512", 512),
        ("512B", 512),
        (512, 512),
        (0, 0),
        ("9007199254740993", 9_007_199_254_740_993),
    ],
)
def test_a_size_is_bytes(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["8XB", "8mb", "MB", "", "-1", -1, True, 1.5, None, "1e3", "8MB extra", "٣MB", "9" * 40, "9" * 9000 + "TB"]
)
def test_what_is_no_size_is_refused_with_an_example(text: object) -> None:
    with pytest.raises(ValueError, match='is not a size; write a size such as "8MB"'):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("30s", 30.0),
        ("5m", 300.0),
        ("1h", 3600.0),
        ("7d", 604_800.0),
        ("1h30m", 5400.0),
        ("1.5 h", 5400.0),
    ],
)
def test_a_duration_is_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["30", 30, "", "5 minutes", "s", "-1s", "1s2", "1m x", None, "1e9s", "200000000d"])
def test_what_is_no_duration_is_refused_with_an_example(text: object) -> None:
    with pytest.raises(ValueError, match='is not a duration; write a duration such as "500ms"'):
        parse_duration(text)


def test_never_is_no_duration_at_all() -> None:
    assert TypeAdapter(DurationOrNever).validate_python("never") is None
    assert TypeAdapter(DurationOrNever).validate_python("5m") == 300.0


def test_a_refused_setting_does_not_quote_its_value() -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Size).validate_python("hunter2")
    assert "hunter2" not in caught.value.errors()[0]["msg"]


@pytest.mark.parametrize(
    ("size", "text"), [(8_000_000, "8MB"), (1 << 20, "1MiB"), (512, "512B"), (0, "0B"), (5_000_000_000, "5GB")]
)
def test_a_size_is_written_as_it_is_read(size: int, text: str) -> None:
    assert format_size(size) == text
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.5, "500ms"), (1.0, "1s"), (60.0, "1m"), (300.0, "5m"), (90.0, "90s"), (86400.0, "1d"), (0.0, "0s")],
)
def test_a_duration_is_written_as_it_is_read(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
    assert parse_duration(text) == seconds
