"""The conservation oracle: what was generated is at each output, among its dead letters, or dropped by rule."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import zstandard

from shipper.decode import KeyResolver, Origin
from shipper.decode.decoder import RecordDecoder
from shipper.source import Record


class _Identified(msgspec.Struct):
    id: str


def ids_of_records(records: Iterable[bytes], keys: KeyResolver, resource_id: str | None) -> Counter[str]:
    """The ids of all events in these Kinesis records, decoded one by one."""
    decoder = RecordDecoder(Origin("oracle", "oracle", resource_id), keys)
    ids: Counter[str] = Counter()
    for number, data in enumerate(records):
        decoded = decoder.decode(Record(number, data, 0), "")
        assert not decoded.refused, decoded.refused
        ids.update(event.id for event in decoded.events)
    return ids


def ids_in_files(*paths: Path) -> Counter[str]:
    """How often each event id is in these JSON-lines files, compressed or not. A torn file is an error."""
    ids: Counter[str] = Counter()
    for path in paths:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        elif path.suffix == ".zst":
            content = _decompress_frames(content)
        assert not content or content.endswith(b"\n"), f"{path} ends within a line"
        ids.update(msgspec.json.decode(line, type=_Identified).id for line in content.splitlines())
    return ids


def stream_records(client: Any, stream: str) -> list[bytes]:
    """Every record of a stream, read shard by shard."""
    found: list[bytes] = []
    for shard in client.list_shards(StreamName=stream)["Shards"]:
        iterator = client.get_shard_iterator(
            StreamName=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        while iterator:
            reply = client.get_records(ShardIterator=iterator, Limit=1000)
            found += [record["Data"] for record in reply["Records"]]
            if not reply["Records"] and reply["MillisBehindLatest"] == 0:
                break
            iterator = reply.get("NextShardIterator")
    return found


def _decompress_frames(content: bytes) -> bytes:
    """Whole frames only: zstandard's own stream reader gives the beginning of a torn last one without an error."""
    parts: list[bytes] = []
    while content:
        decompressor = zstandard.ZstdDecompressor().decompressobj()
        parts.append(decompressor.decompress(content))
        assert decompressor.eof, "a torn zstd frame"
        content = decompressor.unused_data
    return b"".join(parts)
