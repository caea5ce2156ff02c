"""The fault tests themselves: they repeat from their seed, every fault happens, and what goes wrong is noticed."""

from __future__ import annotations

import http.client
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from faults.configuration import Configuration
from faults.destination import Destination
from faults.schedule import END_OF_PLAN, FAULTS, FAULTS_OF_SIEMS, draw
from support.behaviours import Step, chosen
from support.clock_shift import jump
from support.command import environment
from support.fault_proxy import KINDS, FaultProxy
from support.oracle import assert_balanced, assert_conserved, assert_exactly, assert_in_order
from support.waiting import until

DEFAULT = range(1, 21)
#: An event that the destination of these tests takes.
TAKEN = next(event for number in range(99) if not chosen(event := f"{number:032x}", 2))


def test_a_seed_always_makes_the_same_schedule() -> None:
    script = "from faults.schedule import draw; print(draw(7))"
    here = str(Path(__file__).parents[1])
    other = [
        subprocess.run(
            [sys.executable, "-c", script],
            env=environment({"PYTHONPATH": here, "PYTHONHASHSEED": seed}),
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert other == [f"{draw(7)}\n"] * 2


def test_every_fault_and_every_end_happens_in_the_schedules_of_an_ordinary_run() -> None:
    happening = set().union(*(draw(seed).kinds for seed in DEFAULT))
    endings = {"kill", "term", "term, kill", "int, int"}
    possible = FAULTS | FAULTS_OF_SIEMS
    assert happening == endings | {f"{where} {kind}" for where, kinds in possible.items() for kind in kinds}


def test_faults_of_one_place_never_overlap_and_are_over_in_time() -> None:
    for seed in DEFAULT:
        busy: dict[str, float] = {}
        for fault in draw(seed).faults:
            assert fault.at >= busy.get(fault.where, 0)
            busy[fault.where] = fault.at + fault.seconds
            assert busy[fault.where] <= END_OF_PLAN


# -- the oracle --------------------------------------------------------------------------------------------------------


def test_an_event_that_is_nowhere_is_noticed() -> None:
    with pytest.raises(AssertionError, match="1 lost: b"):
        assert_conserved("x", {"a", "b", "c"}, {"c"}, {"a"}, set())


def test_an_event_that_nobody_generated_is_noticed() -> None:
    with pytest.raises(AssertionError, match="1 stored or kept and never generated: z"):
        assert_conserved("x", {"a"}, set(), {"a", "z"}, set())


def test_an_event_that_a_rule_drops_and_that_came_is_noticed() -> None:
    with pytest.raises(AssertionError, match="although a rule drops it: b"):
        assert_conserved("x", {"a", "b"}, {"b"}, {"a"}, {"b"})


def test_what_is_stored_or_a_dead_letter_or_dropped_is_conserved() -> None:
    assert_conserved("x", {"a", "b", "c"}, {"c"}, {"a"}, {"b"})


def test_another_order_than_that_of_the_partition_is_noticed() -> None:
    order = {"p": ["a", "b", "c"], "q": ["d", "e"]}
    assert_in_order("x", ["d", "a", "c", "e"], order)
    with pytest.raises(AssertionError, match="a is number 0 of p"):
        assert_in_order("x", ["d", "b", "a"], order)


@pytest.mark.parametrize("found", ["dabce", "dabec", "abc", "abcded", "abcdex", "dbace", ""])
def test_only_all_of_it_once_and_in_order_is_exactly_what_was_generated(found: str) -> None:
    order = {"p": ["a", "b", "c"], "q": ["d", "e"]}
    if sorted(found) == list("abcde") and found != "dbace":
        assert_exactly("x", found, order)
        return
    with pytest.raises(AssertionError, match="output x"):
        assert_exactly("x", found, order)


@pytest.mark.parametrize(
    ("entries", "pending"),
    [
        ({"offered": 5, "delivered": 3, "filtered": 1, "dead_lettered": 1}, 0),
        ({"offered": 5, "replayed": 2, "delivered": 4, "dead_lettered": 2, "replayed_out": 2}, 1),
        ({"offered": 5, "delivered": 3, "dead_lettered": 2, "purged": 1, "expired": 1}, 0),
    ],
)
def test_books_that_balance_are_told_from_those_that_do_not(entries: Mapping[str, int], pending: int) -> None:
    books = {entry: {"": count} for entry, count in entries.items()}
    assert_balanced("x", books, pending)
    with pytest.raises(AssertionError, match="do not balance"):
        assert_balanced("x", books, pending + 1)


# -- the destination ---------------------------------------------------------------------------------------------------


@pytest.fixture
def destination() -> Iterator[Destination]:
    with Destination(seed=1, refuses={"rejected": 2}, remembers=False) as found:
        yield found


def post(port: int, *ids: str) -> dict[str, Any]:
    """The answer. Raises ``ValueError`` where it makes no sense."""
    connection = http.client.HTTPConnection(f"127.0.0.1:{port}", timeout=10)
    try:
        connection.request("POST", "/quick", body=b"\n".join(msgspec.json.encode({"id": one}) for one in ids))
        return msgspec.json.decode(connection.getresponse().read(), type=dict[str, Any])
    finally:
        connection.close()


def test_a_destination_never_takes_what_it_refuses(destination: Destination) -> None:
    ids = [f"{number:032x}" for number in range(20)]
    failed = post(destination.port, *ids)["failed"]
    refused = {event for event in ids if chosen(event, 2)}
    assert {ids[int(index)] for index in failed} == refused
    assert set(destination.stored()) == set(ids) - refused
    (storing,) = destination.storings
    assert storing.told == set(ids) - refused


def test_what_is_stored_without_being_told_is_noted(destination: Destination) -> None:
    ids = [f"{number:032x}" for number in range(20)]
    destination.step = Step(kind="unknown_stored")
    post(destination.port, *ids)
    (storing,) = destination.storings
    assert set(storing.ids) == {event for event in ids if not chosen(event, 2)}
    assert storing.told == set()


def test_what_is_turned_away_for_a_while_is_noted(destination: Destination) -> None:
    ids = [f"{number:032x}" for number in range(20)]
    destination.step = Step(kind="rejected")
    assert len(post(destination.port, *ids)["failed"]) == len(ids)
    assert destination.turned_away == {event for event in ids if not chosen(event, 2)}


# -- the people --------------------------------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path: Path) -> Configuration:
    addresses = dict.fromkeys(("kinesis", "kms", "quick", "slow"), "http://127.0.0.1:9")
    return Configuration(tmp_path, draw(1), addresses, {})


def output(written: Configuration, name: str) -> dict[str, Any]:
    return dict(tomllib.loads(written.path.read_text())["outputs"][name])


@pytest.mark.parametrize("setting", ["batch", "retry", "labels", "after"])
def test_a_change_changes_that_setting_and_no_other(written: Configuration, setting: str) -> None:
    before = output(written, "quick")
    written.change("quick", setting)
    after = output(written, "quick")
    changed = {key for key in after if after[key] != before.get(key)}
    assert changed == {"spool" if setting == "after" else setting}


def test_an_output_is_renamed_with_a_word_about_its_earlier_name(written: Configuration) -> None:
    written.rename("slow")
    assert output(written, "slow_renamed")["renamed_from"] == "slow"
    assert written.names == {"files": "files", "quick": "quick", "slow": "slow", "slow_renamed": "slow"}


@pytest.mark.parametrize("how", FAULTS["configuration"]["wrong"]["how"])
def test_a_mistake_is_made_and_found(written: Configuration, how: str) -> None:
    before = written.path.read_text()
    written.spoil(how)
    assert written.wrong
    assert written.path.read_text() != before
    written.mend()
    assert not written.wrong
    assert written.path.read_text() == before


# -- the proxy ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def way(destination: Destination) -> Iterator[FaultProxy]:
    with FaultProxy(destination.port, seed=1) as found:
        yield found


@pytest.mark.parametrize("kind", ["pass", "delay", "trickle"])
def test_a_slow_way_loses_nothing(way: FaultProxy, destination: Destination, kind: str) -> None:
    way.behave(kind, seconds=0.05)  # type: ignore[arg-type]  # one of KINDS
    assert post(way.port, TAKEN)["already_stored"] == []
    assert destination.stored() == [TAKEN]
    assert way.broken == []


@pytest.mark.parametrize("kind", sorted({*KINDS} - {"pass", "delay", "trickle", "refuse", "unsent"}))
def test_an_answer_that_does_not_arrive_is_noted(way: FaultProxy, destination: Destination, kind: str) -> None:
    way.behave(kind)  # type: ignore[arg-type]  # one of KINDS
    with pytest.raises((OSError, http.client.HTTPException, ValueError)):
        post(way.port, TAKEN)
    until(lambda: way.broken, lambda: "nothing is noted")
    ((began, done),) = way.broken
    (storing,) = destination.storings
    assert began <= storing.begun <= storing.stored <= done


def test_a_way_that_is_shut_refuses_and_can_be_opened_again(way: FaultProxy, destination: Destination) -> None:
    way.behave("refuse")
    until(lambda: refused(way.port), lambda: "it still listens")
    assert destination.storings == []
    way.behave("pass")
    until(lambda: not refused(way.port), lambda: "it does not listen again")


def refused(port: int) -> bool:
    try:
        post(port, TAKEN)
    except OSError:
        return True
    return False


# -- the clock ---------------------------------------------------------------------------------------------------------


def test_the_clock_of_a_process_jumps_while_it_runs(tmp_path: Path) -> None:
    script = """
import sys, time
from pathlib import Path
from typing import Any
from support.clock_shift import jump, shift
offset = Path(sys.argv[1])
shift(offset)
from shipper.engine.pipeline import SystemClock
for seconds in (0.0, 1e6, -1e6):
    jump(offset, seconds)
    off = SystemClock().now() - time.time() - seconds, SystemClock().monotonic() - time.monotonic()
    print(seconds, *(abs(one) < 100 for one in off))
"""
    jump(tmp_path / "clock", 0.0)
    command = [sys.executable, "-c", script, str(tmp_path / "clock")]
    here = environment({"PYTHONPATH": str(Path(__file__).parents[1])})
    done = subprocess.run(command, env=here, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [f"{seconds} True True" for seconds in (0.0, 1e6, -1e6)], done.stderr
