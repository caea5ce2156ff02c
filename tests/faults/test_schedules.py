"""Random schedules of faults against the real command line: nothing is lost, nothing is doubled beyond the promise.

``SHIPPER_FAULT_SEED`` and ``SHIPPER_FAULT_ROUNDS`` choose the schedules; ``make test-faults`` sets them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from faults.schedule import Fault, Feed, Life, Schedule, draw
from faults.stage import Stage
from faults.verdict import Verdict

FIRST = int(os.environ.get("SHIPPER_FAULT_SEED", "1"))
ROUNDS = int(os.environ.get("SHIPPER_FAULT_ROUNDS", "20"))


@pytest.mark.parametrize("seed", range(FIRST, FIRST + ROUNDS))
def test_whatever_fails_nothing_is_lost(seed: int, tmp_path: Path) -> None:
    with played(tmp_path, draw(seed), f"SHIPPER_FAULT_SEED={seed} make test-faults ROUNDS=1"):
        pass


def test_what_schedules_are_made_of_happens(tmp_path: Path) -> None:
    """One life with everything that leaves a trace: else a schedule could be kind without anybody noticing."""
    feeds: list[Feed] = [Feed(moment, "lines", 120, 1) for moment in (0.0, 0.5, 0.8, 1.6)]
    feeds += [Feed(moment, "stream", 12, 1) for moment in (0.0, 0.6, 1.0, 2.0)]
    faults = [
        Fault(0.3, 2.2, "keys", "disable"),
        Fault(0.3, 2.3, "slow", "held"),
        Fault(0.4, 1.0, "quick", "storm", {"kind": "rejected"}),
        Fault(1.6, 0.1, "configuration", "wrong", {"how": "unknown key"}),
        Fault(1.8, 0.1, "configuration", "change", {"output": "files", "setting": "batch"}),
        Fault(2.4, 0.2, "process", "stop"),
        Fault(2.5, 0.1, "commands", "replay", {"output": "quick"}),
        Fault(2.5, 0.1, "configuration", "rename", {"output": "slow", "reload": True}),
    ]
    settings = {
        "suffix": "", "rotate": "", "files_batch": "50", "quick_batch": "25", "slow_batch": "50", "drain": "2s",
        "after": "200ms", "quick_spool": "", "slow_spool": 'max_bytes = "20kB", when_full = "dead_letter"',
    }  # fmt: skip
    whole = Schedule(0, tuple(feeds), tuple(faults), (Life(True, 4.0, "term", 0.0),), False, settings)
    with played(tmp_path, whole, "it is written down in this test") as stage:
        wanted = {"storm", "spool_full", "wrong configuration", "reload", "renamed", "replay", "spool", "kept_records"}
        assert not wanted - stage.traces()


@contextmanager
def played(folder: Path, schedule: Schedule, how: str) -> Iterator[Stage]:
    """Plays a schedule and judges what came of it; ``how`` it can be repeated."""
    with Stage(folder, schedule) as stage:
        try:
            stage.play()
            Verdict(stage).check()
            yield stage
        except BaseException as error:
            error.add_note(f"{stage.report()}\nTO REPEAT IT\n  {how}")
            raise
