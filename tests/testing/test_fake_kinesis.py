"""The embedded Kinesis, asked by boto3."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError

from shipper.testing.aws_json import ServiceError
from shipper.testing.kinesis import FakeKinesis

MIB = 1024 * 1024
START = 1_790_000_000.0
FIRST = "shardId-000000000000"


class Hands:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.time = START

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def wait(self, event: Any, seconds: float) -> bool:
        self.time += seconds
        return bool(event.is_set())


@pytest.fixture
def clock() -> Hands:
    return Hands()


@pytest.fixture
def server(clock: Hands) -> Iterator[FakeKinesis]:
    with FakeKinesis(clock=clock) as running:
        yield running


@pytest.fixture
def client(server: FakeKinesis) -> Iterator[Any]:
    made: Any = boto3.client(
        "kinesis",
        endpoint_url=server.endpoint_url,
        region_name=server.region,
        config=Config(retries={"total_max_attempts": 1}),
    )
    yield made
    made.close()


def iterator(client: Any, kind: str = "TRIM_HORIZON", shard: str = FIRST, **more: Any) -> str:
    reply = client.get_shard_iterator(StreamName="s", ShardId=shard, ShardIteratorType=kind, **more)
    return str(reply["ShardIterator"])


def data(reply: Any) -> list[bytes]:
    return [record["Data"] for record in reply["Records"]]


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


def test_a_record_is_read_as_it_was_put(server: FakeKinesis, client: Any) -> None:
    server.create_stream("s")
    put = client.put_record(StreamName="s", Data=b"\x00\xffbinary", PartitionKey='k"é')
    reply = client.get_records(ShardIterator=iterator(client))
    (record,) = reply["Records"]
    assert record["Data"] == b"\x00\xffbinary"
    assert record["PartitionKey"] == 'k"é'
    assert record["SequenceNumber"] == put["SequenceNumber"]
    assert record["ApproximateArrivalTimestamp"] == datetime.fromtimestamp(START, UTC)
    assert reply["MillisBehindLatest"] == 0


def test_sequence_numbers_have_56_digits_and_grow(server: FakeKinesis) -> None:
    server.create_stream("s", shards=3)
    for shard in server.shards("s"):
        for _ in range(3):
            server.put("s", b"x", explicit_hash_key=shard.first_hash_key)
        numbers = [record.sequence_number for record in shard.records]
        assert numbers == sorted(set(numbers))
        assert {len(str(number)) for number in numbers} == {56}
        assert shard.starting < numbers[0]


def test_the_md5_of_the_partition_key_chooses_the_shard(server: FakeKinesis, client: Any) -> None:
    server.create_stream("s", shards=4)
    for key in map(str, range(20)):
        put = client.put_record(StreamName="s", Data=b"", PartitionKey=key)
        expected = int.from_bytes(hashlib.md5(key.encode()).digest(), "big") * 4 >> 128
        assert put["ShardId"] == f"shardId-{expected:012d}"


def test_an_explicit_hash_key_wins(server: FakeKinesis, client: Any) -> None:
    server.create_stream("s", shards=2)
    put = client.put_record(StreamName="s", Data=b"", PartitionKey="k", ExplicitHashKey=str(2**128 - 1))
    assert put["ShardId"] == "shardId-000000000001"


def test_a_record_beyond_1_mib_is_refused_unless_the_stream_takes_larger_ones(server: FakeKinesis, client: Any) -> None:
    server.create_stream("s")
    server.create_stream("large", max_record_kib=10240)
    client.put_record(StreamName="s", Data=b"x" * (MIB - 1), PartitionKey="k")
    with pytest.raises(ClientError) as error:
        client.put_record(StreamName="s", Data=b"x" * MIB, PartitionKey="k")
    assert code(error) == "ValidationException"
    client.put_record(StreamName="large", Data=b"x" * (10 * MIB - 1), PartitionKey="k")


def test_501_records_in_one_call_are_refused(server: FakeKinesis, client: Any) -> None:
    server.create_stream("s")
    entry = {"Data": b"x", "PartitionKey": "k"}
    assert client.put_records(StreamName="s", Records=[entry] * 500)["FailedRecordCount"] == 0
    with pytest.raises(ClientError) as error:
        client.put_records(StreamName="s", Records=[entry] * 501)
    assert code(error) == "ValidationException"
    assert len(server.records("s")) == 500


def test_entries_can_fail_while_the_call_succeeds(server: FakeKinesis, client: Any) -> None:
    server.create_stream("s")
    server.refuse_entries(1)
    reply = client.put_records(StreamName="s", Records=[{"Data": b"%d" % n, "PartitionKey": "k"} for n in range(3)])
    assert reply["FailedRecordCount"] == 1
    assert reply["Records"][0]["ErrorCode"] == "ProvisionedThroughputExceededException"
    assert [record.data for record in server.records("s")] == [b"1", b"2"]


def test_a_reply_ends_before_10_mib(server: FakeKinesis, client: Any) -> None:
    server.create_stream("s")
    for _ in range(12):
        server.put("s", b"x" * (MIB - 36))
    reply = client.get_records(ShardIterator=iterator(client))
    assert len(reply["Records"]) == 10
    assert reply["MillisBehindLatest"] > 0
    reply = client.get_records(ShardIterator=reply["NextShardIterator"])
    assert len(reply["Records"]) == 2
    assert reply["MillisBehindLatest"] == 0


def test_limit_bounds_a_reply_and_is_bounded_itself(server: FakeKinesis, client: Any) -> None:
    server.create_stream("s")
    server.put_many("s", [b"1", b"2", b"3"])
    assert data(client.get_records(ShardIterator=iterator(client), Limit=2)) == [b"1", b"2"]
    with pytest.raises(ClientError) as error:
        client.get_records(ShardIterator=iterator(client), Limit=10_001)
    assert code(error) == "InvalidArgumentException"


def test_every_type_of_iterator_begins_where_it_should(server: FakeKinesis, client: Any, clock: Hands) -> None:
    server.create_stream("s")
    numbers = []
    for one in (b"1", b"2", b"3"):
        numbers.append(str(server.put("s", one).sequence_number))
        clock.time += 10
    for kind, more, expected in (
        ("TRIM_HORIZON", {}, [b"1", b"2", b"3"]),
        ("LATEST", {}, []),
        ("AT_SEQUENCE_NUMBER", {"StartingSequenceNumber": numbers[1]}, [b"2", b"3"]),
        ("AFTER_SEQUENCE_NUMBER", {"StartingSequenceNumber": numbers[1]}, [b"3"]),
        ("AT_TIMESTAMP", {"Timestamp": START + 10}, [b"2", b"3"]),
        ("AT_TIMESTAMP", {"Timestamp": START - 99}, [b"1", b"2", b"3"]),
    ):
        assert data(client.get_records(ShardIterator=iterator(client, kind, **more))) == expected


def test_a_time_that_has_not_come_is_refused(server: FakeKinesis, client: Any) -> None:
    server.create_stream("s")
    with pytest.raises(ClientError) as error:
        iterator(client, "AT_TIMESTAMP", Timestamp=START + 5)
    assert code(error) == "InvalidArgumentException"


def test_a_sequence_number_of_an_earlier_stream_of_that_name_is_refused(server: FakeKinesis, client: Any) -> None:
    arn = server.create_stream("s")
    old = str(server.put("s", b"x").sequence_number)
    created = client.describe_stream_summary(StreamName="s")["StreamDescriptionSummary"]["StreamCreationTimestamp"]
    server.delete_stream("s")
    assert server.create_stream("s") == arn
    again = client.describe_stream_summary(StreamARN=arn)["StreamDescriptionSummary"]["StreamCreationTimestamp"]
    assert again > created
    with pytest.raises(ClientError) as error:
        iterator(client, "AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=old)
    assert code(error) == "InvalidArgumentException"


def test_iterators_expire_after_five_minutes_or_on_order(server: FakeKinesis, client: Any, clock: Hands) -> None:
    server.create_stream("s")
    first = iterator(client)
    clock.time += 300
    client.get_records(ShardIterator=first)
    clock.time += 1
    with pytest.raises(ClientError) as error:
        client.get_records(ShardIterator=first)
    assert code(error) == "ExpiredIteratorException"
    second = iterator(client)
    server.expire_iterators()
    with pytest.raises(ClientError) as error:
        client.get_records(ShardIterator=second)
    assert code(error) == "ExpiredIteratorException"


def test_nonsense_for_an_iterator_is_refused(server: FakeKinesis, client: Any) -> None:
    with pytest.raises(ClientError) as error:
        client.get_records(ShardIterator="AAAA")
    assert code(error) == "InvalidArgumentException"


def test_a_split_shard_ends_with_its_children(server: FakeKinesis, client: Any) -> None:
    server.create_stream("s")
    server.put_many("s", [b"1", b"2"])
    client.split_shard(StreamName="s", ShardToSplit=FIRST, NewStartingHashKey=str(2**127))
    reply = client.get_records(ShardIterator=iterator(client), Limit=1)
    assert "ChildShards" not in reply
    reply = client.get_records(ShardIterator=reply["NextShardIterator"])
    assert data(reply) == [b"2"]
    assert reply.get("NextShardIterator") is None
    assert [(child["ShardId"], child["ParentShards"]) for child in reply["ChildShards"]] == [
        ("shardId-000000000001", [FIRST]),
        ("shardId-000000000002", [FIRST]),
    ]
    listed = client.list_shards(StreamName="s")["Shards"]
    assert [shard.get("ParentShardId") for shard in listed] == [None, FIRST, FIRST]
    assert "EndingSequenceNumber" in listed[0]["SequenceNumberRange"]
    assert int(listed[1]["HashKeyRange"]["EndingHashKey"]) + 1 == int(listed[2]["HashKeyRange"]["StartingHashKey"])


def test_merged_shards_have_one_child_with_two_parents(server: FakeKinesis, client: Any) -> None:
    server.create_stream("s", shards=3)
    with pytest.raises(ClientError) as error:
        client.merge_shards(StreamName="s", ShardToMerge=FIRST, AdjacentShardToMerge="shardId-000000000002")
    assert code(error) == "InvalidArgumentException"
    client.merge_shards(StreamName="s", ShardToMerge=FIRST, AdjacentShardToMerge="shardId-000000000001")
    child = client.list_shards(StreamName="s")["Shards"][-1]
    assert (child["ParentShardId"], child["AdjacentParentShardId"]) == (FIRST, "shardId-000000000001")
    put = client.put_record(StreamName="s", Data=b"", PartitionKey="k", ExplicitHashKey="0")
    assert put["ShardId"] == "shardId-000000000003"


def test_shards_are_listed_in_pages(server: FakeKinesis, client: Any, clock: Hands) -> None:
    server.create_stream("s", shards=5)
    first = client.list_shards(StreamName="s", MaxResults=3)
    second = client.list_shards(NextToken=first["NextToken"], MaxResults=3)
    assert [len(first["Shards"]), len(second["Shards"])] == [3, 2]
    assert "NextToken" not in second
    with pytest.raises(ClientError) as error:
        client.list_shards(StreamName="s", NextToken=first["NextToken"])
    assert code(error) == "InvalidArgumentException"
    clock.time += 301
    with pytest.raises(ClientError) as error:
        client.list_shards(NextToken=first["NextToken"])
    assert code(error) == "ExpiredNextTokenException"


def test_filters_choose_among_open_and_closed_shards(server: FakeKinesis, client: Any, clock: Hands) -> None:
    server.create_stream("s")
    clock.time += 100
    server.split("s", FIRST)

    def listed(**filter_: Any) -> list[int]:
        return [
            int(shard["ShardId"][-3:]) for shard in client.list_shards(StreamName="s", ShardFilter=filter_)["Shards"]
        ]

    assert listed(Type="FROM_TRIM_HORIZON") == [0, 1, 2]
    assert listed(Type="AT_TRIM_HORIZON") == [0]
    assert listed(Type="AT_LATEST") == [1, 2]
    assert listed(Type="AT_TIMESTAMP", Timestamp=START + 50) == [0]
    assert listed(Type="FROM_TIMESTAMP", Timestamp=START + 150) == [1, 2]
    assert listed(Type="AFTER_SHARD_ID", ShardId="shardId-000000000001") == [2]


def test_records_and_closed_shards_expire_with_the_retention(server: FakeKinesis, client: Any, clock: Hands) -> None:
    server.create_stream("s")
    server.put("s", b"old")
    server.split("s", FIRST)
    clock.time += 25 * 3600
    assert [shard.id for shard in server.shards("s")] == ["shardId-000000000001", "shardId-000000000002"]
    with pytest.raises(ClientError) as error:
        iterator(client)
    assert code(error) == "ResourceNotFoundException"


def test_longer_retention_keeps_records_longer(server: FakeKinesis, client: Any, clock: Hands) -> None:
    server.create_stream("s")
    server.put("s", b"old")
    client.increase_stream_retention_period(StreamName="s", RetentionPeriodHours=48)
    clock.time += 25 * 3600
    assert data(client.get_records(ShardIterator=iterator(client))) == [b"old"]
    summary = client.describe_stream_summary(StreamName="s")["StreamDescriptionSummary"]
    assert summary["RetentionPeriodHours"] == 48


def test_trimming_moves_the_horizon(server: FakeKinesis, client: Any) -> None:
    server.create_stream("s")
    first = server.put("s", b"1")
    server.put_many("s", [b"2", b"3"])
    early = iterator(client)
    server.trim("s", FIRST, keep=1)
    assert data(client.get_records(ShardIterator=early)) == [b"3"]
    at = iterator(client, "AT_SEQUENCE_NUMBER", StartingSequenceNumber=str(first.sequence_number))
    assert data(client.get_records(ShardIterator=at)) == [b"3"]


def test_ordered_faults_come_as_often_as_ordered(server: FakeKinesis, client: Any) -> None:
    server.create_stream("s")
    at = iterator(client)
    server.throttle("GetRecords", 2)
    for _ in range(2):
        with pytest.raises(ClientError) as error:
            client.get_records(ShardIterator=at)
        assert code(error) == "ProvisionedThroughputExceededException"
    client.get_records(ShardIterator=at)
    server.deny("GetRecords")
    with pytest.raises(ClientError) as error:
        client.get_records(ShardIterator=at)
    assert code(error) == "AccessDeniedException"
    assert "kinesis:GetRecords" in str(error.value)
    server.mend("GetRecords")
    client.get_records(ShardIterator=at)
    assert server.calls["GetRecords"] == 5


def test_a_connection_is_cut_on_order(server: FakeKinesis, client: Any) -> None:
    server.disconnect("ListStreams", 1)
    with pytest.raises(ConnectionClosedError):
        client.list_streams()
    assert client.list_streams()["StreamNames"] == []


def test_a_fault_for_an_unknown_operation_is_refused(server: FakeKinesis) -> None:
    with pytest.raises(ValueError, match="no operation GetRecord"):
        server.throttle("GetRecord")


def test_the_read_limits_of_a_shard_are_enforced_on_demand(clock: Hands) -> None:
    with FakeKinesis(clock=clock, limits=True) as server:
        server.create_stream("s")
        client: Any = boto3.client(
            "kinesis",
            endpoint_url=server.endpoint_url,
            region_name=server.region,
            config=Config(retries={"total_max_attempts": 1}),
        )
        at = iterator(client)
        for _ in range(5):
            client.get_records(ShardIterator=at)
        with pytest.raises(ClientError) as error:
            client.get_records(ShardIterator=at)
        assert code(error) == "ProvisionedThroughputExceededException"
        clock.time += 1.01
        for _ in range(10):
            server.put("s", b"x" * (MIB - 36))
        client.get_records(ShardIterator=at)
        clock.time += 4.9
        with pytest.raises(ClientError):
            client.get_records(ShardIterator=at)
        clock.time += 0.2
        client.get_records(ShardIterator=at)
        client.close()


def test_streams_are_listed_in_pages(server: FakeKinesis, client: Any) -> None:
    for name in "abc":
        server.create_stream(name)
    first = client.list_streams(Limit=2)
    assert (first["StreamNames"], first["HasMoreStreams"]) == (["a", "b"], True)
    assert client.list_streams(NextToken=first["NextToken"])["StreamNames"] == ["c"]


def test_what_does_not_exist_or_exists_already_is_said(server: FakeKinesis, client: Any) -> None:
    with pytest.raises(ClientError) as error:
        client.describe_stream_summary(StreamName="s")
    assert code(error) == "ResourceNotFoundException"
    client.create_stream(StreamName="s", ShardCount=1)
    with pytest.raises(ClientError) as error:
        client.create_stream(StreamName="s", ShardCount=1)
    assert code(error) == "ResourceInUseException"
    client.delete_stream(StreamName="s")
    with pytest.raises(ServiceError, match="not found"):
        server.put("s", b"x")


def test_nothing_listens_after_close(clock: Hands) -> None:
    server = FakeKinesis(clock=clock).start()
    url = server.endpoint_url
    client: Any = boto3.client(
        "kinesis", endpoint_url=url, region_name="us-east-1", config=Config(retries={"total_max_attempts": 1})
    )
    client.list_streams()
    server.close()
    with pytest.raises((EndpointConnectionError, ConnectionClosedError)):
        client.list_streams()
    with pytest.raises(RuntimeError, match="not running"):
        _ = server.endpoint_url
    client.close()
