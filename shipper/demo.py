"""The whole job on one machine, without an account: an embedded Kinesis and KMS, generated activity, files at the end.

It runs the same engine as ``shipper run`` on a configuration that it writes to a folder, so that what it shows is what
a user gets.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from shipper.aws import client
from shipper.configuration import load
from shipper.engine.pipeline import Pipeline, Result
from shipper.errors import ShipperError
from shipper.event import Event
from shipper.generate.activity import Generator, PlainRecord
from shipper.generate.damage import DAMAGES, damage
from shipper.generate.sealer import KmsDataKeys, Sealer
from shipper.settings import AwsSettings
from shipper.testing.kinesis import FakeKinesis
from shipper.testing.kms import FakeKms

#: What is planted among the records of each engine, besides whole ones.
PLANTED = ("tampered", "cut_base64", "broken_gzip", "not_json_inside")
PLANTED_SIGNED = ("bad_signature", "unknown_key")

EVERYTHING = "everything"

#: Seconds after which a demo that does not end is given up.
PATIENCE = 300.0

_ENGINES = {"orders": "aurora-postgresql", "billing": "aurora-mysql"}
_EVENTS_PER_RECORD = 10
_SHARDS = 2

_CONFIGURATION = """\
# Written by `shipper demo`. The addresses were those of its embedded Kinesis and KMS.
[aws]
region = "us-east-1"
endpoint_url = {{ kinesis = "{kinesis}", kms = "{kms}" }}

[sources.orders]                      # Aurora PostgreSQL
type = "kinesis"
resource_id = "{orders}"
poll_interval = "200ms"

[sources.billing]                     # Aurora MySQL
type = "kinesis"
resource_id = "{billing}"
poll_interval = "200ms"

[transforms.quiet]                    # what the service itself does all day
type = "drop"
match = {{ user = ["rdsadmin", "rdsproxyadmin"] }}

[outputs.everything]
type = "file"
path = "events/{{engine}}.jsonl"

[outputs.alerts]                      # who got in, who changed what
type = "file"
path = "alerts/{{category}}.jsonl.gz"
transforms = []
match = {{ category = ["authentication", "privilege", "ddl", "audit"] }}

[state]
path = "state/shipper.db"

[server]
listen = ""
"""


@dataclass(slots=True)
class Progress:
    """How far a demo is: ``offered`` events of ``events`` were read and settled by the output that gets everything."""

    events: int
    generated: int = 0
    settled: int = 0


@dataclass(slots=True)
class Summary:
    """What a demo did. ``complete``: every generated event is delivered once, dropped by rule or a dead letter."""

    folder: Path
    generated: int
    heartbeats: int
    records: int
    seconds: float
    result: Result
    planted: Counter[str]
    dead_letters: Counter[str]
    ids: int
    duplicates: int
    samples: list[Event] = field(default_factory=list)

    @property
    def dropped(self) -> int:
        """Events that a rule of the configuration dropped, at the output that gets everything."""
        return sum(self.result.books[EVERYTHING].get("filtered", {}).values())

    @property
    def complete(self) -> bool:
        """Whether nothing is missing, nothing is doubled, and exactly the planted records are dead letters."""
        nothing_lost = self.ids == self.generated - self.dropped
        return nothing_lost and self.duplicates == 0 and self.planted == self.dead_letters and not self.result.owed


def run_demo(folder: Path, events: int, seed: int, progress: Callable[[Progress], None]) -> Summary:
    """Generates ``events`` events, ships them into files below ``folder`` and compares. ``progress`` is called several
    times a second. Raises ``ShipperError`` where the folder holds a former run, or nothing can be started."""
    if (folder / "state").exists():
        raise ShipperError(f"demo: {folder} holds a former demo; remove it, or name another folder with --keep")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    # The embedded servers ask for no real credentials, and must not be shown any.
    os.environ |= {"AWS_ACCESS_KEY_ID": "demo", "AWS_SECRET_ACCESS_KEY": "demo"}
    os.environ.pop("AWS_PROFILE", None)
    os.environ.pop("AWS_SESSION_TOKEN", None)
    with ExitStack() as stack:
        kinesis = stack.enter_context(FakeKinesis(region="us-east-1"))
        kms = stack.enter_context(FakeKms(region="us-east-1"))
        feeder = _Feeder(kinesis, kms, events, seed)
        path = folder / "shipper.toml"
        path.write_text(
            _CONFIGURATION.format(kinesis=kinesis.endpoint_url, kms=kms.endpoint_url, **feeder.resource_ids),
            encoding="utf-8",
        )
        started = time.monotonic()
        result = _ship(Pipeline(load([path])), feeder, progress)
        seconds = time.monotonic() - started
    ids, samples = _read_back(folder)
    reasons = {name: Counter(book.get("dead_lettered", {})) for name, book in result.books.items()}
    return Summary(
        folder,
        feeder.generated,
        feeder.heartbeats,
        feeder.records,
        seconds,
        result,
        feeder.planted,
        reasons[EVERYTHING],
        len(ids),
        ids.total() - len(ids),
        samples,
    )


def _ship(pipeline: Pipeline, feeder: _Feeder, progress: Callable[[Progress], None]) -> Result:
    """Runs the pipeline until everything that the feeder put on the streams is settled."""
    results: list[Result] = []
    failures: list[BaseException] = []

    def attempt(body: Callable[[], None]) -> None:
        try:
            body()
        except BaseException as error:  # noqa: BLE001 - raised again below, by the thread that waits
            failures.append(error)

    def ship() -> None:
        results.append(pipeline.run())

    threads = [threading.Thread(target=attempt, args=(body,), daemon=True) for body in (ship, feeder.run)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + PATIENCE
    never = threading.Event()
    while not failures and time.monotonic() < deadline:
        books = pipeline.books()  # of nobody while the pipeline starts
        progress(Progress(feeder.events, feeder.generated, books.get(EVERYTHING, Counter())["offered", ""]))
        all_generated = feeder.done  # before it is asked how much that was
        wanted = feeder.generated + feeder.planted.total()
        done = all_generated and books and all(book["offered", ""] >= wanted for book in books.values())
        if done or not threads[0].is_alive():
            break
        never.wait(0.1)
    pipeline.stop()
    feeder.stop()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return results[0]


class _Feeder:
    """Puts the activity of two clusters on two streams, some broken records among it."""

    def __init__(self, kinesis: FakeKinesis, kms: FakeKms, events: int, seed: int) -> None:
        self.events = events
        self.generated = 0
        self.heartbeats = 0
        self.records = 0
        self.planted: Counter[str] = Counter()
        self.done = False
        self._kinesis = kinesis
        self._rng = random.Random(seed)  # noqa: S311 - makes activity, not secrets
        self._stopped = threading.Event()
        start = datetime.now(UTC)
        self._generators = {
            name: Generator(engine, seed=seed, start=start, events_per_record=_EVENTS_PER_RECORD)
            for name, engine in _ENGINES.items()
        }
        self.resource_ids = {name: generator.resource_id for name, generator in self._generators.items()}
        settings = AwsSettings(region="us-east-1", endpoint_url=kms.endpoint_url)
        self._sealers = {
            name: Sealer(KmsDataKeys(client("kms", settings), kms.create_key(f"shipper demo {name}")))
            for name in self._generators
        }
        for resource_id in self.resource_ids.values():
            kinesis.create_stream(f"aws-rds-das-{resource_id}", _SHARDS)

    def stop(self) -> None:
        """Ends early."""
        self._stopped.set()

    def run(self) -> None:
        """Puts everything on the streams."""
        share, rest = divmod(self.events, len(self._generators))
        for number, (name, generator) in enumerate(self._generators.items()):
            kinds = iter(PLANTED if number == 0 else PLANTED_SIGNED)
            wanted = share + (number < rest)
            for record in generator.records(wanted):
                if self._stopped.is_set():
                    return
                self._put(name, record)
                # Spread over the first half of the stream; a tiny demo gets them all the same.
                if not record.heartbeat and self._rng.random() < len(PLANTED) * _EVENTS_PER_RECORD * 2 / max(1, wanted):
                    self._plant(name, record, kinds)
            for kind in kinds:
                self._plant(name, record, iter((kind,)))
        self.done = True

    def _put(self, name: str, record: PlainRecord) -> None:
        self._kinesis.put(f"aws-rds-das-{self.resource_ids[name]}", self._sealers[name].seal(record))
        self.generated += record.events
        self.heartbeats += record.heartbeat
        self.records += not record.heartbeat

    def _plant(self, name: str, record: PlainRecord, kinds: Iterator[str]) -> None:
        kind = next(kinds, None)
        if kind is not None:
            broken = damage(self._sealers[name], record, kind, self._rng)
            self._kinesis.put(f"aws-rds-das-{self.resource_ids[name]}", broken)
            self.planted[str(DAMAGES[kind])] += 1


def _read_back(folder: Path) -> tuple[Counter[str], list[Event]]:
    """The ids in the files, and three events worth looking at."""
    ids: Counter[str] = Counter()
    wanted: dict[str, Callable[[Event], bool]] = {
        "a failed login": lambda event: event.action == "login" and event.outcome == "failure",
        "a privilege": lambda event: event.category == "privilege" and event.user != "rdsadmin",
        "a write with its rows": lambda event: event.category == "write" and (event.rows or 0) > 0,
    }
    found: dict[str, Event] = {}
    for path in sorted((folder / "events").glob("*.jsonl")):
        with path.open("rb") as lines:
            for line in lines:
                event = msgspec.json.decode(line, type=Event)
                ids[event.id] += 1
                for name, fits in wanted.items():
                    if name not in found and fits(event):
                        found[name] = event
    return ids, list(found.values())
