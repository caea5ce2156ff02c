"""What is legal about delivery but surprising, and what is not told because it is meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from shipper.configuration.advice import advice
from support.toml import configuration, files, table

from .conftest import Load

LIMITED = """
from shipper.hookspecs import hookimpl
from shipper.output import Limits, Output, OutputSettings, Report

class Limited(Output):
    Settings = OutputSettings
    limits = Limits(max_events=500, max_bytes=5_000_000, max_event_bytes=250_000)

    def send(self, batch):
        return Report()

@hookimpl
def shipper_output():
    return Limited
"""

#: Not in a folder that a restart may empty, as the tests' own are.
STATE = table("state", path="/var/lib/shipper/shipper.db")


@pytest.fixture(autouse=True)
def limited(third_party: Path) -> None:
    """Installs the output type ``limited``, whose destination has hard limits."""
    (third_party / "their_limited.py").write_text(LIMITED)
    info = third_party / "their_limited-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-limited\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[shipper.outputs]\nlimited = their_limited\n")


def told(load: Load, *tables: str) -> list[str]:
    state = () if any("[state]" in text for text in tables) else (STATE,)
    return [str(problem) for problem in advice(load(configuration(*tables, *state)))]


def limited_output(**keys: object) -> str:
    return table("outputs.out", type="limited", **keys)  # type: ignore[arg-type]  # what a test writes is TOML


def test_defaults_are_not_surprising(load: Load) -> None:
    assert told(load, files(), table("outputs.limited", type="limited"), table("outputs.sink", type="sink")) == []


# Sizes and times of an output


@pytest.mark.parametrize("wait", ["30s", "1m"])
def test_events_that_wait_for_their_batch_until_they_are_spooled_are_told(load: Load, wait: str) -> None:
    assert told(load, files(batch={"max_wait": wait})) == [
        f"outputs.out.spool.after: events wait {wait} for a batch that does not fill, and go to disk after 30s: "
        "they are written there before they are sent; make it longer than batch.max_wait"
    ]


def test_a_batch_that_is_sent_before_its_events_are_spooled_is_not_told(load: Load) -> None:
    assert told(load, files(batch={"max_wait": "29s"})) == []


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (
            {"batch": {"max_events": 501}},
            "batch.max_events: the destination takes at most 500, and that counts; "
            "write no more than that, or remove it",
        ),
        (
            {"batch": {"max_bytes": "6MB"}},
            "batch.max_bytes: the destination takes at most 5MB, and that counts; "
            "write no more than that, or remove it",
        ),
        (
            {"max_event_bytes": "1MB"},
            "max_event_bytes: the destination takes at most 250kB, and that counts; "
            "write no more than that, or remove it",
        ),
    ],
)
def test_more_than_the_destination_takes_is_told(load: Load, keys: dict[str, object], text: str) -> None:
    assert told(load, limited_output(**keys)) == [f"outputs.out.{text}"]


def test_as_much_as_the_destination_takes_is_not_told(load: Load) -> None:
    keys = {"batch": {"max_events": 500, "max_bytes": "5MB"}, "max_event_bytes": "250kB"}
    assert told(load, limited_output(**keys)) == []


def test_events_larger_than_a_batch_are_told(load: Load) -> None:
    assert told(load, files(max_event_bytes="2MB")) == [
        "outputs.out.max_event_bytes: an event of more than 1MB is sent alone, in a batch larger than batch.max_bytes "
        "allows; make batch.max_bytes at least as large"
    ]


def test_a_size_that_few_events_keep_is_told(load: Load) -> None:
    assert told(load, files(max_event_bytes="1KB")) == [
        "outputs.out.max_event_bytes: many events are larger even without their statement, and become dead letters; "
        'write "2kB" or more'
    ]


def test_cutting_for_a_destination_without_limits_is_told(load: Load) -> None:
    assert told(load, files(oversize="truncate")) == [
        "outputs.out.oversize: nothing is cut: this destination takes events of any size; "
        "give max_event_bytes, or remove oversize"
    ]


@pytest.mark.parametrize(
    "output",
    [
        files(oversize="truncate", max_event_bytes="1MB"),
        limited_output(oversize="truncate"),
        table("outputs.out", type="sink", oversize="truncate"),
    ],
    ids=["a limit of the user", "a limit of the destination", "a limit that a server may have"],
)
def test_cutting_to_a_limit_is_not_told(load: Load, output: str) -> None:
    assert told(load, output) == []


# Dead letters


def test_dead_letters_that_are_gone_before_anybody_sees_them_are_told(load: Load) -> None:
    assert told(load, files(), table("dead_letters", max_age="1h")) == [
        "dead_letters.max_age: what could not be shipped is deleted after 1h: hardly time to see it; "
        'write "7d" or more, or "never"'
    ]
    assert told(load, files(), table("dead_letters", max_age="1d")) == []


def test_the_only_output_cannot_ship_its_own_dead_letters(load: Load) -> None:
    assert told(load, files(), table("dead_letters", output="out")) == [
        "dead_letters.output: outputs.out is the only output: what it refuses cannot go there either; "
        "name an output of its own for dead letters"
    ]


def test_an_output_for_dead_letters_that_gets_every_event_too_is_told(load: Load) -> None:
    assert told(load, files(), files("letters", "letters.jsonl"), table("dead_letters", output="letters")) == [
        "outputs.letters: gets the events of all sources, beside the dead letters; "
        "write sources = [] where it is for dead letters only, or name the sources that are meant"
    ]


@pytest.mark.parametrize("sources", [[], ["captured"]])
def test_an_output_for_dead_letters_that_says_what_else_it_gets_is_not_told(load: Load, sources: list[str]) -> None:
    letters = files("letters", "letters.jsonl", sources=sources)
    assert told(load, files(), letters, table("dead_letters", output="letters")) == []


def test_another_output_without_a_source_is_still_told(load: Load) -> None:
    outputs = [files(), files("letters", "letters.jsonl", sources=[]), files("idle", "idle.jsonl", sources=[])]
    assert told(load, *outputs, table("dead_letters", output="letters")) == [
        "outputs.idle.sources: no source feeds this output; name one, or remove the key"
    ]


# The disk


def test_a_reserve_that_positions_may_not_fit_into_is_told(load: Load) -> None:
    state = table("state", path="/var/lib/shipper/shipper.db", reserve="1MB")
    assert told(load, files(), state) == [
        "state.reserve: when spooling has filled the disk down to this, positions and deletions may not fit; "
        'write "16MB" or more, or remove it'
    ]


def test_a_reserve_with_room_for_positions_is_not_told(load: Load) -> None:
    assert told(load, files(), table("state", path="/var/lib/shipper/shipper.db", reserve="16MB")) == []
