"""CPU of a whole process, and from that the CPU per event without what starting costs."""

from __future__ import annotations

import os
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

#: The null output is found here, as any installed plugin is.
PLUGINS = Path(__file__).with_name("plugins")


@dataclass(frozen=True, slots=True)
class Cost:
    """``per_event`` and ``start`` are CPU (user and system) of all threads and children: microseconds per event, and
    seconds for an empty run. ``spread`` is the range of ``per_event`` over the rounds, as a share of it. ``rss`` is
    the largest resident size in bytes."""

    per_event: float
    spread: float
    start: float
    rss: int


@dataclass(frozen=True, slots=True)
class Run:
    """One process: CPU seconds and the largest resident size in bytes."""

    cpu: float
    rss: int


def run(command: Sequence[str], folder: Path, log: Path, code: int = 0) -> Run:
    """Runs to the end in ``folder``, printing to ``log``. Raises ``RuntimeError`` with that where it does not end with
    ``code``."""
    path = os.pathsep.join(filter(None, (str(PLUGINS), os.environ.get("PYTHONPATH"))))
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
        _pid, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != code:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {log.read_text()[-2000:]}")
    return Run(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def cost(small: Sequence[Run], large: Sequence[Run], events: tuple[int, int]) -> Cost:
    """The slope between runs of two sizes, ``events`` each: round by round, then the median."""
    few, many = events
    slopes = [(b.cpu - a.cpu) / (many - few) * 1e6 for a, b in zip(small, large, strict=True)]
    median = statistics.median(slopes)
    start = statistics.median(run.cpu for run in small) - median * few / 1e6
    return Cost(median, (max(slopes) - min(slopes)) / abs(median), start, max(run.rss for run in large))
