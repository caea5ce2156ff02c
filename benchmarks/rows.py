"""The rows of the table: what shipper is run on, and the floor beside it."""

from __future__ import annotations

import atexit
import functools
import gzip
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.inputs import write_keys, write_lines, write_records
from benchmarks.measure import Cost, Run, cost, run
from benchmarks.sinks import running
from shipper.state import positions, spool
from shipper.state.file import read_state

REPOSITORY = Path(__file__).parents[1]
#: What a run ends with that leaves everything in the spool.
BACKLOG = 75

ONE_FILE = {"archive": 'type = "file"\npath = "out/events.jsonl"'}
ONE_GZIP = {"archive": 'type = "file"\npath = "out/events.jsonl.gz"'}
DOWN = {"archive": 'type = "null"\ndown = true'}
OPENSEARCH = {
    "search": '''
type = "opensearch"
hosts = "http://127.0.0.1:PORT"
index = "audit"
template = "none"'''
}
SPLUNK_HEC = {
    "siem": '''
type = "splunk_hec"
url = "http://127.0.0.1:PORT"
token = "00000000-0000-0000-0000-000000000000"'''
}


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement. ``prepare(folder, size)`` writes ``input.jsonl``; ``events`` are those of one unit of ``size``;
    ``floor`` is a name of ``benchmarks.floors``; ``outputs`` are tables by name. ``from_spool``: what is measured is
    not reading the input but sending what an earlier run, with all outputs down, has put into the spool. ``sink``: a
    name of ``benchmarks.sinks``; its port takes the place of ``PORT`` in the tables, and the floor posts there too."""

    name: str
    floor: str
    prepare: Callable[[Path, int], None]
    sizes: tuple[int, int]
    events: int = 1
    outputs: Mapping[str, str] = field(default_factory=lambda: ONE_FILE)
    from_spool: bool = False
    sink: str | None = None


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
    (folder / "input.jsonl").hardlink_to(_written_lines(size))


@functools.cache
def _written_lines(size: int) -> Path:
    """Most rows read the same lines: they are made once."""
    folder = Path(tempfile.mkdtemp(prefix="shipper-benchmark-lines-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_lines(folder / "lines.jsonl", size)
    return folder / "lines.jsonl"


def _records(suite: int, events_per_record: int) -> Callable[[Path, int], None]:
    def prepare(folder: Path, size: int) -> None:
        write_records(
            folder / "input.jsonl",
            suite=suite,
            events_per_record=events_per_record,
            records=size,
        )

    return prepare


def _nothing(count: int) -> dict[str, str]:
    return {f"nothing{number}": 'type = "null"' for number in range(count)}


def _files(count: int) -> dict[str, str]:
    return {f"file{number}": f'type = "file"\npath = "out/{number}.jsonl"' for number in range(count)}


_LINES = (20_000, 140_000)

ROWS = (
    Row("JSON lines → file", "lines_to_file", _lines, _LINES),
    Row("JSON lines → file.gz", "lines_to_gzip", _lines, _LINES, outputs=ONE_GZIP),
    *(
        Row(f"suite {suite:#06x}, {events} per record → file", "records_by_sdk", _records(suite, events), sizes, events)
        for suite, events, sizes in (
            (0x0178, 1, (1_000, 9_000)),
            (0x0178, 10, (500, 4_500)),
            (0x0378, 1, (500, 2_500)),
            (0x0378, 10, (500, 2_500)),
        )
    ),
    Row("JSON lines → nothing", "lines_to_nothing", _lines, _LINES, outputs=_nothing(1)),
    Row("JSON lines → nothing, twice", "lines_to_nothing", _lines, _LINES, outputs=_nothing(2)),
    Row("JSON lines → nothing, five times", "lines_to_nothing", _lines, _LINES, outputs=_nothing(5)),
    Row("JSON lines → two files", "lines_to_file", _lines, _LINES, outputs=_files(2)),
    Row("JSON lines → five files", "lines_to_file", _lines, _LINES, outputs=_files(5)),
    Row("JSON lines → OpenSearch", "lines_to_opensearch", _lines, _LINES, outputs=OPENSEARCH, sink="opensearch"),
    Row("JSON lines → Splunk HEC", "lines_to_splunk_hec", _lines, _LINES, outputs=SPLUNK_HEC, sink="splunk_hec"),
    Row("JSON lines → spool, output down", "lines_to_spool", _lines, _LINES, outputs=DOWN),
    Row("spool → file", "spool_to_file", _lines, (20_000, 260_000), from_spool=True),
)

#: What a second output of the same format adds: the row with one output, and with two.
SECOND = (
    ("nothing", "JSON lines → nothing", "JSON lines → nothing, twice"),
    ("file", "JSON lines → file", "JSON lines → two files"),
)


def added(found: Mapping[str, float]) -> dict[str, float]:
    """By which share a second output raises the cost, by its kind. ``found``: microseconds per event by row's name."""
    return {kind: found[two] / found[one] - 1 for kind, one, two in SECOND if one in found and two in found}


def measure(row: Row, rounds: int, scale: float = 1.0) -> Measured:
    """Runs shipper and the floor in turn, ``rounds`` times, over inputs of two sizes. Raises ``RuntimeError`` where
    either fails or loses an event."""
    if row.sink is None:
        return _measure(row, rounds, scale, None)
    with running(row.sink) as port:
        tables = {name: table.replace("PORT", str(port)) for name, table in row.outputs.items()}
        return _measure(replace(row, outputs=tables), rounds, scale, port)


def _measure(row: Row, rounds: int, scale: float, port: int | None) -> Measured:
    small, large = (max(1, int(size * scale)) for size in row.sizes)
    events = (small * row.events, large * row.events)
    runs: dict[tuple[str, int], list[Run]] = {}
    with tempfile.TemporaryDirectory(prefix="shipper-benchmark-") as name:
        inputs = [Path(name, str(size)) for size in (small, large)]
        for folder, size, count in zip(inputs, (small, large), events, strict=True):
            folder.mkdir()
            write_keys(folder / "keys.json")
            row.prepare(folder, size)
            if row.from_spool:
                _ship(row.name, folder, count, DOWN)
                (folder / "state").rename(folder / "filled")
        for _ in range(rounds):
            for index, folder in enumerate(inputs):
                runs.setdefault(("shipper", index), []).append(_shipper(row, folder, events[index]))
                runs.setdefault(("floor", index), []).append(_floor(row, folder, events[index], port))
    return Measured(
        row,
        cost(runs["shipper", 0], runs["shipper", 1], events),
        cost(runs["floor", 0], runs["floor", 1], events),
    )


def _shipper(row: Row, folder: Path, events: int) -> Run:
    if row.from_spool:
        shutil.copytree(folder / "filled", folder / "state")
    used = _ship(row.name, folder, events, row.outputs)
    for written in ("out", "state"):
        shutil.rmtree(folder / written, ignore_errors=True)
    return used


def _ship(name: str, folder: Path, events: int, outputs: Mapping[str, str]) -> Run:
    """One run of shipper; what it has written stays. Every output has every event in the end, or its spool has."""
    tables = "\n".join(f"[outputs.{output}]\n{table}" for output, table in outputs.items())
    (folder / "shipper.toml").write_text(
        f"""
[sources.input]
type = "file"
path = "input.jsonl"
keys = {{ provider = "static", path = "keys.json" }}

{tables}

[server]
listen = ""
drain_timeout = "1s"
"""
    )
    code = BACKLOG if outputs is DOWN else 0
    used = run([sys.executable, "-m", "shipper", "run", "--once", "shipper.toml"], folder, folder / "log", code)
    state = read_state(folder / "state" / "shipper.db")
    found = {output: sum(book.get("delivered", {}).values()) for output, book in positions.books(state).items()}
    spooled = sum(totals.events for totals in spool.totals(state).values())
    state.close()
    for output, delivered in found.items():
        if (spooled if code else delivered) != events:
            raise RuntimeError(f"{name}: {output} has {delivered} of {events} events, and {spooled} are in the spool")
    lines = sum(1 for file in (folder / "out").glob("*") for _ in _open(file))
    files = sum('"file"' in table for table in outputs.values())
    if lines != events * files:
        raise RuntimeError(f"{name}: {lines} lines in {files} files, of {events} events")
    return used


def _floor(row: Row, folder: Path, events: int, port: int | None) -> Run:
    log = folder / "log"
    source = folder / "input.jsonl"
    if row.from_spool:  # it empties what it reads
        shutil.copytree(folder / "filled", folder / "state")
        source = folder / "state" / "shipper.db"
    paths = [str(source), str(folder / "floor.out" if port is None else port)]
    used = run([sys.executable, "-m", "benchmarks.floors", row.floor, *paths], REPOSITORY, log)
    found = int(log.read_text())
    for written in folder.glob("floor.out*"):
        written.unlink()
    shutil.rmtree(folder / "state", ignore_errors=True)
    if found != events:
        raise RuntimeError(f"{row.name}: the floor saw {found} of {events} events")
    return used


def _open(file: Path) -> Iterator[bytes]:
    with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as lines:
        yield from lines
