"""The part of the contract about failing: what the output says when the destination refuses, is gone, or is closed."""

from __future__ import annotations

from typing import Any

import pytest

from shipper.errors import HELD_REASONS, Held
from shipper.output import Outcome, Output
from shipper.testing.contract.ground import CAPABILITIES, Ground, Make, decoded, ordinary

#: What an output may say while its destination cannot be reached: nothing that costs an event.
AWAY = frozenset({Outcome.THROTTLED, Outcome.NOT_TRIED, Outcome.UNKNOWN, Outcome.HELD})


class Failing(Ground):
    """Tests in which something goes wrong."""

    def test_what_is_unsupported_is_something_that_the_contract_asks_for(self) -> None:
        unknown = self.unsupported.keys() - CAPABILITIES
        assert not unknown, f"`unsupported` names {sorted(unknown)}; the contract asks for {sorted(CAPABILITIES)}"
        assert all(reason.strip() for reason in self.unsupported.values()), "`unsupported` says why"

    # -- refusals --------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("outcome", Outcome)
    def test_a_refused_batch_is_reported_so_and_is_taken_afterwards(
        self, destination: Any, make: Make, outcome: Outcome
    ) -> None:
        self.need(outcome)
        output = make()
        batch = self.batch(output, ordinary(3))
        self.refuse_next(destination, outcome, None)
        failed = self.failures(output, batch)
        assert {index: str(failure.outcome) for index, failure in failed.items()} == dict.fromkeys(range(3), outcome)
        if outcome is not Outcome.UNKNOWN:
            self.has(destination, [])
        self.deliver(output, ordinary(3))
        self.has(destination, ordinary(3), doubled=outcome is Outcome.UNKNOWN)

    @pytest.mark.parametrize("outcome", Outcome)
    def test_one_refused_event_of_a_batch_is_reported_alone(
        self, destination: Any, make: Make, outcome: Outcome
    ) -> None:
        self.need("partial", outcome)
        output = make()
        events = ordinary(5)
        batch = self.batch(output, events)
        self.refuse_next(destination, outcome, batch.events[2])
        failed = self.failures(output, batch)
        assert 2 in failed, "the refused event was reported as delivered"
        assert failed[2].outcome is outcome
        others = {index: str(failure.outcome) for index, failure in failed.items() if index != 2}
        # Where a request stops at the refused event the rest was not tried; where a hold stops everything, it is held.
        allowed = {Outcome.NOT_TRIED, Outcome.HELD} if outcome is Outcome.HELD else {Outcome.NOT_TRIED}
        assert set(others.values()) <= allowed, f"its neighbours were reported as {others}"
        delivered = [one for index, one in enumerate(events) if index not in failed]
        there = {str(one["id"]) for one in self._received(destination)}
        assert {one.id for one in delivered} <= there, "an event that was reported as delivered is not there"
        self.deliver(output, [one for index, one in enumerate(events) if index in failed])
        self.has(destination, events, doubled=outcome is Outcome.UNKNOWN)

    @pytest.mark.parametrize("outcome", [Outcome.REJECTED, Outcome.HELD])
    def test_a_refusal_that_a_person_has_to_see_says_why(self, destination: Any, make: Make, outcome: Outcome) -> None:
        self.need(outcome)
        output = make()
        self.refuse_next(destination, outcome, None)
        failed = self.failures(output, self.batch(output, ordinary(1)))
        assert failed[0].detail.strip(), "the destination's own words are missing"
        assert len(failed[0].detail) < 2_000, "a detail is a sentence, not a page"

    def test_a_hold_has_a_reason_of_the_list_and_says_what_to_do(self, destination: Any, make: Make) -> None:
        self.need(Outcome.HELD)
        output = make()
        self.refuse_next(destination, Outcome.HELD, None)
        try:
            reason = self.send(output, self.batch(output, ordinary(1))).failed[0].reason
            mend = "only what is raised can say"
        except Held as held:
            reason, mend = held.reason, held.mend
        assert reason in HELD_REASONS, f"{reason!r} is no reason of shipper.errors.HELD_REASONS"
        assert mend.strip(), "Held says in `mend` what to do"

    def test_a_batch_that_is_too_large_is_taken_in_halves(self, destination: Any, make: Make) -> None:
        self.need(Outcome.TOO_LARGE)
        output = make()
        self.refuse_next(destination, Outcome.TOO_LARGE, None)
        failed = self.failures(output, self.batch(output, ordinary(4)))
        assert {failure.outcome for failure in failed.values()} == {Outcome.TOO_LARGE}
        self.deliver(output, ordinary(2))
        self.deliver(output, ordinary(2, 3))
        self.has(destination, ordinary(4))

    def test_a_single_event_that_is_too_large_is_reported_so(self, destination: Any, make: Make) -> None:
        self.need(Outcome.TOO_LARGE)
        output = make()
        self.refuse_next(destination, Outcome.TOO_LARGE, None)
        failed = self.failures(output, self.batch(output, ordinary(1)))
        assert failed[0].outcome is Outcome.TOO_LARGE
        self.has(destination, [])

    def test_refusal_after_refusal_wears_nothing_out(self, destination: Any, make: Make) -> None:
        possible = [outcome for outcome in Outcome if outcome not in self.unsupported]
        if not possible:
            self.need(*Outcome)
        output = make()
        for turn in range(12):
            self.refuse_next(destination, possible[turn % len(possible)], None)
            assert len(self.failures(output, self.batch(output, ordinary(2)))) == 2
        self.deliver(output, ordinary(2))
        self.has(destination, ordinary(2), doubled=True)

    # -- the destination goes away ---------------------------------------------------------------------------------

    def test_while_the_destination_is_away_no_event_is_refused_or_called_delivered(
        self, destination: Any, make: Make
    ) -> None:
        self.need("outage")
        output = make()
        self.deliver(output, ordinary(1))
        self.go_away(destination)
        try:
            for _ in range(3):
                self._is_away(output)
        finally:
            self.come_back(destination)
        self.has(destination, ordinary(1))

    def test_when_the_destination_is_back_the_same_output_delivers(self, destination: Any, make: Make) -> None:
        self.need("outage")
        output = make()
        self.deliver(output, ordinary(2))
        for _ in range(2):
            self.go_away(destination)
            try:
                self._is_away(output)
            finally:
                self.come_back(destination)
        self._deliver_at_last(output)
        self.has(destination, ordinary(4), doubled=True)

    def test_a_destination_that_was_away_between_two_batches_costs_nothing(self, destination: Any, make: Make) -> None:
        """A connection that was open is dead, and nobody has noticed."""
        self.need("outage")
        output = make()
        self.deliver(output, ordinary(2))
        self.go_away(destination)
        self.come_back(destination)
        self._deliver_at_last(output)
        self.has(destination, ordinary(4), doubled=True)

    def test_connecting_while_the_destination_is_away_succeeds_or_holds(self, destination: Any, make: Make) -> None:
        self.need("outage")
        output = make(connected=False)
        self.go_away(destination)
        try:
            output.connect(None)
        except Held as held:
            self.show_nothing_in_error(held, "what connect raised")
        finally:
            self.come_back(destination)
        output.connect(None)
        self._deliver_at_last(output, first=1)
        self.has(destination, ordinary(2), doubled=True)

    def test_closing_while_the_destination_is_away_is_harmless(self, destination: Any, make: Make) -> None:
        self.need("outage")
        output = make()
        self.deliver(output, ordinary(2))
        self.go_away(destination)
        try:
            self._is_away(output)
            output.close()
        finally:
            self.come_back(destination)
        self.has(destination, ordinary(2))

    def test_closing_after_a_failed_connect_is_harmless(self, destination: Any, make: Make) -> None:
        self.need("outage")
        output = make(connected=False)
        self.go_away(destination)
        try:
            output.connect(None)
        except Held:
            pass  # either is right
        finally:
            output.close()
            self.come_back(destination)
        self.has(destination, [])

    # -- closing ---------------------------------------------------------------------------------------------------

    def test_closing_what_was_never_connected_is_harmless(self, make: Make) -> None:
        make(connected=False).close()

    def test_closing_an_idle_output_is_harmless(self, destination: Any, make: Make) -> None:
        make().close()
        self.has(destination, [])

    def test_closing_twice_is_harmless(self, destination: Any, make: Make) -> None:
        output = make()
        self.deliver(output, ordinary(1))
        output.close()
        output.close()
        self.has(destination, ordinary(1))

    def test_closing_in_the_middle_loses_nothing_that_was_delivered(self, destination: Any, make: Make) -> None:
        output = make()
        self.deliver(output, ordinary(2))
        output.prepare(self.batch(output, ordinary(2, 3)))
        output.close()
        self.has(destination, ordinary(2))

    def test_a_second_instance_goes_on_where_the_first_was_closed(self, destination: Any, make: Make) -> None:
        first = make()
        report = self.deliver(first, ordinary(2))
        first.close()
        self.deliver(make(report.bookmark), ordinary(2, 3))
        self.has(destination, ordinary(4))

    # -- helpers ---------------------------------------------------------------------------------------------------

    def _received(self, destination: Any) -> list[Any]:
        return [decoded(one) for one in self.received(destination)]

    def _is_away(self, output: Output[Any]) -> None:
        failed = self.failures(output, self.batch(output, ordinary(2, 3)))
        assert failed.keys() == {0, 1}, "an event was reported as delivered while the destination was away"
        outcomes = {failure.outcome for failure in failed.values()}
        assert outcomes <= AWAY, f"an outage is no fault of the events: {sorted(outcomes - AWAY)}"

    def _deliver_at_last(self, output: Output[Any], first: int = 3) -> None:
        """Sends two events as often as an engine would without asking questions."""
        batch = self.batch(output, ordinary(2, first))
        for _ in range(5):
            if not self.failures(output, batch):
                return
        raise AssertionError("the destination is back, and five attempts later the output still does not deliver")
