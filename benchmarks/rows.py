"""The rows of the table: what shipper is run on, and the floor beside it."""

from __future__ import annotations

import gzip
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.inputs import write_keys, write_lines, write_records
from benchmarks.measure import Cost, Run, cost, run

REPOSITORY = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement. ``prepare(folder, size)`` writes ``input.jsonl``; ``events`` are those of one unit
    of ``size``; ``floor`` is a name of ``benchmarks.floors``."""

    name: str
    floor: str
    prepare: Callable[[Path, int], None]
    sizes: tuple[int, int]
    events: int = 1
    output: str = "events.jsonl"


@dataclass(frozen=True, slots=True)
class Measured:
    """A row's costs; ``ratio`` is shipper's CPU per event over the floor's, and ``noise`` how far it scatters."""

    row: Row
    shipper: Cost
    floor: Cost

    @property
    def ratio(self) -> float:
        return self.shipper.per_event / self.floor.per_event

    @property
    def noise(self) -> float:
        return self.shipper.spread + self.floor.spread


def _lines(folder: Path, size: int) -> None:
    write_lines(folder / "input.jsonl", size)


def _records(suite: int, events_per_record: int) -> Callable[[Path, int], None]:
    def prepare(folder: Path, size: int) -> None:
        write_records(
            folder / "input.jsonl",
            suite=suite,
            events_per_record=events_per_record,
            records=size,
        )

    return prepare


ROWS = (
    Row("JSON lines → file", "lines_to_file", _lines, (20_000, 140_000)),
    Row("JSON lines → file.gz", "lines_to_gzip", _lines, (20_000, 140_000), output="events.jsonl.gz"),
    *(
        Row(f"suite {suite:#06x}, {events} per record → file", "records_by_sdk", _records(suite, events), sizes, events)
        for suite, events, sizes in (
            (0x0178, 1, (1_000, 9_000)),
            (0x0178, 10, (500, 4_500)),
            (0x0378, 1, (500, 2_500)),
            (0x0378, 10, (500, 2_500)),
        )
    ),
)


def measure(row: Row, rounds: int, scale: float = 1.0) -> Measured:
    """Runs shipper and the floor in turn, ``rounds`` times, over inputs of two sizes. Raises ``RuntimeError`` where
    either fails or loses an event."""
    small, large = (max(1, int(size * scale)) for size in row.sizes)
    events = (small * row.events, large * row.events)
    runs: dict[tuple[str, int], list[Run]] = {}
    with tempfile.TemporaryDirectory(prefix="shipper-benchmark-") as name:
        inputs = [Path(name, str(size)) for size in (small, large)]
        for folder, size in zip(inputs, (small, large), strict=True):
            folder.mkdir()
            write_keys(folder / "keys.json")
            row.prepare(folder, size)
        for _ in range(rounds):
            for index, folder in enumerate(inputs):
                runs.setdefault(("shipper", index), []).append(_shipper(row, folder, events[index]))
                runs.setdefault(("floor", index), []).append(_floor(row, folder, events[index]))
    return Measured(
        row,
        cost(runs["shipper", 0], runs["shipper", 1], events),
        cost(runs["floor", 0], runs["floor", 1], events),
    )


def _shipper(row: Row, folder: Path, events: int) -> Run:
    (folder / "shipper.toml").write_text(
        f"""
[sources.input]
type = "file"
path = "input.jsonl"
keys = {{ provider = "static", path = "keys.json" }}

[outputs.archive]
type = "file"
path = "out/{row.output}"

[server]
listen = ""
"""
    )
    used = run([sys.executable, "-m", "shipper", "run", "--once", "shipper.toml"], folder, folder / "log")
    found = sum(1 for file in (folder / "out").iterdir() for _ in _open(file))
    for written in ("out", "state"):
        shutil.rmtree(folder / written)
    if found != events:
        raise RuntimeError(f"{row.name}: shipper delivered {found} of {events} events")
    return used


def _floor(row: Row, folder: Path, events: int) -> Run:
    log = folder / "log"
    paths = [str(folder / "input.jsonl"), str(folder / "floor.out")]
    used = run([sys.executable, "-m", "benchmarks.floors", row.floor, *paths], REPOSITORY, log)
    found = int(log.read_text())
    if found != events:
        raise RuntimeError(f"{row.name}: the floor saw {found} of {events} events")
    return used


def _open(file: Path) -> Iterator[bytes]:
    with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as lines:
        yield from lines
