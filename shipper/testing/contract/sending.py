"""The part of the contract about delivering: everything in a batch, once, unchanged, whatever it is like."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from shipper.event import Event
from shipper.testing.contract.events import HOSTILE, event, room, sized
from shipper.testing.contract.ground import Ground, Make, decoded, ordinary

#: Threads that call ``send`` at once, and batches that each of them sends.
THREADS = 4
BATCHES = 5
#: Batches are made no larger than this (events, bytes) when a destination takes more.
MOST_EVENTS = 10_000
MOST_BYTES = 8_000_000


class Sending(Ground):
    """Tests that send."""

    def test_an_event_is_delivered(self, destination: Any, make: Make) -> None:
        self.deliver(make(), ordinary(1))
        self.has(destination, ordinary(1))

    @pytest.mark.parametrize("count", [2, 3, 100])
    def test_every_event_of_a_batch_is_delivered_once(self, destination: Any, make: Make, count: int) -> None:
        output = make()
        count = min(count, output.limits.max_events or count)
        self.deliver(output, ordinary(count))
        self.has(destination, ordinary(count))

    def test_batch_after_batch_is_delivered_once(self, destination: Any, make: Make) -> None:
        output = make()
        for first in (1, 11, 21, 31):
            self.deliver(output, ordinary(10, first))
        self.has(destination, ordinary(40))

    def test_batches_are_all_there_before_the_output_is_closed(self, destination: Any, make: Make) -> None:
        """What is reported delivered is durable: there is no flush to wait for."""
        output = make()
        self.deliver(output, ordinary(1))
        self.has(destination, ordinary(1))
        self.deliver(output, ordinary(1, 2))
        self.has(destination, ordinary(2))
        output.close()
        self.has(destination, ordinary(2))

    def test_an_ordered_output_keeps_the_order(self, destination: Any, make: Make) -> None:
        output = make()
        if not output.ordered:
            pytest.skip("not supported by this destination: order: the output is not `ordered`")
        events = ordinary(30)
        for first in (0, 10, 20):
            self.deliver(output, events[first : first + 10])
        self.has(destination, events)
        rows = [decoded(one)["rows"] for one in self.received(destination)]
        assert rows == sorted(rows), "the destination has the events in another order"

    def test_a_batch_is_not_changed_by_sending_it(self, make: Make) -> None:
        """The engine sends what is left of it again, and shares the bytes with other outputs."""
        output = make()
        batch = self.batch(output, ordinary(3))
        before = list(batch.events), list(batch.values)
        self.send(output, batch)
        assert (list(batch.events), list(batch.values)) == before

    def test_what_is_sent_again_is_doubled_or_reported_as_already_stored(self, destination: Any, make: Make) -> None:
        output = make()
        self.deliver(output, ordinary(3))
        known = len(self.deliver(output, ordinary(3)).already_stored)
        self.has(destination, ordinary(3), doubled=True)
        there = len(self.received(destination))
        assert there == 6 - known, f"{there} events are there after {known} of 3 + 3 were reported as already stored"

    def test_several_threads_send_at_once(self, destination: Any, make: Make) -> None:
        output = make()
        if output.ordered:
            pytest.skip("not supported by this destination: concurrency: the output is `ordered`")
        together = threading.Barrier(THREADS)
        errors: list[BaseException] = []

        def run(number: int) -> None:
            try:
                together.wait(30)
                for turn in range(BATCHES):
                    self.deliver(output, ordinary(5, 1 + 5 * (number * BATCHES + turn)))
            except BaseException as error:  # noqa: BLE001 - pytest shows it
                errors.append(error)

        threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors, f"with {THREADS} threads: {errors[0]!r}"
        self.has(destination, ordinary(THREADS * BATCHES * 5))

    # -- size ------------------------------------------------------------------------------------------------------

    def test_a_statement_of_a_megabyte_is_delivered(self, destination: Any, make: Make) -> None:
        output = make()
        events = [event(1), sized(2, room(output.limits))]
        for one in events:
            self.deliver(output, [one])
        self.has(destination, events)

    def test_a_batch_of_as_many_events_as_the_limits_allow_is_taken(self, destination: Any, make: Make) -> None:
        output = make()
        size = len(self.batch(output, ordinary(1)).events[0]) + 10 + output.limits.overhead
        count = min(output.limits.max_events or MOST_EVENTS, (output.limits.max_bytes or MOST_BYTES) // size)
        events = ordinary(min(count, MOST_EVENTS))
        self.deliver(output, events)
        self.has(destination, events)

    def test_a_batch_of_as_many_bytes_as_the_limits_allow_is_taken(self, destination: Any, make: Make) -> None:
        output = make()
        allowed = min(output.limits.max_bytes or MOST_BYTES, MOST_BYTES)
        each = min(64_000, room(output.limits))
        count = min(allowed // (each + output.limits.overhead), output.limits.max_events or MOST_EVENTS)
        events = [sized(number, each) for number in range(1, count + 1)]
        self.deliver(output, events)
        self.has(destination, events)

    # -- hostile events --------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("kind", HOSTILE)
    def test_a_hostile_event_arrives_unchanged_and_harms_no_neighbour(
        self, destination: Any, make: Make, kind: str
    ) -> None:
        output = make()
        events: list[Event] = [event(1), HOSTILE[kind](2), event(3)]
        self.deliver(output, events)
        self.deliver(output, [event(4)])
        self.has(destination, [*events, event(4)])

    def test_events_of_which_nothing_is_known_are_delivered(self, destination: Any, make: Make) -> None:
        """Every value that ``values`` asks for is absent, or what the template puts there."""
        output = make()
        events = [HOSTILE["every optional field absent"](number) for number in (1, 2)]
        self.deliver(output, events)
        self.has(destination, events)
