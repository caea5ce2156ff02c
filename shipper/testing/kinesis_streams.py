"""Streams, shards and records as Kinesis keeps them: what ``FakeKinesis`` answers from."""

from __future__ import annotations

import bisect
import hashlib
import re
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from operator import attrgetter

import msgspec

from shipper.testing.aws_json import ServiceError

HASH_KEYS = 2**128
_SECONDS_BITS = (1 << 36) - 1
_STREAM_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,128}")


class StoredRecord(msgspec.Struct, frozen=True, gc=False):
    """One record of a shard. ``arrived`` is seconds since 1970-01-01 UTC, with millisecond precision."""

    sequence_number: int
    arrived: float
    partition_key: str
    size: int
    #: The record's JSON up to the value of ``Data``, and that value: replies are joined from them without encoding.
    head: bytes
    encoded: bytes

    @property
    def data(self) -> bytes:
        """The record's bytes as they were put."""
        return b64decode(self.encoded)


@dataclass(slots=True)
class Shard:
    """An open or closed shard. Records are numbered from 0 since the shard was opened; ``trimmed`` of them expired."""

    index: int
    first_hash_key: int
    last_hash_key: int
    opened: int
    parents: tuple[str, ...] = ()
    records: list[StoredRecord] = field(default_factory=list)
    trimmed: int = 0
    closed: float | None = None
    starting: int = 0
    ending: int | None = None
    children: list[Shard] = field(default_factory=list)

    @property
    def id(self) -> str:
        """``shardId-000000000007``."""
        return f"shardId-{self.index:012d}"

    @property
    def end(self) -> int:
        """The number that the next record gets."""
        return self.trimmed + len(self.records)

    def number(self, count: int, seconds: int) -> int:
        """A sequence number of this shard: 56 digits that grow with ``count``, and say which shard they are of."""
        return (
            (2 << 184)
            | ((self.opened & _SECONDS_BITS) << 148)
            | ((self.index & 0xF) << 144)
            | (count << 80)
            | ((seconds & _SECONDS_BITS) << 36)
            | (self.index << 4)
            | 2
        )

    def owns(self, sequence_number: int) -> bool:
        """Did this shard, and no other one of the same name, give this number?"""
        return (
            sequence_number >> 148 == (2 << 36) | (self.opened & _SECONDS_BITS)
            and (sequence_number >> 4) & 0xFFFFFFFF == self.index
        )

    def at_sequence(self, sequence_number: int) -> int:
        """Number of the first kept record that is not before ``sequence_number``."""
        return self.trimmed + bisect.bisect_left(self.records, sequence_number, key=attrgetter("sequence_number"))

    def at_time(self, seconds: float) -> int:
        """Number of the first kept record that arrived at ``seconds`` or later."""
        return self.trimmed + bisect.bisect_left(self.records, seconds, key=attrgetter("arrived"))

    def trim(self, until: int) -> None:
        """Forgets the records before number ``until``."""
        drop = max(0, min(until, self.end) - self.trimmed)
        del self.records[:drop]
        self.trimmed += drop

    def describe(self) -> dict[str, object]:
        """The shard as ListShards and DescribeStream show it."""
        sequence = {"StartingSequenceNumber": str(self.starting)}
        if self.ending is not None:
            sequence["EndingSequenceNumber"] = str(self.ending)
        shown: dict[str, object] = {
            "ShardId": self.id,
            "HashKeyRange": self.hash_keys(),
            "SequenceNumberRange": sequence,
        }
        return shown | dict(zip(("ParentShardId", "AdjacentParentShardId"), self.parents, strict=False))

    def hash_keys(self) -> dict[str, str]:
        """The range of hash keys that this shard takes."""
        return {"StartingHashKey": str(self.first_hash_key), "EndingHashKey": str(self.last_hash_key)}


class Stream:
    """One stream. ``created`` is whole seconds since 1970-01-01 UTC, as AWS reports it; ``max_record`` bytes."""

    def __init__(self, name: str, arn: str, created: int, shards: int, retention_hours: int, max_record: int) -> None:
        if not _STREAM_NAME.fullmatch(name):
            raise ServiceError("ValidationException", f"Value '{name[:200]}' at 'streamName' is not a stream name")
        if shards < 1:
            raise ServiceError("ValidationException", "Value at 'shardCount' must be greater than or equal to 1")
        self.name = name
        self.arn = arn
        self.created = created
        self.retention_hours = retention_hours
        self.max_record = max_record
        self._shards: dict[str, Shard] = {}
        self._count = 0
        self._next_index = 0
        for index in range(shards):
            self._open(HASH_KEYS * index // shards, HASH_KEYS * (index + 1) // shards - 1, created, ())

    def shards(self, now: float) -> list[Shard]:
        """Those that are listed at ``now``: open, or closed for less than the retention. Expired records go first."""
        horizon = now - self.retention_hours * 3600
        for shard in list(self._shards.values()):
            shard.trim(shard.at_time(horizon))
            if shard.closed is not None and shard.closed < horizon:
                del self._shards[shard.id]
        return list(self._shards.values())

    def shard(self, shard_id: str, now: float, account: str) -> Shard:
        """The listed shard of that name. Raises ``ServiceError`` ResourceNotFoundException."""
        for shard in self.shards(now):
            if shard.id == shard_id:
                return shard
        raise ServiceError(
            "ResourceNotFoundException",
            f"Shard {shard_id[:128]} in stream {self.name} under account {account} does not exist",
        )

    def put(self, data: bytes, partition_key: str, hash_key: int | None, now: float) -> tuple[Shard, StoredRecord]:
        """Stores a record in the open shard that its hash key belongs to."""
        if hash_key is None:
            hash_key = int.from_bytes(hashlib.md5(partition_key.encode(), usedforsecurity=False).digest(), "big")
        shard = next(
            shard
            for shard in self._shards.values()
            if shard.closed is None and shard.first_hash_key <= hash_key <= shard.last_hash_key
        )
        arrived = round(now, 3)
        if shard.records:  # a wall clock that jumps back must not break the order that the search by time needs
            arrived = max(arrived, shard.records[-1].arrived)
        self._count += 1
        number = shard.number(self._count, int(now))
        key = msgspec.json.encode(partition_key)
        head = b'{"SequenceNumber":"%d","ApproximateArrivalTimestamp":%.3f,"PartitionKey":%b,"Data":"' % (
            number,
            arrived,
            key,
        )
        record = StoredRecord(number, arrived, partition_key, len(data), head, b64encode(data))
        shard.records.append(record)
        return shard, record

    def split(self, shard: Shard, at: int, now: float) -> tuple[Shard, Shard]:
        """Closes a shard; its two children divide its hash keys, the second one begins with ``at``."""
        if not shard.first_hash_key < at <= shard.last_hash_key:
            raise ServiceError(
                "InvalidArgumentException",
                f"NewStartingHashKey {at} used in SplitShard() on shard {shard.id} in stream {self.name} is not both "
                "greater than one plus the shard's StartingHashKey and less than its EndingHashKey",
            )
        self._close(shard, now)
        children = (
            self._open(shard.first_hash_key, at - 1, int(now), (shard,)),
            self._open(at, shard.last_hash_key, int(now), (shard,)),
        )
        shard.children += children
        return children

    def merge(self, shard: Shard, adjacent: Shard, now: float) -> Shard:
        """Closes two neighbours and opens one child over both."""
        low, high = sorted((shard, adjacent), key=attrgetter("first_hash_key"))
        if low.last_hash_key + 1 != high.first_hash_key:
            raise ServiceError(
                "InvalidArgumentException",
                f"Shards {shard.id} and {adjacent.id} in stream {self.name} are not an adjacent pair of shards",
            )
        self._close(shard, now)
        self._close(adjacent, now)
        child = self._open(low.first_hash_key, high.last_hash_key, int(now), (shard, adjacent))
        for parent in (shard, adjacent):
            parent.children.append(child)
        return child

    def _open(self, first: int, last: int, seconds: int, parents: tuple[Shard, ...]) -> Shard:
        # A child is a second younger than its parents at least, so that its numbers are larger than theirs.
        opened = max([seconds, *(parent.opened + 1 for parent in parents)])
        shard = Shard(self._next_index, first, last, opened, tuple(parent.id for parent in parents))
        shard.starting = shard.number(0, opened)
        self._next_index += 1
        self._shards[shard.id] = shard
        return shard

    def _close(self, shard: Shard, now: float) -> None:
        if shard.closed is not None:
            raise ServiceError("ResourceInUseException", f"Shard {shard.id} in stream {self.name} is already closed")
        self._count += 1
        shard.closed = now
        shard.ending = shard.number(self._count, int(now))
