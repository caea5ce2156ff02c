"""Sizes and durations as people write them: ``"8MB"`` is 8 000 000 bytes, ``"30s"`` is 30 seconds."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

_SIZES = {"": 1, "B": 1, "KB": 1000}
_SIZES |= {prefix + "B": 1000**power for power, prefix in enumerate(("k", "M", "G", "T"), 1)}
_SIZES |= {prefix + "iB": 1024**power for power, prefix in enumerate(("K", "M", "G", "T"), 1)}
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")


def parse_size(value: object) -> int:
    """Bytes from ``"8MB"``, ``"8MiB"``, ``"512"`` or a whole number. Raises ``ValueError``."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    found = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None or found[2] not in _SIZES:
        raise ValueError(f'{value!r} is not a size; write for example "8MB" (10⁶ bytes) or "8MiB" (2²⁰ bytes)')
    return int(float(found[1]) * _SIZES[found[2]])


def parse_duration(value: object) -> float:
    """Seconds from ``"500ms"``, ``"30s"``, ``"5m"``, ``"1h"``, ``"7d"`` or ``"1h30m"``. Raises ``ValueError``."""
    text = value.strip().replace(" ", "") if isinstance(value, str) else ""
    parts = list(_DURATION.finditer(text))
    if not parts or "".join(part[0] for part in parts) != text:
        raise ValueError(f'{value!r} is not a duration; write for example "500ms", "30s", "5m", "1h" or "7d"')
    return sum(float(part[1]) * _SECONDS[part[2]] for part in parts)


def _duration_or_never(value: object) -> float | None:
    return None if value in ("never", None) else parse_duration(value)


Size = Annotated[int, BeforeValidator(parse_size), WithJsonSchema({"type": ["string", "integer"]})]
Duration = Annotated[float, BeforeValidator(parse_duration), WithJsonSchema({"type": "string"})]
#: A duration, or ``None`` for ``"never"``.
DurationOrNever = Annotated[float | None, BeforeValidator(_duration_or_never), WithJsonSchema({"type": "string"})]
