"""How the receiver misbehaves: a script of steps, drawn from a seed, so that every schedule can be run again.

A step has a kind. Some are about a request as a whole (``deliver``, ``held``, ``slow``, ``garbage``, ``reset``,
``down``), the others about single events; ``mix`` draws one of each for every request and every event.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import msgspec

EventKind = Literal[
    "throttled",  # known not to be stored
    "not_tried",
    "unknown_stored",  # answered as unknown, and stored all the same
    "unknown_lost",  # answered as unknown, and not stored
    "too_large",
    "rejected",
]
RequestKind = Literal["deliver", "held", "slow", "garbage", "reset", "down", "slow_down"]
Kind = EventKind | RequestKind | Literal["already_stored", "mix"]

EVENT_KINDS: tuple[str, ...] = get_args(EventKind)
REQUEST_KINDS: tuple[str, ...] = get_args(RequestKind)


@dataclass(frozen=True, slots=True)
class Step:
    """What the receiver does for the next ``requests`` requests (``None``: until it is told something else).

    Which events an event kind strikes: each one with probability ``share``, drawn anew in every request; or, the same
    ones in every request, those with ``having`` in their bytes or one in ``every`` by ``chosen(id, every)``; or, for
    ``too_large``, every one of a request with more than ``over_bytes`` bytes of events. With ``whole`` the answer is
    about the batch instead (the rig raises it) as soon as one event is struck; ``share`` is then drawn once a request.

    ``stored`` is the chance that a request answered with ``garbage`` or ``reset`` was stored. ``seconds`` is how long
    ``slow`` takes before it stores and answers (``None``: until ``behave`` says something else) and ``down`` stays
    down. ``remember``: what is stored under the same id is answered as already stored, and not stored again
    (``already_stored`` does that and nothing else). ``mix`` has the probability of each kind.
    """

    kind: Kind = "deliver"
    requests: int | None = None
    share: float = 1.0
    every: int | None = None
    having: str | None = None
    over_bytes: int | None = None
    whole: bool = False
    stored: float = 0.5
    seconds: float | None = None
    retry_after: float | None = None
    reason: str = ""
    detail: str = "the rig says so"
    remember: bool = False
    mix: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = {*EVENT_KINDS, *REQUEST_KINDS, "already_stored"}
        if self.kind not in {*known, "mix"} or not known >= self.mix.keys():
            raise ValueError(f"no such behaviour: {self.kind} {sorted(self.mix.keys() - known)}")


#: What ``behave`` takes: a kind, or steps, each a kind, ``(kind, parameters)`` or a ``Step``.
Script = str | Sequence[str | tuple[str, Mapping[str, Any]] | Step]


def steps(script: Script, parameters: Mapping[str, Any]) -> list[Step]:
    """The steps of a script; a kind alone takes the ``parameters``."""
    if isinstance(script, str):
        return [_step(script, parameters)]
    found = []
    for one in script:
        if isinstance(one, Step):
            found.append(one)
        elif isinstance(one, str):
            found.append(_step(one, parameters))
        else:
            found.append(_step(one[0], {**parameters, **one[1]}))
    return found


def _step(kind: str, parameters: Mapping[str, Any]) -> Step:
    return Step(kind=kind, **parameters)  # type: ignore[arg-type]  # checked when it is made


def chosen(event_id: str, every: int) -> bool:
    """Whether a step with ``every`` strikes the event: for tests that count what must have become a dead letter."""
    return zlib.crc32(event_id.encode()) % every == 0


@dataclass(slots=True)
class Request:
    """What came: the output's name and the events."""

    output: str
    lines: list[bytes]
    ids: list[str]


@dataclass(slots=True)
class Answer:
    """What becomes of a request: the reply (``None``: hang up without one), the indices that are stored before it, and
    what happens first: a wait of ``seconds`` (``None``: until told something else), or going ``down`` for a while."""

    reply: bytes | None
    stored: Sequence[int]
    seconds: float | None = 0.0
    down: float | None = None


def answer(step: Step, request: Request, randomness: random.Random, known: Container[str]) -> Answer:
    """What ``step`` makes of a request. The same randomness gives the same answer."""
    already: list[int] = []
    fresh = list(range(len(request.ids)))
    if step.remember or step.kind == "already_stored":
        already = [index for index in fresh if request.ids[index] in known]
        fresh = [index for index in fresh if request.ids[index] not in known]
    kind = _request_kind(step, randomness)
    match kind:
        case "held":
            return Answer(_encode({"held": step.detail, "reason": step.reason or "refused"}), [])
        case "garbage":
            return Answer(_garbage(randomness, len(request.ids)), fresh if randomness.random() < step.stored else [])
        case "reset":
            return Answer(None, fresh if randomness.random() < step.stored else [])
        case "down":
            return Answer(None, [], down=step.seconds or 0.0)
    struck = _struck(step, request, fresh, randomness)
    failed = {str(index): _failure(step, struck[index]) for index in struck}
    reply: dict[str, Any] = {"failed": failed, "already_stored": already}
    if step.whole and failed:
        reply = {"raise": next(iter(failed.values()))}
    if kind == "slow_down":
        reply["slow_down"] = True
    stored = [index for index in fresh if struck.get(index, "unknown_stored") == "unknown_stored"]
    return Answer(_encode(reply), stored, seconds=step.seconds if kind == "slow" else 0.0)


def _request_kind(step: Step, randomness: random.Random) -> str:
    """The kind of the request as a whole."""
    if step.kind == "mix":
        kinds = [kind for kind in step.mix if kind in REQUEST_KINDS]
        left = 1.0 - sum(step.mix[kind] for kind in kinds)
        return randomness.choices([*kinds, "deliver"], [*(step.mix[kind] for kind in kinds), max(left, 0.0)])[0]
    if step.kind in REQUEST_KINDS:
        return step.kind if step.share >= 1.0 or randomness.random() < step.share else "deliver"
    return "deliver"


def _struck(step: Step, request: Request, fresh: list[int], randomness: random.Random) -> dict[int, str]:
    """The events that fail, by index, and how."""
    if step.kind == "mix":
        kinds = [kind for kind in step.mix if kind in EVENT_KINDS]
        weights = [step.mix[kind] for kind in kinds]
        weights.append(max(1.0 - sum(weights), 0.0))
        drawn = randomness.choices([*kinds, ""], weights, k=len(fresh))
        return {index: kind for index, kind in zip(fresh, drawn, strict=True) if kind}
    if step.kind not in EVENT_KINDS:
        return {}
    if step.over_bytes is not None:
        everything = sum(map(len, request.lines)) > step.over_bytes
        hit = fresh if everything else []
    elif step.every is not None:
        hit = [index for index in fresh if chosen(request.ids[index], step.every)]
    elif step.having is not None:
        hit = [index for index in fresh if step.having.encode() in request.lines[index]]
    elif step.whole:
        hit = fresh if randomness.random() < step.share else []
    else:
        hit = [index for index in fresh if randomness.random() < step.share]
    return dict.fromkeys(fresh if step.whole and hit else hit, step.kind)


def _failure(step: Step, kind: str) -> dict[str, Any]:
    outcome = "unknown" if kind.startswith("unknown") else kind
    told = {"outcome": outcome, "reason": step.reason or outcome, "detail": step.detail}
    return told if step.retry_after is None else {**told, "retry_after": step.retry_after}


def _garbage(randomness: random.Random, events: int) -> bytes:
    """An answer that no destination should give."""
    return randomness.choice(
        [
            b"",
            b"<html><body>502 Bad Gateway</body></html>",
            b'{"failed": {"0": "rej',
            b'"fine"',
            b"[]",
            b"\xff\xfe\x00",
            _encode({"failed": {str(events): "rejected"}}),
            _encode({"failed": {"-1": "rejected"}}),
            _encode({"failed": {"first": "throttled"}}),
            _encode({"failed": {"0": "no such outcome"}}),
            _encode({"already_stored": [events + 7]}),
        ]
    )


def _encode(reply: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(reply)
