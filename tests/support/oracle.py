"""The conservation oracle: what was generated is at each output, among its dead letters, or dropped by rule."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
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
    return Counter(event for path in paths for event in ids_in_order(path))


def ids_in_order(path: Path) -> list[str]:
    """The event ids of a JSON-lines file, compressed or not, as they stand in it. A torn file is an error."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    elif path.suffix == ".zst":
        content = _decompress_frames(content)
    assert not content or content.endswith(b"\n"), f"{path} ends within a line"
    return [msgspec.json.decode(line, type=_Identified).id for line in content.splitlines()]


def each_id(path: Path) -> Iterator[str]:
    """The same of a file that is too large for memory, and not compressed."""
    with path.open("rb") as lines:
        for line in lines:
            assert line.endswith(b"\n"), f"{path} ends within a line"
            yield msgspec.json.decode(line, type=_Identified).id


def assert_exactly(output: str, found: Iterable[str], order: Mapping[str, Sequence[str]]) -> None:
    """All that was generated was found, once, of each partition in order. Keeps no more in memory than was given."""
    following = {events[0]: (partition, 1) for partition, events in order.items() if events}
    for event in found:
        assert event in following, f"output {output}: {event} is not what follows in any partition"
        partition, place = following.pop(event)
        if place < len(order[partition]):
            following[order[partition][place]] = (partition, place + 1)
    assert not following, f"output {output}: these and what follows them is missing: {following}"


def assert_conserved(
    output: str, generated: Collection[str], dropped: Collection[str], stored: Collection[str], letters: Collection[str]
) -> None:
    """Every generated event is stored, a dead letter of this output, or dropped by rule; and nothing else is there."""
    owed = set(generated) - set(dropped)
    found = set(stored) | set(letters)
    faults = {
        "lost": owed - found,
        "stored or kept although a rule drops it": found & set(dropped),
        "stored or kept and never generated": found - set(generated),
    }
    said = [f"{len(events)} {what}: {_some(events)}" for what, events in faults.items() if events]
    assert not said, f"output {output}: " + "; ".join(said)


def assert_in_order(output: str, found: Sequence[str], order: Mapping[str, Sequence[str]]) -> None:
    """What was found of each partition stands in the order in which it was generated."""
    places = {event: (partition, place) for partition, events in order.items() for place, event in enumerate(events)}
    last: dict[str, int] = {}
    for event in found:
        if event in places:
            partition, place = places[event]
            before = last.get(partition, -1)
            assert place > before, f"output {output}: {event} is number {place} of {partition} and follows {before}"
            last[partition] = place


def assert_balanced(output: str, books: Mapping[str, Mapping[str, int]], pending: int = 0) -> None:
    """The books of one output balance (delivery.md, The books). ``books``: entry → reason → count."""
    entries = {entry: sum(reasons.values()) for entry, reasons in books.items()}
    left = ("dead_lettered", "replayed_out", "purged", "expired")
    # Cumulative: what is a dead letter now is what became one and did not leave again.
    kept = entries.get("dead_lettered", 0) - sum(entries.get(entry, 0) for entry in left[1:])
    kept += books.get("purged", {}).get("spool", 0)  # that was no dead letter
    offered = entries.get("offered", 0) + entries.get("replayed", 0)
    settled = sum(entries.get(entry, 0) for entry in ("filtered", "delivered", "already_stored", *left[1:]))
    assert kept >= 0, f"output {output}: more dead letters left than came: {entries}"
    assert offered == settled + kept + pending, (
        f"output {output}: the books do not balance, pending {pending}: {entries}"
    )


def _some(events: Collection[str]) -> str:
    return ", ".join(sorted(events)[:5]) + (" …" if len(events) > 5 else "")


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
