"""The part of the contract about bookmarks: a kill at whatever instant loses nothing and doubles nothing.

A kill is played by leaving an instance as it is and making a new one with the bookmark that was committed.
"""

from __future__ import annotations

from typing import Any

import pytest

from shipper.output import Output
from shipper.testing.contract.ground import Ground, Make, ordinary


class Bookmarks(Ground):
    """Tests for outputs that keep a place of their own; the others are skipped."""

    def test_an_output_with_a_bookmark_is_sent_one_batch_at_a_time(self, make: Make) -> None:
        output = self._keeping(make)
        assert output.ordered, "an output that returns bookmarks has one sender: `ordered = True`"

    def test_what_was_sent_comes_with_a_bookmark(self, make: Make) -> None:
        output = self._keeping(make)
        assert self.deliver(output, ordinary(2)).bookmark is not None, "the report of send has no bookmark"

    def test_preparing_stores_nothing_and_may_be_repeated(self, destination: Any, make: Make) -> None:
        output = self._keeping(make)
        batch = self.batch(output, ordinary(2))
        output.prepare(batch)
        output.prepare(batch)
        self.has(destination, [])
        self.send(output, batch)
        self.has(destination, ordinary(2))

    def test_a_kill_before_anything_was_committed_costs_nothing(self, destination: Any, make: Make) -> None:
        """The first bookmark had to be committed before the first byte, so that the new instance knows of it."""
        output = self._keeping(make)
        batch = self.batch(output, ordinary(2))
        prepared = output.prepare(batch)
        assert prepared is not None, "a destination that has nothing yet needs a bookmark before it gets the first byte"
        output.send(batch)
        self.deliver(make(prepared), ordinary(2))
        self.has(destination, ordinary(2))

    def test_a_kill_between_prepare_and_send_costs_nothing(self, destination: Any, make: Make) -> None:
        output = self._keeping(make)
        committed = self.deliver(output, ordinary(2)).bookmark
        prepared = output.prepare(self.batch(output, ordinary(2, 3)))
        self.deliver(make(prepared or committed), ordinary(2, 3))
        self.has(destination, ordinary(4))

    def test_a_kill_between_send_and_commit_costs_nothing(self, destination: Any, make: Make) -> None:
        output = self._keeping(make)
        committed = self.deliver(output, ordinary(2)).bookmark
        batch = self.batch(output, ordinary(2, 3))
        prepared = output.prepare(batch)
        output.send(batch)
        again = make(prepared or committed)
        self.has(destination, ordinary(2))
        self.deliver(again, ordinary(2, 3))
        self.has(destination, ordinary(4))

    def test_a_kill_several_batches_after_the_last_commit_costs_nothing(self, destination: Any, make: Make) -> None:
        output = self._keeping(make)
        committed = self.deliver(output, ordinary(2)).bookmark
        for first in (3, 5, 7):
            batch = self.batch(output, ordinary(2, first))
            committed = output.prepare(batch) or committed
            output.send(batch)
        again = make(committed)
        there = len(self.received(destination))
        self.deliver(again, ordinary(8 - there, 1 + there))
        self.has(destination, ordinary(8))

    def test_a_kill_after_the_commit_costs_nothing(self, destination: Any, make: Make) -> None:
        output = self._keeping(make)
        committed = self.deliver(output, ordinary(2)).bookmark
        again = make(committed)
        self.has(destination, ordinary(2))
        self.deliver(again, ordinary(2, 3))
        self.has(destination, ordinary(4))

    def test_a_kill_at_every_turn_costs_nothing(self, destination: Any, make: Make) -> None:
        committed: bytes | None = None
        self._keeping(make)
        for first in range(1, 12, 2):
            killed = make(committed)
            batch = self.batch(killed, ordinary(2, first))
            committed = killed.prepare(batch) or committed
            killed.send(batch)
            committed = self.deliver(make(committed), ordinary(2, first)).bookmark
        self.has(destination, ordinary(12))

    @pytest.mark.parametrize(
        "bookmark",
        [b"", b"{}", b"\xff\x00", b"[" * 10_000],
        ids=["empty", "an empty table", "no text", "a deep list"],
    )
    def test_a_bookmark_that_makes_no_sense_loses_nothing(self, destination: Any, make: Make, bookmark: bytes) -> None:
        self.deliver(self._keeping(make), ordinary(2))
        self.deliver(make(bookmark), ordinary(2, 3))
        self.has(destination, ordinary(4))

    def _keeping(self, make: Make) -> Output[Any]:
        output = make()
        if type(output).prepare is Output.prepare:
            pytest.skip("not supported by this destination: bookmark: the output has no `prepare`")
        return output
