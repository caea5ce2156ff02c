"""One output is dead for a day while events go by as fast as they can be read: nobody else waits, and nothing is lost.

A million events in ``make test``, ten million in ``make test-long``, and there also a run in which nothing is dead;
``-s`` shows the latencies of both. ``SHIPPER_DEAD_OUTPUT_EVENTS`` sets another number, for both runs.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from shipper.decode import Origin
from shipper.decode.decoder import RecordDecoder
from shipper.errors import StateError
from shipper.generate.activity import Generator, PlainRecord
from shipper.generate.sealer import DataKey, Sealer, encryption_context
from shipper.source import Record
from shipper.state import positions, spool
from shipper.state.file import read_state
from shipper.testing.kinesis import FakeKinesis
from shipper.testing.kms import FakeKms
from support.clock_shift import jump
from support.command import environment
from support.oracle import assert_balanced, assert_in_order, ids_in_order
from support.receiver import Receiver
from support.waiting import until

DAY_CLOCK = Path(__file__).parents[1] / "support" / "day_clock.py"
CLUSTER = "cluster-DEADDEADDEADDEADDEADDEAD22"
STREAM = f"aws-rds-das-{CLUSTER}"
HOUR, DAY = 3600.0, 86400.0
#: Bytes of resident memory: never more, and how much the last quarter of the time may need beyond the one before it.
MAX_RSS = 300_000_000
MAX_GROWTH = 15_000_000
#: Bytes that the state file may have when nothing is owed any more.
MAX_IDLE_STATE = 4_000_000
#: Seconds of real time between two looks, and for a million events to arrive.
LOOK, ARRIVAL = 0.05, 1200.0
MILLION = 1_000_000
HEALTHY = ("first", "second")

_CONFIGURATION = """
[aws]
region = "us-east-1"
endpoint_url = {{ kinesis = "{kinesis}", kms = "{kms}" }}
[sources.bulk]
type = "file"
path = "{captured}/*.jsonl"
decode = "events"
[sources.quiet]
type = "kinesis"
resource_id = "{cluster}"
poll_interval = "50ms"
[outputs.first]
type = "file"
path = "first/{{source_name}}.jsonl"
batch = {{ max_wait = "50ms" }}
[outputs.second]
type = "file"
path = "second/{{source_name}}.jsonl"
batch = {{ max_wait = "50ms" }}
{dead}
[server]
listen = ""
"""
_DEAD = """
[outputs.dead]
type = "rig_ordered"
url = "{url}"
retry = {{ initial = "100ms", max = "1s" }}
spool = {{ max_bytes = "20GB" }}
"""


@dataclass
class Captured:
    """What is in the files: ids in reading order, file by file."""

    folder: Path
    order: dict[str, list[str]]
    #: Whether a run in which nothing is dead comes first.
    compared: bool

    @property
    def count(self) -> int:
        return sum(map(len, self.order.values()))

    @property
    def arrival(self) -> float:
        """Seconds within which all of it has to arrive."""
        return ARRIVAL * max(1.0, self.count / MILLION)


@dataclass
class Seen:
    """What a run showed until the healthy outputs had everything: seconds on the way of each event of the quiet stream,
    and samples of the resident memory in bytes."""

    latencies: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        at = statistics.quantiles(self.latencies, n=100)
        figures = f"p50 {at[49]:.2f} s, p90 {at[89]:.2f} s, p99 {at[98]:.2f} s, max {max(self.latencies):.2f} s"
        return f"{figures} ({len(self.latencies)} events in {self.seconds:.0f} s, {max(self.memory) / 1e6:.0f} MB)"


class _NoKeys:
    def data_key(self, blob: bytes, resource_id: str | None) -> bytes:
        raise AssertionError("nothing here is encrypted")


class Stage:
    """A shipper with two healthy outputs, and a dead one or none; busy files and a quiet stream."""

    def __init__(self, folder: Path, captured: Captured, *, dead: bool) -> None:
        self.folder = folder
        self.captured = captured
        self.dead = dead
        self.state = folder / "state" / "shipper.db"
        self.quiet: dict[str, float] = {}
        self.seen = Seen()
        self._tails = dict.fromkeys(HEALTHY, 0)
        self._generator = Generator("aurora-postgresql", seed=5, start=datetime.now(UTC), resource_id=CLUSTER).records(
            10**9
        )
        self._decoder = RecordDecoder(Origin("oracle", "oracle", CLUSTER), _NoKeys())
        self._closing = ExitStack()

    def __enter__(self) -> Stage:
        with ExitStack() as stack:
            self.kinesis = stack.enter_context(FakeKinesis())
            self.kms = stack.enter_context(FakeKms())
            self._key = self.kms.create_key("activity")
            self._sealer = Sealer(self)
            self.kinesis.create_stream(STREAM)
            self.receiver = stack.enter_context(Receiver())
            self.receiver.stop()
            jump(self.folder / "clock", 0.0)
            (self.folder / "shipper.toml").write_text(
                _CONFIGURATION.format(
                    kinesis=self.kinesis.endpoint_url,
                    kms=self.kms.endpoint_url,
                    captured=self.captured.folder,
                    cluster=CLUSTER,
                    source_name="{source_name}",
                    dead=_DEAD.format(url=self.receiver.url) if self.dead else "",
                )
            )
            log = stack.enter_context((self.folder / "shipper.log").open("wb"))
            command = [sys.executable, "-P", str(DAY_CLOCK), str(self.folder / "clock"), "run", "shipper.toml"]
            self.process = subprocess.Popen(command, cwd=self.folder, env=environment(), stdout=log, stderr=log)
            stack.callback(self._put_down)
            self._closing = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def new(self, resource_id: str) -> DataKey:
        """A data key, for the sealer."""
        plain, blob = self.kms.generate_data_key(self._key, encryption_context(resource_id))
        return DataKey(blob, plain)

    def watch(self) -> None:
        """Until the healthy outputs have everything; a day passes meanwhile, an hour at a time."""
        began = time.monotonic()
        hours = 0
        while not self._healthy_have_everything(extra=1):
            assert self.process.poll() is None, self.log()
            assert time.monotonic() - began < self.captured.arrival, self.log()
            self._put()
            # As the memory's growth is looked for, samples are only taken while the busy source is read.
            self.seen.memory.append(self._resident())
            hours = min(hours + 1, 24)
            jump(self.folder / "clock", hours * HOUR)
            deadline = time.monotonic() + LOOK
            while time.monotonic() < deadline:
                self._tail()
                time.sleep(0.005)
        self.seen.seconds = time.monotonic() - began
        jump(self.folder / "clock", DAY)
        until(self._healthy_have_everything, self.log)
        self._tail()
        assert len(self.seen.latencies) == len(HEALTHY) * len(self.quiet)

    def books(self) -> dict[str, dict[str, dict[str, int]]]:
        try:
            connection = read_state(self.state)
        except StateError:
            return {}  # it is being made
        try:
            return positions.books(connection)
        finally:
            connection.close()

    def spooled(self) -> int:
        connection = read_state(self.state)
        try:
            return sum(totals.events for totals in spool.totals(connection).values())
        finally:
            connection.close()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(60)

    def log(self) -> str:
        return (self.folder / "shipper.log").read_text()[-3000:]

    def _healthy_have_everything(self, extra: int = 0) -> bool:
        """``extra``: how much of the quiet stream's may be on its way still, in records."""
        books = self.books()
        wanted = self.captured.count + len(self.quiet) - 10 * extra
        return all(books.get(name, {}).get("delivered", {}).get("", 0) >= wanted for name in HEALTHY)

    def _put(self) -> None:
        record: PlainRecord = next(self._generator)
        while record.heartbeat:
            record = next(self._generator)
        decoded = self._decoder.decode(Record(0, record.plaintext, 0), "")
        self.kinesis.put(STREAM, self._sealer.seal(record))
        self.quiet |= dict.fromkeys((event.id for event in decoded.events), time.monotonic())

    def _tail(self) -> None:
        """What of the quiet stream has come to the healthy outputs since the last look."""
        for name in HEALTHY:
            for path in (self.folder / name).glob("quiet*.jsonl"):
                with path.open("rb") as file:
                    file.seek(self._tails[name])
                    new = file.read()
                new = new[: new.rfind(b"\n") + 1]
                self._tails[name] += len(new)
                now = time.monotonic()
                self.seen.latencies += [now - self.quiet[msgspec.json.decode(line)["id"]] for line in new.splitlines()]

    def _resident(self) -> int:
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    def _put_down(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@pytest.fixture
def captured(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Captured]:
    """Decrypted records of ten events each, in two files."""
    count = int(os.environ.get("SHIPPER_DEAD_OUTPUT_EVENTS") or request.param)
    folder = tmp_path / "captured"
    folder.mkdir()
    decoder = RecordDecoder(Origin("oracle", "oracle"), _NoKeys())
    order: dict[str, list[str]] = {}
    for number in range(2):
        generator = Generator("aurora-postgresql", seed=11 + number, start=datetime(2026, 3, 5, tzinfo=UTC), rate=5000)
        ids = order.setdefault(f"{number}.jsonl", [])
        with (folder / f"{number}.jsonl").open("wb") as file:
            for record in generator.records(count // 2):
                file.write(record.plaintext + b"\n")
                ids += [event.id for event in decoder.decode(Record(0, record.plaintext, 0), "").events]
    yield Captured(folder, order, compared=count != MILLION)
    for path in folder.iterdir():
        path.unlink()  # gigabytes, where somebody asks for them


@pytest.mark.parametrize("captured", [MILLION, pytest.param(10 * MILLION, marks=pytest.mark.long)], indirect=True)
def test_nobody_waits_for_an_output_that_is_dead_for_a_day_and_it_gets_everything_when_it_is_back(
    captured: Captured, tmp_path: Path
) -> None:
    alone, beside = tmp_path / "alone", tmp_path / "beside"
    alone.mkdir()
    beside.mkdir()
    if captured.compared:
        with Stage(alone, captured, dead=False) as stage:
            stage.watch()
            print(f"\nlatency of the quiet stream, nothing dead:      {stage.seen}")
            assert stage.stop() == 0, stage.log()
        shutil.rmtree(alone)  # gigabytes
    with Stage(beside, captured, dead=True) as stage:
        stage.watch()
        print(f"latency of the quiet stream beside a dead output: {stage.seen}")
        _assert_flat(stage.seen.memory)
        assert not stage.receiver.ids
        wanted = captured.count + len(stage.quiet)
        until(lambda: stage.spooled() >= wanted - 10_000, stage.log)
        full = stage.state.stat().st_size
        stage.receiver.start()
        began = time.monotonic()
        until(lambda: len(stage.receiver.stored("dead")) >= wanted, stage.log, captured.arrival)
        print(f"back: {wanted:,} events in {time.monotonic() - began:.0f} s; {full / 1e6:.0f} MB of state before")
        until(lambda: stage.spooled() == 0, stage.log)
        until(
            lambda: stage.state.stat().st_size < MAX_IDLE_STATE,
            lambda: f"{stage.state.stat().st_size} bytes",
            captured.arrival,
        )
        assert stage.stop() == 0, stage.log()
        _check(stage)


def _assert_flat(memory: list[int]) -> None:
    """Resident memory is bounded and, over the last half of the time, does not grow."""
    quarter = len(memory) // 4
    before, last = statistics.mean(memory[-2 * quarter : -quarter]), statistics.mean(memory[-quarter:])
    figures = f"{max(memory) / 1e6:.0f} MB at most; third quarter {before / 1e6:.0f}, last {last / 1e6:.0f}"
    print(f"resident beside a dead output: {figures}")
    assert max(memory) < MAX_RSS, figures
    assert last - before < MAX_GROWTH, figures


def _check(stage: Stage) -> None:
    order = {**stage.captured.order, "quiet": list(stage.quiet)}
    generated = {event for events in order.values() for event in events}
    found = {name: [event for path in sorted((stage.folder / name).iterdir()) for event in ids_in_order(path)]
             for name in HEALTHY}  # fmt: skip
    found["dead"] = stage.receiver.stored("dead")
    books = stage.books()
    for name, events in found.items():
        assert len(events) == len(generated), name
        assert set(events) == generated, name
        assert_in_order(name, events, order)
        assert_balanced(name, books[name])
        assert books[name]["delivered"] == {"": len(generated)}
