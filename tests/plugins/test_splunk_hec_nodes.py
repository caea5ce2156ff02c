"""Several URLs: in turn, past one that fails, and nowhere else with what may have been taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from shipper.clock import SystemClock
from shipper.output import Batch, DeliveryError, Held, Outcome
from shipper.testing.splunk_hec import FakeSplunkHec
from shipper_splunk_hec import SplunkHecOutput
from shipper_splunk_hec.nodes import REST
from shipper_splunk_hec.settings import SplunkHecSettings
from support.batches import batch_of, event

Three = tuple[FakeSplunkHec, FakeSplunkHec, FakeSplunkHec]


class MovedClock(SystemClock):
    """Ahead of the machine's by what ``ahead`` says (seconds)."""

    ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


@pytest.fixture
def three() -> Iterator[Three]:
    with FakeSplunkHec("t") as one, FakeSplunkHec("t") as two, FakeSplunkHec("t") as three:
        yield one, two, three


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
def output(three: Three, clock: MovedClock) -> Iterator[SplunkHecOutput]:
    settings = SplunkHecSettings.model_validate({"url": [one.url for one in three], "token": "t"})
    output = SplunkHecOutput("siem", settings, clock)
    output.connect(None)
    yield output
    output.close()


def batch(output: SplunkHecOutput) -> Batch:
    return batch_of(output.values(), [event(1), event(2)])


def test_batches_go_to_the_urls_in_turn(three: Three, output: SplunkHecOutput) -> None:
    for _ in range(6):
        output.send(batch(output))
    assert [len(one.requests) for one in three] == [2, 2, 2]


def test_one_that_is_away_is_passed_by_and_asked_last_for_a_while(
    three: Three, output: SplunkHecOutput, clock: MovedClock, caplog: pytest.LogCaptureFixture
) -> None:
    three[0].stop()
    for _ in range(6):
        assert output.send(batch(output)).failed == {}
    assert [len(one.events) > 0 for one in three] == [False, True, True]
    assert sum(len(one.events) for one in three) == 12
    assert [record.levelname for record in caplog.records if three[0].url[7:] in record.getMessage()] == ["WARNING"]
    three[0].start()
    for _ in range(4):
        output.send(batch(output))
    assert three[0].requests == []
    clock.ahead = REST + 1
    for _ in range(3):
        output.send(batch(output))
    assert len(three[0].requests) == 1


@pytest.mark.parametrize("code", [9, 18, 23, 26, 1, 4])
def test_what_one_did_not_take_goes_to_the_next_at_once(three: Three, output: SplunkHecOutput, code: int) -> None:
    for one in three[:2]:
        one.answer(code, times=10)
    for _ in range(3):
        assert output.send(batch(output)).failed == {}
    assert Counter(len(one.events) for one in three) == {0: 2, 6: 1}


@pytest.mark.parametrize("status", [500, 502, 504])
def test_what_may_have_been_taken_goes_nowhere_else(three: Three, output: SplunkHecOutput, status: int) -> None:
    for one in three:
        one.answer(status=status, stored=True)
    with pytest.raises(DeliveryError) as raised:
        output.send(batch(output))
    assert raised.value.failure.outcome is Outcome.UNKNOWN
    assert sum(len(one.events) for one in three) == 2


def test_what_passes_by_itself_is_told_rather_than_what_a_person_must_mend(
    three: Three, output: SplunkHecOutput
) -> None:
    three[0].answer(4, times=3)
    three[1].answer(9, times=3)
    three[2].stop()
    for _ in range(3):  # each of them is the first once
        with pytest.raises(DeliveryError) as raised:
            output.send(batch(output))
        assert raised.value.failure.outcome in (Outcome.THROTTLED, Outcome.NOT_TRIED)


def test_when_all_refuse_the_token_the_output_is_held(three: Three, output: SplunkHecOutput) -> None:
    for one in three:
        one.answer(4)
    with pytest.raises(Held, match="Invalid token"):
        output.send(batch(output))


def test_when_all_are_away_nothing_was_tried(three: Three, output: SplunkHecOutput) -> None:
    for one in three:
        one.stop()
    with pytest.raises(DeliveryError) as raised:
        output.send(batch(output))
    assert raised.value.failure.outcome is Outcome.NOT_TRIED


# -- health ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def splunk() -> Iterator[FakeSplunkHec]:
    with FakeSplunkHec("t") as splunk:
        yield splunk


@pytest.fixture
def alone(splunk: FakeSplunkHec) -> Iterator[SplunkHecOutput]:
    output = SplunkHecOutput("siem", SplunkHecSettings.model_validate({"url": splunk.url, "token": "t"}))
    output.connect(None)
    yield output
    output.close()


def outcome(output: SplunkHecOutput) -> Outcome | None:
    try:
        report = output.send(batch(output))
    except DeliveryError as error:
        return error.failure.outcome
    assert report.failed == {}
    return None


@pytest.mark.parametrize("status", [500, 502, 503])
@pytest.mark.parametrize(("health", "then"), [(18, Outcome.THROTTLED), (23, Outcome.THROTTLED), (17, None)])
def test_after_a_failure_nothing_is_sent_until_hec_says_that_it_is_well(
    splunk: FakeSplunkHec, alone: SplunkHecOutput, status: int, health: int, then: Outcome | None
) -> None:
    splunk.answer(status=status)
    assert outcome(alone) is Outcome.UNKNOWN
    splunk.health = health
    assert outcome(alone) is then
    assert len(splunk.requests) == (2 if then is None else 1)
    splunk.health = 17
    assert outcome(alone) is None
    splunk.health = 18
    assert outcome(alone) is None, "nothing failed since"


def test_a_connection_that_was_cut_makes_doubtful_too(splunk: FakeSplunkHec, alone: SplunkHecOutput) -> None:
    splunk.hang_up()
    assert outcome(alone) is Outcome.UNKNOWN
    splunk.health = 19
    assert outcome(alone) is Outcome.THROTTLED
    assert splunk.events == []


def test_a_server_that_fails_nothing_is_not_asked_for_its_health(splunk: FakeSplunkHec, alone: SplunkHecOutput) -> None:
    splunk.health = 18
    assert outcome(alone) is None


@pytest.mark.parametrize("health", [21, 22])
def test_only_what_passes_by_itself_keeps_events_back(
    splunk: FakeSplunkHec, alone: SplunkHecOutput, health: int
) -> None:
    splunk.hang_up()
    assert outcome(alone) is Outcome.UNKNOWN
    splunk.health = health
    assert outcome(alone) is None


@pytest.mark.parametrize(
    ("status", "then"),
    [
        (404, None),
        (403, None),
        (500, None),
        (502, Outcome.NOT_TRIED),
        (503, Outcome.NOT_TRIED),
        (429, Outcome.THROTTLED),
        (0, Outcome.NOT_TRIED),
    ],
)
def test_a_page_in_place_of_health_says_at_most_that_nobody_is_behind_it(
    splunk: FakeSplunkHec, alone: SplunkHecOutput, status: int, then: Outcome | None
) -> None:
    splunk.hang_up()
    assert outcome(alone) is Outcome.UNKNOWN
    splunk.health_page = status
    assert outcome(alone) is then


def test_one_that_is_not_well_again_is_passed_by(three: Three, output: SplunkHecOutput, clock: MovedClock) -> None:
    three[0].stop()
    for _ in range(3):
        output.send(batch(output))
    three[0].start()
    three[0].health = 18
    clock.ahead = REST + 1
    for _ in range(3):
        assert output.send(batch(output)).failed == {}
    assert three[0].requests == []
