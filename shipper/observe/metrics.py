"""Every metric of a process, on a registry of its own (docs/metrics.md).

The engine calls it per read, chunk or batch, never per event; what changes all the time (queues, lag, free disk) is
asked for when somebody looks.
"""

from __future__ import annotations

import os
import threading
from collections import Counter as Tally
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from shipper import __version__
from shipper.clock import Clock, SystemClock
from shipper.decode import Reason, Refused
from shipper.errors import HELD_REASONS
from shipper.event import ENGINES
from shipper.observe.lag import Lag
from shipper.observe.vitals import HeldComponent
from shipper.output import Outcome
from shipper.source import Read, Record

_DATA = attrgetter("data")

#: What Prometheus expects of the text format.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

#: Closed lists of label values; what is not in them counts as ``other``.
RECORD_REASONS = tuple(str(reason) for reason in Reason)
EVENT_REASONS = ("rejected", "too_large", "gave_up", "target_refused", "spool_full")
DEAD_LETTER_REASONS = tuple(dict.fromkeys((*EVENT_REASONS, *RECORD_REASONS)))
BATCH_OUTCOMES = ("delivered", *(str(outcome) for outcome in Outcome))
ENGINE_LABELS = (*ENGINES, "unknown")
KMS_RESULTS = ("ok", "refused", "held", "unavailable")
CACHE_RESULTS = ("hit", "miss")
OTHER = "other"

#: Database instances that are told apart; a stream names its cluster's own, which are at most a few dozen.
MAX_INSTANCES = 1000

_SEND_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_DELAY_BUCKETS = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 1800, 3600, 6 * 3600, 24 * 3600)


class PreparedChunk(Protocol):
    """What the engine says about a chunk after decoding; counters by instance or engine."""

    @property
    def refused(self) -> Iterable[tuple[Record, Collection[Refused]]]: ...
    @property
    def engines(self) -> Mapping[str, int]: ...
    @property
    def unclassified(self) -> Mapping[str, int]: ...
    @property
    def heartbeats(self) -> Mapping[str, int]: ...


@dataclass(frozen=True, slots=True)
class Queue:
    """How to ask a lane what it owes: events (queued, in flight, spooled), the bytes of the queued ones, and what its
    spool holds: bytes on disk, their limit, and when the oldest was written (seconds since 1970 UTC, 0: none)."""

    owed: Callable[[], tuple[int, int, int]]
    bytes: Callable[[], int]
    spool: Callable[[], tuple[int, int, float]]


class Metrics:
    """The metrics of one process. Thread-safe. Counters begin at 0 with the process; the books that survive it are in
    the state file."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.registry = CollectorRegistry()
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._lags: dict[str, Lag] = {}
        self._queues: dict[str, Queue] = {}
        self._components: list[str] = []
        self._held: Callable[[], Iterable[HeldComponent]] = tuple
        self._kms: list[Callable[[], Mapping[str, int]]] = []
        self._data_keys: list[Callable[[], tuple[int, int]]] = []
        self._disk: Path | None = None
        self._instances: set[str] = set()
        self._define_reading()
        self._define_delivery()
        self.registry.register(self)

    # -- what there is ---------------------------------------------------------------------------------------------

    def add_source(self, name: str, retention: float | None = None) -> None:
        """A configured source. ``retention`` in seconds; ``None``: for ever, or not known yet."""
        with self._lock:
            if name not in self._lags:
                self._lags[name] = Lag(self._clock)
                self._components.append(f"source {name}")
        for counter in (self._records, self._record_bytes, self._heartbeats, self._gaps, self._last_read):
            counter.labels(name)
        for reason in RECORD_REASONS:
            self._decode_errors.labels(name, reason)
        for engine in ENGINE_LABELS:
            self._events.labels(name, engine)
        if retention is not None:
            self._retention.labels(name).set(retention)

    def add_output(self, name: str, rules: Iterable[str], queue: Queue) -> None:
        """A configured output with the rules that can filter its events: names of transforms, and ``match``."""
        with self._lock:
            if name not in self._queues:
                self._components.append(f"output {name}")
            self._queues[name] = queue
        for metric in (
            self._offered, self._delivered, self._already_stored, self._retried, self._possible_duplicates,
            self._purged, self._expired, self._sent_bytes, self._send_duration, self._delay, self._last_delivery,
            self._dead_letters,
        ):  # fmt: skip
            metric.labels(name)
        for rule in rules:
            self._filtered.labels(name, rule)
        for reason in DEAD_LETTER_REASONS:
            self._dead_lettered.labels(name, reason)
        for outcome in BATCH_OUTCOMES:
            self._batches.labels(name, outcome)

    def reloaded(self, *, ok: bool) -> None:
        """Whether the configuration in force is the one that was last given."""
        self._reload.set(ok)

    def watch_held(self, held: Callable[[], Iterable[HeldComponent]]) -> None:
        """Where to ask which components are held."""
        self._held = held

    def watch_kms(self, requests: Callable[[], Mapping[str, int]]) -> None:
        """Where to ask for KMS requests so far, by result; several are added up."""
        self._kms.append(requests)

    def watch_data_keys(self, answers: Callable[[], tuple[int, int]]) -> None:
        """Where to ask for a cache's hits and misses so far; several are added up."""
        self._data_keys.append(answers)

    def watch_disk(self, folder: Path) -> None:
        """The folder of the state file."""
        self._disk = folder

    # -- reading ---------------------------------------------------------------------------------------------------

    def begun(self, source: str, partition: str) -> None:
        """A reader tries to read a partition from now on: its lag grows until it succeeds."""
        self._lag(source).begun(partition)

    def read(self, source: str, partition: str, read: Read) -> None:
        """One read that succeeded, whether it brought records or not."""
        lag = self._lag(source)
        lag.read(partition, read.lag)
        if read.end:
            lag.finished(partition)
        self._last_read.labels(source).set(self._clock.now())
        if read.records:
            self._records.labels(source).inc(len(read.records))
            self._record_bytes.labels(source).inc(sum(map(len, map(_DATA, read.records))))

    def finished(self, source: str, partition: str) -> None:
        """A partition is not read any more: it has ended, or is gone."""
        self._lag(source).finished(partition)

    def prepared(self, source: str, prepared: PreparedChunk) -> None:
        """What decoding made of a chunk's records."""
        for engine, count in prepared.engines.items():
            self._events.labels(source, _closed(engine, ENGINE_LABELS)).inc(count)
        for engine, count in prepared.unclassified.items():
            self._unclassified.labels(_closed(engine, ENGINE_LABELS)).inc(count)
        reasons = Tally(str(part.reason) for _, parts in prepared.refused for part in parts)
        for reason, count in reasons.items():
            self._decode_errors.labels(source, _closed(reason, RECORD_REASONS)).inc(count)
        for instance, count in prepared.heartbeats.items():
            self._heartbeats.labels(source).inc(count)
            if instance in self._instances or len(self._instances) < MAX_INSTANCES:
                self._instances.add(instance)
                self._last_heartbeat.labels(instance).set(self._clock.now())

    def gap(self, source: str) -> None:
        """A stretch of a partition expired or vanished unread."""
        self._gaps.labels(source).inc()

    # -- delivery --------------------------------------------------------------------------------------------------

    def count(self, output: str, tally: Mapping[tuple[str, str], int]) -> None:
        """Lines of the books, as (entry, reason): ``offered``, ``filtered`` by a rule, ``delivered``,
        ``already_stored``, ``dead_lettered`` for a reason, ``purged``, ``expired``. The reason is empty where an
        entry has none."""
        for (entry, reason), count in tally.items():
            match entry:
                case "offered":
                    self._offered.labels(output).inc(count)
                case "filtered":
                    self._filtered.labels(output, reason).inc(count)
                case "delivered":
                    self._delivered.labels(output).inc(count)
                case "already_stored":
                    self._already_stored.labels(output).inc(count)
                case "dead_lettered":
                    self._dead_lettered.labels(output, _closed(reason, DEAD_LETTER_REASONS)).inc(count)
                case "purged":
                    self._purged.labels(output).inc(count)
                case "expired":
                    self._expired.labels(output).inc(count)
                case _:
                    raise ValueError(f"the books have no entry {entry!r}")

    def settled(self, output: str, tallies: Iterable[Mapping[tuple[str, str], int]], time: float) -> None:
        """A batch is settled. ``time`` is its oldest event's (seconds since 1970 UTC, 0: unknown)."""
        stored = 0
        for tally in tallies:
            self.count(output, tally)
            stored += tally.get(("delivered", ""), 0) + tally.get(("already_stored", ""), 0)
        if not stored:
            return
        now = self._clock.now()
        self._last_delivery.labels(output).set(now)
        if time:
            self._delay.labels(output).observe(max(0.0, now - time))

    def batch(self, output: str, outcome: str) -> None:
        """One call of ``send``: ``delivered``, or the outcome of the first event that was not."""
        self._batches.labels(output, _closed(str(outcome), BATCH_OUTCOMES)).inc()

    def sent(self, output: str, size: int, seconds: float) -> None:
        """One call of ``send`` with ``size`` bytes of encoded events took ``seconds``, whatever came of it."""
        self._sent_bytes.labels(output).inc(size)
        self._send_duration.labels(output).observe(seconds)

    def retried(self, output: str, events: int) -> None:
        """Events that are sent again."""
        self._retried.labels(output).inc(events)

    def possible_duplicates(self, output: str, events: int) -> None:
        """Events that are sent again although they may be stored."""
        self._possible_duplicates.labels(output).inc(events)

    def dead_letters(self, output: str, kept: int) -> None:
        """How many dead letters an output has now (``*``: records that no output could get)."""
        self._dead_letters.labels(output).set(kept)

    # -- scraping --------------------------------------------------------------------------------------------------

    def render(self) -> bytes:
        """Everything in Prometheus' text format (``CONTENT_TYPE``)."""
        return generate_latest(_WithoutCreated(self.registry))

    def describe(self) -> Iterable[Metric]:
        """Asked by the registry when this object registers: the names that ``collect`` brings."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        """What is computed when somebody looks."""
        with self._lock:
            lags, queues = dict(self._lags), dict(self._queues)
        lag = GaugeMetricFamily(
            "shipper_lag_seconds", "Seconds that reading stands behind the source, at most.", labels=["source"]
        )
        for name, source in lags.items():
            lag.add_metric([name], source.seconds())
        yield lag
        pending = GaugeMetricFamily(
            "shipper_events_pending", "Events that are owed to an output.", labels=["output", "where"]
        )
        queue_bytes = GaugeMetricFamily("shipper_queue_bytes", "Encoded bytes in an output's queue.", labels=["output"])
        spool_bytes = GaugeMetricFamily("shipper_spool_bytes", "Bytes of its backlog on disk.", labels=["output"])
        spool_limit = GaugeMetricFamily("shipper_spool_limit_bytes", "The most that it may have.", labels=["output"])
        spool_oldest = GaugeMetricFamily(
            "shipper_spool_oldest_timestamp_seconds", "When its oldest part was written; 0: empty.", labels=["output"]
        )
        for name, queue in queues.items():
            queued, in_flight, spooled = queue.owed()
            pending.add_metric([name, "queue"], queued)
            pending.add_metric([name, "in_flight"], in_flight)
            pending.add_metric([name, "spool"], spooled)
            queue_bytes.add_metric([name], queue.bytes())
            size, limit, oldest = queue.spool()
            spool_bytes.add_metric([name], size)
            spool_limit.add_metric([name], limit)
            spool_oldest.add_metric([name], oldest)
        yield from (pending, queue_bytes, spool_bytes, spool_limit, spool_oldest)
        yield self._collect_held()
        yield from self._collect_keys()
        yield self._collect_disk()
        build = GaugeMetricFamily("shipper_build_info", "The version that runs; always 1.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build

    def _collect_held(self) -> Metric:
        held = GaugeMetricFamily(
            "shipper_held", "1 while a component waits for a person, for this reason.", labels=["component", "reason"]
        )
        with self._lock:
            values = {(component, reason): 0 for component in self._components for reason in sorted(HELD_REASONS)}
        for hold in self._held():
            values[hold.component, _closed(hold.reason, HELD_REASONS)] = 1
        for labels, value in values.items():
            held.add_metric(labels, value)
        return held

    def _collect_keys(self) -> Iterator[Metric]:
        requests = CounterMetricFamily("shipper_kms_requests", "Requests to KMS Decrypt.", labels=["result"])
        sums = Tally(dict.fromkeys(KMS_RESULTS, 0))
        for source in self._kms:
            for result, count in source().items():
                sums[_closed(result, KMS_RESULTS)] += count
        for result, count in sums.items():
            requests.add_metric([result], count)
        yield requests
        cache = CounterMetricFamily(
            "shipper_data_key_cache_requests", "Data keys asked for, from memory or not.", labels=["result"]
        )
        answers = [source() for source in self._data_keys]
        cache.add_metric(["hit"], sum(hits for hits, _ in answers))
        cache.add_metric(["miss"], sum(misses for _, misses in answers))
        yield cache

    def _collect_disk(self) -> Metric:
        free = GaugeMetricFamily("shipper_state_disk_free_bytes", "Bytes free on the disk of the state file.")
        if self._disk is not None:
            try:
                found = os.statvfs(self._disk)
            except OSError:
                return free  # absent says more than a number that is not true
            free.add_metric([], found.f_bavail * found.f_frsize)
        return free

    # -- definitions -----------------------------------------------------------------------------------------------

    def _define_reading(self) -> None:
        self._records = self._counter("records_read", "Records read.", "source")
        self._record_bytes = self._counter("record_bytes_read", "Bytes of records read.", "source")
        self._heartbeats = self._counter("heartbeats", "Heartbeat events of databases.", "source")
        self._decode_errors = self._counter(
            "decode_errors", "Records, or events of a record, that cannot be decoded.", "source", "reason"
        )
        self._events = self._counter("events", "Events decoded.", "source", "engine")
        self._unclassified = self._counter("events_unclassified", "Events of category other.", "engine")
        self._gaps = self._counter("gaps", "Stretches that expired or vanished unread.", "source")
        self._retention = self._gauge("retention_seconds", "How long the source keeps a record.", "source")
        self._last_read = self._gauge("last_read_timestamp_seconds", "When the source last answered a read.", "source")
        self._last_heartbeat = self._gauge(
            "last_heartbeat_timestamp_seconds", "When a heartbeat of an instance was last read.", "db_instance"
        )
        self._reload = self._gauge(
            "config_last_reload_successful", "1 while the last configuration that was given is in force."
        )
        for engine in ENGINE_LABELS:
            self._unclassified.labels(engine)

    def _define_delivery(self) -> None:
        self._offered = self._counter("events_offered", "Events read for an output.", "output")
        self._filtered = self._counter("events_filtered", "Events that a rule dropped.", "output", "by")
        self._delivered = self._counter("events_delivered", "Events that the destination took.", "output")
        self._already_stored = self._counter("events_already_stored", "Events that it had before.", "output")
        self._dead_lettered = self._counter(
            "events_dead_lettered", "Events put to the dead letters.", "output", "reason"
        )
        self._purged = self._counter("events_purged", "Dead letters that somebody deleted.", "output")
        self._expired = self._counter("events_expired", "Dead letters that were too old.", "output")
        self._retried = self._counter("events_retried", "Events sent again.", "output")
        self._possible_duplicates = self._counter(
            "possible_duplicates", "Events sent again that may have been stored.", "output"
        )
        self._batches = self._counter("batches", "Batches sent, by what came of them.", "output", "outcome")
        self._sent_bytes = self._counter("sent_bytes", "Encoded bytes sent, repetitions included.", "output")
        self._dead_letters = self._gauge("dead_letters", "Dead letters kept.", "output")
        self._last_delivery = self._gauge(
            "last_delivery_timestamp_seconds", "When the destination last took an event.", "output"
        )
        self._send_duration = Histogram(
            "shipper_send_duration_seconds", "How long sending a batch took.", ["output"],
            registry=self.registry, buckets=_SEND_BUCKETS,
        )  # fmt: skip
        self._delay = Histogram(
            "shipper_delivery_delay_seconds", "Age of a batch's oldest event when it was settled.", ["output"],
            registry=self.registry, buckets=_DELAY_BUCKETS,
        )  # fmt: skip

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"shipper_{name}", documentation, labels, registry=self.registry)

    def _gauge(self, name: str, documentation: str, *labels: str) -> Gauge:
        return Gauge(f"shipper_{name}", documentation, labels, registry=self.registry)

    def _lag(self, source: str) -> Lag:
        with self._lock:
            if source not in self._lags:
                self._lags[source] = Lag(self._clock)
            return self._lags[source]


class _WithoutCreated:
    """Leaves out the ``_created`` series that the client adds to every counter: twice the size, and nobody asks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric


def _closed(value: str, known: Collection[str]) -> str:
    return value if value in known else OTHER
