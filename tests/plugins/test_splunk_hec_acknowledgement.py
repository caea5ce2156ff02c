"""Delivered is what an indexer acknowledged: late, never, forgotten in a restart, told once, or behind a balancer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from shipper.output import DeliveryError, Held, Outcome, Report
from shipper.testing.splunk_hec import FakeSplunkHec
from shipper_splunk_hec import SplunkHecOutput
from shipper_splunk_hec.settings import SplunkHecSettings
from support.batches import batch_of, event
from support.waiting import until

TOKEN = "8d2a9c1e-55aa-4c1f-9d5e-7b1d2f3a4c5d"


@pytest.fixture
def splunk() -> Iterator[FakeSplunkHec]:
    with FakeSplunkHec(TOKEN, ack=True) as splunk:
        yield splunk


@pytest.fixture
def make() -> Iterator[Any]:
    made: list[SplunkHecOutput] = []

    def _make(*splunks: FakeSplunkHec, timeout: str = "10s", **settings: Any) -> SplunkHecOutput:
        ack = {"interval": "10ms", "timeout": timeout}
        given = {"type": "splunk_hec", "url": [one.url for one in splunks], "token": TOKEN, "ack": ack, **settings}
        output = SplunkHecOutput("siem", SplunkHecSettings.model_validate(given))
        made.append(output)
        output.connect(None)
        return output

    yield _make
    for output in made:
        output.close()


def send(output: SplunkHecOutput, first: int = 1) -> Report:
    return output.send(batch_of(output.values(), [event(number) for number in range(first, first + 3)]))


def outcomes(report: Report) -> dict[int, str]:
    return {number: str(failure.outcome) for number, failure in report.failed.items()}


def test_nothing_is_delivered_before_it_is_indexed(splunk: FakeSplunkHec, make: Any) -> None:
    splunk.index_delay = float("inf")
    output = make(splunk)
    reports: list[Report] = []
    thread = threading.Thread(target=lambda: reports.append(send(output)))
    thread.start()
    splunk.wait(3)
    until(lambda: splunk.requests.count("/services/collector/ack") > 3, lambda: str(splunk.requests))
    assert reports == []
    splunk.index_everything()
    thread.join(10)
    assert [report.failed for report in reports] == [{}]


def test_what_is_not_acknowledged_in_time_is_unknown(splunk: FakeSplunkHec, make: Any) -> None:
    splunk.index_delay = float("inf")
    report = send(make(splunk, timeout="50ms"))
    assert outcomes(report) == dict.fromkeys(range(3), "unknown")
    assert "did not acknowledge" in report.failed[0].detail


def test_acknowledgements_lost_in_a_restart_are_unknown_and_the_next_batch_is_delivered(
    splunk: FakeSplunkHec, make: Any
) -> None:
    splunk.index_delay = float("inf")
    output = make(splunk, timeout="300ms")
    reports: list[Report] = []
    thread = threading.Thread(target=lambda: reports.append(send(output)))
    thread.start()
    splunk.wait(3)
    splunk.kill()
    assert splunk.events == [], "what was not indexed is lost with the indexer"
    splunk.index_delay = 0
    splunk.start()
    thread.join(10)
    assert outcomes(reports[0]) == dict.fromkeys(range(3), "unknown")
    assert send(output).failed == {}
    assert len(splunk.events) == 3


def test_an_acknowledgement_that_was_told_and_did_not_arrive_is_unknown(splunk: FakeSplunkHec, make: Any) -> None:
    """It is told once; then the indexer knows nothing of it."""
    output = make(splunk, timeout="100ms")
    assert send(output).failed == {}
    splunk.lose_acknowledgements = 1
    assert outcomes(send(output)) == dict.fromkeys(range(3), "unknown")


def test_questions_that_fail_are_asked_again(splunk: FakeSplunkHec, make: Any) -> None:
    splunk.index_delay = 0.05
    output = make(splunk)
    assert send(output).failed == {}
    splunk.fail_acknowledgements = 3
    assert send(output).failed == {}


def test_closing_ends_the_wait(splunk: FakeSplunkHec, make: Any) -> None:
    splunk.index_delay = float("inf")
    output = make(splunk, timeout="1h")
    reports: list[Report] = []
    thread = threading.Thread(target=lambda: reports.append(send(output)))
    thread.start()
    splunk.wait(3)
    output.close()
    thread.join(10)
    assert outcomes(reports[0]) == dict.fromkeys(range(3), "unknown")


def test_what_was_taken_before_a_refused_event_is_delivered_when_it_is_acknowledged(
    splunk: FakeSplunkHec, make: Any
) -> None:
    splunk.refuse(event(3).id, 12)
    assert outcomes(send(make(splunk))) == {2: "rejected"}
    splunk.refuse(event(3).id, 12)
    splunk.index_delay = float("inf")
    assert outcomes(send(make(splunk, timeout="50ms"))) == {0: "unknown", 1: "unknown", 2: "rejected"}


def test_a_token_that_does_not_acknowledge_holds_before_anything_is_sent(make: Any) -> None:
    with FakeSplunkHec(TOKEN, ack=False) as splunk:
        with pytest.raises(Held) as raised:
            send(make(splunk))
        assert splunk.events == []
        assert "turn on indexer acknowledgement" in raised.value.mend


def test_a_token_that_stops_to_acknowledge_costs_one_batch_and_then_holds(splunk: FakeSplunkHec, make: Any) -> None:
    output = make(splunk)
    assert send(output).failed == {}
    splunk.ack = False
    assert outcomes(send(output, 4)) == dict.fromkeys(range(3), "unknown")
    for _ in range(3):
        with pytest.raises(Held):
            send(output, 4)
    assert len(splunk.events) == 6
    splunk.ack = True
    assert send(output, 4).failed == {}


def test_every_sender_has_a_channel_of_its_own_and_keeps_it(splunk: FakeSplunkHec, make: Any) -> None:
    output = make(splunk)

    def work(number: int) -> None:
        for turn in range(3):
            assert send(output, 100 * number + 10 * turn).failed == {}

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(splunk.channels) == 12
    assert {splunk.channels.count(channel) for channel in splunk.channels} == {3}


def test_the_indexer_that_took_a_batch_is_asked_for_it(make: Any) -> None:
    with FakeSplunkHec(TOKEN, ack=True) as one, FakeSplunkHec(TOKEN, ack=True) as two:
        output = make(one, two)
        for turn in range(6):
            assert send(output, 10 * turn).failed == {}
        # One sender keeps to one indexer, where its channel is known.
        assert sorted([len(one.events), len(two.events)]) == [0, 18]
        taker, other = (one, two) if one.events else (two, one)
        taker.stop()
        assert send(output, 100).failed == {}
        assert len(other.events) == 3


def test_the_cookie_of_a_load_balancer_leads_back_to_the_same_indexer(splunk: FakeSplunkHec, make: Any) -> None:
    splunk.cookies = {"AWSALB": "node-1; Expires=Fri, 31 Dec 2999 23:59:59 GMT; Path=/", "other": "2; HttpOnly"}
    output = make(splunk)
    send(output)
    splunk.cookies = {"AWSALB": "node-2; Path=/"}
    send(output)
    send(output)
    assert splunk.seen_cookies[-1] == "AWSALB=node-2; other=2"
    assert all("AWSALB=node-1" in seen for seen in splunk.seen_cookies[1:3])


@pytest.mark.parametrize(
    "body", [b"{}", b'{"acks":[true]}', b'{"acks":{"0":"yes"}}', b"<html></html>", b'{"acks":{"7":true}}', b""]
)
def test_an_answer_about_acknowledgements_that_makes_no_sense_is_none(
    splunk: FakeSplunkHec, make: Any, body: bytes
) -> None:
    output = make(splunk, timeout="50ms")
    assert send(output).failed == {}
    splunk.acknowledgement_body = body
    assert outcomes(send(output)) == dict.fromkeys(range(3), "unknown")


def test_an_outage_while_the_token_is_asked_for_acknowledgements_is_no_fault_of_its(
    splunk: FakeSplunkHec, make: Any
) -> None:
    output = make(splunk)
    splunk.stop()
    with pytest.raises(DeliveryError) as raised:
        send(output)
    assert raised.value.failure.outcome is Outcome.NOT_TRIED
    splunk.start()
    assert send(output).failed == {}
