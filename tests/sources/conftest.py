"""A Kinesis source in front of the embedded Kinesis, on a clock that the test moves."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from shipper.settings import KinesisSettings
from shipper.sources.kinesis import KinesisSource
from shipper.testing.kinesis import FakeKinesis
from support.kinesis_reading import STREAM, Hands, Make


@pytest.fixture
def clock() -> Hands:
    return Hands()


@pytest.fixture
def server(clock: Hands) -> Iterator[FakeKinesis]:
    with FakeKinesis(clock=clock) as running:
        yield running


@pytest.fixture
def make(server: FakeKinesis, clock: Hands) -> Iterator[Make]:
    made: list[KinesisSource] = []

    def source(**keys: Any) -> KinesisSource:
        if not {"stream", "cluster", "instance", "resource_id"} & set(keys):
            keys["stream"] = STREAM
        keys = {"region": "us-east-1", "endpoint_url": server.endpoint_url} | keys
        made.append(KinesisSource("orders", KinesisSettings(**keys), clock=clock, jitter=random.Random(1)))
        return made[-1]

    yield source
    for one in made:
        one.close()


@pytest.fixture
def source(server: FakeKinesis, make: Make) -> KinesisSource:
    server.create_stream(STREAM)
    made = make()
    made.connect()
    return made
