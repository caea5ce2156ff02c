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
