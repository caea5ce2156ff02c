"""Starts shipper with clocks that somebody moves on: ``python -P day_clock.py OFFSET_FILE run shipper.toml``.

Both of them, wall and monotonic: to shipper it is as if so much time had passed, as in an outage of a day. The file
holds the seconds (``support.clock_shift.jump`` writes it) and is read again every tenth of a second of real time.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from shipper import clock


def move(offset_file: Path) -> None:
    """From now on ``SystemClock`` is ahead by what the file says; call it before anything imports the class."""
    looked, offset = 0.0, 0.0

    def ahead() -> float:
        nonlocal looked, offset
        if time.monotonic() - looked >= 0.1:
            offset, looked = float(offset_file.read_text()), time.monotonic()
        return offset

    class MovedClock(clock.SystemClock):
        def now(self) -> float:
            return super().now() + ahead()

        def monotonic(self) -> float:
            return super().monotonic() + ahead()

    clock.SystemClock = MovedClock  # type: ignore[misc]  # that is the point of this script


if __name__ == "__main__":
    move(Path(sys.argv[1]))

    from shipper.cli import main

    main(sys.argv[2:])
