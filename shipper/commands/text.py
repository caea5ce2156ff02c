"""How commands write what others may have made: no markup, no control characters, times in UTC."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

#: Columns of a line that goes to a file or another program.
WIDE = 240


def harmless(text: str) -> str:
    """One line without control characters: what was refused may have been made by an attacker."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def utc(seconds: float) -> str:
    """A time (seconds since 1970 UTC) as RFC 3339."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def ago(seconds: float) -> str:
    """How long something is ago: ``12s``, ``5m``, ``3h``, ``2d``."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{max(seconds, 0.0):.0f}s"


def print_json(value: Any) -> None:
    """One JSON value on a line of standard output."""
    sys.stdout.write(json.dumps(value) + "\n")


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]], right: Sequence[str] = ()) -> None:
    """A table for people, as wide as it has to be; ``right``: headings of columns with numbers. For a few rows: all are
    looked at before the first is written."""
    lines = [[harmless(str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headings, *lines, strict=True)]
    for line in ([*headings], *lines):
        cells = (
            cell.rjust(width) if heading in right else cell.ljust(width)
            for cell, width, heading in zip(line, widths, headings, strict=True)
        )
        sys.stdout.write("  ".join(cells).rstrip() + "\n")
