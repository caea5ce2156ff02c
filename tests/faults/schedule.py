"""What happens to a shipper in one fault test, drawn from a seed: what it is fed, what breaks when, and how it dies.

Times are seconds of the plan. They stand still while a new process starts up, so that a slow machine runs the same
schedule, only later.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

#: Seconds of a plan in which things break, and when all of them are over.
HORIZON = 2.6
END_OF_PLAN = 3.1

#: Refusals in a row that make a storm. More than all that ``stage.REFUSED`` turns down for good: those are no storm.
STORM = 70

Source = Literal["stream", "lines"]
Ending = Literal["kill", "term", "term, kill", "int, int"]

OUTPUTS = ("files", "quick", "slow")
#: What every fifth schedule ships to as well (``siems``).
SIEMS = ("search", "splunk")
_EVERY = 5

#: What may break, by where it does. The parameters are ranges or lists to draw from, or constants.
FAULTS: dict[str, dict[str, Mapping[str, Any]]] = {
    # What the destination answers (behaviours.Step).
    "quick": {
        "slow": {"seconds": (0.02, 0.3)},
        "throttled": {"share": (0.3, 1.0), "retry_after": (0.0, 0.3)},
        "not_tried": {"share": (0.1, 0.9)},
        "unknown_stored": {"share": (0.1, 1.0)},
        "unknown_lost": {"share": (0.1, 1.0)},
        "garbage": {"share": (0.3, 0.9)},
        "reset": {"share": (0.3, 1.0)},
        "too_large": {"over_bytes": (6_000.0, 30_000.0)},
        "slow_down": {},
        "held": {},
        "storm": {"kind": "rejected"},
        "strict": {"kind": "rejected", "having": '"category":"write"'},
        "mix": {"mix": {"throttled": 0.1, "unknown_stored": 0.1, "unknown_lost": 0.1, "not_tried": 0.1, "slow": 0.2}},
    },
    "slow": {
        "slow": {"seconds": (0.3, 1.2)},
        "throttled": {"whole": True, "retry_after": (0.0, 0.3)},
        "unknown_lost": {"whole": True},
        "held": {},
        "storm": {"kind": "rejected"},
        "mix": {"mix": {"throttled": 0.2, "unknown_stored": 0.2, "held": 0.2, "reset": 0.1}},
    },
    # What the way there does (fault_proxy).
    "way to quick": {
        "refuse": {},
        "reset": {"share": (0.3, 1.0)},
        "unsent": {"share": (0.3, 1.0)},
        "truncate": {"share": (0.3, 1.0)},
        "half_close": {"share": (0.3, 1.0)},
        "delay": {"share": (0.3, 1.0), "seconds": (0.05, 0.6)},
        "trickle": {"seconds": (0.05, 0.5)},
    },
    "way to slow": {
        "refuse": {},
        "truncate": {},
        "delay": {"seconds": (0.2, 1.0)},
    },
    # The sources.
    "stream": {
        "throttle": {},
        "disconnect": {},
        "fail": {"code": "InternalFailure", "status": 500},
        "deny": {},
        "latency": {"seconds": (0.05, 0.4)},
        "expire": {},
        "split": {},
        "merge": {},
    },
    "keys": {
        "throttle": {},
        "disconnect": {},
        "deny": {},
        "disable": {},
    },
    # The machine.
    "disk": {"full": {}, "nearly full": {"left": (300_000.0, 2_000_000.0)}},
    "clock": {"jump": {"by": (-86_400.0 * 400, 86_400.0 * 400)}},
    "process": {"stop": {}},
    # The people: they reload, make mistakes, and clear up among the dead letters.
    "configuration": {
        "change": {"output": [*OUTPUTS, "all"], "setting": ["batch", "retry", "labels", "after"]},
        "rename": {"output": [*OUTPUTS], "reload": [True, False]},
        "wrong": {"how": ["no TOML", "unknown key", "unknown type"]},
    },
    "commands": {
        "replay": {"output": ["quick", "slow", "all"]},
        "purge": {},
    },
}

_WAY: dict[str, Mapping[str, Any]] = {
    "refuse": {},
    "reset": {"share": (0.3, 1.0)},
    "truncate": {"share": (0.3, 1.0)},
    "delay": {"share": (0.3, 1.0), "seconds": (0.05, 0.6)},
}
#: The same for ``SIEMS``.
FAULTS_OF_SIEMS: dict[str, dict[str, Mapping[str, Any]]] = {
    "search": {"blocked": {}, "full": {}},
    "splunk": {"killed": {}, "busy": {}, "partly": {}, "unheard": {}, "unacknowledged": {}},
    "way to search": _WAY,
    "way to splunk": _WAY,
}

#: How much of its time something is broken, and for how long at a time.
TEMPER: dict[str, tuple[float, tuple[float, float]]] = {
    "quick": (0.6, (0.1, 0.8)),
    "slow": (0.7, (0.4, 2.0)),
    "way to quick": (0.3, (0.1, 0.6)),
    "way to slow": (0.4, (0.3, 2.0)),
    "stream": (0.4, (0.1, 0.8)),
    "keys": (0.3, (0.3, 1.5)),
    "disk": (0.4, (0.3, 1.2)),
    "clock": (0.5, (0.1, 1.0)),
    "process": (0.3, (0.1, 0.7)),
    "configuration": (0.3, (0.1, 0.5)),
    "commands": (0.5, (0.2, 0.6)),
    "search": (0.5, (0.2, 0.8)),
    "splunk": (0.6, (0.1, 0.5)),
    "way to search": (0.5, (0.1, 0.6)),
    "way to splunk": (0.5, (0.1, 0.6)),
}


@dataclass(frozen=True, slots=True)
class Feed:
    """So many records are added to a source at this moment, of which some cannot be decoded."""

    at: float
    source: Source
    records: int
    broken: int

    def __str__(self) -> str:
        return f"{self.source} gets {self.records} records" + (f", {self.broken} broken" if self.broken else "")


@dataclass(frozen=True, slots=True)
class Fault:
    """Something is broken from ``at`` on for so many seconds."""

    at: float
    seconds: float
    where: str
    kind: str
    details: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        details = ", ".join(f"{name} {_short(value)}" for name, value in self.details.items())
        return f"{self.where}: {self.kind}{f' ({details})' if details else ''} for {self.seconds:.2f} s"


@dataclass(frozen=True, slots=True)
class Life:
    """One process: it may be waited for until it does something, lives so many seconds and ends in some way; the next
    one is started ``gap`` seconds later. ``grace``: between SIGTERM and the kill, or between two SIGINT."""

    awaited: bool
    seconds: float
    ending: Ending
    gap: float
    grace: float = 0.0

    def __str__(self) -> str:
        begin = "from its first sign of life on" if self.awaited else "from its start on"
        grace = f" {self.grace:.2f} s apart" if "," in self.ending else ""
        return f"{begin} {self.seconds:.2f} s, then {self.ending}{grace}, gap {self.gap:.2f} s"


@dataclass(frozen=True, slots=True)
class Schedule:
    """One fault test."""

    seed: int
    feeds: tuple[Feed, ...]
    faults: tuple[Fault, ...]
    lives: tuple[Life, ...]
    #: The state and the files are on a small disk of their own.
    small_disk: bool
    #: Parts of the configuration: ``NAME`` in the stage's template.
    settings: Mapping[str, str]
    outputs: Sequence[str] = OUTPUTS

    @property
    def sources(self) -> list[Source]:
        return sorted({feed.source for feed in self.feeds})

    @property
    def kinds(self) -> set[str]:
        """Every kind of thing that happens in it, as ``WHERE KIND``."""
        return {f"{fault.where} {fault.kind}" for fault in self.faults} | {life.ending for life in self.lives}

    def __str__(self) -> str:
        settings = ", ".join(f"{name}: {value}" for name, value in self.settings.items())
        outputs = ", ".join(self.outputs)
        lines = [f"seed {self.seed}; to {outputs}; {'on a small disk; ' if self.small_disk else ''}{settings}"]
        plan: list[Feed | Fault] = [*self.feeds, *self.faults]
        lines += [f"  {one.at:5.2f}  {one}" for one in sorted(plan, key=lambda one: one.at)]
        lines += [f"  process {number}: {life}" for number, life in enumerate(self.lives, 1)]
        return "\n".join(lines)


_SPOOLS = ("", "", 'max_bytes = "20kB", when_full = "block"', 'max_bytes = "20kB", when_full = "dead_letter"')
#: How often they are part of a schedule at all.
_PEOPLE_AND_MACHINE = {"clock": 0.5, "process": 0.4, "configuration": 0.5, "commands": 0.5}


def draw(seed: int) -> Schedule:
    """The schedule of a seed: the same in every process."""
    rng = random.Random(f"schedule {seed}")
    sources: list[Source] = rng.choice([["stream"], ["lines"], ["stream", "lines"]])
    small_disk = rng.random() < 0.3
    places = ["quick", "slow", "way to quick", "way to slow"]
    places += ["stream", "keys"] if "stream" in sources else []
    places += ["disk"] if small_disk else []
    places += [place for place, chance in _PEOPLE_AND_MACHINE.items() if rng.random() < chance]
    # Of their own, so that the rest of a schedule is the same with and without them.
    siems, theirs = random.Random(f"siems {seed}"), FAULTS_OF_SIEMS if ships_to_siems(seed) else {}
    return Schedule(
        seed,
        tuple(feed for source in sources for feed in _feeds(rng, source)),
        tuple(fault for place in places for fault in _faults(rng, place))
        + tuple(fault for place in theirs for fault in _faults(siems, place)),
        tuple(_lives(rng)),
        small_disk,
        {
            "suffix": rng.choice(["", "", ".gz", ".zst"]),
            "rotate": rng.choice(["", "", '\nrotate = { max_bytes = "60kB" }']),
            "files_batch": str(rng.choice([7, 50, 1000])),
            "quick_batch": str(rng.choice([5, 25, 100])),
            "slow_batch": str(rng.choice([10, 100, 1000])),
            "drain": rng.choice(["200ms", "1s", "2s"]),
            "after": rng.choice(["200ms", "500ms", "1s"]),
            "quick_spool": rng.choice(_SPOOLS),
            "slow_spool": rng.choice(_SPOOLS),
            **{f"{output}_batch": str(siems.choice([10, 50, 500])) for output in SIEMS},
        },
        OUTPUTS + SIEMS if theirs else OUTPUTS,
    )


def ships_to_siems(seed: int) -> bool:
    """Whether the schedule of this seed has ``SIEMS`` among its outputs."""
    return seed % _EVERY == 0


def _feeds(rng: random.Random, source: Source) -> Iterator[Feed]:
    moments = sorted([0.0, *(rng.uniform(0, HORIZON) for _ in range(rng.randint(3, 8)))])
    for moment in moments:
        # A record of the stream has ten events, a line has one.
        records = rng.randint(2, 12) if source == "stream" else rng.randint(20, 150)
        yield Feed(moment, source, records, rng.choice([0, 0, 1, 2]))


def _faults(rng: random.Random, where: str) -> Iterator[Fault]:
    broken, lasting = TEMPER[where]
    possible = FAULTS.get(where) or FAULTS_OF_SIEMS[where]
    kinds = list(possible)
    moment = rng.uniform(0, 1.0)
    while moment < HORIZON:
        kind = rng.choice(kinds)
        details = {name: _drawn(rng, value) for name, value in possible[kind].items()}
        if kind == "rename":
            kinds.remove(kind)  # renamed_from names one earlier name
        seconds = rng.uniform(*lasting)
        yield Fault(moment, min(seconds, END_OF_PLAN - moment), where, kind, details)
        whole = seconds + rng.expovariate(1.0) * seconds * (1 - broken) / broken
        moment += max(whole, seconds + 0.05)


def _lives(rng: random.Random) -> Iterator[Life]:
    left = HORIZON
    while left > 0:
        awaited = rng.random() < 0.75
        seconds = rng.uniform(0.1, 2.0) if awaited else rng.uniform(0.0, 0.8)
        left -= seconds
        ending: Ending = rng.choice(["kill", "kill", "kill", "term", "term", "term, kill", "int, int"])
        yield Life(awaited, seconds, ending, rng.choice([0.0, 0.0, rng.uniform(0, 0.3)]), rng.uniform(0.0, 0.4))


def _drawn(rng: random.Random, value: Any) -> Any:
    if isinstance(value, tuple):
        return round(rng.uniform(*value), 3)
    return rng.choice(value) if isinstance(value, list) else value


def _short(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {one}" for name, one in value.items()) + "}"
    return str(value)
