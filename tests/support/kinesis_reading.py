"""What tests of the Kinesis source share: a clock that they move, and reading to the tip."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from shipper.errors import Held
from shipper.source import EARLIEST, Partition, Position, Read, Start
from shipper.sources.kinesis import KinesisSource

MIB = 1024 * 1024
STREAM = "aws-rds-das-cluster-ABC"
START = 1_790_000_000.0
FIRST = "shardId-000000000000"


class Hands:
    """A clock that a test moves; waiting moves it too, and is written down."""

    def __init__(self) -> None:
        self.time = START
        self.waits: list[float] = []

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.waits.append(seconds)
        self.time += seconds
        return event.is_set()


Make = Callable[..., KinesisSource]


def reads(source: KinesisSource, begin: Position | Start = EARLIEST, shard: str = FIRST) -> list[Read]:
    """What comes until the tip or the end, as ``run --once`` reads it."""
    found = []
    for read in source.read(Partition(shard), begin, threading.Event()):
        found.append(read)
        if read.lag == 0 or read.end:
            break
    return found


def data(found: list[Read]) -> list[bytes]:
    return [record.data for read in found for record in read.records]


def held(source: KinesisSource, begin: Position | Start = EARLIEST) -> Held:
    with pytest.raises(Held) as caught:
        reads(source, begin)
    return caught.value
