"""A Kinesis on loopback: real HTTP for boto3, a direct path for this process, and every fault on order.

::

    with FakeKinesis() as server:
        server.create_stream("aws-rds-das-cluster-ABC", shards=2)
        server.put("aws-rds-das-cluster-ABC", b"…")
        client = boto3.client("kinesis", endpoint_url=server.endpoint_url, region_name=server.region)

It follows the Kinesis Data Streams API Reference. Streams are active at once and gone at once when deleted; enhanced
fan-out, server-side encryption and tags are not there.
"""

from __future__ import annotations

import random
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from shipper.clock import Clock
from shipper.testing.aws_json import FakeService, Operation, ServiceError, required
from shipper.testing.kinesis_streams import HASH_KEYS, Shard, StoredRecord, Stream

__all__ = ["FakeKinesis", "Shard", "StoredRecord"]

# Limits of the GetRecords, PutRecords, ListShards and GetShardIterator pages of the API Reference.
MAX_REPLY_BYTES = 10 * 1024 * 1024
MAX_REPLY_RECORDS = 10_000
MAX_PUT_RECORDS = 500
MAX_PUT_BYTES = 10 * 1024 * 1024
ITERATOR_SECONDS = 300.0
TOKEN_SECONDS = 300.0
#: Per shard and second: five GetRecords calls, 2 MiB. A larger reply blocks the shard for as long as it is worth.
CALLS_PER_SECOND = 5
BYTES_PER_SECOND = 2 * 1024 * 1024


class _Iterator(NamedTuple):
    arn: str
    created: int
    shard_id: str
    number: int
    issued: float
    generation: int


class FakeKinesis(FakeService):
    """Kinesis Data Streams in this process.

    ``limits``: enforce the read limits of a shard (5 calls and 2 MiB a second, by ``clock``) as AWS does; without it
    reading is as fast as the machine. ``seed`` makes the partition keys that ``put`` invents repeatable.
    """

    target = "Kinesis_20131202"
    throttling_code = "ProvisionedThroughputExceededException"

    def __init__(
        self,
        *,
        region: str = "us-east-1",
        account: str = "123456789012",
        clock: Clock | None = None,
        limits: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(region=region, account=account, clock=clock)
        self._limits = limits
        self._random = random.Random(seed)
        self._streams: dict[str, Stream] = {}
        self._last_created: dict[str, int] = {}
        self._generation = 0
        self._refused_entries = 0
        self._recent_reads: dict[tuple[str, str], list[float]] = {}
        self._blocked_until: dict[tuple[str, str], float] = {}
        self._operations: dict[str, Operation] = {
            "CreateStream": self._create_stream,
            "DeleteStream": self._delete_stream,
            "DescribeStream": self._describe_stream,
            "DescribeStreamSummary": self._describe_stream_summary,
            "GetRecords": self._get_records,
            "GetShardIterator": self._get_shard_iterator,
            "IncreaseStreamRetentionPeriod": self._increase_retention,
            "ListShards": self._list_shards,
            "ListStreams": self._list_streams,
            "MergeShards": self._merge_shards,
            "PutRecord": self._put_record,
            "PutRecords": self._put_records,
            "SplitShard": self._split_shard,
        }

    def operations(self) -> Mapping[str, Operation]:
        """The operations of the API that are answered."""
        return self._operations

    # What this process asks directly

    def create_stream(
        self, name: str, shards: int = 1, *, retention_hours: int = 24, max_record_kib: int = 1024
    ) -> str:
        """Creates an active stream and returns its ARN. Raises ``ServiceError`` ResourceInUseException."""
        with self._lock:
            if name in self._streams:
                raise ServiceError(
                    "ResourceInUseException", f"Stream {name} under account {self.account} already exists."
                )
            # AWS reports whole seconds, and takes longer than one to delete a stream and create it again.
            created = max(int(self._clock.now()), self._last_created.get(name, 0) + 1)
            arn = f"arn:aws:kinesis:{self.region}:{self.account}:stream/{name}"
            self._streams[name] = Stream(name, arn, created, shards, retention_hours, max_record_kib * 1024)
            self._last_created[name] = created
            return arn

    def delete_stream(self, name: str) -> None:
        """Deletes a stream with all that it holds; creating it again makes another stream of the same name and ARN."""
        with self._lock:
            del self._streams[self._stream({"StreamName": name}).name]

    def put(
        self,
        stream: str,
        data: bytes,
        partition_key: str | None = None,
        *,
        explicit_hash_key: int | None = None,
        arrived: float | None = None,
    ) -> StoredRecord:
        """Stores a record without HTTP. ``partition_key``: a random UUID by default, as activity streams use.

        ``arrived``: seconds since 1970-01-01 UTC, the clock's time by default; it must not go backwards in a shard.
        """
        with self._lock:
            target = self._stream({"StreamName": stream})
            key = partition_key or str(UUID(int=self._random.getrandbits(128), version=4))
            self._check_record(target, data, key)
            return target.put(data, key, explicit_hash_key, self._clock.now() if arrived is None else arrived)[1]

    def put_many(self, stream: str, data: Iterable[bytes]) -> None:
        """Stores records under random partition keys, in order."""
        for one in data:
            self.put(stream, one)

    def records(self, stream: str, shard_id: str | None = None) -> list[StoredRecord]:
        """What the stream still holds, shard by shard; or one shard of it."""
        return [
            record for shard in self.shards(stream) if shard_id in (None, shard.id) for record in list(shard.records)
        ]

    def shards(self, stream: str) -> Sequence[Shard]:
        """The shards that are listed now, closed ones included."""
        with self._lock:
            return self._stream({"StreamName": stream}).shards(self._clock.now())

    def split(self, stream: str, shard_id: str, at: int | None = None) -> tuple[str, str]:
        """Splits a shard, in the middle of its hash keys by default; returns the children's ids."""
        with self._lock:
            target = self._stream({"StreamName": stream})
            shard = self._shard(target, shard_id)
            middle = (shard.first_hash_key + shard.last_hash_key + 1) // 2
            low, high = target.split(shard, middle if at is None else at, self._clock.now())
            return low.id, high.id

    def merge(self, stream: str, shard_id: str, adjacent_id: str) -> str:
        """Merges two neighbours; returns the child's id."""
        with self._lock:
            target = self._stream({"StreamName": stream})
            pair = self._shard(target, shard_id), self._shard(target, adjacent_id)
            return target.merge(*pair, self._clock.now()).id

    def trim(self, stream: str, shard_id: str, keep: int = 0) -> None:
        """Lets all records of a shard expire but the newest ``keep``."""
        with self._lock:
            shard = self._shard(self._stream({"StreamName": stream}), shard_id)
            shard.trim(shard.end - keep)

    def expire_iterators(self) -> None:
        """Every iterator that was given out so far has expired."""
        with self._lock:
            self._generation += 1

    def refuse_entries(self, count: int) -> None:
        """The next ``count`` entries of PutRecords calls fail for exceeded throughput, while the calls succeed."""
        with self._lock:
            self._refused_entries = count

    # Streams

    def _stream(self, request: Mapping[str, Any]) -> Stream:
        name, arn = request.get("StreamName"), request.get("StreamARN")
        if name is None and arn is None:
            raise ServiceError("InvalidArgumentException", "Either StreamARN or StreamName must be provided")
        if name is None:
            name = str(arn).rpartition(":stream/")[2]
        stream = self._streams.get(str(name))
        if stream is None or arn not in (None, stream.arn):
            raise ServiceError(
                "ResourceNotFoundException", f"Stream {str(name)[:128]} under account {self.account} not found."
            )
        return stream

    def _shard(self, stream: Stream, shard_id: str) -> Shard:
        return stream.shard(shard_id, self._clock.now(), self.account)

    def _create_stream(self, request: dict[str, Any]) -> bytes:
        shards, kib = request.get("ShardCount", 4), request.get("MaxRecordSizeInKiB", 1024)
        self.create_stream(required(request, "StreamName"), shards, max_record_kib=kib)
        return b""

    def _delete_stream(self, request: dict[str, Any]) -> bytes:
        self.delete_stream(self._stream(request).name)
        return b""

    def _summary(self, stream: Stream) -> dict[str, Any]:
        return {
            "StreamName": stream.name,
            "StreamARN": stream.arn,
            "StreamStatus": "ACTIVE",
            "StreamModeDetails": {"StreamMode": "PROVISIONED"},
            "StreamCreationTimestamp": float(stream.created),
        }

    def _describe_stream_summary(self, request: dict[str, Any]) -> dict[str, Any]:
        stream = self._stream(request)
        shown = self._summary(stream) | {
            "RetentionPeriodHours": stream.retention_hours,
            "EnhancedMonitoring": [{"ShardLevelMetrics": []}],
            "EncryptionType": "NONE",
            "OpenShardCount": sum(shard.closed is None for shard in stream.shards(self._clock.now())),
            "ConsumerCount": 0,
            "MaxRecordSizeInKiB": stream.max_record // 1024,
        }
        return {"StreamDescriptionSummary": shown}

    def _describe_stream(self, request: dict[str, Any]) -> dict[str, Any]:
        stream = self._stream(request)
        limit = request.get("Limit", 100)
        after = request.get("ExclusiveStartShardId", "")
        shards = [shard for shard in stream.shards(self._clock.now()) if shard.id > after]
        shown = self._summary(stream) | {
            "RetentionPeriodHours": stream.retention_hours,
            "EnhancedMonitoring": [{"ShardLevelMetrics": []}],
            "EncryptionType": "NONE",
            "Shards": [shard.describe() for shard in shards[:limit]],
            "HasMoreShards": len(shards) > limit,
        }
        return {"StreamDescription": shown}

    def _list_streams(self, request: dict[str, Any]) -> dict[str, Any]:
        after = request.get("ExclusiveStartStreamName", "")
        if "NextToken" in request:
            after = _untoken(request["NextToken"], str)
        limit = request.get("Limit", 100)
        found = sorted(name for name in self._streams if name > after)
        page = found[:limit]
        reply: dict[str, Any] = {
            "StreamNames": page,
            "HasMoreStreams": len(found) > limit,
            "StreamSummaries": [self._summary(self._streams[name]) for name in page],
        }
        return reply | ({"NextToken": _token(page[-1])} if len(found) > limit else {})

    def _increase_retention(self, request: dict[str, Any]) -> bytes:
        stream = self._stream(request)
        hours = required(request, "RetentionPeriodHours", int)
        if not stream.retention_hours <= hours <= 8760:
            raise ServiceError(
                "InvalidArgumentException",
                f"Requested retention period ({hours} hours) for stream {stream.name} must be between the present one "
                f"({stream.retention_hours} hours) and 8760 hours.",
            )
        stream.retention_hours = hours
        return b""

    # Shards

    def _list_shards(self, request: dict[str, Any]) -> dict[str, Any]:
        if "NextToken" in request:
            if "StreamName" in request or "ExclusiveStartShardId" in request:
                raise ServiceError("InvalidArgumentException", "NextToken and StreamName cannot be provided together.")
            name, after, issued, filter_ = _untoken(request["NextToken"], tuple[str, str, float, dict[str, Any]])
            if self._clock.now() - issued > TOKEN_SECONDS:
                raise ServiceError("ExpiredNextTokenException", "The pagination token has expired")
            stream = self._stream({"StreamName": name})
        else:
            stream = self._stream(request)
            after, filter_ = request.get("ExclusiveStartShardId", ""), request.get("ShardFilter", {})
        limit = request.get("MaxResults", 1000)
        shards = [shard for shard in self._filtered(stream, filter_) if shard.id > after]
        reply: dict[str, Any] = {"Shards": [shard.describe() for shard in shards[:limit]]}
        if len(shards) > limit:
            reply["NextToken"] = _token((stream.name, shards[limit - 1].id, self._clock.now(), filter_))
        return reply

    def _filtered(self, stream: Stream, filter_: Mapping[str, Any]) -> list[Shard]:
        shards = stream.shards(self._clock.now())
        at = float(filter_.get("Timestamp", 0))
        kind = filter_.get("Type", "FROM_TRIM_HORIZON")
        match kind:
            case "FROM_TRIM_HORIZON":
                return shards
            case "AT_TRIM_HORIZON":
                listed = {shard.id for shard in shards}
                return [shard for shard in shards if not listed & set(shard.parents)]
            case "AT_LATEST":
                return [shard for shard in shards if shard.closed is None]
            case "AT_TIMESTAMP":
                return [shard for shard in shards if shard.opened <= at and (shard.closed is None or shard.closed > at)]
            case "FROM_TIMESTAMP":
                return [shard for shard in shards if shard.closed is None or shard.closed > at]
            case "AFTER_SHARD_ID":
                return [shard for shard in shards if shard.id > filter_.get("ShardId", "")]
        raise ServiceError("InvalidArgumentException", f"{str(kind)[:50]} is not a type of shard filter")

    def _split_shard(self, request: dict[str, Any]) -> bytes:
        stream = self._stream(request)
        at = _integer(required(request, "NewStartingHashKey"), "NewStartingHashKey")
        self.split(stream.name, required(request, "ShardToSplit"), at)
        return b""

    def _merge_shards(self, request: dict[str, Any]) -> bytes:
        stream = self._stream(request)
        self.merge(stream.name, required(request, "ShardToMerge"), required(request, "AdjacentShardToMerge"))
        return b""

    # Writing

    def _check_record(self, stream: Stream, data: bytes, partition_key: str) -> None:
        if not 1 <= len(partition_key) <= 256:
            raise ServiceError("ValidationException", "Value at 'partitionKey' must have 1 to 256 characters")
        if len(data) + len(partition_key.encode()) > stream.max_record:
            raise ServiceError(
                "ValidationException",
                "1 validation error detected: Value at 'data' failed to satisfy constraint: Member must have length "
                f"less than or equal to {stream.max_record}",
            )

    def _entry(self, stream: Stream, entry: Mapping[str, Any]) -> tuple[bytes, str, int | None]:
        data = b64decode(required(entry, "Data"))
        key = required(entry, "PartitionKey")
        self._check_record(stream, data, key)
        explicit = entry.get("ExplicitHashKey")
        hash_key = None if explicit is None else _integer(explicit, "ExplicitHashKey")
        if hash_key is not None and not 0 <= hash_key < HASH_KEYS:
            raise ServiceError("InvalidArgumentException", "ExplicitHashKey must be between 0 and 2^128 - 1")
        return data, key, hash_key

    def _put_record(self, request: dict[str, Any]) -> dict[str, Any]:
        stream = self._stream(request)
        shard, record = stream.put(*self._entry(stream, request), self._clock.now())
        return {"ShardId": shard.id, "SequenceNumber": str(record.sequence_number), "EncryptionType": "NONE"}

    def _put_records(self, request: dict[str, Any]) -> dict[str, Any]:
        stream = self._stream(request)
        entries = required(request, "Records", list)
        if not 1 <= len(entries) <= MAX_PUT_RECORDS:
            raise ServiceError(
                "ValidationException",
                "1 validation error detected: Value at 'records' failed to satisfy constraint: Member must have length "
                f"less than or equal to {MAX_PUT_RECORDS}",
            )
        checked = [self._entry(stream, entry) for entry in entries]
        if sum(len(data) + len(key.encode()) for data, key, _ in checked) > MAX_PUT_BYTES:
            raise ServiceError("InvalidArgumentException", "Records size exceeds 10 MB limit")
        results: list[dict[str, Any]] = []
        failed = 0
        for data, key, hash_key in checked:
            if self._refused_entries > 0:
                self._refused_entries -= 1
                failed += 1
                message = f"Rate exceeded for a shard in stream {stream.name} under account {self.account}."
                results.append({"ErrorCode": self.throttling_code, "ErrorMessage": message})
                continue
            shard, record = stream.put(data, key, hash_key, self._clock.now())
            results.append({"SequenceNumber": str(record.sequence_number), "ShardId": shard.id})
        return {"FailedRecordCount": failed, "Records": results, "EncryptionType": "NONE"}

    # Reading

    def _get_shard_iterator(self, request: dict[str, Any]) -> dict[str, Any]:
        stream = self._stream(request)
        shard = self._shard(stream, required(request, "ShardId"))
        number = self._start(stream, shard, request)
        return {"ShardIterator": self._issue(stream, shard, number)}

    def _start(self, stream: Stream, shard: Shard, request: Mapping[str, Any]) -> int:
        kind = required(request, "ShardIteratorType")
        match kind:
            case "TRIM_HORIZON":
                return shard.trimmed
            case "LATEST":
                return shard.end
            case "AT_TIMESTAMP":
                at = float(required(request, "Timestamp", object))
                if at > self._clock.now():
                    raise ServiceError(
                        "InvalidArgumentException",
                        "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. "
                        f"timestampInMillis: {at * 1000:.0f}, currentTimestampInMillis: {self._clock.now() * 1000:.0f}",
                    )
                return shard.at_time(at)
            case "AT_SEQUENCE_NUMBER" | "AFTER_SEQUENCE_NUMBER":
                sequence = _integer(required(request, "StartingSequenceNumber"), "StartingSequenceNumber")
                if not shard.owns(sequence):
                    raise ServiceError(
                        "InvalidArgumentException",
                        f"StartingSequenceNumber {sequence} used in GetShardIterator on shard {shard.id} in stream "
                        f"{stream.name} under account {self.account} is invalid because it did not come from this "
                        "stream.",
                    )
                return shard.at_sequence(sequence + (kind == "AFTER_SEQUENCE_NUMBER"))
        raise ServiceError("ValidationException", f"{str(kind)[:50]} is not a type of shard iterator")

    def _issue(self, stream: Stream, shard: Shard, number: int) -> str:
        return _token(_Iterator(stream.arn, stream.created, shard.id, number, self._clock.now(), self._generation))

    def _get_records(self, request: dict[str, Any]) -> bytes:
        limit = request.get("Limit", MAX_REPLY_RECORDS)
        if not 1 <= limit <= MAX_REPLY_RECORDS:
            raise ServiceError("InvalidArgumentException", f"Limit must be between 1 and {MAX_REPLY_RECORDS}")
        iterator = _untoken(required(request, "ShardIterator"), _Iterator)
        if request.get("StreamARN") not in (None, iterator.arn):
            raise ServiceError("InvalidArgumentException", "StreamARN does not match the stream of the ShardIterator")
        stream = self._stream({"StreamARN": iterator.arn})
        if stream.created != iterator.created:
            raise ServiceError("ResourceNotFoundException", f"Stream {stream.name} is not the iterator's any more.")
        now = self._clock.now()
        if iterator.generation != self._generation or now - iterator.issued > ITERATOR_SECONDS:
            issued = datetime.fromtimestamp(iterator.issued, UTC)
            raise ServiceError(
                "ExpiredIteratorException",
                f"Iterator expired. The iterator was created at time {issued:%a %b %d %H:%M:%S UTC %Y} while right now "
                f"it is {datetime.fromtimestamp(now, UTC):%a %b %d %H:%M:%S UTC %Y} which is further in the future "
                "than the tolerated delay of 300000 milliseconds.",
            )
        shard = self._shard(stream, iterator.shard_id)
        self._admit(stream, shard)
        return self._reply(stream, shard, max(iterator.number, shard.trimmed), limit)

    def _reply(self, stream: Stream, shard: Shard, begin: int, limit: int) -> bytes:
        at = begin - shard.trimmed
        parts: list[bytes] = []
        size = 0
        for record in shard.records[at : at + limit]:
            if parts and size + record.size > MAX_REPLY_BYTES:
                break
            size += record.size
            parts += (b"," if parts else b"", record.head, record.encoded, b'"}')
        end = begin + len(parts) // 4
        self._charge(stream, shard, size)
        behind = 0
        if end < shard.end:
            behind = max(1, round((self._clock.now() - shard.records[max(end - 1 - shard.trimmed, 0)].arrived) * 1000))
        tail: dict[str, Any] = {"MillisBehindLatest": behind}
        if shard.closed is not None and end >= shard.end:
            tail["ChildShards"] = [
                {"ShardId": child.id, "ParentShards": child.parents, "HashKeyRange": child.hash_keys()}
                for child in shard.children
            ]
        else:
            tail["NextShardIterator"] = self._issue(stream, shard, end)
        return b"".join((b'{"Records":[', *parts, b"],", msgspec.json.encode(tail)[1:]))

    def _admit(self, stream: Stream, shard: Shard) -> None:
        """Refuses the sixth call in a second, and any while an earlier reply is still being paid for."""
        if not self._limits:
            return
        key, now = (stream.arn, shard.id), self._clock.monotonic()
        recent = [at for at in self._recent_reads.get(key, ()) if at > now - 1]
        if len(recent) >= CALLS_PER_SECOND or now < self._blocked_until.get(key, 0.0):
            raise ServiceError(
                self.throttling_code,
                f"Rate exceeded for shard {shard.id} in stream {stream.name} under account {self.account}.",
            )
        self._recent_reads[key] = [*recent, now]

    def _charge(self, stream: Stream, shard: Shard, size: int) -> None:
        if size > BYTES_PER_SECOND:
            self._blocked_until[stream.arn, shard.id] = self._clock.monotonic() + size / BYTES_PER_SECOND


def _token(value: object) -> str:
    return b64encode(msgspec.json.encode(value)).decode()


def _untoken(token: object, kind: Any) -> Any:
    try:
        return msgspec.json.decode(b64decode(str(token), validate=True), type=kind)
    except ValueError:  # msgspec's errors are ValueErrors too
        raise ServiceError("InvalidArgumentException", "Invalid ShardIterator or NextToken.") from None


def _integer(text: str, name: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 128:
        raise ServiceError("InvalidArgumentException", f"{name} is not a number")
    return int(text)
