"""What a fault test ships: activity on an embedded stream, and lines of a growing file, with ids that are known."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from faults.schedule import Fault, Feed
from shipper.decode import Origin
from shipper.decode.decoder import RecordDecoder
from shipper.generate.activity import Generator, PlainRecord
from shipper.generate.damage import damage
from shipper.generate.sealer import DataKey, Sealer, encryption_context
from shipper.source import Record
from shipper.testing.kinesis import FakeKinesis
from shipper.testing.kms import FakeKms

#: Broken records of a stream; those of every reason are elsewhere (end_to_end).
DAMAGES = ("tampered", "cut_base64", "broken_gzip", "unknown_key", "not_json_inside")
#: Broken lines of a file.
GARBAGE = (b"this is no JSON", b"\xff\xfe\x00\x80", b'{"schema_version":99,"id":"x"}', b'"a text"', b"[1,2")
CLUSTER = "cluster-FAULTSFAULTSFAULTSFAULTS22"
STREAM = f"aws-rds-das-{CLUSTER}"


@dataclass(slots=True)
class Fed:
    """What was fed: per partition the ids in reading order, each event's user and category, and how many records
    cannot be decoded."""

    order: dict[str, list[str]] = field(default_factory=dict)
    facts: dict[str, tuple[str | None, str]] = field(default_factory=dict)
    broken: int = 0


class Lines:
    """Native events in a file that grows; a write may end within a line."""

    def __init__(self, folder: Path, rng: random.Random, feeds: Sequence[Feed]) -> None:
        folder.mkdir()
        self._rng = rng
        self._path = folder / "events.jsonl"
        self._rest = b""
        self._path.write_bytes(b"")
        self._fed = Fed(order={"lines": []})
        self.left = list(feeds)

    def feed(self, feed: Feed) -> None:
        """Adds the records of one feed to the file."""
        self.left.remove(feed)
        lines = [self._line() for _ in range(feed.records)]
        for _ in range(feed.broken):
            # Not at the end: whether it is broken shows with what follows.
            lines.insert(self._rng.randrange(len(lines)), self._rng.choice(GARBAGE))
        self._fed.broken += feed.broken
        data = self._rest + b"".join(line + b"\n" for line in lines)
        cut = self._rng.choice([len(data), len(data) - self._rng.randrange(200)])
        self._write(data[:cut])
        self._rest = data[cut:]

    def finish(self) -> None:
        """Adds what is left."""
        for feed in list(self.left):
            self.feed(feed)
        self._write(self._rest)

    def fed(self) -> Fed:
        """What the file holds."""
        return self._fed

    def _write(self, data: bytes) -> None:
        with self._path.open("ab") as file:
            file.write(data)

    def _line(self) -> bytes:
        rng = self._rng
        event = f"{1_770_000_000_000 + len(self._fed.facts):012x}{rng.getrandbits(80):020x}"
        user = rng.choice(["alice", "bob", "rdsadmin"])
        category = rng.choice(["read", "write", "session", "ddl"])
        self._fed.order["lines"].append(event)
        self._fed.facts[event] = (user, category)
        table: dict[str, Any] = {"schema_version": 1, "id": event, "time": "2026-03-05T10:00:00.000000Z"}
        table |= {"category": category, "user": user, "statement": "SELECT " + "x" * rng.choice([1, 80, 900])}
        return msgspec.json.encode(table)


class Stream:
    """An activity stream on an embedded Kinesis, its key in an embedded KMS. All is sealed at the start."""

    def __init__(self, rng: random.Random, feeds: Sequence[Feed]) -> None:
        self.kinesis = FakeKinesis(seed=rng.getrandbits(32))
        self.kms = FakeKms()
        self._rng = rng
        self._key = self.kms.create_key("activity")
        self._ids: dict[bytes, list[str]] = {}
        self._fed = Fed()
        self.kinesis.create_stream(STREAM, 2)
        self.left = list(feeds)
        self._sealed = dict(zip(self.left, self._seal(), strict=True))

    def feed(self, feed: Feed) -> None:
        """Puts the records of one feed on the stream."""
        self.left.remove(feed)
        self.kinesis.put_many(STREAM, self._sealed[feed])

    def finish(self) -> None:
        """Puts what is left on the stream."""
        for feed in list(self.left):
            self.feed(feed)

    def begin(self, fault: Fault) -> None:
        """Something of the stream, or of its keys, breaks."""
        service, operation = (self.kms, "Decrypt") if fault.where == "keys" else (self.kinesis, "GetRecords")
        match fault.kind:
            case "expire":
                self.kinesis.expire_iterators()
            case "split":
                self._split()
            case "merge":
                self._merge()
            case "disable":
                self.kms.disable_key(self._key)
            case "fail":
                service.fail(operation, fault.details["code"], status=fault.details["status"])
            case "latency":
                service.latency(operation, fault.details["seconds"])
            case kind:
                getattr(service, kind)(operation)

    def end(self, fault: Fault) -> None:
        """It works again."""
        if fault.where == "keys":
            self.kms.enable_key(self._key)
            self.kms.mend()
        else:
            self.kinesis.mend()

    def fed(self) -> Fed:
        """What is on the stream, shard by shard."""
        for shard in self.kinesis.shards(STREAM):
            order = [event for record in shard.records for event in self._ids.get(record.data, ())]
            self._fed.order[shard.id] = order
        return self._fed

    def new(self, resource_id: str) -> DataKey:
        """A data key for the sealer."""
        plain, blob = self.kms.generate_data_key(self._key, encryption_context(resource_id))
        return DataKey(blob, plain)

    def _seal(self) -> Iterator[list[bytes]]:
        # New keys often: only what asks for a key meets its faults.
        sealer = Sealer(self, rotate_after=8)
        generator = Generator("aurora-postgresql", seed=7, start=datetime.now(UTC), resource_id=CLUSTER)
        records = generator.records(10 * sum(feed.records for feed in self.left) * 2)
        decoder = RecordDecoder(Origin("oracle", "oracle", CLUSTER), _NoKeys())
        for feed in self.left:
            sealed: list[bytes] = []
            wanted = feed.records
            while wanted:
                record = next(records)
                wanted -= not record.heartbeat
                sealed.append(sealer.seal(record))
                self._note(sealed[-1], record, decoder)
            for _ in range(feed.broken):
                kind = self._rng.choice(DAMAGES)
                place = self._rng.randrange(len(sealed) + 1)
                sealed.insert(place, damage(sealer, record, kind, self._rng))
            self._fed.broken += feed.broken
            yield sealed

    def _note(self, sealed: bytes, record: PlainRecord, decoder: RecordDecoder) -> None:
        decoded = decoder.decode(Record(0, record.plaintext, 0), "")
        assert not decoded.refused, decoded.refused
        assert len(decoded.events) == record.events
        self._ids[sealed] = [event.id for event in decoded.events]
        for event in decoded.events:
            assert event.id not in self._fed.facts, "the generator made equal events"
            self._fed.facts[event.id] = (event.user, event.category)

    def _split(self) -> None:
        shards = [shard for shard in self.kinesis.shards(STREAM) if shard.closed is None]
        if len(shards) < 6:
            self.kinesis.split(STREAM, self._rng.choice(shards).id)

    def _merge(self) -> None:
        shards = sorted(
            (shard for shard in self.kinesis.shards(STREAM) if shard.closed is None),
            key=lambda shard: shard.first_hash_key,
        )
        if len(shards) > 1:
            place = self._rng.randrange(len(shards) - 1)
            self.kinesis.merge(STREAM, shards[place].id, shards[place + 1].id)


class _NoKeys:
    def data_key(self, blob: bytes, resource_id: str | None) -> bytes:
        raise AssertionError("nothing here is encrypted")
