"""What the Splunk HEC output sends, and what it makes of every answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from shipper.event import Event
from shipper.output import Batch, DeliveryError, Held, Report
from shipper.secrets import SecretReader, secrets_in
from shipper.settings import AwsSettings
from shipper.testing.splunk_hec import FakeSplunkHec
from shipper.testing.splunk_hec_rules import TEXTS
from shipper_splunk_hec import SplunkHecOutput
from shipper_splunk_hec.envelope import Envelopes
from shipper_splunk_hec.settings import SplunkHecSettings
from support.batches import batch_of, event

TOKEN = "8d2a9c1e-55aa-4c1f-9d5e-7b1d2f3a4c5d"


@pytest.fixture
def splunk() -> Iterator[FakeSplunkHec]:
    with FakeSplunkHec(TOKEN, indexes=("main", "das_orders", "das_billing")) as splunk:
        yield splunk


class Shipping:
    """Outputs that are closed at the end of the test."""

    def __init__(self) -> None:
        self.made: list[SplunkHecOutput] = []

    def output(self, *splunks: FakeSplunkHec, **settings: Any) -> SplunkHecOutput:
        given = {"type": "splunk_hec", "url": [one.url for one in splunks], "token": TOKEN, **settings}
        output = SplunkHecOutput("siem", SplunkHecSettings.model_validate(given))
        self.made.append(output)
        output.connect(None)
        return output

    def send(self, output: SplunkHecOutput, *events: Event) -> Report:
        return output.send(batch_of(output.values(), events or [event(1), event(2), event(3)]))

    def outcomes(self, output: SplunkHecOutput, *events: Event) -> list[str]:
        """Of each event: "delivered", or its outcome."""
        found = events or (event(1), event(2), event(3))
        try:
            report = self.send(output, *found)
        except Held:
            return ["held"] * len(found)
        except DeliveryError as error:
            return [str(error.outcome)] * len(found)
        return [
            str(report.failed[number].outcome) if number in report.failed else "delivered"
            for number in range(len(found))
        ]


@pytest.fixture
def shipping() -> Iterator[Shipping]:
    shipping = Shipping()
    yield shipping
    for output in shipping.made:
        output.close()


# -- what is sent ------------------------------------------------------------------------------------------------------


def test_an_event_goes_out_with_its_time_its_id_and_what_the_configuration_says(
    splunk: FakeSplunkHec, shipping: Shipping
) -> None:
    output = shipping.output(
        splunk,
        index="das_{cluster}",
        host="{instance}",
        source="das:{cluster}",
        indexed_fields=["user", "rows", "session_id"],
    )
    one = event(7, cluster="orders", instance="orders-1", user='o"brien\\')
    shipping.send(output, one)
    (got,) = splunk.events
    assert got.event == json.loads(msgspec.json.encode(one))
    assert got.time == pytest.approx(1767323045.000007, abs=1e-9)
    assert (got.index, got.host, got.source, got.sourcetype) == (
        "das_orders",
        "orders-1",
        "das:orders",
        "aws:rds:das",
    )
    assert got.fields == {"event_id": one.id, "user": 'o"brien\\', "rows": "7"}


def test_what_is_not_configured_is_left_to_splunk(splunk: FakeSplunkHec, shipping: Shipping) -> None:
    shipping.send(shipping.output(splunk), event(1))
    (got,) = splunk.events
    assert (got.index, got.host, got.source) == ("main", None, None)
    assert got.fields == {"event_id": event(1).id}


def test_times_are_exact_to_the_microsecond(splunk: FakeSplunkHec, shipping: Shipping) -> None:
    times = ["1970-01-01T00:00:00.000000Z", "2026-02-28T23:59:59.999999Z", "2038-01-19T03:14:08.123456789Z"]
    events = [event(number, time=time) for number, time in enumerate(times)]
    shipping.send(shipping.output(splunk), *events)
    expected = [0.0, 1772323199.999999, 2147483648.123456]
    assert [got.time for got in splunk.events] == pytest.approx(expected, abs=1e-6)


def test_metadata_of_many_different_values_stays_each_events_own(splunk: FakeSplunkHec, shipping: Shipping) -> None:
    output = shipping.output(splunk, host="{user}", indexed_fields=["user"])
    events = [event(number, user=f"user {number}" + "x" * (number % 7 * 300)) for number in range(6_000)]
    shipping.send(output, *events)
    assert [got.host for got in splunk.events] == [one.user for one in events]
    assert [got.fields["user"] for got in splunk.events] == [one.user for one in events]


def test_what_is_remembered_of_attackers_values_is_bounded(splunk: FakeSplunkHec, shipping: Shipping) -> None:
    output = shipping.output(splunk, source="{user}")
    envelopes = Envelopes(output.settings)
    for turn in range(3):
        events = [event(number, user=f"{turn} {number}", time=_second(turn * 3000 + number)) for number in range(3_000)]
        batch = batch_of(output.values(), events)
        envelopes.body(batch.events, batch.values)
    assert len(envelopes._beginnings) <= 4096
    assert len(envelopes._seconds) <= 4096
    long = batch_of(output.values(), [event(1, user="x" * 5000)])
    before = len(envelopes._beginnings)
    envelopes.body(long.events, long.values)
    assert len(envelopes._beginnings) == before


def _second(number: int) -> str:
    return f"2026-01-02T{number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}.000000Z"


def test_every_request_names_its_senders_channel(splunk: FakeSplunkHec, shipping: Shipping) -> None:
    output = shipping.output(splunk)
    for _ in range(3):
        shipping.send(output)
    assert len(splunk.channels) == 3
    assert len({*splunk.channels, ""}) == 2


def test_a_line_that_is_no_object_goes_out_as_text(splunk: FakeSplunkHec, shipping: Shipping) -> None:
    """What the format ``raw`` may hold one day, and dead letters of a former version."""
    output = shipping.output(splunk, format="raw")
    line = b'2026-01-02 LOG: "statement"'
    output.send(Batch([line], batch_of(output.values(), [event(1)]).values, len(line)))
    assert [got.event for got in splunk.events] == [line.decode()]


def test_the_raw_endpoint_gets_lines_and_their_metadata_once_for_each_combination(
    splunk: FakeSplunkHec, shipping: Shipping
) -> None:
    output = shipping.output(splunk, endpoint="raw", index="das_{cluster}", source="das", host="{instance}")
    events = [event(number, cluster=("orders", "billing")[number % 2], instance="a b") for number in range(6)]
    assert shipping.outcomes(output, *events) == ["delivered"] * 6
    assert len(splunk.requests) == 2
    assert {(got.index, got.host, got.source, got.sourcetype) for got in splunk.events} == {
        ("das_orders", "a b", "das", "aws:rds:das"),
        ("das_billing", "a b", "das", "aws:rds:das"),
    }
    assert {json.loads(got.event)["id"] for got in splunk.events} == {one.id for one in events}


# -- every code --------------------------------------------------------------------------------------------------------

WHOLE = {
    0: "delivered",
    **dict.fromkeys((24, 25), "delivered"),
    **dict.fromkeys((1, 2, 3, 4, 5, 10, 11, 14, 16, 21, 22, 28), "held"),
    **dict.fromkeys((9, 18, 19, 20, 23, 26, 27), "throttled"),
    **dict.fromkeys((8, 17), "unknown"),
}
AT_AN_EVENT = {6: "rejected", 12: "rejected", 13: "rejected", 15: "rejected", 7: "held"}


def test_every_code_has_a_meaning() -> None:
    assert sorted({**WHOLE, **AT_AN_EVENT}) == sorted(TEXTS)


@pytest.mark.parametrize(("code", "outcome"), WHOLE.items())
def test_a_code_for_the_whole_request(splunk: FakeSplunkHec, shipping: Shipping, code: int, outcome: str) -> None:
    splunk.answer(code)
    output = shipping.output(splunk)
    assert shipping.outcomes(output) == [outcome] * 3
    assert shipping.outcomes(output) == ["delivered"] * 3


@pytest.mark.parametrize("code", [24, 25])
def test_a_queue_that_is_nearly_full_slows_down(splunk: FakeSplunkHec, shipping: Shipping, code: int) -> None:
    output = shipping.output(splunk)
    assert not shipping.send(output).slow_down
    splunk.answer(code, stored=True)
    assert shipping.send(output).slow_down


@pytest.mark.parametrize("code", [6, 12, 13, 15])
@pytest.mark.parametrize("place", [0, 1, 4])
def test_what_stands_before_a_refused_event_is_delivered_and_what_follows_was_not_tried(
    splunk: FakeSplunkHec, shipping: Shipping, code: int, place: int
) -> None:
    events = [event(number) for number in range(5)]
    splunk.refuse(events[place].id, code)
    output = shipping.output(splunk)
    expected = ["delivered"] * place + ["rejected"] + ["not_tried"] * (4 - place)
    assert shipping.outcomes(output, *events) == expected
    assert [got.fields["event_id"] for got in splunk.events] == [one.id for one in events[:place]]


def test_a_refused_event_says_why_in_splunks_words(splunk: FakeSplunkHec, shipping: Shipping) -> None:
    splunk.refuse(event(2).id, 15)
    report = shipping.send(shipping.output(splunk))
    assert report.failed[1].detail == "HTTP 400, code 15: Error in handling indexed fields"


@pytest.mark.parametrize("place", [0, 2, 4])
def test_an_index_that_the_token_may_not_write_holds_although_splunk_names_the_next_event(
    splunk: FakeSplunkHec, shipping: Shipping, place: int
) -> None:
    events = [event(number) for number in range(5)]
    splunk.refuse(events[place].id, 7)
    output = shipping.output(splunk, index="main")
    assert shipping.outcomes(output, *events) == ["delivered"] * place + ["held"] * (5 - place)
    assert [got.fields["event_id"] for got in splunk.events] == [one.id for one in events[:place]]


def test_an_index_that_a_user_named_holds_only_its_own_events(splunk: FakeSplunkHec, shipping: Shipping) -> None:
    names = ["evil", "orders", "evil", "billing", "worse", "orders"]
    events = [event(number, database=name) for number, name in enumerate(names)]
    output = shipping.output(splunk, index="das_{database}")
    report = shipping.send(output, *events)
    held = {number: (str(failure.outcome), failure.reason) for number, failure in report.failed.items()}
    assert held == dict.fromkeys([0, 2, 4], ("held", "target_not_found"))
    assert sorted(got.fields["event_id"] for got in splunk.events) == sorted(events[number].id for number in (1, 3, 5))


@pytest.mark.parametrize("number", [None, 3, -1, 99])
def test_a_refusal_that_does_not_say_of_which_event_is_unknown(
    splunk: FakeSplunkHec, shipping: Shipping, number: int | None
) -> None:
    splunk.answer(12, number=number)
    assert shipping.outcomes(shipping.output(splunk)) == ["unknown"] * 3


def test_splunk_cloud_that_cuts_a_large_request_off_gets_smaller_ones(shipping: Shipping) -> None:
    """It says that event 0 is no valid data, and not that the request is too large."""
    with FakeSplunkHec(TOKEN, cut_at=1_200_000) as cloud:
        output = shipping.output(cloud)
        large = [event(number, statement="x" * 500_000) for number in range(3)]
        assert shipping.outcomes(output, *large) == ["too_large"] * 3
        assert shipping.outcomes(output, *large[:2]) == ["delivered"] * 2
        assert shipping.outcomes(output, event(9, statement="x" * 1_300_000)) == ["too_large"]


def test_a_small_request_of_which_event_0_is_invalid_is_not_too_large(
    splunk: FakeSplunkHec, shipping: Shipping
) -> None:
    splunk.answer(6, number=0)
    assert shipping.outcomes(shipping.output(splunk)) == ["rejected", "not_tried", "not_tried"]


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, "unknown"),
        (204, "unknown"),
        (302, "held"),
        (400, "unknown"),
        (401, "held"),
        (403, "held"),
        (404, "held"),
        (405, "held"),
        (407, "held"),
        (408, "unknown"),
        (411, "held"),
        (413, "too_large"),
        (415, "held"),
        (429, "throttled"),
        (500, "unknown"),
        (502, "unknown"),
        (503, "unknown"),
        (504, "unknown"),
    ],
)
@pytest.mark.parametrize("body", [b"<html><title>proxy</title></html>", b'{"text":"Succ', b"", b"[0]", b"null"])
def test_an_answer_that_is_not_hecs(
    splunk: FakeSplunkHec, shipping: Shipping, status: int, outcome: str, body: bytes
) -> None:
    splunk.answer(status=status, body=body, headers={"Content-Type": "text/html", "Location": "/elsewhere"})
    assert shipping.outcomes(shipping.output(splunk)) == [outcome] * 3


def test_a_page_is_not_repeated_in_what_is_logged(splunk: FakeSplunkHec, shipping: Shipping) -> None:
    splunk.answer(status=403, body=f"<html>{TOKEN}</html>".encode(), headers={"Content-Type": "text/html"})
    with pytest.raises(Held) as raised:
        shipping.send(shipping.output(splunk))
    assert "HTTP 403" in raised.value.detail
    assert TOKEN not in str(raised.value)


def test_a_token_that_is_sent_back_is_not_shown(splunk: FakeSplunkHec, shipping: Shipping) -> None:
    splunk.answer(status=400, body=json.dumps({"text": f"what is Splunk {TOKEN}?", "code": 12}).encode())
    with pytest.raises(DeliveryError) as raised:
        shipping.send(shipping.output(splunk))
    assert str(raised.value).startswith("HTTP 400, code 12: what is Splunk (token)?")


@pytest.mark.parametrize("words", ["30", "Fri, 31 Dec 2999 23:59:59 GMT"])
def test_retry_after_is_passed_on(splunk: FakeSplunkHec, shipping: Shipping, words: str) -> None:
    splunk.answer(9, headers={"Retry-After": words})
    with pytest.raises(DeliveryError) as raised:
        shipping.send(shipping.output(splunk))
    assert raised.value.failure.retry_after == (30.0 if words == "30" else 86_400.0)


def test_a_connection_that_is_cut_is_unknown(splunk: FakeSplunkHec, shipping: Shipping) -> None:
    splunk.hang_up(stored=True)
    output = shipping.output(splunk)
    assert shipping.outcomes(output) == ["unknown"] * 3
    assert len(splunk.events) == 3


def test_an_answer_that_does_not_come_in_time_is_unknown(splunk: FakeSplunkHec, shipping: Shipping) -> None:
    splunk.delay = 0.5
    output = shipping.output(splunk, timeout={"request": "50ms"})
    assert shipping.outcomes(output) == ["unknown"] * 3


# -- the token ---------------------------------------------------------------------------------------------------------


def test_a_token_that_was_changed_where_it_is_kept_is_read_again_before_the_output_is_held(
    splunk: FakeSplunkHec, shipping: Shipping, tmp_path: Any
) -> None:
    (tmp_path / "token").write_text("outdated\n")
    output = shipping.output(splunk, token="file:token")
    reader = SecretReader(tmp_path, 300.0, AwsSettings())
    for key, secret in secrets_in(output.settings):
        secret.bind(reader, key)
    assert shipping.outcomes(output) == ["held"] * 3
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert shipping.outcomes(output) == ["delivered"] * 3


def test_a_token_that_no_header_can_carry_holds_and_is_not_shown(splunk: FakeSplunkHec, shipping: Shipping) -> None:
    output = shipping.output(splunk, token="two\nlines of it")
    with pytest.raises(Held) as raised:
        shipping.send(output)
    assert raised.value.reason == "credentials"
    assert "lines of it" not in str(raised.value)


def test_a_token_that_is_disabled_holds(splunk: FakeSplunkHec, shipping: Shipping) -> None:
    splunk.enabled = False
    with pytest.raises(Held) as raised:
        shipping.send(shipping.output(splunk))
    assert raised.value.reason == "access_denied"
    assert "enable the token" in raised.value.mend


# -- check -------------------------------------------------------------------------------------------------------------


def test_check_tells_a_wrong_token_although_health_does_not_ask_for_it(
    splunk: FakeSplunkHec, shipping: Shipping
) -> None:
    (check,) = shipping.output(splunk, token="wrong").check()
    assert not check.ok
    assert "Invalid token" in check.detail
    assert splunk.events == []


@pytest.mark.parametrize("code", [18, 19, 20, 23])
def test_check_tells_that_hec_is_not_well(splunk: FakeSplunkHec, shipping: Shipping, code: int) -> None:
    splunk.health = code
    (check,) = shipping.output(splunk).check()
    assert not check.ok
    assert TEXTS[code] in check.detail


def test_check_asks_every_url(splunk: FakeSplunkHec, shipping: Shipping) -> None:
    with FakeSplunkHec(TOKEN) as other:
        output = shipping.output(splunk, other)
        other.stop()
        assert [check.ok for check in output.check()] == [True, False]


def test_check_tells_that_the_token_does_not_acknowledge(splunk: FakeSplunkHec, shipping: Shipping) -> None:
    (check,) = shipping.output(splunk, ack=True).check()
    assert not check.ok
    assert "turn on indexer acknowledgement" in check.mend


# -- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "urls"),
    [
        ("https://a:8088", ("https://a:8088",)),
        ("https://a:8088/", ("https://a:8088",)),
        ("https://a:8088/services/collector/event", ("https://a:8088",)),
        ("https://a/hec/services/collector", ("https://a/hec",)),
        (["https://a", "https://b", "https://a/"], ("https://a", "https://b")),
    ],
)
def test_urls_are_taken_with_and_without_hecs_path(given: object, urls: tuple[str, ...]) -> None:
    assert SplunkHecSettings.model_validate({"url": given, "token": "t"}).url == urls


@pytest.mark.parametrize("url", ["a:8088", "ftp://a", "https://user:password@a", "https://a?token=t", [], ""])
def test_a_url_that_is_none_is_refused(url: object) -> None:
    with pytest.raises(ValueError, match="url"):
        SplunkHecSettings.model_validate({"url": url, "token": "t"})


@pytest.mark.parametrize("more", [{"indexed_fields": ["nonsense"]}, {"indexed_fields": ["native"]}])
def test_a_field_that_does_not_exist_is_not_indexed(more: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="indexed_fields"):
        SplunkHecSettings.model_validate({"url": "https://a", "token": "t", **more})


def test_the_raw_endpoint_has_no_indexed_fields() -> None:
    with pytest.raises(ValueError, match='endpoint = "event"'):
        SplunkHecSettings.model_validate(
            {"url": "https://a", "token": "t", "endpoint": "raw", "indexed_fields": ["user"]}
        )


@pytest.mark.parametrize(
    ("given", "concurrency"),
    [
        ({}, 1),
        ({"ack": False}, 1),
        ({"ack": True}, 16),
        ({"ack": {"timeout": "1m"}}, 16),
        ({"ack": True, "concurrency": 2}, 2),
    ],
)
def test_acknowledgements_are_waited_for_by_more_senders(given: dict[str, Any], concurrency: int) -> None:
    assert SplunkHecSettings.model_validate({"url": "https://a", "token": "t", **given}).concurrency == concurrency


@pytest.mark.parametrize("name", ["Content-Length", "authorization", "Host", "no name", "a:b", ""])
def test_a_header_that_is_not_the_users_to_set_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="headers"):
        SplunkHecSettings.model_validate({"url": "https://a", "token": "t", "headers": {name: "x"}})
