"""What an answer means for the events: every status of an item and of a whole request (outcomes: docs/delivery.md).

The line between an event that is refused and a cluster that somebody has to mend is drawn here. A mistake in one
direction loses events to the dead letters, in the other it stops the output for one of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import msgspec

from shipper.clock import Clock
from shipper.errors import Held
from shipper.output import DeliveryError, Failure, Outcome, Rejected, Throttled, TooLarge, Unknown
from shipper_opensearch.bulk import Cause, Item
from shipper_opensearch.words import MAX_WORDS, plain, words

#: Seconds to leave a cluster alone whose disks are full.
FLOODED = 30.0

_FULL = "free disk space in the cluster, or raise its watermarks; it goes on by itself"
_BLOCKED = "take the block off: index.blocks.* of the index, or cluster.blocks.* of the cluster"
_SHARDS = "delete or close indices, raise cluster.max_shards_per_node, or make fewer indices with this template"
_PERMIT = "let this user's role write there: indices:data/write/bulk*, indices:data/write/index, indices:admin/create"
_PIPELINE = "create the ingest pipeline, or mend pipeline"
_ABSENT = "create the index, alias or data stream, or let action.auto_create_index create it"
_IDS = 'write document_id = "none": this kind of collection makes ids itself, and duplicates become possible'
_LOGIN = "check auth, and the secret behind it"
MENDS = {
    "disk_full": _FULL,
    "unwritable": _BLOCKED,
    "access_denied": _PERMIT,
    "target_not_found": _ABSENT,
}

#: 5xx with which a node says that it did nothing.
_NOT_STORED = re.compile(
    r"unavailable_shards_exception|no_shard_available_action_exception|process_cluster_event_timeout_exception"
    r"|master_not_discovered_exception|cluster_manager_not_discovered_exception|cluster_block_exception"
    r"|node_closed_exception|primary_missing_action_exception"
)
#: A pipeline that names another one, which is not there or leads back to it: no fault of the event's.
_NO_PIPELINE = re.compile(r"non-existent pipeline|Cycle detected for pipeline")


class Body(msgspec.Struct):
    """What a refused request is answered with: OpenSearch's ``error``, or AWS's ``Message``."""

    error: Cause | str | None = None
    message: str | None = None
    Message: str | None = None


def of_item(item: Item, known: frozenset[str]) -> Failure | None:
    """Why an event was not stored; ``None`` where it is, also from before (409)."""
    status, cause = item.status, item.error
    if status in (200, 201, 409):
        return None
    type_, said = ("", "") if cause is None else (cause.type, words(cause, known))
    detail = said or f"status {status}"
    reason = (cause.reason or "") if cause is not None else ""
    if status == 429:
        if type_ == "cluster_block_exception":
            return Failure(Outcome.HELD, "disk_full", detail, FLOODED)
        return Failure(Outcome.THROTTLED, "busy", detail)
    if status >= 500 and type_ == "fail_processor_exception":
        return Failure(Outcome.REJECTED, "rejected", detail)  # a pipeline's own word: it is the same the next time
    if status >= 500 and type_ == "illegal_state_exception" and _NO_PIPELINE.search(reason):
        return Failure(Outcome.HELD, "refused", detail)
    if status >= 500:
        return Failure(Outcome.THROTTLED if _NOT_STORED.fullmatch(type_) else Outcome.UNKNOWN, "server", detail)
    if status == 413:
        return Failure(Outcome.TOO_LARGE, "too_large", detail)
    held = _configuration(status, type_, reason)
    return Failure(Outcome.HELD, held, detail) if held else Failure(Outcome.REJECTED, "rejected", detail)


def _configuration(status: int, type_: str, reason: str) -> str:
    """The reason to hold the output for, where a refusal is not the event's fault; nothing where it is."""
    if status == 401:
        return "credentials"
    if status == 403:
        return "unwritable" if "block" in type_ else "access_denied"
    if status == 404:
        return "target_not_found"
    if status in (405, 406, 415):
        return "refused"
    about_shards = "maximum shards open" in reason or "maximum normal shards open" in reason
    about_ids = "Document ID is not supported" in reason
    about_pipelines = "pipeline with id [" in reason and "does not exist" in reason
    about_templates = type_ == "illegal_argument_exception" and "matches multiple" in reason
    about_streams = "only write ops with an op_type of create" in reason or "no matching index template found" in reason
    if about_shards or about_ids or about_pipelines or about_templates or about_streams:
        return "refused"
    if type_ == "index_closed_exception":
        return "unwritable"
    # Several indices behind an alias, and none of them is the one to write to.
    if "no write index is defined for alias" in reason or "has more than one index" in reason:
        return "target_not_found"
    return ""


def mend_of(reason: str, detail: str) -> str:
    """What to do about a hold."""
    if "maximum" in detail and "shards open" in detail:
        return _SHARDS
    if "Document ID is not supported" in detail:
        return _IDS
    if "pipeline" in detail:
        return _PIPELINE
    return MENDS.get(reason, "mend the cluster's or this output's configuration; see docs/outputs/opensearch.md")


def of_request(
    status: int, headers: Mapping[str, str], content: str, events: int, known: frozenset[str], clock: Clock
) -> Held | DeliveryError:
    """What to raise for a request that was not taken as a whole."""
    body, said = _said(status, content, known)
    cause = body.error if body is not None and isinstance(body.error, Cause) else None
    type_, reason = (cause.type, cause.reason or "") if cause is not None else ("", "")
    wait = retry_after(headers, clock)
    if status == 429:
        if type_ == "cluster_block_exception":
            return Held("disk_full", said, _FULL)
        return Throttled(said, reason="busy", retry_after=wait)
    if status == 413:
        return TooLarge(said)
    if status == 401 or (status == 403 and re.search("(security )?token|signature|credential", said, re.IGNORECASE)):
        return Held("credentials", said, _LOGIN)
    if status == 407:
        return Held("credentials", said, "check proxy, and the user and password in it")
    if status == 403 and body is None:
        return Held("access_denied", said, "a proxy or a firewall on the way refuses this: let it pass")
    if status >= 500 and status != 501:
        if _NOT_STORED.fullmatch(type_) or (status == 503 and body is not None) or "not initialized" in said:
            return Throttled(said, reason="server", retry_after=wait)
        return Unknown(said, reason="server", retry_after=wait)
    if body is None and status not in (403, 404, 405) and not 300 <= status < 400:
        return Unknown(said, reason="answer")  # a page of somebody on the way
    held = _configuration(status, type_, reason)
    if held:
        return Held(held, said, mend_of(held, said))
    if status == 400 and events > 1:
        # It does not say which event it dislikes: halves do.
        return TooLarge(f"the request as a whole was refused: {said}", reason="refused")
    if status == 400:
        return Rejected(said)
    return Held("refused", said, "check hosts: what answers there does not take _bulk requests")


def words_of(status: int, content: str) -> str:
    """The server's words in an answer that refuses."""
    return _said(status, content, frozenset())[1]


def _said(status: int, content: str, known: frozenset[str]) -> tuple[Body | None, str]:
    """The answer where it is the server's, and its words; of a page only that it is one."""
    try:
        body = msgspec.json.decode(content, type=Body)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        text = content.strip()
        if not text:
            return None, f"HTTP {status}"
        is_words = len(text) <= 200 and "<" not in text and "{" not in text
        return None, f"HTTP {status}: {plain(text, known)}" if is_words else f"HTTP {status} with an unknown page"
    if isinstance(body.error, Cause):
        said = words(body.error, known)
    else:
        said = plain(body.error or body.Message or body.message or "", known)[:MAX_WORDS]
    return body, f"HTTP {status}: {said}" if said else f"HTTP {status}"


def retry_after(headers: Mapping[str, str], clock: Clock) -> float | None:
    """Seconds of ``Retry-After`` (RFC 9110, 10.2.3): a number, or a time."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    if value.isdecimal():
        return float(value[:9])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - clock.now())
    except (ValueError, OverflowError):
        return None
