"""The Kinesis source against the embedded Kinesis and RDS: finding the stream, its shards, and checking."""

from __future__ import annotations

from typing import Any

import pytest

from shipper.errors import ConfigurationError, Held
from shipper.settings import KinesisSettings
from shipper.source import Partition
from shipper.sources.kinesis import KinesisSource
from shipper.testing.kinesis import FakeKinesis
from shipper.testing.rds import FakeRds
from support.kinesis_reading import FIRST, STREAM, Make, data, reads

# Finding the stream


def test_a_stream_that_rds_made_says_whose_it_is(source: KinesisSource) -> None:
    assert source.resource_id == "cluster-ABC"
    assert source.facts() == {"account": "123456789012", "region": "us-east-1"}
    assert source.retention() == 24 * 3600


def test_the_name_of_another_stream_says_nothing(server: FakeKinesis, make: Make) -> None:
    server.create_stream("copy")
    copy = make(stream="copy")
    copy.connect()
    assert copy.resource_id is None


def test_a_resource_id_names_the_stream(server: FakeKinesis, make: Make) -> None:
    arn = server.create_stream("aws-rds-das-db-DEF")
    found = make(resource_id="db-DEF")
    found.connect()
    assert found.series() == arn
    assert found.resource_id == "db-DEF"


def test_a_cluster_and_an_instance_are_found_by_way_of_rds(server: FakeKinesis, make: Make) -> None:
    server.create_stream("aws-rds-das-cluster-ABC")
    server.create_stream("aws-rds-das-db-DEF")
    with FakeRds() as rds:
        rds.add_cluster("orders-prod", "cluster-ABC")
        rds.add_instance("erp", "db-DEF")
        urls = {"kinesis": server.endpoint_url, "rds": rds.endpoint_url}
        for key, name, resource_id in (("cluster", "orders-prod", "cluster-ABC"), ("instance", "erp", "db-DEF")):
            found = make(**{key: name}, endpoint_url=urls)
            found.connect()
            assert found.resource_id == resource_id
            assert found.facts()[key] == name
            assert found.series().endswith(f"stream/aws-rds-das-{resource_id}")


@pytest.mark.parametrize(
    ("key", "name", "reason", "words"),
    [
        ("cluster", "stopped", "stream_not_found", "has no activity stream .its status is stopped.; start it: aws rds"),
        ("cluster", "unknown", "stream_not_found", "unknown not found"),
        ("instance", "member", "stream_not_found", 'member of the cluster stopped.*write cluster = "stopped"'),
        ("cluster", "starting", "stream_not_found", "aws-rds-das-cluster-S.* not found"),
    ],
)
def test_a_database_without_an_activity_stream_is_held(
    server: FakeKinesis, make: Make, key: str, name: str, reason: str, words: str
) -> None:
    with FakeRds() as rds:
        rds.add_cluster("stopped", "cluster-X", status="stopped")
        rds.add_cluster("starting", "cluster-S", status="starting")
        rds.add_instance("member", "db-M", status="stopped", cluster="stopped")
        found = make(**{key: name}, endpoint_url={"kinesis": server.endpoint_url, "rds": rds.endpoint_url})
        with pytest.raises(Held, match=words) as caught:
            found.connect()
    assert caught.value.reason == reason


def test_rds_that_may_not_be_asked_is_held_with_the_statement_to_add(server: FakeKinesis, make: Make) -> None:
    with FakeRds() as rds:
        rds.deny("DescribeDBClusters")
        found = make(cluster="orders", endpoint_url={"kinesis": server.endpoint_url, "rds": rds.endpoint_url})
        with pytest.raises(Held, match="rds:DescribeDBClusters") as caught:
            found.connect()
    assert caught.value.reason == "access_denied"


def test_a_missing_stream_is_held_until_it_is_there(server: FakeKinesis, make: Make) -> None:
    found = make()
    with pytest.raises(Held, match=f"source orders: DescribeStreamSummary: .*{STREAM}") as caught:
        found.connect()
    assert caught.value.reason == "stream_not_found"
    server.create_stream(STREAM)
    found.connect()


def test_a_missing_region_is_held(make: Make) -> None:
    with pytest.raises(Held) as caught:
        make(region=None).connect()
    assert caught.value.reason == "credentials"


def test_two_names_for_one_stream_are_refused() -> None:
    settings = KinesisSettings.model_construct(type="kinesis", stream="a", cluster="b", instance=None, resource_id=None)
    with pytest.raises(ConfigurationError, match=r"sources\.orders: found cluster and stream; write exactly one"):
        KinesisSource("orders", settings)


def test_deletion_and_creation_change_the_identity_but_not_the_series(
    server: FakeKinesis, source: KinesisSource
) -> None:
    before = source.identity(), source.series()
    server.delete_stream(STREAM)
    server.create_stream(STREAM)
    with pytest.raises(Held, match="deleted and created again") as caught:
        source.partitions()
    assert caught.value.reason == "stream_not_found"
    source.connect()
    assert source.identity() != before[0]
    assert source.series() == before[1]
    assert [partition.id for partition in source.partitions()] == [FIRST]


# Partitions


def test_all_pages_of_shards_are_partitions(server: FakeKinesis, make: Make) -> None:
    server.create_stream(STREAM, shards=1001)
    found = make()
    found.connect()
    assert [partition.id for partition in found.partitions()] == [f"shardId-{n:012d}" for n in range(1001)]
    assert server.calls["ListShards"] == 2


def test_children_know_their_parents(server: FakeKinesis, source: KinesisSource) -> None:
    low, high = server.split(STREAM, FIRST)
    merged = server.merge(STREAM, low, high)
    assert source.partitions() == [
        Partition(FIRST),
        Partition(low, (FIRST,)),
        Partition(high, (FIRST,)),
        Partition(merged, (low, high)),
    ]


def test_a_closed_shard_ends_and_its_children_hold_the_rest(server: FakeKinesis, source: KinesisSource) -> None:
    server.put(STREAM, b"before")
    low, high = server.split(STREAM, FIRST)
    server.put(STREAM, b"after", explicit_hash_key=0)
    (last,) = reads(source)
    assert [record.data for record in last.records] == [b"before"]
    assert last.end
    assert data(reads(source, shard=low)) == [b"after"]
    assert data(reads(source, shard=high)) == []


# Checking


def test_check_tells_what_was_found_and_permitted(server: FakeKinesis, make: Make) -> None:
    arn = server.create_stream(STREAM, shards=2)
    lines = list(make().check())
    assert all(line.ok for line in lines)
    assert arn in lines[0].detail
    assert "2 shards" in lines[1].detail


@pytest.mark.parametrize("operation", ["DescribeStreamSummary", "ListShards", "GetShardIterator", "GetRecords"])
def test_check_tells_what_is_not_permitted_and_how_to_permit_it(
    server: FakeKinesis, make: Make, operation: str
) -> None:
    server.create_stream(STREAM)
    server.deny(operation)
    last = list(make().check())[-1]
    assert not last.ok
    assert f'"kinesis:{operation}"' in last.mend


def test_every_reading_call_names_the_stream_by_its_arn(source: KinesisSource, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    for operation in ("GetShardIterator", "GetRecords", "ListShards"):
        source._kinesis().meta.events.register(
            f"provide-client-params.kinesis.{operation}", lambda params, **_: asked.append(params)
        )
    source.partitions()
    reads(source)
    assert [params.get("StreamARN") for params in asked] == [source.series()] * 3
