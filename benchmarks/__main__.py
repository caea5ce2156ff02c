"""``python -m benchmarks``: measures every row, prints the table, and says what moved since the baseline."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.rows import ROWS, Measured, added, measure

BASELINE = Path(__file__).with_name("baseline.json")

#: A ratio that differs by less than this share has not moved, however quiet the machine was.
LEAST_MOVE = 0.10


def main(arguments: list[str] | None = None) -> None:
    """Measures and prints. Nothing fails on a time; a run that loses events does."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of a table")
    parser.add_argument("--rounds", type=int, default=3, help="how often each run is repeated (default: 3)")
    parser.add_argument("--only", metavar="TEXT", default="", help="only the rows whose name contains TEXT")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the sizes of the inputs")
    parser.add_argument("--save", action="store_true", help=f"keep the results as {BASELINE.name}")
    given = parser.parse_args(arguments)
    console = Console(stderr=True)
    found = []
    for row in ROWS:
        if given.only in row.name:
            with console.status(row.name):
                found.append(measure(row, given.rounds, given.scale))
    rows = _rows(found)
    second = added({name: row["us_per_event"] for name, row in rows.items()})
    result = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": _machine(),
        "rows": rows,
        "second_output_adds": {kind: round(share, 3) for kind, share in second.items()},
    }
    if given.json:
        json.dump(result, sys.stdout, indent=2, ensure_ascii=False)
        print()
    else:
        _print(found, result)
    if given.save:
        BASELINE.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")


def moved(row: dict[str, float], base: dict[str, float]) -> float | None:
    """By which share the ratio moved since the baseline; ``None`` where that is within the noise of the two runs."""
    change = row["ratio"] / base["ratio"] - 1
    return change if abs(change) > max(LEAST_MOVE, row["noise"], base["noise"]) else None


def _rows(found: list[Measured]) -> dict[str, dict[str, float]]:
    return {
        one.row.name: {
            "us_per_event": round(one.shipper.per_event, 2),
            "floor_us_per_event": round(one.floor.per_event, 2),
            "ratio": round(one.ratio, 3),
            "noise": round(one.noise, 3),
            "start_s": round(one.shipper.start, 2),
            "rss_mb": round(one.shipper.rss / 1e6),
        }
        for one in found
    }


def _print(found: list[Measured], result: dict[str, Any]) -> None:
    base = json.loads(BASELINE.read_text()) if BASELINE.exists() else {"rows": {}}
    table = Table(title=f"CPU per event, user and system, all threads: {result['machine']}")
    table.add_column("what")
    for heading in ("shipper µs", "floor µs", "ratio", "± %", "start s", "RSS MB", "baseline"):
        table.add_column(heading, justify="right")
    for one in found:
        row = result["rows"][one.row.name]
        before = base["rows"].get(one.row.name)
        change = moved(row, before) if before else None
        table.add_row(
            f"{one.row.name}  [dim]({one.row.floor})[/dim]",
            f"{row['us_per_event']:.2f}",
            f"{row['floor_us_per_event']:.2f}",
            f"{row['ratio']:.2f}",
            f"{row['noise'] * 100:.0f}",
            f"{row['start_s']:.2f}",
            f"{row['rss_mb']:.0f}",
            "" if before is None else f"{before['ratio']:.2f}" + (f" ({change:+.0%})" if change is not None else ""),
        )
    # Wide enough for a file or a pipe, where there is no width to ask for.
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    for kind, share in result["second_output_adds"].items():
        print(f"A second output of the same format ({kind}) adds {share:.0%}.")
    if base["rows"]:
        print(f"Baseline: {base['date']}, {base['machine']}. A percentage stands where a ratio moved beyond the noise.")


def _machine() -> str:
    try:
        models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        model = models[0].partition(":")[2].strip()
    except (OSError, IndexError):
        model = platform.processor() or platform.machine()
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}"


if __name__ == "__main__":
    main()
