"""Starts shipper with a wall clock that is wrong: ``python -P clock_shift.py OFFSET_FILE run shipper.toml``.

The file holds the seconds by which the clock is off. It is read again each time somebody asks, so that a clock jumps
while shipper runs; whoever writes it replaces it. ``-P`` keeps this folder off the module path.
"""

from __future__ import annotations

import sys
from pathlib import Path

from shipper import clock


def shift(offset_file: Path) -> None:
    """From now on ``SystemClock.now`` is off by what the file says; call it before anything imports the class."""

    class ShiftedClock(clock.SystemClock):
        def now(self) -> float:
            return super().now() + float(offset_file.read_text())

    clock.SystemClock = ShiftedClock  # type: ignore[misc]  # that is the point of this script


def jump(offset_file: Path, seconds: float) -> None:
    """Lets the clocks of the processes that were started with this file be off by so many seconds."""
    new = offset_file.with_suffix(".new")
    new.write_text(repr(float(seconds)))
    new.replace(offset_file)


if __name__ == "__main__":
    shift(Path(sys.argv[1]))

    from shipper.cli import main

    main(sys.argv[2:])
