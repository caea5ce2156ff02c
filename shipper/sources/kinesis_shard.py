"""Reads one shard: iterators and their renewal, pace, back-off, and user records inside aggregated ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import Any

from shipper import aws
from shipper.clock import Clock
from shipper.decode.aggregation import user_records
from shipper.errors import Held
from shipper.source import END, Position, Read, Record, Start, StopSignal
from shipper.sources.kinesis_replies import (
    KinesisRecord,
    Reply,
    call_errors,
    get_records,
    held,
    member,
    transient,
)

#: ``Record.position`` is the sequence number times this, plus the number of the user record: from 1 in an aggregate, 0
#: for a plain record, so that a position tells which of the two its record was. A 10 MiB record holds fewer.
SUB_SEQUENCES = 10**10

#: Seconds between two GetRecords calls: AWS allows five a second and shard, for all readers together.
MIN_INTERVAL = 0.2
#: Back-off in seconds: full jitter below a bound that doubles from the first to the second value.
BACKOFF = (0.5, 5.0)
#: After so many seconds of nothing but failures the shard is held: people are told, and trying becomes slower. With the
#: last call and its wait it stays below the minute after which a thread without progress counts as stuck.
PATIENCE = 20.0


@dataclass(frozen=True, slots=True)
class Access:
    """What a shard's reader needs of its source. ``verify`` raises ``Held`` where the stream is not the same any more,
    and says whether it still lists a shard."""

    component: str
    client: Callable[[], Any]
    arn: str
    verify: Callable[[str], bool]
    poll_interval: float
    clock: Clock
    random: Random


class ShardReader:
    """One pass over a shard, from ``begin`` until it is closed and read, or ``stop`` is set."""

    def __init__(self, access: Access, shard_id: str, begin: Position | Start, stop: StopSignal) -> None:
        self._access = access
        self._shard_id = shard_id
        self._stop = stop
        self._begin = begin
        #: Sequence number of the last record that this pass has read.
        self._last: str | None = None
        #: Records that arrived earlier (nanoseconds) are before ``begin``; 0 once one that did not was met.
        self._not_before = 0
        self._future = False
        self._called = 0.0
        #: When the first call of a row of failures was made (monotonic seconds), and how many they are.
        self._failing_since: float | None = None
        self._failures = 0
        if isinstance(begin, datetime):
            self._not_before = int(begin.timestamp() * 1000) * 1_000_000

    def reads(self) -> Iterator[Read]:
        """Every reply as one read, empty ones too. Raises ``Held``."""
        iterator: str | None = None
        clock = self._access.clock
        failures = call_errors()
        while not self._stop.is_set():
            self._called = clock.monotonic()
            try:
                if iterator is None:
                    iterator = self._iterator()
                reply = get_records(self._access.client(), ShardIterator=iterator, StreamARN=self._access.arn)
            except failures as error:
                if aws.code(error) == "ResourceNotFoundException" and not self._access.verify(self._shard_id):
                    return  # expired with its records: it is not listed any more, which is a gap for the engine to tell
                iterator = self._after(error, iterator)
                continue
            self._failing_since, self._failures = None, 0
            read = self._read(reply)
            iterator = reply.next_shard_iterator
            yield read
            if read.end:
                return
            interval = max(self._access.poll_interval, MIN_INTERVAL) if read.lag == 0 else MIN_INTERVAL
            clock.wait(self._stop, max(0.0, self._called + interval - clock.monotonic()))

    def _iterator(self) -> str:
        request: dict[str, Any]
        if self._last is not None:
            request = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": self._last}
        elif isinstance(self._begin, Position):
            sequence, sub = divmod(self._begin.record, SUB_SEQUENCES)
            # What follows inside the same aggregate is still to be read.
            finished = self._begin.event == END and sub == 0
            kind = "AFTER_SEQUENCE_NUMBER" if finished else "AT_SEQUENCE_NUMBER"
            request = {"ShardIteratorType": kind, "StartingSequenceNumber": str(sequence)}
        elif isinstance(self._begin, datetime):
            request = {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": self._begin}
            if self._future:
                request = {"ShardIteratorType": "LATEST"}
        else:
            request = {"ShardIteratorType": "TRIM_HORIZON"}
        reply = self._access.client().get_shard_iterator(StreamARN=self._access.arn, ShardId=self._shard_id, **request)
        return str(member(reply, "ShardIterator"))

    def _after(self, error: Exception, iterator: str | None) -> str | None:
        """The iterator to go on with after an error, once it is time to. Raises ``Held`` where there is no going on."""
        code = aws.code(error)
        if code == "ExpiredIteratorException":
            # A stream of the same name would be read from its beginning as if it were the old one.
            self._access.verify(self._shard_id)
            if self._failures:
                self._back_off(error)
            self._failures += 1
            self._future = False
            return None
        if code == "InvalidArgumentException":
            # AWS refuses a sequence number of another stream: was this one deleted and created again?
            self._access.verify(self._shard_id)
            if iterator is None and self._last is None and isinstance(self._begin, datetime) and not self._future:
                # A time that AWS has not reached: its clock differs from ours. Until then nothing is to be read, so it
                # is the tip that we want, without what arrives too early.
                self._future = True
                return None
        if not transient(error):
            raise self._held(error)
        self._back_off(error)
        return iterator

    def _back_off(self, error: Exception) -> None:
        clock = self._access.clock
        if self._failing_since is None:
            self._failing_since = self._called
        if clock.monotonic() - self._failing_since >= PATIENCE:
            raise self._held(error)
        first, most = BACKOFF
        bound = min(most, first * 2 ** min(self._failures, 10))
        self._failures += 1
        clock.wait(self._stop, self._access.random.uniform(0, bound))

    def _held(self, error: Exception) -> Held:
        return held(error, f"{self._access.component}: {self._shard_id}", self._access.arn)

    def _read(self, reply: Reply) -> Read:
        records: list[Record] = []
        for record in reply.records:
            if self._not_before:
                if record.arrived < self._not_before:
                    continue
                self._not_before = 0
            _unpack(record, records)
        if reply.records:
            self._last = reply.records[-1].sequence_number
        if isinstance(self._begin, Position) and records:
            self._drop_finished(self._begin, records)
        behind = reply.millis_behind_latest
        return Read(records, None if behind is None else behind / 1000, end=reply.next_shard_iterator is None)

    @staticmethod
    def _drop_finished(begin: Position, records: list[Record]) -> None:
        """Forgets what stands before ``begin`` in the aggregate that it points into."""
        position, event = begin
        if records[0].position <= position:
            records[:] = [
                record
                for record in records
                if record.position > position or (record.position == position and event != END)
            ]


def _unpack(record: KinesisRecord, records: list[Record]) -> None:
    position, arrived = int(record.sequence_number) * SUB_SEQUENCES, record.arrived
    inner = user_records(record.data)
    if not inner:  # an aggregate of nothing is no aggregate: the decoder shall judge it
        records.append(Record(position, record.data, arrived))
        return
    records.extend(Record(position + number, data, arrived) for number, data in enumerate(inner, 1))
