"""What the OpenSearch output sends, and what it makes of answers that no well server gives: pages, torn JSON, AWS."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from shipper.clock import SystemClock
from shipper.errors import HELD_REASONS, Held
from shipper.output import Batch, DeliveryError, Outcome
from shipper.testing.contract.events import MARK, batch_of, event
from shipper_opensearch import MAX_BYTES, OVERHEAD, OpenSearchOutput, bulk, verdict
from shipper_opensearch.mapping import policy
from shipper_opensearch.settings import OpenSearchSettings
from shipper_opensearch.words import plain
from support.http_front import Answer, Front, Request


class Stub(Front):
    """A server that answers everything with one answer, and keeps what came in as it came."""

    def __init__(self) -> None:
        self.reply = Answer(200, b'{"errors":false,"items":[{"create":{"status":201}}]}')
        super().__init__("http://127.0.0.1:9")

    def forward(self, request: Request) -> Answer:
        return self.reply


@pytest.fixture
def stub() -> Iterator[Stub]:
    server = Stub()
    yield server
    server.stop()


def output(stub: Stub, **settings: Any) -> OpenSearchOutput:
    given = {"type": "opensearch", "hosts": stub.url, "index": "audit", "template": "none", **settings}
    made = OpenSearchOutput("search", OpenSearchSettings.model_validate(given))
    made.connect(None)
    return made


def send(stub: Stub, *numbers: int, **settings: Any) -> Request:
    """Sends one event, and gives what the server saw."""
    made = output(stub, **settings)
    try:
        made.send(batch_of(made.values(), [event(number) for number in numbers or (1,)]))
    finally:
        made.close()
    return stub.seen[-1]


def raised(stub: Stub, *numbers: int) -> Held | DeliveryError:
    with pytest.raises((Held, DeliveryError)) as caught:
        send(stub, *numbers)
    error: Exception = caught.value
    assert isinstance(error, Held | DeliveryError)
    assert MARK not in str(error)
    if isinstance(error, Held):
        assert error.reason in HELD_REASONS
        assert error.mend
    return error


# -- the request ---------------------------------------------------------------------------------------------------


def test_encoded_bytes_go_into_the_body_as_they_are(stub: Stub) -> None:
    made = output(stub)
    batch = batch_of(made.values(), [event(1)])
    made.send(batch)
    action, source = stub.seen[-1].body.splitlines()
    assert msgspec.json.decode(action) == {"create": {"_id": event(1).id}}
    assert source == b'{"@timestamp":"' + event(1).time.encode() + b'",' + batch.events[0][1:]
    assert stub.seen[-1].body.endswith(b"\n")
    assert stub.seen[-1].path.startswith("/audit/_bulk?filter_path=")


@pytest.mark.parametrize("value", ['a"b', "a\\b", "a\nb", "{}", "\u2028", "\x7f"])
def test_values_that_have_to_be_escaped_are(stub: Stub, value: str) -> None:
    made = output(stub, index="audit-{time:%Y}", routing="{user}")
    batch = batch_of(made.values(), [event(1)])
    made.send(Batch(batch.events, [(value, value, value, value)], batch.size))
    action, source = stub.seen[-1].body[:-1].split(b"\n")
    assert msgspec.json.decode(action) == {"create": {"_index": value, "_id": value, "routing": value}}
    assert msgspec.json.decode(source)["@timestamp"] == value


def test_what_stands_in_front_of_an_event_is_within_the_overhead(stub: Stub) -> None:
    made = output(stub, index="audit-{user}-{database}", routing="{session_id}")
    batch = batch_of(made.values(), [event(1, user="u" * 100, database="d" * 80, session_id="s" * 20)])
    made.send(batch)
    assert len(stub.seen[-1].body) - batch.size <= OVERHEAD
    assert MAX_BYTES < 10 * 2**20


@pytest.mark.parametrize("odd", [b"{}", b"[1]", b"not json", b"{ }"])
def test_what_is_no_event_is_sent_as_it_is(stub: Stub, odd: bytes) -> None:
    made = output(stub)
    made.send(Batch([odd], [("1", "2026-01-01T00:00:00.000000Z", "audit")], len(odd)))
    assert stub.seen[-1].body == b'{"create":{"_id":"1"}}\n' + odd + b"\n"


def test_headers_and_an_api_key_go_with_every_request(stub: Stub) -> None:
    seen = send(stub, auth={"api_key": "a2V5OnZhbHVl"}, headers={"X-Tenant": "payments"})
    assert seen.headers["authorization"] == "ApiKey a2V5OnZhbHVl"
    assert seen.headers["x-tenant"] == "payments"
    assert seen.headers["content-type"] == "application/x-ndjson"


@pytest.mark.parametrize("service", ["es", "aoss"])
def test_requests_are_signed_for_aws(stub: Stub, service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    sent: list[bytes] = []

    def compress(body: bytes, *_: Any, **__: Any) -> bytes:
        sent.append(gzip.compress(body))
        return sent[-1]

    monkeypatch.setattr("shipper_opensearch.igzip.compress", compress)
    seen = send(stub, auth={"aws": service}, region="eu-west-1")
    authorization = seen.headers["authorization"]
    assert f"/eu-west-1/{service}/aws4_request" in authorization
    assert "AKIDEXAMPLE" in authorization
    assert "x-amz-content-sha256" in authorization.partition("SignedHeaders=")[2]
    assert seen.headers["x-amz-content-sha256"] == hashlib.sha256(sent[-1]).hexdigest()  # of the bytes on the wire


def test_requests_are_signed_as_an_assumed_role_whose_credentials_are_renewed(stub: Stub) -> None:
    sts, issued = Stub(), 0

    def issue(request: Request) -> Answer:
        nonlocal issued
        issued += 1
        soon = datetime.fromtimestamp(SystemClock().now() + 60, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        words = (
            '<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>'
            f"<AccessKeyId>ASIAROLE{issued}</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t{issued}"
            f"</SessionToken><Expiration>{soon}</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"
        )
        return Answer(200, words.encode(), "text/xml")

    sts.forward = issue  # type: ignore[method-assign]  # this test's own server
    try:
        role = {"role_arn": "arn:aws:iam::111122223333:role/writer", "endpoint_url": {"sts": sts.url}}
        made = output(stub, auth={"aws": "es"}, region="eu-west-1", **role)
        for number in (1, 2):
            made.send(batch_of(made.values(), [event(number)]))
        made.close()
    finally:
        sts.stop()
    first, second = stub.seen
    assert "Credential=ASIAROLE" in first.headers["authorization"]
    assert first.headers["x-amz-security-token"] != second.headers["x-amz-security-token"]


def test_a_role_that_may_not_be_assumed_holds_the_output(stub: Stub) -> None:
    sts = Stub()
    denied = b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>not yours</Message></Error></ErrorResponse>"
    sts.reply = Answer(403, denied, "text/xml")
    try:
        role = {"role_arn": "arn:aws:iam::111122223333:role/writer", "endpoint_url": {"sts": sts.url}}
        with pytest.raises(Held) as caught:
            send(stub, auth={"aws": "es"}, region="eu-west-1", **role)
    finally:
        sts.stop()
    assert caught.value.reason == "access_denied"
    assert "trust policy" in caught.value.mend


def test_without_a_region_an_aws_output_is_held(stub: Stub) -> None:
    with pytest.raises(Held) as caught:
        send(stub, auth={"aws": "es"})
    assert caught.value.reason == "credentials"


def test_a_proxy_is_used_and_the_environments_can_be_left_out(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    proxied = send(stub, hosts="http://search.invalid:9200", proxy=stub.url.replace("//", "//me:secret@"))
    assert proxied.path.startswith("http://search.invalid:9200/audit/_bulk")
    assert proxied.headers["proxy-authorization"].startswith("Basic ")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    assert send(stub, proxy="none").path.startswith("/audit/_bulk")


def test_a_path_before_the_api_is_kept(stub: Stub) -> None:
    assert send(stub, hosts=f"{stub.url}/search/").path.startswith("/search/audit/_bulk")


# -- answers -------------------------------------------------------------------------------------------------------

PAGE = b"<html><body><h1>Something went wrong</h1></body></html>"
BUSY = b'{"error":{"type":"rejected_execution_exception","reason":"rejected"},"status":429}'
AWS = b'{"Message":"Request size exceeded 10485760 bytes"}'
DENIED = b'{"Message":"User: anonymous is not authorized to perform: es:ESHttpPost"}'
EXPIRED = b'{"message":"The security token included in the request is expired"}'
BLOCK = (
    b'{"error":{"type":"cluster_block_exception","reason":"blocked by: [SERVICE_UNAVAILABLE/1/state not recovered]"}}'
)


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (200, PAGE, "unknown"),
        (200, b'{"errors":false,"items":[{"create":{"sta', "unknown"),
        (200, b'{"errors":false,"items":[]}', "unknown"),
        (200, b'{"errors":false}', "unknown"),
        (200, b"", "unknown"),
        (200, b"\xff\xfe", "unknown"),
        (200, b"[" * 100_000, "unknown"),
        (0, b"", "unknown"),
        (500, b'{"error":{"type":"null_pointer_exception","reason":"x"}}', "unknown"),
        (500, PAGE, "unknown"),
        (502, PAGE, "unknown"),
        (503, PAGE, "unknown"),
        (504, PAGE, "unknown"),
        (503, BLOCK, "throttled"),
        (503, b"OpenSearch Security not initialized.", "throttled"),
        (429, BUSY, "throttled"),
        (429, PAGE, "throttled"),
        (413, AWS, "too_large"),
        (413, b"", "too_large"),
        (401, b"Unauthorized", "credentials"),
        (401, PAGE, "credentials"),
        (403, EXPIRED, "credentials"),
        (403, DENIED, "access_denied"),
        (403, PAGE, "access_denied"),
        (404, PAGE, "target_not_found"),
        (405, PAGE, "refused"),
        (407, PAGE, "credentials"),
        (301, PAGE, "refused"),
        (501, b'{"error":"x"}', "refused"),
        (400, b'{"error":{"type":"illegal_argument_exception","reason":"what is this"}}', "rejected"),
        (400, PAGE, "unknown"),
    ],
)
def test_a_request_that_is_not_taken(stub: Stub, status: int, body: bytes, outcome: str) -> None:
    stub.reply = Answer(status, body, "text/html")
    error = raised(stub)
    assert (error.reason if isinstance(error, Held) else str(error.outcome)) == outcome


def test_a_refused_request_of_several_events_is_divided_until_the_guilty_one_is_alone(stub: Stub) -> None:
    stub.reply = Answer(400, b'{"error":{"type":"action_request_validation_exception","reason":"what is this"}}')
    error = raised(stub, 1, 2)
    assert isinstance(error, DeliveryError)
    assert error.outcome is Outcome.TOO_LARGE
    assert "what is this" in str(error)


@pytest.mark.parametrize(("value", "seconds"), [("7", 7.0), ("0", 0.0), ("soon", None), ("-1", None), ("", None)])
def test_retry_after_is_passed_on(stub: Stub, value: str, seconds: float | None) -> None:
    stub.reply = Answer(429, BUSY, headers={"Retry-After": value})
    error = raised(stub)
    assert isinstance(error, DeliveryError)
    assert error.failure.retry_after == seconds


def test_retry_after_may_be_a_time() -> None:
    past = {"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}
    future = {"retry-after": "Fri, 01 Jan 2100 00:00:00 GMT"}
    assert verdict.retry_after(past, SystemClock()) == 0.0
    assert (verdict.retry_after(future, SystemClock()) or 0) > 1e6


@pytest.mark.parametrize(
    ("status", "kind", "reason", "expected"),
    [
        (400, "illegal_argument_exception", "Document ID is not supported in create/index operation request", "held"),
        (429, "rejected_execution_exception", "queue is full", "throttled"),
        (429, "circuit_breaking_exception", "Data too large", "throttled"),
        (503, "unavailable_shards_exception", "primary shard is not active", "throttled"),
        (503, "something_else", "x", "unknown"),
        (500, "translog_exception", "x", "unknown"),
        (403, "security_exception", "no permissions", "held"),
        (403, "index_create_block_exception", "blocked", "held"),
        (404, "index_not_found_exception", "no such index [audit]", "held"),
        (400, "mapper_parsing_exception", "failed to parse", "rejected"),
        (418, "", "", "rejected"),
    ],
)
def test_an_item_that_is_not_stored(status: int, kind: str, reason: str, expected: str) -> None:
    failure = verdict.of_item(bulk.Item(status, bulk.Cause(kind, reason)), frozenset())
    assert failure is not None
    assert failure.outcome == expected
    assert failure.outcome != "held" or failure.reason in HELD_REASONS


# -- no audit data in what is said ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (
            "failed to parse field [rows] of type [long]. Preview of field's value: 'x'y'",
            "failed to parse field [rows] of type [long].",
        ),
        ("'audit-data' is not an IP string literal.", "'…' is not an IP string literal."),
        ("'audit'data' is not an IP", "'…' is not an IP"),
        ('For input string: "audit-data"', 'For input string: "…"'),
        ('For input string: "audit" or "data"', 'For input string: "…"'),
        (
            "failed to parse date field [audit] with format [strict_date_optional_time]",
            "failed to parse date field […]",
        ),
        ("Limit of total fields [1000] has been exceeded", "Limit of total fields [1000] has been exceeded"),
        ("no such index [audit-1]", "no such index [audit-1]"),
        ("The prefix of the first immense term is: '[97, 117, 100]...', original message: x", "original message: x"),
    ],
)
def test_values_of_events_are_not_repeated(said: str, shown: str) -> None:
    assert plain(said, frozenset({"audit-1"})) == shown


def test_a_message_that_a_pipeline_makes_of_the_event_is_not_repeated() -> None:
    item = bulk.Item(500, bulk.Cause("fail_processor_exception", f"we take no {MARK}"))
    failure = verdict.of_item(item, frozenset())
    assert failure is not None
    assert (failure.outcome, failure.detail) == (Outcome.REJECTED, "fail_processor_exception")


# -- templates and policies ----------------------------------------------------------------------------------------


def test_a_data_stream_gets_a_rollover_policy_that_deletes_nothing(stub: Stub) -> None:
    asked: list[tuple[str, str]] = []

    def answer(request: Request) -> Answer:
        asked.append((request.method, request.path.partition("?")[0]))
        if request.method == "PUT":
            return Answer(201, b"{}")
        return Answer(404, b'{"error":{"type":"status_exception","reason":"Policy not found"}}')

    stub.forward = answer  # type: ignore[method-assign]  # this test's own server
    output(stub, index=None, data_stream="audit", template="manage").close()
    assert asked == [
        ("GET", "/_index_template/shipper-audit"),
        ("PUT", "/_index_template/shipper-audit"),
        ("GET", "/_plugins/_ism/policies/shipper-audit"),
        ("PUT", "/_plugins/_ism/policies/shipper-audit"),
    ]
    assert "delete" not in str(policy("audit")).replace("deletes nothing", "")


# -- settings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({}, "give index or data_stream"),
        ({"index": "a", "data_stream": "b"}, "one of them"),
        ({"index": "Audit"}, "small letter"),
        ({"index": "{user}"}, "small letter"),
        ({"index": "_audit"}, "small letter"),
        ({"index": "a b"}, "no spaces"),
        ({"index": "a,b"}, "none of"),
        ({"index": "a", "hosts": []}, "at least 1"),
        ({"index": "a", "hosts": "search:9200"}, "write a URL"),
        ({"index": "a", "hosts": "http://u:p@search"}, "write them in auth"),
        ({"index": "a", "auth": {"user": "u"}}, "belong together"),
        ({"index": "a", "auth": {"api_key": "x", "aws": "es"}}, "keep one"),
        ({"data_stream": "a", "timestamp_field": ""}, "needs a timestamp_field"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        OpenSearchSettings.model_validate({"type": "opensearch", "hosts": ["http://search"], **wrong})
    assert "u:p" not in str(caught.value).partition("input_value")[0]
