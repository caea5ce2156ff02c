"""The fake Splunk answers as Splunk does, and as strictly."""

from __future__ import annotations

import gzip
import http.client
import json
import zlib
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from shipper.testing.splunk_hec import FakeSplunkHec

TOKEN = "00000000-0000-0000-0000-000000000000"
EVENT = "/services/collector/event"


@pytest.fixture
def splunk() -> Iterator[FakeSplunkHec]:
    with FakeSplunkHec(indexes=("main", "audit")) as splunk:
        yield splunk


@pytest.fixture
def acknowledging() -> Iterator[FakeSplunkHec]:
    with FakeSplunkHec(ack=True) as splunk:
        yield splunk


def post(splunk: FakeSplunkHec, body: bytes, path: str = EVENT, **headers: str) -> tuple[int, dict[str, Any]]:
    named = {"Authorization": f"Splunk {TOKEN}"} | {name.replace("_", "-"): text for name, text in headers.items()}
    return request(splunk, "POST", path, body, {name: text for name, text in named.items() if text})


def request(
    splunk: FakeSplunkHec, method: str, path: str, body: bytes, headers: dict[str, str]
) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", splunk.port, timeout=10)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def code(answer: tuple[int, dict[str, Any]]) -> tuple[int, int, int | None]:
    status, told = answer
    return status, told["code"], told.get("invalid-event-number")


def events(splunk: FakeSplunkHec) -> list[Any]:
    return [one.event for one in splunk.events]


@pytest.mark.parametrize("between", [b"", b"\n", b" \r\n\t"])
@pytest.mark.parametrize("path", ["/services/collector", EVENT, f"{EVENT}/1.0"])
def test_objects_on_end_are_events(splunk: FakeSplunkHec, between: bytes, path: str) -> None:
    body = between.join([b'{"event":"one"}', b'{"event":{"a":2}}', b'{"event":3}'])
    assert post(splunk, body, path) == (200, {"text": "Success", "code": 0})
    assert events(splunk) == ["one", {"a": 2}, 3]


def test_metadata_is_each_events_own(splunk: FakeSplunkHec) -> None:
    first = '{"event":1,"host":"h","source":"s","sourcetype":"t","index":"audit","fields":{"a":"b"},"time":1.5}'
    post(splunk, f'{first}{{"event":2}}'.encode())
    one, two = splunk.events
    assert (one.host, one.source, one.sourcetype, one.index, one.fields, one.time) == (
        "h",
        "s",
        "t",
        "audit",
        {"a": "b"},
        1.5,
    )
    assert (two.host, two.source, two.sourcetype, two.index, two.fields, two.time) == (
        None,
        None,
        None,
        "main",
        {},
        None,
    )


@pytest.mark.parametrize("time", ["1767323045.25", '"1767323045.25"', "1767323045250", "1767323045250000000"])
def test_times_in_every_unit(splunk: FakeSplunkHec, time: str) -> None:
    post(splunk, f'{{"event":1,"time":{time}}}'.encode())
    assert splunk.events[0].time == 1767323045.25


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ("{}", (400, 12, 1)),
        ('{"event":""}', (400, 13, 1)),
        ('{"event":" "}', (400, 13, 1)),
        ('{"event":null}', (400, 6, 1)),
        ('{"event":false}', (400, 6, 1)),
        ('{"event":1,"fields":{"a":{"b":1}}}', (400, 15, 1)),
        ('{"event":1,"fields":[]}', (400, 15, 1)),
        ('{"event":1,"index":"secret"}', (400, 7, 2)),
        ('{"event":1,"time":"noon"}', (400, 6, 1)),
        ('{"event":1,"host":7}', (400, 6, 1)),
        ("[1]", (400, 6, 1)),
        ('{"event":', (400, 6, 1)),
        ("nonsense", (400, 6, 1)),
    ],
)
def test_what_stands_before_a_wrong_event_is_taken_and_nothing_from_it_on(
    splunk: FakeSplunkHec, wrong: str, expected: tuple[int, int, int]
) -> None:
    assert code(post(splunk, f'{{"event":"before"}}{wrong}{{"event":"after"}}'.encode())) == expected
    assert events(splunk) == ["before"]


def test_a_key_that_splunk_does_not_know_ends_the_request_with_a_success(splunk: FakeSplunkHec) -> None:
    assert code(post(splunk, b'{"event":1}{"event":2,"id":"x"}{"event":3}')) == (200, 0, None)
    assert events(splunk) == [1]


@pytest.mark.parametrize(
    ("authorization", "expected"),
    [("", (401, 2)), ("Splunk", (401, 3)), ("Bearer x", (401, 3)), ("Splunk x", (403, 4))],
)
def test_a_token_is_asked_for(splunk: FakeSplunkHec, authorization: str, expected: tuple[int, int]) -> None:
    assert code(post(splunk, b'{"event":1}', Authorization=authorization))[:2] == expected
    assert events(splunk) == []


def test_a_token_in_the_query_is_not_enough(splunk: FakeSplunkHec) -> None:
    assert code(post(splunk, b'{"event":1}', f"{EVENT}?token={TOKEN}", Authorization=""))[:2] == (400, 16)


def test_an_empty_request_tells_that_the_token_is_right(splunk: FakeSplunkHec) -> None:
    assert code(post(splunk, b"")) == (400, 5, None)


def test_health_does_not_ask_for_a_token(splunk: FakeSplunkHec) -> None:
    assert request(splunk, "GET", "/services/collector/health", b"", {}) == (
        200,
        {"text": "HEC is healthy", "code": 17},
    )


def test_gzip_is_taken_and_nothing_else(splunk: FakeSplunkHec) -> None:
    body = b'{"event":1}'
    assert code(post(splunk, gzip.compress(body), Content_Encoding="gzip"))[0] == 200
    assert code(post(splunk, zlib.compress(body), Content_Encoding="deflate"))[0] == 415
    assert code(post(splunk, body, Content_Encoding="gzip"))[:2] == (400, 6)
    assert events(splunk) == [1]


def test_what_is_too_large_is_refused_also_when_it_was_compressed() -> None:
    with FakeSplunkHec(max_content_length=1000) as splunk:
        body = b'{"event":"%b"}' % (b"x" * 2000)
        assert code(post(splunk, body))[0] == 413
        assert code(post(splunk, gzip.compress(body), Content_Encoding="gzip"))[0] == 413
        assert events(splunk) == []


def test_lines_have_the_metadata_of_the_request(splunk: FakeSplunkHec) -> None:
    path = "/services/collector/raw?index=audit&host=h&sourcetype=t"
    assert code(post(splunk, b"one\ntwo\n", path))[0] == 200
    assert [(one.event, one.index, one.host, one.sourcetype) for one in splunk.events] == [
        (b"one", "audit", "h", "t"),
        (b"two", "audit", "h", "t"),
    ]
    assert code(post(splunk, b"one", "/services/collector/raw?index=secret"))[:2] == (400, 7)


# -- acknowledgements --------------------------------------------------------------------------------------------------


def ask(splunk: FakeSplunkHec, channel: str, *ids: int) -> dict[str, bool]:
    status, told = post(
        splunk, json.dumps({"acks": ids}).encode(), "/services/collector/ack", X_Splunk_Request_Channel=channel
    )
    assert status == 200, told
    found: dict[str, bool] = told["acks"]
    return found


def test_a_channel_is_needed_and_has_to_be_one(acknowledging: FakeSplunkHec) -> None:
    assert code(post(acknowledging, b'{"event":1}')) == (400, 10, None)
    assert code(post(acknowledging, b'{"event":1}', X_Splunk_Request_Channel="x")) == (400, 11, None)
    assert events(acknowledging) == []


def test_ids_count_from_zero_in_each_channel_and_are_told_once(acknowledging: FakeSplunkHec) -> None:
    one, two = str(uuid4()), str(uuid4())
    for channel, expected in ((one, 0), (one, 1), (two, 0)):
        assert post(acknowledging, b'{"event":1}', X_Splunk_Request_Channel=channel)[1]["ackId"] == expected
    assert ask(acknowledging, one, 0, 7) == {"0": True, "7": False}
    assert ask(acknowledging, one, 0, 1) == {"0": False, "1": True}
    assert ask(acknowledging, two, 0, 1) == {"0": True, "1": False}


def test_what_was_taken_before_a_wrong_event_has_an_id(acknowledging: FakeSplunkHec) -> None:
    status, told = post(acknowledging, b'{"event":1}{}', X_Splunk_Request_Channel=str(uuid4()))
    assert (status, told["code"], told["ackId"]) == (400, 12, 0)


def test_what_is_not_indexed_when_it_is_killed_is_lost_with_its_id(acknowledging: FakeSplunkHec) -> None:
    channel = str(uuid4())
    post(acknowledging, b'{"event":"indexed"}', X_Splunk_Request_Channel=channel)
    acknowledging.index_delay = float("inf")
    post(acknowledging, b'{"event":"lost"}', X_Splunk_Request_Channel=channel)
    acknowledging.kill()
    acknowledging.start()
    assert events(acknowledging) == ["indexed"]
    assert ask(acknowledging, channel, 0, 1) == {"0": False, "1": False}


def test_a_token_without_acknowledgement_says_so(splunk: FakeSplunkHec) -> None:
    answer = post(splunk, b'{"acks":[0]}', "/services/collector/ack", X_Splunk_Request_Channel=str(uuid4()))
    assert code(answer) == (400, 14, None)
