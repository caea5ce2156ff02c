"""A destination for the fault tests: misbehaves as told, refuses some events for good, and remembers everything."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from support import behaviours
from support.behaviours import Request, Step, chosen
from support.receiver import Receiver

#: Under which name a destination keeps what it has.
EVERYTHING = "everything"


class _Identified(msgspec.Struct):
    id: str


@dataclass(frozen=True, slots=True)
class Storing:
    """One request that was stored: when it came and when it was stored (monotonic seconds), the events, and those of
    them of which the answer said that they were delivered."""

    begun: float
    stored: float
    ids: Sequence[str]
    told: frozenset[str]


class Destination(Receiver):
    """Where one output posts to. ``refuses``: outcome → one in how many events it never takes (``chosen``).
    ``remembers``: it never stores an id twice, and says so (a 409 on our own id)."""

    def __init__(self, *, seed: int, refuses: Mapping[str, int], remembers: bool) -> None:
        super().__init__(seed=seed)
        self.step = Step()
        self.storings: list[Storing] = []
        self.come = 0
        #: What it refused in a storm, or by a strict mapping, and would take at another time.
        self.turned_away: set[str] = set()
        self._refuses = refuses
        self._remembers = remembers

    def __enter__(self) -> Destination:
        super().__enter__()
        return self

    def refused(self, event: str) -> str | None:
        """Why this event is never stored here; ``None`` where it may be."""
        return next((outcome for outcome, every in self._refuses.items() if chosen(event, every)), None)

    def take(self, output: str, body: bytes) -> bytes | None:
        output = EVERYTHING  # the same events, whatever the output is called meanwhile
        begun = time.monotonic()
        lines = body.split(b"\n")
        ids = [msgspec.json.decode(line, type=_Identified).id for line in lines]
        with self._changed:
            self.come += 1
            number = self._begin(output)
            step = replace(self.step, remember=self._remembers)
            if step.kind == "too_large" and len(ids) == 1:
                step = Step(remember=self._remembers)  # a limit for requests: it takes every event alone
            randomness = random.Random(f"{self.seed}/{output}/{number}")
            answer = behaviours.answer(step, Request(output, lines, ids), randomness, self.ids.get(output, Counter()))
        reply = _table(answer.reply)
        marked = {index: outcome for index, event in enumerate(ids) if (outcome := self.refused(event)) is not None}
        if reply is not None:
            failed: dict[str, Any] = reply["failed"]
            away = {ids[int(index)] for index, one in failed.items() if one["outcome"] == "rejected"}
            self.turned_away |= {event for event in away if self.refused(event) is None}
            failed.update({str(index): {"outcome": one, "reason": one} for index, one in marked.items()})
        if answer.seconds:
            self._hold_up(answer, step, output)
        with self._changed:
            known = self.ids.get(output, Counter()) if self._remembers else ()
            stored = [ids[index] for index in answer.stored if index not in marked and ids[index] not in known]
            self.requests[output] += 1
            self._store(output, stored)
            told = _told(reply, ids)
            self.storings.append(Storing(begun, time.monotonic(), stored, told))
        return answer.reply if reply is None else msgspec.json.encode(reply)


def _table(reply: bytes | None) -> dict[str, Any] | None:
    """A reply that speaks of single events, so that refusals can be added; ``None``: it says something else."""
    try:
        table = msgspec.json.decode(reply or b"", type=dict[str, dict[str, dict[str, Any]] | list[int] | bool])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return table if "failed" in table else None


def _told(reply: dict[str, Any] | None, ids: Sequence[str]) -> frozenset[str]:
    """What the reply says is delivered."""
    if reply is None:
        return frozenset()
    return frozenset(event for index, event in enumerate(ids) if str(index) not in reply["failed"])
