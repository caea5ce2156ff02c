"""Pipelines on the site whose sources keep records, and what is asked of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import closing
from typing import Any

from shipper.clock import SystemClock
from shipper.configuration import load
from shipper.engine.pipeline import Pipeline, Result
from shipper.errors import StateError
from shipper.state import kept_records
from shipper.state.file import read_state
from support.oracle import assert_balanced
from support.site import Site, in_background
from support.waiting import until

HOUR = 3600.0
#: One request at a time: what is received stands in the order of the line.
ORDERLY = 'concurrency = 1\nspool = { after = "100ms" }'


class Later(SystemClock):
    """A machine on which time has passed."""

    ahead = 0.0

    def now(self) -> float:
        return super().now() + self.ahead

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


def running(
    site: Site, clock: Later, output: str = ORDERLY, batch: str = 'max_wait = "10ms"'
) -> tuple[Pipeline, Callable[[], Result]]:
    site.configure(output="")
    path = site.folder / "shipper.toml"
    path.write_text(path.read_text().replace('batch = { max_wait = "10ms" }', f"batch = {{ {batch} }}\n{output}"))
    pipeline = Pipeline(load([path]), clock=clock, randomness=random.Random(1))
    return pipeline, in_background(pipeline)


def kept(site: Site) -> int:
    """How many records the sources keep."""
    try:
        with closing(read_state(site.state)) as connection:
            return sum(records for records, _, _ in kept_records.totals(connection).values())
    except StateError:
        return 0  # not there yet


def settled(site: Site, pipeline: Pipeline) -> None:
    """Waits until nothing is kept, and nothing is in any spool."""
    until(lambda: kept(site) == 0, lambda: f"{kept(site)} records are kept")
    until(lambda: not any(pipeline.spooled().values()), lambda: str(pipeline.spooled()))


def sealed(site: Site, events: int) -> list[bytes]:
    """Records for later: who has disabled the key cannot seal any."""
    return [site.sealer.seal(record) for record in site.generator.records(events)]


def in_order(site: Site) -> list[tuple[str, int]]:
    """Where what the receiver stores was read, in the order in which it comes."""
    seen: list[tuple[str, int]] = []

    def keep(_output: str, events: list[dict[str, Any]]) -> dict[str, Any]:
        seen.extend((event["source_partition"], int(event["source_position"])) for event in events)
        return {}

    site.receiver.script = keep
    return seen


def assert_in_read_order(seen: list[tuple[str, int]]) -> None:
    for partition in {partition for partition, _ in seen}:
        positions = [position for its, position in seen if its == partition]
        assert positions == sorted(positions), f"{partition} was not delivered in the order in which it was read"


def assert_all_arrived(site: Site, result: Result, events: int) -> None:
    assert len(site.receiver.ids["siem"]) == events
    assert set(site.receiver.ids["siem"].values()) == {1}
    assert_balanced("siem", result.books["siem"])
    assert kept(site) == 0
