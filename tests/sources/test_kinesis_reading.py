"""The Kinesis source against the embedded Kinesis: where reading begins, and how it goes on through every fault."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest
from aws_kinesis_agg.aggregator import RecordAggregator

from shipper.errors import Held
from shipper.source import EARLIEST, END, Partition, Position
from shipper.sources.kinesis import KinesisSource
from shipper.sources.kinesis_shard import PATIENCE, SUB_SEQUENCES
from shipper.testing.kinesis import FakeKinesis
from shipper.testing.rds import FakeRds
from support.kinesis_reading import FIRST, MIB, START, STREAM, Hands, Make, data, held, reads

# Where reading begins


def test_reading_begins_at_the_horizon_or_at_a_time(server: FakeKinesis, source: KinesisSource, clock: Hands) -> None:
    for one in (b"1", b"2", b"3"):
        server.put(STREAM, one)
        clock.time += 0.25
    assert data(reads(source)) == [b"1", b"2", b"3"]
    at = datetime.fromtimestamp(START + 0.25, UTC)
    assert data(reads(source, at)) == [b"2", b"3"]
    assert data(reads(source, at - timedelta(days=400))) == [b"1", b"2", b"3"]


def test_a_time_that_the_service_has_not_reached_waits_for_it(
    server: FakeKinesis, source: KinesisSource, clock: Hands
) -> None:
    server.put(STREAM, b"before")
    running = source.read(Partition(FIRST), datetime.fromtimestamp(START + 10, UTC), threading.Event())
    assert next(running).records == []
    server.put(STREAM, b"too early")
    assert next(running).records == []
    clock.time = START + 11
    server.put(STREAM, b"in time")
    assert [record.data for record in next(running).records] == [b"in time"]


def test_a_finished_record_is_not_read_again_and_a_half_settled_one_is(
    server: FakeKinesis, source: KinesisSource
) -> None:
    server.put_many(STREAM, [b"1", b"2", b"3"])
    second = reads(source)[0].records[1].position
    assert data(reads(source, Position(second, END))) == [b"3"]
    assert data(reads(source, Position(second, 4))) == [b"2", b"3"]


def test_positions_are_sequence_numbers_and_times_are_nanoseconds(server: FakeKinesis, source: KinesisSource) -> None:
    stored = server.put(STREAM, b"x", arrived=START + 0.123)
    (record,) = reads(source)[0].records
    assert source.reference(record.position) == str(stored.sequence_number)
    assert record.position == stored.sequence_number * SUB_SEQUENCES
    assert record.arrived == int(START) * 10**9 + 123_000_000


def test_a_position_older_than_the_horizon_begins_at_the_horizon(server: FakeKinesis, source: KinesisSource) -> None:
    server.put_many(STREAM, [b"1", b"2", b"3"])
    first = reads(source)[0].records[0].position
    server.trim(STREAM, FIRST, keep=1)
    assert data(reads(source, Position(first, END))) == [b"3"]


# Aggregated records


def aggregate(*parts: bytes) -> bytes:
    aggregator = RecordAggregator()
    for part in parts:
        aggregator.add_user_record("key", part)
    return bytes(aggregator.clear_and_get().get_contents()[2])


def test_aggregated_records_are_taken_apart(server: FakeKinesis, source: KinesisSource) -> None:
    plain = server.put(STREAM, b"plain")
    packed = server.put(STREAM, aggregate(b"a", b"b", b"c"))
    server.put(STREAM, b"last")
    records = reads(source)[0].records
    assert [record.data for record in records] == [b"plain", b"a", b"b", b"c", b"last"]
    positions = [record.position for record in records]
    assert positions == sorted(set(positions))
    references = [source.reference(position) for position in positions]
    assert references[0] == str(plain.sequence_number)
    assert references[1:4] == [f"{packed.sequence_number}.{number}" for number in (1, 2, 3)]


def test_reading_goes_on_inside_an_aggregate(server: FakeKinesis, source: KinesisSource) -> None:
    server.put_many(STREAM, [b"plain", aggregate(b"a", b"b", b"c"), b"last"])
    positions = [record.position for record in reads(source)[0].records]
    for index, rest in ((1, [b"b", b"c", b"last"]), (2, [b"c", b"last"]), (3, [b"last"])):
        assert data(reads(source, Position(positions[index], END))) == rest
    assert data(reads(source, Position(positions[2], 7))) == [b"b", b"c", b"last"]
    assert data(reads(source, Position(positions[0], END))) == [b"a", b"b", b"c", b"last"]


def test_what_only_looks_like_an_aggregate_stays_a_record(server: FakeKinesis, source: KinesisSource) -> None:
    looks = [b"\xf3\x89\x9a\xc2", b"\xf3\x89\x9a\xc2" + bytes(40), aggregate(b"a")[:-1]]
    server.put_many(STREAM, looks)
    assert data(reads(source)) == looks


# Going on reading


def test_lag_is_the_distance_to_the_tip(server: FakeKinesis, source: KinesisSource, clock: Hands) -> None:
    server.put_many(STREAM, [bytes(MIB - 36)] * 11)
    clock.time += 60
    first, second = reads(source)
    assert len(first.records) == 10
    assert first.lag == 60.0
    assert (len(second.records), second.lag, second.end) == (1, 0.0, False)


def test_an_open_shard_is_polled_at_its_tip(server: FakeKinesis, make: Make, clock: Hands) -> None:
    server.create_stream(STREAM)
    found = make(poll_interval="3s")
    found.connect()
    stop = threading.Event()
    running = found.read(Partition(FIRST), EARLIEST, stop)
    assert [(read.records, read.lag, read.end) for read in islice(running, 3)] == [([], 0.0, False)] * 3
    assert clock.waits == [3.0, 3.0]
    server.put(STREAM, b"new")
    assert [record.data for record in next(running).records] == [b"new"]
    stop.set()
    assert list(running) == []


def test_a_short_poll_interval_never_exceeds_five_calls_a_second(make: Make, clock: Hands) -> None:
    with FakeKinesis(clock=clock, limits=True) as strict:
        strict.create_stream(STREAM)
        found = make(endpoint_url=strict.endpoint_url, poll_interval="10ms")
        found.connect()
        assert len(list(islice(found.read(Partition(FIRST), EARLIEST, threading.Event()), 30))) == 30
        assert strict.calls["GetRecords"] == 30  # none was refused


def test_behind_the_tip_a_shard_is_asked_five_times_a_second(
    server: FakeKinesis, source: KinesisSource, clock: Hands
) -> None:
    server.put_many(STREAM, [bytes(MIB - 36)] * 31)
    assert len(reads(source)) == 4
    assert clock.waits == pytest.approx([0.2] * 3)


def test_an_expired_iterator_is_renewed_after_the_last_record(server: FakeKinesis, source: KinesisSource) -> None:
    server.put_many(STREAM, [b"1", b"2"])
    running = source.read(Partition(FIRST), EARLIEST, threading.Event())
    assert [record.data for record in next(running).records] == [b"1", b"2"]
    server.put(STREAM, b"3")
    server.expire_iterators()
    assert [record.data for record in next(running).records] == [b"3"]


def test_an_iterator_that_expires_before_any_record_begins_where_reading_began(
    server: FakeKinesis, source: KinesisSource, clock: Hands
) -> None:
    running = source.read(Partition(FIRST), datetime.fromtimestamp(START - 1, UTC), threading.Event())
    assert next(running).records == []
    clock.time += 301
    server.put(STREAM, b"1")
    assert [record.data for record in next(running).records] == [b"1"]
    assert server.calls["GetShardIterator"] == 2


def test_records_that_came_while_an_iterator_at_the_tip_expired_are_read(
    server: FakeKinesis, source: KinesisSource, clock: Hands
) -> None:
    running = source.read(Partition(FIRST), datetime.fromtimestamp(START + 10, UTC), threading.Event())
    assert next(running).records == []
    clock.time += 20
    server.put(STREAM, b"1")
    clock.time += 300
    assert [record.data for record in next(running).records] == [b"1"]


def test_failures_between_successes_do_not_add_up(server: FakeKinesis, source: KinesisSource, clock: Hands) -> None:
    running = source.read(Partition(FIRST), EARLIEST, threading.Event())
    while clock.time < START + 3 * PATIENCE:
        server.throttle("GetRecords", 1)
        assert next(running).lag == 0


@pytest.mark.parametrize("operation", ["GetRecords", "GetShardIterator"])
@pytest.mark.parametrize(
    "code", ["ProvisionedThroughputExceededException", "InternalFailure", "KMSThrottlingException"]
)
def test_what_passes_is_tried_again_with_growing_random_waits(
    server: FakeKinesis, source: KinesisSource, clock: Hands, operation: str, code: str
) -> None:
    server.put(STREAM, b"1")
    server.fail(operation, code, status=500 if code == "InternalFailure" else 400, times=8)
    assert data(reads(source)) == [b"1"]
    assert clock.waits
    assert len(set(clock.waits)) == len(clock.waits)
    assert max(clock.waits) <= 5.0


def test_a_throttled_description_is_asked_again(server: FakeKinesis, source: KinesisSource, clock: Hands) -> None:
    server.throttle("DescribeStreamSummary", 3)
    server.throttle("ListShards", 3)
    assert len(source.partitions()) == 1
    assert len(clock.waits) == 6
    server.throttle("ListShards")
    with pytest.raises(Held) as caught:
        source.partitions()
    assert caught.value.reason == "unreachable"


def test_a_cut_connection_is_tried_again(server: FakeKinesis, source: KinesisSource, clock: Hands) -> None:
    server.put(STREAM, b"1")
    server.disconnect("GetRecords", 4)
    assert data(reads(source)) == [b"1"]
    assert clock.waits


def test_lasting_failure_is_held_and_reading_goes_on_where_it_stood(
    server: FakeKinesis, source: KinesisSource, clock: Hands
) -> None:
    server.put_many(STREAM, [b"1", b"2"])
    first = reads(source)[0].records[0].position
    server.throttle("GetRecords")
    failure = held(source)
    assert failure.reason == "unreachable"
    assert FIRST in failure.detail
    assert PATIENCE <= clock.time - START < 60
    server.mend()
    assert data(reads(source, Position(first, END))) == [b"2"]


def test_a_server_that_is_gone_is_held_as_unreachable(server: FakeKinesis, source: KinesisSource) -> None:
    server.close()
    assert held(source).reason == "unreachable"


def test_an_answer_that_is_none_is_held_as_unreachable(
    server: FakeKinesis, source: KinesisSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_reply", lambda *_: b"<html>a proxy's page</html>")
    failure = held(source)
    assert failure.reason == "unreachable"
    assert "this is not Kinesis: GetRecords answered something else" in failure.detail


def test_another_program_at_the_endpoint_is_held_as_unreachable(
    server: FakeKinesis, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = make()
    monkeypatch.setattr(server, "answer", lambda *_: (200, "text/html", b"<html>welcome</html>"))
    with pytest.raises(Held, match="this is not Kinesis") as caught:
        found.connect()
    assert caught.value.reason == "unreachable"


def test_another_program_in_place_of_rds_is_held_as_unreachable(
    server: FakeKinesis, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeRds() as rds:
        monkeypatch.setattr(rds, "answer", lambda *_: (200, "text/html", b"{}"))
        with pytest.raises(Held) as caught:
            make(cluster="c", endpoint_url={"kinesis": server.endpoint_url, "rds": rds.endpoint_url}).connect()
    assert caught.value.reason == "unreachable"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("AccessDeniedException", "access_denied"),
        ("KMSDisabledException", "key_disabled"),
        ("ExpiredTokenException", "credentials"),
    ],
)
def test_what_only_a_person_can_mend_is_held_at_once(
    server: FakeKinesis, source: KinesisSource, clock: Hands, code: str, reason: str
) -> None:
    server.fail("GetRecords", code)
    assert held(source).reason == reason
    assert clock.time == START


def test_credentials_that_were_renewed_are_used(
    server: FakeKinesis, source: KinesisSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.fail("GetRecords", "ExpiredTokenException", times=1)
    assert held(source).reason == "credentials"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "RENEWED")
    reads(source)
    assert source._kinesis()._get_credentials().access_key == "RENEWED"


def test_a_stream_that_is_deleted_while_it_is_read_is_held(server: FakeKinesis, source: KinesisSource) -> None:
    server.put(STREAM, b"1")
    running = source.read(Partition(FIRST), EARLIEST, threading.Event())
    next(running)
    server.delete_stream(STREAM)
    with pytest.raises(Held) as caught:
        next(running)
    assert caught.value.reason == "stream_not_found"


@pytest.mark.parametrize("expired", [False, True])
def test_a_stream_that_is_made_anew_is_never_read_as_the_old_one(
    server: FakeKinesis, source: KinesisSource, expired: bool
) -> None:
    running = source.read(Partition(FIRST), EARLIEST, threading.Event())
    next(running)
    server.delete_stream(STREAM)
    server.create_stream(STREAM)
    server.put(STREAM, b"of the new one")
    if expired:
        server.fail("GetRecords", "ExpiredIteratorException", times=1)
    with pytest.raises(Held, match="deleted and created again"):
        next(running)


def test_a_position_of_the_old_stream_is_held_on_the_new_one(server: FakeKinesis, source: KinesisSource) -> None:
    server.put(STREAM, b"1")
    position = reads(source)[0].records[0].position
    server.delete_stream(STREAM)
    server.create_stream(STREAM)
    assert "deleted and created again" in held(source, Position(position, END)).detail


def test_reading_a_shard_that_expired_ends_without_claiming_its_end(
    server: FakeKinesis, source: KinesisSource, clock: Hands
) -> None:
    server.split(STREAM, FIRST)
    clock.time += 25 * 3600
    assert FIRST not in [partition.id for partition in source.partitions()]
    assert list(source.read(Partition(FIRST), EARLIEST, threading.Event())) == []
