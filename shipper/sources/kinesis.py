"""Database Activity Streams where AWS puts them: a Kinesis stream, read by polling."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar

from shipper import aws
from shipper.clock import Clock, SystemClock
from shipper.errors import ConfigurationError, Held, Problem
from shipper.settings import KinesisSettings
from shipper.source import Check, Partition, Position, Read, Source, Start, StopSignal
from shipper.sources.kinesis_names import Named, resolve
from shipper.sources.kinesis_replies import call_errors, get_records, held, member, parse_replies, transient
from shipper.sources.kinesis_shard import SUB_SEQUENCES, Access, ShardReader

#: One thread per shard reads at the same time; a connection costs nothing until it is used.
_CONNECTIONS = 512
#: ListShards page of the API Reference: at most so many shards a page.
_PAGE = 1000
_ATTEMPTS = 4
_SUMMARY = "StreamDescriptionSummary"
_ONE_OF = ("cluster", "instance", "resource_id", "stream")


@dataclass(frozen=True, slots=True)
class _Stream:
    """The stream that was found. ``created`` is UTC, ``retention`` seconds."""

    named: Named
    arn: str
    created: datetime
    retention: float


class KinesisSource(Source[KinesisSettings]):
    """Reads a stream by GetRecords, one partition per shard.

    Positions are sequence numbers, with the user record's number where the Kinesis Producer Library aggregated several
    into one. The stream's creation time is part of its identity: an activity stream that was stopped and started again
    has the same name, and other records. Where that happens while it is read, ``partitions`` and ``read`` raise
    ``Held`` until ``connect`` is called again.
    """

    Settings: ClassVar[type[KinesisSettings]] = KinesisSettings

    def __init__(
        self,
        name: str,
        settings: KinesisSettings,
        *,
        clock: Clock | None = None,
        jitter: random.Random | None = None,
    ) -> None:
        super().__init__(name, settings)
        given = [key for key in _ONE_OF if getattr(settings, key) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ConfigurationError(
                Problem(f"found {found}", f"sources.{name}", mend=f"write exactly one of {', '.join(_ONE_OF)}")
            )
        self._component = f"source {name}"
        self._clock: Clock = clock or SystemClock()
        self._random = jitter or random.Random()  # noqa: S311 - spreads retries, protects nothing
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._client: Any = None
        self._renew = False
        self._stream: _Stream | None = None
        self._begun: set[str] = set()

    def connect(self) -> None:
        """Finds the stream, by way of RDS where the settings name a cluster or an instance. Raises ``Held``."""
        self._renew = self._client is not None
        try:
            named = resolve(self.settings, self._component)
            self._stream = self._describe(named)
            self._begun.clear()
        except Held:
            self._renew = True
            raise

    def identity(self) -> str:
        """Stream ARN and creation time."""
        stream = self._connected()
        return f"{stream.arn}@{stream.created.isoformat(timespec='milliseconds')}"

    def series(self) -> str:
        """The stream's ARN, which a stream of the same name that is created later has too."""
        return self._connected().arn

    def partitions(self) -> Sequence[Partition]:
        """The listed shards, closed ones included. Raises ``Held``, also when the stream is not the same any more."""
        self._same_stream()
        return [
            Partition(
                shard["ShardId"],
                tuple(shard[key] for key in ("ParentShardId", "AdjacentParentShardId") if key in shard),
            )
            for shard in self._list_shards()
        ]

    def read(self, partition: Partition, begin: Position | Start, stop: StopSignal) -> Iterator[Read]:
        """Polls the shard: every ``poll_interval`` at its tip, five times a second behind it.

        Throttling, faults of the service and broken connections are tried again with back-off; ``Held`` is raised
        after 20 seconds of them, and at once for what only a person can mend.
        """
        access = Access(
            self._component,
            self._kinesis,
            self._connected().arn,
            self._verify,
            self.settings.poll_interval,
            self._clock,
            self._random,
        )
        try:
            if partition.id in self._begun:
                # Called again after a hold: a stream of the same name must not be read in the old one's place.
                self._same_stream()
            self._begun.add(partition.id)
            yield from ShardReader(access, partition.id, begin, stop).reads()
        except Held as refused:
            self._note(refused)
            raise

    def check(self) -> Iterator[Check]:
        """Is the stream there, and may its shards be listed and read? Reads one record, at most."""
        try:
            self.connect()
            stream = self._connected()
            yield Check(f"stream {stream.named.stream}", True, f"{stream.arn}, kept for {stream.retention / 3600:g} h")
            shards = self._list_shards()
            yield Check("kinesis:ListShards", True, f"{len(shards)} shards")
            for shard in shards[:1]:
                self._try_reading(shard["ShardId"])
                yield Check("kinesis:GetShardIterator, kinesis:GetRecords", True, shard["ShardId"])
        except Held as refused:
            yield Check(self._component, False, refused.detail, refused.mend)

    def reference(self, position: int) -> str:
        """``SEQUENCE``, or ``SEQUENCE.NUMBER`` of a user record in an aggregated one (from 1)."""
        sequence, sub = divmod(position, SUB_SEQUENCES)
        return f"{sequence}.{sub}" if sub else str(sequence)

    def retention(self) -> float | None:
        """Seconds that the stream keeps a record, as last described."""
        return self._connected().retention

    @property
    def resource_id(self) -> str | None:
        """``cluster-…`` or ``db-…``: from RDS, the settings, or the name of a stream that RDS made."""
        return self._connected().named.resource_id

    def facts(self) -> dict[str, str]:
        """``cluster`` or ``instance`` where RDS was asked, ``account`` and ``region`` of the stream."""
        stream = self._connected()
        _, _, _, region, account, _ = stream.arn.split(":", 5)
        return {**stream.named.facts, "account": account, "region": region}

    def close(self) -> None:
        """Closes the connections; a reader that is still inside a call ends with an error."""
        self._closing.set()
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _connected(self) -> _Stream:
        if self._stream is None:
            raise RuntimeError(f"{self._component} is not connected: call connect() first")
        return self._stream

    def _kinesis(self) -> Any:
        """The client that all threads share; a new one after trouble with credentials, which may have been renewed."""
        with self._lock:
            if self._client is None or self._renew:
                # Readers repeat their calls themselves, with waits that end when shipper stops; so does ``_call``.
                client = aws.client("kinesis", self.settings, max_connections=_CONNECTIONS, attempts=1)
                parse_replies(client)
                old, self._client, self._renew = self._client, client, False
                if old is not None:
                    old.close()
            return self._client

    def _note(self, refused: Held) -> None:
        if refused.reason == "credentials":
            self._renew = True

    def _call(self, method: str, wanted: str, **request: Any) -> dict[str, Any]:
        """A call of the control plane, whose limits the whole account shares: throttling is no news."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                reply: dict[str, Any] = getattr(self._kinesis(), method)(**request)
                member(reply, wanted)
                break
            except call_errors() as error:
                if attempt == _ATTEMPTS or not transient(error):
                    raise self._held(error) from error
                self._clock.wait(self._closing, self._random.uniform(0, 2.0**attempt / 2))
        return reply

    def _held(self, error: Exception) -> Held:
        found = held(error, self._component, self._stream.arn if self._stream else "*")
        self._note(found)
        return found

    def _describe(self, named: Named) -> _Stream:
        summary = self._call("describe_stream_summary", _SUMMARY, StreamName=named.stream)[_SUMMARY]
        status = summary["StreamStatus"]
        if status in {"CREATING", "DELETING"}:
            raise Held(
                "stream_not_found",
                f"{self._component}: the stream {named.stream} is {status.lower()}",
                "nothing is to be done while it is created; start the activity stream where it is deleted",
            )
        created = summary["StreamCreationTimestamp"].astimezone(UTC)
        return _Stream(named, summary["StreamARN"], created, summary["RetentionPeriodHours"] * 3600.0)

    def _same_stream(self) -> None:
        """Takes note of a changed retention. Raises ``Held`` where the stream is gone, or made anew."""
        known = self._connected()
        found = self._describe(known.named)
        if (found.arn, found.created) != (known.arn, known.created):
            raise Held(
                "stream_not_found",
                f"{self._component}: the stream {known.arn} was deleted and created again at {found.created}; "
                "what the old one still held is lost",
                "shipper goes on with the new one after it has connected again; restart it to do so now",
            )
        self._stream = found

    def _verify(self, shard_id: str) -> bool:
        self._same_stream()
        return any(shard["ShardId"] == shard_id for shard in self._list_shards())

    def _list_shards(self) -> list[dict[str, Any]]:
        reply = self._call("list_shards", "Shards", StreamARN=self._connected().arn, MaxResults=_PAGE)
        shards: list[dict[str, Any]] = reply["Shards"]
        while "NextToken" in reply:  # which stands for the stream: AWS refuses both together
            reply = self._call("list_shards", "Shards", NextToken=reply["NextToken"], MaxResults=_PAGE)
            shards += reply["Shards"]
        return shards

    def _try_reading(self, shard_id: str) -> None:
        at: dict[str, Any] = {"StreamARN": self._connected().arn}
        found = self._call(
            "get_shard_iterator", "ShardIterator", ShardId=shard_id, ShardIteratorType="TRIM_HORIZON", **at
        )
        try:
            get_records(self._kinesis(), ShardIterator=found["ShardIterator"], Limit=1, **at)
        except call_errors() as error:
            raise self._held(error) from error
