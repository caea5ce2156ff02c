"""Where everything stands: what the state file holds, and what only the running process knows.

The shape is documented in docs/commands.md (`shipper status`). It holds names, counts, times and reasons: no secrets,
no event contents, no destination's words.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from shipper import __version__
from shipper.observe.books import summary
from shipper.observe.vitals import HeldComponent
from shipper.settings import Configuration
from shipper.state import dead_letters, gaps, kept_records, lanes, positions, spool
from shipper.state.dead_letters import EVERY_OUTPUT, Filter
from shipper.state.spool import Totals

_NONE = Totals(0, 0, 0, 0.0)

Status = dict[str, Any]


class Samples(Protocol):
    """What is asked of ``prometheus_client.CollectorRegistry``."""

    def collect(self) -> Iterable[Any]: ...


def books(connection: sqlite3.Connection) -> Status:
    """The books of every output that the state file has ever had, all of one moment (``observe.books.summary``)."""
    connection.execute("BEGIN")
    try:
        return _books(connection)
    finally:
        connection.execute("COMMIT")


def of_state(connection: sqlite3.Connection, configuration: Configuration) -> Status:
    """What the state file says, all of one moment; ``None`` stands for what only a running shipper knows."""
    connection.execute("BEGIN")
    try:
        written = _books(connection)
        ids: dict[str, int] = dict(connection.execute("SELECT name, id FROM lanes").fetchall())
        totals = spool.totals(connection)
        letters = dead_letters.counts(connection, Filter())
        kept = kept_records.totals(connection)
        open_gaps = gaps.open_gaps(connection)
    finally:
        connection.execute("COMMIT")
    outputs: Status = {}
    for name in dict.fromkeys([*configuration.outputs, *written]):
        held = totals.get(ids.get(name, 0), _NONE)
        settings = configuration.outputs.get(name)
        outputs[name] = {
            "configured": settings is not None,
            "held": None,
            "pending": {"queue": None, "in_flight": None, "spool": held.events},
            "spool": {
                "bytes": held.bytes,
                "max_bytes": settings.spool.max_bytes if settings else None,
                "oldest": _time(held.oldest),
            },
            "dead_letters": {reason: count for output, reason, count in letters if output == name},
            "last_delivery": None,
            "books": written.get(name) or summary({}, 0, 0),
        }
    sources: Status = {}
    for name in dict.fromkeys([*configuration.sources, *kept]):
        records, size, since = kept.get(name, (0, 0, 0.0))
        sources[name] = {
            "configured": name in configuration.sources,
            "held": None,
            "lag_seconds": None,
            "last_read": None,
            "kept": {"records": records, "bytes": size, "oldest": _time(since)},
        }
    return {
        "version": __version__,
        "from": "state file",
        "phase": None,
        "state": {"path": str(configuration.state.path.resolve()), **_disk(configuration.state.path)},
        "held": [],
        "outputs": outputs,
        "sources": sources,
        "records_dead_lettered": {reason: count for output, reason, count in letters if output == EVERY_OUTPUT},
        "gaps": [
            {
                "source": gap.source,
                "partition": gap.partition,
                "since": _time(gap.since),
                "until": _time(gap.until),
                "reason": gap.reason,
                "noticed": _time(gap.noticed),
            }
            for gap in open_gaps
        ],
    }


def running(stored: Status, phase: str, held: Iterable[HeldComponent], samples: Samples) -> Status:
    """``stored`` (``of_state``) with what the running process knows: its phase, what is held, and its metrics."""
    found = _figures(samples)
    status = {**stored, "from": "shipper", "phase": phase}
    status["held"] = [{"component": hold.component, "reason": hold.reason} for hold in held]
    reasons = {hold["component"]: hold["reason"] for hold in status["held"]}
    for name, output in status["outputs"].items():
        output["held"] = reasons.get(f"output {name}")
        for where in ("queue", "in_flight", "spool"):
            events = found.get(("shipper_events_pending", name, where))
            if events is not None:
                output["pending"][where] = int(events)
        output["last_delivery"] = _time(found.get(("shipper_last_delivery_timestamp_seconds", name), 0.0))
    for name, source in status["sources"].items():
        source["held"] = reasons.get(f"source {name}")
        lag = found.get(("shipper_lag_seconds", name))
        source["lag_seconds"] = None if lag is None else round(lag, 3)
        source["last_read"] = _time(found.get(("shipper_last_read_timestamp_seconds", name), 0.0))
    return status


_WANTED = {
    "shipper_events_pending",
    "shipper_lag_seconds",
    "shipper_last_delivery_timestamp_seconds",
    "shipper_last_read_timestamp_seconds",
}


def _figures(samples: Samples) -> Mapping[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for metric in samples.collect()
        if metric.name in _WANTED
        for sample in metric.samples
    }


def _books(connection: sqlite3.Connection) -> Status:
    ids: dict[str, int] = dict(connection.execute("SELECT name, id FROM lanes").fetchall())
    totals, kept = spool.totals(connection), lanes.letters_owed(connection)
    return {
        name: summary(book, totals.get(ids[name], _NONE).events, kept[name])
        for name, book in positions.books(connection).items()
    }


def _disk(path: Path) -> Status:
    try:
        found = os.statvfs(path.parent)
    except OSError:
        return {"disk_free_bytes": None}
    return {"disk_free_bytes": found.f_bavail * found.f_frsize}


def _time(seconds: float) -> str | None:
    """RFC 3339 from seconds since 1970 UTC; 0 stands for never."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if seconds else None
