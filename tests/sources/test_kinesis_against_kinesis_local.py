"""The Kinesis source against an implementation that is not ours: where both agree, neither invented it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import boto3
import pytest

from servers.kinesis_local import kinesis_local
from shipper.errors import Held
from shipper.settings import KinesisSettings
from shipper.source import EARLIEST, END, Partition, Position, Read, Start
from shipper.sources.kinesis import KinesisSource

REGION = "us-east-1"


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with kinesis_local(tmp_path_factory.mktemp("kinesis-local")) as url:
        yield url


@pytest.fixture
def client(endpoint: str) -> Iterator[Any]:
    made: Any = boto3.client("kinesis", endpoint_url=endpoint, region_name=REGION)
    yield made
    made.close()


@pytest.fixture
def stream(client: Any) -> str:
    name = f"aws-rds-das-cluster-{uuid4().hex.upper()}"
    client.create_stream(StreamName=name, ShardCount=1)
    wait_until_active(client, name)
    return name


@pytest.fixture
def source(endpoint: str, stream: str) -> Iterator[KinesisSource]:
    made = KinesisSource("orders", KinesisSettings(stream=stream, region=REGION, endpoint_url=endpoint))
    made.connect()
    yield made
    made.close()


def wait_until_active(client: Any, name: str) -> None:
    client.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 0.05, "MaxAttempts": 400})


def put(client: Any, stream: str, *data: bytes) -> list[str]:
    """Stores records in order; returns their sequence numbers."""
    return [client.put_record(StreamName=stream, Data=one, PartitionKey="k")["SequenceNumber"] for one in data]


def until(
    source: KinesisSource, wanted: Callable[[list[Read]], bool], begin: Position | Start = EARLIEST, shard: str = ""
) -> list[Read]:
    """Reads until ``wanted``; a reply may be empty although records are there."""
    partition = Partition(shard or source.partitions()[0].id)
    found: list[Read] = []
    for read in source.read(partition, begin, threading.Event()):
        found.append(read)
        if wanted(found) or len(found) > 50:
            break
    return found


def data(found: list[Read]) -> list[bytes]:
    return [record.data for read in found for record in read.records]


def holds(count: int) -> Callable[[list[Read]], bool]:
    return lambda found: len(data(found)) >= count


def ended(found: list[Read]) -> bool:
    return found[-1].end


def test_records_come_as_they_were_put(client: Any, stream: str, source: KinesisSource) -> None:
    numbers = put(client, stream, b"1", b"\x00\xff", b"3")
    before = datetime.now(UTC) - timedelta(minutes=1)
    records = [record for read in until(source, holds(3)) for record in read.records]
    assert [record.data for record in records] == [b"1", b"\x00\xff", b"3"]
    assert [source.reference(record.position) for record in records] == numbers
    assert all(before.timestamp() < record.arrived / 1e9 < before.timestamp() + 120 for record in records)


def test_reading_goes_on_after_a_finished_record_and_at_a_half_settled_one(
    client: Any, stream: str, source: KinesisSource
) -> None:
    put(client, stream, b"1", b"2", b"3")
    second = [record for read in until(source, holds(3)) for record in read.records][1].position
    assert data(until(source, holds(1), Position(second, END))) == [b"3"]
    assert data(until(source, holds(2), Position(second, 1))) == [b"2", b"3"]


def test_reading_begins_at_a_time(client: Any, stream: str, source: KinesisSource) -> None:
    put(client, stream, b"1")
    (first,) = [record for read in until(source, holds(1)) for record in read.records]
    later = datetime.fromtimestamp(first.arrived / 1e9, UTC) + timedelta(milliseconds=1)
    while datetime.now(UTC) <= later:  # at most a millisecond
        pass
    put(client, stream, b"2")
    assert data(until(source, holds(1), later)) == [b"2"]


def test_a_split_and_a_merge_are_followed_to_the_last_shard(client: Any, stream: str, source: KinesisSource) -> None:
    (first,) = source.partitions()
    put(client, stream, b"before")
    client.split_shard(StreamName=stream, ShardToSplit=first.id, NewStartingHashKey=str(2**127))
    wait_until_active(client, stream)
    assert data(until(source, ended, shard=first.id)) == [b"before"]
    low, high = source.partitions()[1:]
    assert low.parents == high.parents == (first.id,)
    put(client, stream, b"between")
    client.merge_shards(StreamName=stream, ShardToMerge=low.id, AdjacentShardToMerge=high.id)
    wait_until_active(client, stream)
    assert data(until(source, ended, shard=low.id)) + data(until(source, ended, shard=high.id)) == [b"between"]
    merged = source.partitions()[-1]
    assert set(merged.parents) == {low.id, high.id}
    put(client, stream, b"after")
    assert data(until(source, holds(1), shard=merged.id)) == [b"after"]


def test_a_stream_that_was_deleted_is_held(client: Any, stream: str, source: KinesisSource) -> None:
    client.delete_stream(StreamName=stream)
    client.get_waiter("stream_not_exists").wait(StreamName=stream, WaiterConfig={"Delay": 0.05, "MaxAttempts": 400})
    with pytest.raises(Held) as caught:
        source.partitions()
    assert caught.value.reason == "stream_not_found"


def test_check_finds_everything_permitted(source: KinesisSource) -> None:
    lines = list(source.check())
    assert len(lines) == 3
    assert all(line.ok for line in lines)
