"""Where generated records go: a Kinesis stream, or a file of captured records, one envelope per line."""

from __future__ import annotations

import random
import threading
import uuid
from typing import TYPE_CHECKING, BinaryIO, Protocol

from shipper.aws import code, errors, held, transient
from shipper.clock import Clock
from shipper.errors import Held

if TYPE_CHECKING:
    from mypy_boto3_kinesis import KinesisClient
    from mypy_boto3_kinesis.type_defs import PutRecordsRequestEntryTypeDef

#: Limits of one PutRecords call (Kinesis API reference); 5 MiB was AWS's own and is what every server takes.
MAX_RECORDS = 500
MAX_BYTES = 5 * 1024 * 1024

_FIRST_WAIT = 0.1
_LONGEST_WAIT = 5.0
#: Seconds without a single accepted record after which a stream is given up.
PATIENCE = 120.0
#: What PutRecords says of single records that may be sent again.
_PASSING = frozenset({"ProvisionedThroughputExceededException", "InternalFailure"})


class Destination(Protocol):
    """Takes envelopes in order; ``flush`` returns when all of them are there."""

    def write(self, envelope: bytes) -> None: ...

    def flush(self) -> None: ...


class FileDestination:
    """Appends one envelope per line. An envelope holds no line feed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, envelope: bytes) -> None:
        self._file.write(envelope + b"\n")

    def flush(self) -> None:
        self._file.flush()


class StreamDestination:
    """Puts records on a Kinesis stream, each under a random UUID as its partition key, as the engines do.

    Single records that Kinesis refuses for the moment, and calls that fail for the moment, are sent again after a
    growing, jittered wait. Raises ``Held``, with what to do about it, for what waiting does not mend, and when no
    record was accepted for ``PATIENCE`` seconds.
    """

    def __init__(self, client: KinesisClient, stream: str, clock: Clock) -> None:
        self._client = client
        self._stream = stream
        self._clock = clock
        self._entries: list[PutRecordsRequestEntryTypeDef] = []
        self._bytes = 0

    def write(self, envelope: bytes) -> None:
        key = str(uuid.uuid4())
        size = len(envelope) + len(key)
        if len(self._entries) >= MAX_RECORDS or self._bytes + size > MAX_BYTES:
            self.flush()
        self._entries.append({"Data": envelope, "PartitionKey": key})
        self._bytes += size

    def flush(self) -> None:
        entries, self._entries, self._bytes = self._entries, [], 0
        since = self._clock.monotonic()
        wait = _FIRST_WAIT
        while entries:
            left, reason = self._put(entries)
            if len(left) < len(entries):
                since, wait = self._clock.monotonic(), _FIRST_WAIT
            elif self._clock.monotonic() - since > PATIENCE:
                raise Held(
                    "unreachable",
                    f"generate: the stream {self._stream} has taken no record for {PATIENCE:.0f} seconds ({reason}); "
                    f"stopped with {len(left)} records unsent",
                    "lower --rate, or give the stream more shards",
                )
            entries = left
            if entries:
                self._clock.wait(threading.Event(), random.uniform(wait / 2, wait))
                wait = min(wait * 2, _LONGEST_WAIT)

    def _put(self, entries: list[PutRecordsRequestEntryTypeDef]) -> tuple[list[PutRecordsRequestEntryTypeDef], str]:
        """What has to be sent again, and why."""
        try:
            reply = self._client.put_records(StreamName=self._stream, Records=entries)
        except errors() as error:
            if transient(error):
                return entries, code(error)
            raise held(error, "generate", "kinesis", not_found="stream_not_found") from error
        left, reason = [], ""
        for entry, result in zip(entries, reply["Records"], strict=True):
            reason = result.get("ErrorCode") or reason
            if result.get("ErrorCode") in _PASSING:
                left.append(entry)
            elif "ErrorCode" in result:
                raise Held(
                    "refused",
                    f"generate: the stream {self._stream} refused a record: {result['ErrorCode']}: "
                    f"{result.get('ErrorMessage', '')}; stopped",
                    "check the stream's encryption and limits",
                )
        return left, reason
