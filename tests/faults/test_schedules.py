"""Random schedules of faults against the real command line: nothing is lost, nothing is doubled beyond the promise.

``SHIPPER_FAULT_SEED`` and ``SHIPPER_FAULT_ROUNDS`` choose the schedules; ``make test-faults`` sets them.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from faults.feeds import Fed
from faults.schedule import draw
from faults.stage import REFUSED, Stage, slow_wants
from shipper.state import positions
from shipper.state.file import read_state
from support.oracle import assert_balanced, assert_conserved, assert_in_order, ids_in_files, ids_in_order

FIRST = int(os.environ.get("SHIPPER_FAULT_SEED", "1"))
ROUNDS = int(os.environ.get("SHIPPER_FAULT_ROUNDS", "20"))


@pytest.mark.parametrize("seed", range(FIRST, FIRST + ROUNDS))
def test_whatever_fails_nothing_is_lost(seed: int, tmp_path: Path) -> None:
    schedule = draw(seed)
    with Stage(tmp_path, schedule) as stage:
        try:
            stage.play()
            Verdict(stage).check()
        except BaseException as error:
            again = f"\nTO REPEAT IT\n  SHIPPER_FAULT_SEED={seed} make test-faults ROUNDS=1"
            error.add_note(stage.report() + again)
            raise


class Verdict:
    """The conservation oracle for the stage's three outputs."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        fed = [stage.stream.fed(), stage.lines.fed()]
        self.fed = Fed(
            {partition: ids for one in fed for partition, ids in one.order.items()},
            {event: fact for one in fed for event, fact in one.facts.items()},
            sum(one.broken for one in fed),
        )
        self.noise = {event for event, (user, _) in self.fed.facts.items() if user == "rdsadmin"}
        unwanted = {event for event, (_, category) in self.fed.facts.items() if not slow_wants(category)}
        self.dropped = {"files": set[str](), "quick": self.noise, "slow": self.noise | unwanted}
        self.letters: dict[str, dict[str, str]] = defaultdict(dict)
        self.undecoded = 0
        for letter in stage.letters():
            if letter["output"] == "*":
                self.undecoded += 1
            else:
                self.letters[letter["output"]][letter["event_id"]] = letter["reason"]
        self.stored: dict[str, Counter[str]] = {
            "files": ids_in_files(*stage.files()),
            "quick": Counter(stage.quick.stored("quick")),
            "slow": Counter(stage.slow.stored("slow")),
        }

    def check(self) -> None:
        """Everything that is promised."""
        for output, stored in self.stored.items():
            assert_conserved(output, self.fed.facts, self.dropped[output], stored, self.letters[output])
        assert self.undecoded == self.fed.broken, "records that cannot be decoded are not the dead letters"
        self.check_dead_letters()
        self.check_duplicates()
        for path in self.stage.files():
            assert_in_order("files", ids_in_order(path), self.fed.order)
        self.check_books()

    def check_dead_letters(self) -> None:
        """What a destination takes is no dead letter, and what it does not take is one, with its reason."""
        refused = {
            event: reason
            for event in self.fed.facts.keys() - self.noise
            if (reason := self.stage.quick.refused(event)) is not None
        }
        assert set(refused.values()) <= REFUSED.keys()
        assert self.letters["quick"] == refused
        assert not self.letters["slow"]
        assert not self.letters["files"]

    def check_duplicates(self) -> None:
        """A file has none. Quick has an event again only where the answer was lost or untrue, or a process ended."""
        doubled = [event for event, count in self.stored["files"].items() if count > 1]
        assert not doubled, f"output files: {len(doubled)} events are doubled: {doubled[:5]}"
        assert max(self.stored["slow"].values(), default=1) == 1
        gaps = [(end.asked, end.gone) for end in self.stage.ends if not end.clean]
        gaps += self.stage.way_to_quick.broken
        seen: dict[str, tuple[float, float, bool]] = {}
        for storing in sorted(self.stage.quick.storings, key=lambda one: one.stored):
            for event in storing.ids:
                if event in seen:
                    begun, told = min(seen[event][0], storing.begun), seen[event][2]
                    excused = not told or any(begun <= gone and asked <= storing.stored for asked, gone in gaps)
                    assert excused, f"output quick: {event} came again although it was acknowledged"
                seen[event] = (storing.begun, storing.stored, event in storing.told)

    def check_books(self) -> None:
        """Exact across everything that happened."""
        connection = read_state(self.stage.state)
        books = positions.books(connection)
        connection.close()
        everything = len(self.fed.facts)
        for output, book in books.items():
            assert_balanced(output, book)
            entries: dict[str, Any] = {entry: sum(reasons.values()) for entry, reasons in book.items()}
            arrived = entries.get("delivered", 0) + entries.get("already_stored", 0)
            expected = {
                "offered": everything + self.fed.broken,
                "filtered": len(self.dropped[output]),
                "dead_lettered": len(self.letters[output]) + self.fed.broken,
                "arrived": len(self.stored[output]),
            }
            assert {**{entry: entries.get(entry, 0) for entry in expected}, "arrived": arrived} == expected, output
