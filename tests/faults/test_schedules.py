"""Random schedules of faults against the real command line: nothing is lost, nothing is doubled beyond the promise.

``SHIPPER_FAULT_SEED`` and ``SHIPPER_FAULT_ROUNDS`` choose the schedules; ``make test-faults`` sets them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from faults.schedule import OUTPUTS, SIEMS, Fault, Feed, Life, Schedule, draw, ships_to_siems
from faults.stage import Stage
from faults.verdict import Verdict
from servers.opensearch import Server

FIRST = int(os.environ.get("SHIPPER_FAULT_SEED", "1"))
ROUNDS = int(os.environ.get("SHIPPER_FAULT_ROUNDS", "20"))
#: Lives in which everything has to be seen once: on a busy machine some of it comes too late in one of them.
ATTEMPTS = 4


def seeds(*, siems: bool) -> list[int]:
    """Those of this run whose schedules ship to real SIEMs too, or the others."""
    return [seed for seed in range(FIRST, FIRST + ROUNDS) if ships_to_siems(seed) is siems]


def repeat(seed: int) -> str:
    return f"SHIPPER_FAULT_SEED={seed} make test-faults ROUNDS=1"


@pytest.mark.parametrize("seed", seeds(siems=False))
def test_whatever_fails_nothing_is_lost(seed: int, tmp_path: Path) -> None:
    with played(tmp_path, draw(seed), repeat(seed)):
        pass


@pytest.mark.xdist_group("opensearch")
@pytest.mark.parametrize("seed", seeds(siems=True))
def test_whatever_fails_nothing_is_lost_on_the_way_to_opensearch_and_splunk(
    seed: int, tmp_path: Path, opensearch_server: Server
) -> None:
    with played(tmp_path, draw(seed), repeat(seed), opensearch_server.url):
        pass


def test_what_schedules_are_made_of_happens(tmp_path: Path) -> None:
    """A life with everything that leaves a trace: else a schedule could be kind without anybody noticing."""
    # Often enough that slow's spool is written to several times before a reload puts everything there.
    feeds: list[Feed] = [Feed(moment, "lines", 120, 1) for moment in (0.0, 0.5, 0.8, 1.2, 1.6, 2.0, 2.4)]
    feeds += [Feed(moment, "stream", 12, 1) for moment in (0.0, 0.6, 1.0, 2.0, 2.8)]
    faults = [
        Fault(0.3, 3.0, "keys", "disable"),
        Fault(0.3, 3.1, "slow", "held"),
        Fault(0.4, 1.0, "quick", "storm", {"kind": "rejected"}),
        Fault(2.4, 0.1, "configuration", "wrong", {"how": "unknown key"}),
        Fault(2.6, 0.1, "configuration", "change", {"output": "files", "setting": "batch"}),
        Fault(3.2, 0.2, "process", "stop"),
        Fault(3.3, 0.1, "commands", "replay", {"output": "quick"}),
        Fault(3.3, 0.1, "configuration", "rename", {"output": "slow", "reload": True}),
    ]
    settings = {
        "suffix": "", "rotate": "", "files_batch": "50", "quick_batch": "25", "slow_batch": "50", "drain": "2s",
        "after": "200ms", "quick_spool": "", "slow_spool": 'max_bytes = "20kB", when_full = "dead_letter"',
    }  # fmt: skip
    whole = Schedule(0, tuple(feeds), tuple(faults), (Life(True, 5.5, "term", 0.0),), False, settings)
    wanted = {"storm", "spool_full", "wrong configuration", "reload", "renamed", "replay", "spool", "kept_records"}
    assert_seen(wanted, tmp_path, whole)


@pytest.mark.xdist_group("opensearch")
def test_what_schedules_do_to_opensearch_and_splunk_happens(tmp_path: Path, opensearch_server: Server) -> None:
    """The same for these two."""
    feeds = [Feed(0.1 * number, "lines", 60, 0) for number in range(30)]
    faults = [
        Fault(1.0, 0.5, "search", "blocked"),
        Fault(0.5, 0.2, "splunk", "unheard"),
        *(Fault(1.0 + 0.4 * number, 0.2, "splunk", "killed") for number in range(5)),
        Fault(0.3, 0.4, "way to search", "truncate", {"share": 0.5}),
    ]
    settings = {
        "suffix": "", "rotate": "", "files_batch": "50", "quick_batch": "25", "slow_batch": "50", "drain": "2s",
        "after": "200ms", "quick_spool": "", "slow_spool": "", "search_batch": "20", "splunk_batch": "20",
    }  # fmt: skip
    lives = (Life(True, 1.4, "kill", 0.0), Life(True, 3.0, "term", 0.0))
    whole = Schedule(0, tuple(feeds), tuple(faults), lives, False, settings, OUTPUTS + SIEMS)
    wanted = {"blocked", "search already stored", "splunk doubled", "splunk lost some"}
    assert_seen(wanted, tmp_path, whole, opensearch_server.url)


def assert_seen(wanted: set[str], folder: Path, schedule: Schedule, opensearch: str | None = None) -> None:
    """Plays a schedule until all of this has left its traces, a few times at most."""
    missing = set(wanted)
    for attempt in range(ATTEMPTS):
        here = folder / str(attempt)
        here.mkdir()
        with played(here, schedule, "it is written down in this test", opensearch) as stage:
            missing -= stage.traces()
        if not missing:
            return
    pytest.fail(f"nothing was seen of {sorted(missing)}")


@contextmanager
def played(folder: Path, schedule: Schedule, how: str, opensearch: str | None = None) -> Iterator[Stage]:
    """Plays a schedule and judges what came of it; ``how`` it can be repeated."""
    with Stage(folder, schedule, opensearch) as stage:
        try:
            stage.play()
            Verdict(stage).check()
            yield stage
        except BaseException as error:
            error.add_note(f"{stage.report()}\nTO REPEAT IT\n  {how}")
            raise
