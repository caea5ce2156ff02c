"""Aggregates of the Kinesis Producer Library are taken apart; whatever is not one is left alone."""

from __future__ import annotations

import base64
import hashlib
import os

import pytest
from aws_kinesis_agg.aggregator import RecordAggregator
from aws_kinesis_agg.deaggregator import iter_deaggregate_records
from aws_kinesis_agg.messages_pb2 import AggregatedRecord
from hypothesis import given, settings
from hypothesis import strategies as st

from shipper.decode.aggregation import user_records

MAGIC = b"\xf3\x89\x9a\xc2"


def sealed(body: bytes) -> bytes:
    return MAGIC + body + hashlib.md5(body).digest()


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(value)) + value


def ours(records: list[bytes]) -> bytes:
    """An aggregate that was written by hand."""
    body = field(1, b"partition")
    for data in records:
        body += field(3, b"\x08\x00" + field(3, data))
    return sealed(body)


@pytest.mark.parametrize("records", [[b"one"], [b"", b"two"], [os.urandom(300) for _ in range(300)]])
def test_aggregates_of_another_writer_are_read(records: list[bytes]) -> None:
    aggregator = RecordAggregator()
    for number, data in enumerate(records):
        assert aggregator.add_user_record(f"key-{number % 7}", data, str(number)) is None
    packed = aggregator.clear_and_get().get_contents()[2]
    assert user_records(packed) == records


def test_aggregates_of_ours_are_read_by_another_reader() -> None:
    records = [b"one", b"", os.urandom(1000)]
    kinesis = {"Data": ours(records), "PartitionKey": "p", "SequenceNumber": "1", "ApproximateArrivalTimestamp": 0}
    theirs = [base64.b64decode(found["kinesis"]["data"]) for found in iter_deaggregate_records([kinesis], "Boto3")]
    assert user_records(ours(records)) == records == theirs


def test_unknown_fields_and_tags_are_passed_over() -> None:
    message = AggregatedRecord()
    message.partition_key_table.append("p")
    message.explicit_hash_key_table.append("0")
    record = message.records.add()
    record.partition_key_index, record.explicit_hash_key_index, record.data = 0, 0, b"data"
    tag = record.tags.add()
    tag.key, tag.value = "k", "v"
    body = message.SerializeToString()
    extra = varint(9 << 3) + varint(2**63) + varint(10 << 3 | 1) + bytes(8) + varint(11 << 3 | 5) + bytes(4)
    assert user_records(sealed(body + extra)) == [b"data"]


def test_an_aggregate_without_records_has_none() -> None:
    assert user_records(sealed(b"")) == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b'{"type":"x"}',
        MAGIC,
        MAGIC + bytes(15),
        MAGIC + bytes(16),
        ours([b"x"])[:-1],
        ours([b"x"]) + b"\0",
        b"\xf3\x89\x9a",
    ],
)
def test_what_is_no_aggregate_is_left_alone(data: bytes) -> None:
    assert user_records(data) is None


@pytest.mark.parametrize(
    "body",
    [
        field(3, b"\x08\x00"),  # a record without data
        field(3, field(3, b"abc")[:-1]),
        field(3, b"abc")[:-1],
        b"\x1a" + b"\xff" * 9 + b"\x01",  # a length of 64 bits
        b"\x1a" + b"\xff" * 100,
        b"\x1b",  # a group
        b"\x0b" * 1000,
        b"\x09abc",
        b"\x80",
    ],
)
def test_a_broken_message_behind_a_right_checksum_is_left_alone(body: bytes) -> None:
    assert user_records(sealed(body)) is None


def test_half_a_million_tiny_records_are_read() -> None:
    found = user_records(sealed(field(3, field(3, b"x")) * 500_000))
    assert found == [b"x"] * 500_000


@given(st.lists(st.binary(max_size=40), max_size=8), st.integers(0, 400), st.binary(max_size=3), st.booleans())
@settings(max_examples=300, deadline=None)
def test_mutations_never_fail(records: list[bytes], at: int, replacement: bytes, again: bool) -> None:
    data = bytearray(ours(records))
    data[at % len(data) : at % len(data) + len(replacement)] = replacement
    mutant = sealed(bytes(data[4:-16])) if again else bytes(data)
    found = user_records(mutant)
    assert found is None or all(isinstance(record, bytes) for record in found)
