"""Sizes and durations as people write them: ``"8MB"`` is 8 000 000 bytes, ``"30s"`` is 30 seconds."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

_SIZES = {"": 1, "B": 1, "KB": 1000}
_SIZES |= {prefix + "B": 1000**power for power, prefix in enumerate(("k", "M", "G", "T"), 1)}
_SIZES |= {prefix + "iB": 1024**power for power, prefix in enumerate(("K", "M", "G", "T"), 1)}
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)")
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d)")

_SIZE_WANTED = 'write a size such as "8MB" (10⁶ bytes) or "8MiB" (2²⁰ bytes)'
_DURATION_WANTED = 'write a duration such as "500ms", "30s", "5m", "1h" or "7d"'

#: Larger than any size or duration that means something, and small enough for every clock and column (a century).
_MOST_SECONDS = 100 * 366 * 86400.0
_MOST_BYTES = 2**62


def parse_size(value: object) -> int:
    """Bytes from ``"8MB"``, ``"8MiB"``, ``"512"`` or a whole number. Raises ``ValueError``."""
    size = -1
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    elif isinstance(value, str) and (found := _SIZE.fullmatch(value.strip())) and found[2] in _SIZES:
        # Whole numbers stay integers: a float has 53 bits.
        number = float(found[1]) if "." in found[1] else int(found[1][:30])
        size = int(number * _SIZES[found[2]])
    if not 0 <= size <= _MOST_BYTES:
        raise ValueError(f"{value!r} is not a size; {_SIZE_WANTED}")
    return size


def parse_duration(value: object) -> float:
    """Seconds from ``"500ms"``, ``"30s"``, ``"5m"``, ``"1h"``, ``"7d"`` or ``"1h30m"``. Raises ``ValueError``."""
    text = value.strip().replace(" ", "") if isinstance(value, str) else ""
    parts = list(_DURATION.finditer(text))
    seconds = sum(float(part[1]) * _SECONDS[part[2]] for part in parts)
    if not parts or "".join(part[0] for part in parts) != text or seconds > _MOST_SECONDS:
        raise ValueError(f"{value!r} is not a duration; {_DURATION_WANTED}")
    return seconds


def format_size(size: int) -> str:
    """The shortest way to write a size: ``"8MB"``, ``"512B"``."""
    units = sorted(((factor, unit) for unit, factor in _SIZES.items() if len(unit) > 1), reverse=True)
    factor, unit = next(((factor, unit) for factor, unit in units if size and size % factor == 0), (1, "B"))
    return f"{size // factor}{unit}"


def format_duration(seconds: float) -> str:
    """The shortest way to write a duration: ``"500ms"``, ``"5m"``."""
    if seconds != int(seconds):
        return f"{seconds * 1000:g}ms"
    units = sorted(((factor, unit) for unit, factor in _SECONDS.items() if factor >= 1), reverse=True)
    factor, unit = next(((factor, unit) for factor, unit in units if seconds and seconds % factor == 0), (1.0, "s"))
    return f"{int(seconds // factor)}{unit}"


# What is wrong with a setting is told without its value: it may come from a variable that holds a secret.
def _size(value: object) -> int:
    try:
        return parse_size(value)
    except ValueError:
        raise PydanticCustomError("size", _SIZE_WANTED) from None


def _duration(value: object) -> float:
    try:
        return parse_duration(value)
    except ValueError:
        raise PydanticCustomError("duration", _DURATION_WANTED) from None


def _duration_or_never(value: object) -> float | None:
    if value in ("never", None):
        return None
    try:
        return parse_duration(value)
    except ValueError:
        raise PydanticCustomError("duration", _DURATION_WANTED + ', or "never"') from None


Size = Annotated[int, BeforeValidator(_size), WithJsonSchema({"type": ["string", "integer"]})]
Duration = Annotated[float, BeforeValidator(_duration), WithJsonSchema({"type": "string"})]
#: A duration, or ``None`` for ``"never"``.
DurationOrNever = Annotated[float | None, BeforeValidator(_duration_or_never), WithJsonSchema({"type": "string"})]
