"""Kinesis replies: GetRecords parsed in one pass (botocore's own parser costs twenty times as much per record), and
those that are none, because something between us and AWS made them."""

from __future__ import annotations

from typing import Any

import msgspec

from shipper import aws
from shipper.errors import Held


class ReplyError(Exception):
    """An answer with status 200 that is not the service's: a proxy's page, another program's port."""


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
    """GetRecords. Raises ``call_errors``."""
    reply: Reply = client.get_records(**request)[_REPLY]
    return reply


def member(reply: dict[str, Any], name: str) -> Any:
    """What a reply of another operation must have; botocore returns an empty one for a page that is no JSON.

    Raises ``ReplyError``.
    """
    if name not in reply:
        raise ReplyError(f"the answer has no {name}")
    return reply[name]


def call_errors() -> tuple[type[Exception], ...]:
    """What calls raise: boto3's errors and ``ReplyError``."""
    return (*aws.errors(), ReplyError)


def transient(error: Exception) -> bool:
    """Does the same call have a chance in a moment?"""
    return isinstance(error, ReplyError) or aws.transient(error)


def held(error: Exception, component: str, arn: str) -> Held:
    """What to tell a person about one of ``call_errors``."""
    if isinstance(error, ReplyError):
        return Held("unreachable", f"{component}: this is not Kinesis: {error}", "check endpoint_url and the proxy")
    return aws.held(error, component, "kinesis", resource=arn, not_found="stream_not_found")


def _parse(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    if response_dict["status_code"] == 200:
        try:
            customized_response_dict[_REPLY] = _decoder.decode(response_dict["body"])
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ReplyError(f"GetRecords answered something else ({error})") from None
        response_dict["body"] = b"{}"
