"""What is counted, and that what is counted is documented."""

import re
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from shipper import __version__
from shipper.decode import Reason, Refused
from shipper.errors import HELD_REASONS
from shipper.observe import metrics as metrics_module
from shipper.observe.metrics import (
    BATCH_OUTCOMES,
    CACHE_RESULTS,
    DEAD_LETTER_REASONS,
    ENGINE_LABELS,
    KMS_RESULTS,
    Metrics,
    Queue,
)
from shipper.source import Read, Record

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"


class MovedClock:
    """A clock that tests move; 2026-03-01."""

    def __init__(self) -> None:
        self.seconds = 1_772_323_200.0

    def now(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds

    def wait(self, event: threading.Event, seconds: float) -> bool:
        raise AssertionError("metrics do not wait")


@dataclass
class Prepared:
    refused: list[tuple[Record, list[Refused]]] = field(default_factory=list)
    engines: Counter[str] = field(default_factory=Counter)
    unclassified: Counter[str] = field(default_factory=Counter)
    heartbeats: Counter[str] = field(default_factory=Counter)


@dataclass
class Hold:
    component: str
    reason: str


QUEUE = Queue(owed=lambda: (5, 3, 11), bytes=lambda: 700, spool=lambda: (900, 1000, 5.0))


def started(clock: MovedClock | None = None) -> Metrics:
    metrics = Metrics(clock or MovedClock())
    metrics.add_source("orders", 86_400.0)
    metrics.add_output(
        "siem", ["quiet", "match"], Queue(owed=lambda: (5, 3, 11), bytes=lambda: 700, spool=lambda: (900, 1000, 5.0))
    )
    return metrics


def values(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    """Label values → value of every series of that name, as a scraper reads them; the component's name first."""
    found = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            if sample.name == f"shipper_{name}":
                names = sorted(sample.labels, key=lambda label: label not in ("component", "source", "output"))
                found[tuple(sample.labels[label] for label in names)] = sample.value
    return found


def record(size: int) -> Record:
    return Record(position=1, data=b"x" * size, arrived=0)


# Reading


def test_reads_count_records_bytes_and_the_time_of_the_answer() -> None:
    clock = MovedClock()
    metrics = started(clock)
    metrics.read("orders", "shard-0", Read([record(10), record(5)], lag=3.0))
    metrics.read("orders", "shard-0", Read([], lag=0.0))
    assert values(metrics, "records_read_total") == {("orders",): 2}
    assert values(metrics, "record_bytes_read_total") == {("orders",): 15}
    assert values(metrics, "last_read_timestamp_seconds") == {("orders",): clock.seconds}


def test_lag_grows_while_reading_fails_and_ends_with_the_partition() -> None:
    clock = MovedClock()
    metrics = started(clock)
    metrics.begun("orders", "shard-0")
    metrics.read("orders", "shard-0", Read([], lag=2.0))
    clock.seconds += 60
    assert values(metrics, "lag_seconds") == {("orders",): 62}
    metrics.read("orders", "shard-0", Read([], lag=0.0, end=True))
    clock.seconds += 60
    assert values(metrics, "lag_seconds") == {("orders",): 0}


def test_a_partition_that_is_not_read_any_more_does_not_lag() -> None:
    clock = MovedClock()
    metrics = started(clock)
    metrics.begun("orders", "shard-0")
    metrics.finished("orders", "shard-0")
    clock.seconds += 60
    assert values(metrics, "lag_seconds") == {("orders",): 0}


def test_decoding_counts_events_errors_and_heartbeats() -> None:
    clock = MovedClock()
    metrics = started(clock)
    refused = [Refused(0, Reason.SHAPE, ""), Refused(3, Reason.SHAPE, ""), Refused(None, Reason.TAMPERED, "")]
    metrics.prepared(
        "orders",
        Prepared(
            [(record(1), refused)],
            Counter({"aurora-mysql": 7, "unknown": 1}),
            Counter({"aurora-mysql": 2}),
            Counter({"db-A": 3}),
        ),
    )
    assert values(metrics, "events_total")["orders", "aurora-mysql"] == 7
    assert values(metrics, "events_total")["orders", "unknown"] == 1
    assert values(metrics, "events_unclassified_total")["aurora-mysql",] == 2
    errors = {labels[1]: count for labels, count in values(metrics, "decode_errors_total").items() if count}
    assert errors == {"shape": 2, "tampered": 1}
    assert values(metrics, "heartbeats_total") == {("orders",): 3}
    assert values(metrics, "last_heartbeat_timestamp_seconds") == {("db-A",): clock.seconds}


def test_an_engine_that_nobody_knows_does_not_make_a_series() -> None:
    metrics = started()
    metrics.prepared("orders", Prepared(engines=Counter({"evil-1": 1, "evil-2": 1})))
    assert values(metrics, "events_total")["orders", "other"] == 2


def test_the_number_of_instances_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_module, "MAX_INSTANCES", 2)
    metrics = started()
    metrics.prepared("orders", Prepared(heartbeats=Counter({"a": 1, "b": 1, "c": 1})))
    metrics.prepared("orders", Prepared(heartbeats=Counter({"a": 1})))
    assert set(values(metrics, "last_heartbeat_timestamp_seconds")) == {("a",), ("b",)}
    assert values(metrics, "heartbeats_total") == {("orders",): 4}


def test_gaps_and_retention() -> None:
    metrics = started()
    metrics.gap("orders")
    assert values(metrics, "gaps_total") == {("orders",): 1}
    assert values(metrics, "retention_seconds") == {("orders",): 86_400}
    metrics.add_source("archive")
    assert values(metrics, "retention_seconds") == {("orders",): 86_400}


def test_kms_and_the_cache_are_added_up_over_sources() -> None:
    metrics = started()
    metrics.watch_kms(lambda: {"ok": 2, "held": 1})
    metrics.watch_kms(lambda: {"ok": 3})
    metrics.watch_data_keys(lambda: (10, 2))
    metrics.watch_data_keys(lambda: (1, 1))
    assert values(metrics, "kms_requests_total") == {("ok",): 5, ("refused",): 0, ("held",): 1, ("unavailable",): 0}
    assert values(metrics, "data_key_cache_requests_total") == {("hit",): 11, ("miss",): 3}


# Delivery


def test_the_books_are_counted_by_entry_and_reason() -> None:
    metrics = started()
    metrics.count("siem", {("offered", ""): 20, ("filtered", "quiet"): 4, ("filtered", "match"): 1})
    metrics.settled(
        "siem",
        [
            {("delivered", ""): 10, ("already_stored", ""): 2},
            {("dead_lettered", "rejected"): 2, ("dead_lettered", "tampered"): 1},
        ],
        0.0,
    )
    assert values(metrics, "events_offered_total") == {("siem",): 20}
    assert values(metrics, "events_filtered_total") == {("siem", "quiet"): 4, ("siem", "match"): 1}
    assert values(metrics, "events_delivered_total") == {("siem",): 10}
    assert values(metrics, "events_already_stored_total") == {("siem",): 2}
    letters = {labels[1]: count for labels, count in values(metrics, "events_dead_lettered_total").items() if count}
    assert letters == {"rejected": 2, "tampered": 1}


def test_an_unknown_entry_of_the_books_is_an_error() -> None:
    with pytest.raises(ValueError, match="vanished"):
        started().count("siem", {("vanished", ""): 1})


def test_a_reason_that_nobody_knows_does_not_make_a_series() -> None:
    metrics = started()
    metrics.count("siem", {("dead_lettered", "x" * 1000): 1})
    metrics.batch("siem", "y")
    assert values(metrics, "events_dead_lettered_total")["siem", "other"] == 1
    assert values(metrics, "batches_total")["siem", "other"] == 1


def test_pending_and_queue_are_asked_for_at_the_scrape() -> None:
    metrics = started()
    assert values(metrics, "events_pending") == {("siem", "queue"): 5, ("siem", "in_flight"): 3, ("siem", "spool"): 11}
    assert values(metrics, "queue_bytes") == {("siem",): 700}
    assert values(metrics, "spool_bytes") == {("siem",): 900}
    assert values(metrics, "spool_limit_bytes") == {("siem",): 1000}
    assert values(metrics, "spool_oldest_timestamp_seconds") == {("siem",): 5}


def test_a_settled_batch_is_dated_and_aged_by_its_oldest_event() -> None:
    clock = MovedClock()
    metrics = started(clock)
    metrics.settled("siem", [{("delivered", ""): 3}], clock.seconds - 42)
    assert values(metrics, "delivery_delay_seconds_sum") == {("siem",): 42}
    assert values(metrics, "delivery_delay_seconds_count") == {("siem",): 1}
    assert values(metrics, "last_delivery_timestamp_seconds") == {("siem",): clock.seconds}


def test_what_the_destination_did_not_take_is_no_delivery() -> None:
    metrics = started()
    metrics.settled("siem", [{("dead_lettered", "rejected"): 3}], 1.0)
    assert values(metrics, "last_delivery_timestamp_seconds") == {("siem",): 0}
    assert values(metrics, "delivery_delay_seconds_count") == {("siem",): 0}


def test_an_event_from_the_future_has_no_negative_delay() -> None:
    clock = MovedClock()
    metrics = started(clock)
    metrics.settled("siem", [{("already_stored", ""): 1}], clock.seconds + 1000)
    assert values(metrics, "delivery_delay_seconds_sum") == {("siem",): 0}


def test_sending() -> None:
    metrics = started()
    metrics.sent("siem", 1000, 0.25)
    metrics.batch("siem", "throttled")
    metrics.retried("siem", 9)
    metrics.possible_duplicates("siem", 4)
    metrics.dead_letters("siem", 6)
    assert values(metrics, "sent_bytes_total") == {("siem",): 1000}
    assert values(metrics, "send_duration_seconds_sum") == {("siem",): 0.25}
    assert values(metrics, "batches_total")["siem", "throttled"] == 1
    assert values(metrics, "events_retried_total") == {("siem",): 9}
    assert values(metrics, "possible_duplicates_total") == {("siem",): 4}
    assert values(metrics, "dead_letters") == {("siem",): 6}


# The process


def test_held_components_are_1_and_all_others_0() -> None:
    metrics = started()
    holds = [Hold("output siem", "credentials")]
    metrics.watch_held(lambda: holds)
    held = values(metrics, "held")
    assert {labels for labels, value in held.items() if value} == {("output siem", "credentials")}
    assert set(held) == {(name, reason) for name in ("source orders", "output siem") for reason in HELD_REASONS}
    holds.clear()
    assert not any(values(metrics, "held").values())


def test_a_held_reason_of_a_plugins_own_is_other() -> None:
    metrics = started()
    metrics.watch_held(lambda: [Hold("output siem", "my very own")])
    assert values(metrics, "held")["output siem", "other"] == 1


def test_free_space_is_absent_where_it_cannot_be_known(tmp_path: Path) -> None:
    metrics = started()
    assert values(metrics, "state_disk_free_bytes") == {}
    metrics.watch_disk(tmp_path / "gone")
    assert values(metrics, "state_disk_free_bytes") == {}
    metrics.watch_disk(tmp_path)
    assert values(metrics, "state_disk_free_bytes")[()] > 0


def test_the_version() -> None:
    assert values(started(), "build_info") == {(__version__,): 1}


def test_known_series_start_at_zero() -> None:
    metrics = started()
    assert values(metrics, "records_read_total") == {("orders",): 0}
    assert values(metrics, "events_delivered_total") == {("siem",): 0}
    assert values(metrics, "events_filtered_total") == {("siem", "quiet"): 0, ("siem", "match"): 0}
    assert values(metrics, "decode_errors_total") == {("orders", reason): 0 for reason in Reason}
    assert values(metrics, "events_dead_lettered_total") == {("siem", reason): 0 for reason in DEAD_LETTER_REASONS}
    assert values(metrics, "batches_total") == {("siem", outcome): 0 for outcome in BATCH_OUTCOMES}


def test_two_processes_in_one_do_not_share_anything() -> None:
    first, second = started(), started()
    first.gap("orders")
    assert values(second, "gaps_total") == {("orders",): 0}


def test_nothing_but_metrics_of_ours() -> None:
    names = re.findall(r"^([a-z_]+)[{ ]", started().render().decode(), flags=re.MULTILINE)
    assert names
    assert all(name.startswith("shipper_") and not name.endswith("_created") for name in names)


# The manual


def _documented() -> dict[str, tuple[str, ...]]:
    rows = re.findall(r"^\| `shipper_([a-z_]+)(?:\{([a-z_,]+)\})?`", DOCUMENT.read_text("utf-8"), flags=re.MULTILINE)
    return {name: tuple(labels.split(",")) if labels else () for name, labels in rows}


def _existing(metrics: Metrics, folder: Path) -> dict[str, tuple[str, ...]]:
    metrics.prepared("orders", Prepared(heartbeats=Counter({"db-A": 1})))
    metrics.watch_disk(folder)
    found = {}
    for family in metrics.registry.collect():
        name = family.name.removeprefix("shipper_") + ("_total" if family.type == "counter" else "")
        found[name] = tuple(label for label in family.samples[0].labels if label != "le")
    return found


def test_every_metric_is_documented_with_its_labels_and_every_documented_one_exists(tmp_path: Path) -> None:
    assert _documented() == _existing(started(), tmp_path)


@pytest.mark.parametrize(
    "known",
    [DEAD_LETTER_REASONS, BATCH_OUTCOMES, ENGINE_LABELS, KMS_RESULTS, CACHE_RESULTS, sorted(HELD_REASONS)],
    ids=["dead letters", "batches", "engines", "kms", "cache", "held"],
)
def test_every_value_of_a_closed_list_is_documented(known: tuple[str, ...]) -> None:
    text = DOCUMENT.read_text("utf-8")
    assert [value for value in known if f"`{value}`" not in text] == []
