"""An output that does everything an output should not, on order or by a seed: for testing the engine around it.

Nothing leaves the process. Give it actions, one per call of ``send``, or ``nastiness(seed)``; then look at ``stored``
(what the destination has) and ``promised`` (what the engine was told is delivered). ``stored`` must contain every
event sooner or later, and ``promised`` nothing that ``stored`` lacks.
"""

from __future__ import annotations

import itertools
import math
import random
import threading
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec

from shipper.clock import Clock, SystemClock
from shipper.errors import Held
from shipper.output import (
    Batch,
    Check,
    DeliveryError,
    Failure,
    NotTried,
    Outcome,
    Output,
    OutputSettings,
    Rejected,
    Report,
    Throttled,
    TooLarge,
    Unknown,
)
from shipper.testing.nasty_source import NastySource
from shipper.values import Value

__all__ = [
    "Action",
    "Call",
    "NastyOutput",
    "NastySource",
    "OrderedNastyOutput",
    "already_stored",
    "deliver",
    "fail",
    "id_of",
    "nastiness",
    "raises",
    "slow",
    "slow_down",
    "wrong",
    "wrong_reports",
]

_ERRORS: Mapping[Outcome, type[DeliveryError]] = {
    error.outcome: error for error in (NotTried, Rejected, Throttled, TooLarge, Unknown)
}


@dataclass(frozen=True, slots=True)
class Call:
    """One call of ``send``: its number from 0, what it got, and what an action needs to decide."""

    number: int
    batch: Batch
    ids: Sequence[str]
    output: NastyOutput
    randomness: random.Random

    def indices(self) -> range:
        return range(len(self.ids))


#: What one call does: stores events through ``call.output.store``, and returns a report or raises.
Action = Callable[[Call], Report]

#: Which events an action strikes: all of them (``None``), those indices, or those for which a function of the id and
#: the event's bytes is true.
Which = Collection[int] | Callable[[str, bytes], bool] | None


def id_of(event: bytes) -> str:
    """The event's id; what is no event (the format ``raw`` …) is its own id."""
    try:
        return _decode(event).id
    except msgspec.DecodeError:
        return event.decode("utf-8", "backslashreplace")


class _Identified(msgspec.Struct):
    id: str


_decode = msgspec.json.Decoder(_Identified).decode


# -- actions -------------------------------------------------------------------------------------------------------


def deliver() -> Action:
    """Stores everything and says so."""

    def act(call: Call) -> Report:
        call.output.store(call.ids)
        return Report()

    return act


def fail(
    outcome: Outcome,
    which: Which = None,
    *,
    share: float | None = None,
    reason: str = "",
    detail: str = "nasty",
    retry_after: float | None = None,
    stored: bool = False,
) -> Action:
    """Reports an outcome for some events and stores the others. ``share``: each event with this probability. With
    ``stored`` those that fail are stored too: an unknown outcome that was none."""

    def act(call: Call) -> Report:
        struck = _struck(call, which)
        if share is not None:
            struck = [index for index in struck if call.randomness.random() < share]
        failure = Failure(outcome, reason or str(outcome), detail, retry_after)
        call.output.store(call.ids, but=() if stored else set(struck))
        return Report(failed=dict.fromkeys(struck, failure))

    return act


def raises(error: BaseException | Outcome, *, stored: Which = (), detail: str = "nasty") -> Action:
    """Raises: an outcome's own error (``Held`` for ``HELD``), or any exception. ``stored``: the events that were
    stored before."""

    def act(call: Call) -> Report:
        there = set(_struck(call, stored))
        call.output.store(call.ids, but={index for index in call.indices() if index not in there})
        if not isinstance(error, Outcome):
            raise error
        raise Held("refused", detail) if error is Outcome.HELD else _ERRORS[error](detail, reason=str(error))

    return act


def slow(until: threading.Event | float, then: Action | None = None) -> Action:
    """Waits for an event, or so many seconds of the output's clock; ``close`` ends the wait. Then does ``then``, or
    delivers."""

    def act(call: Call) -> Report:
        if isinstance(until, threading.Event):
            while not until.wait(0.05) and not call.output.released.is_set():
                continue
        else:
            call.output.clock.wait(call.output.released, until)
        return (then or deliver())(call)

    return act


def slow_down() -> Action:
    """Delivers and asks for a lower rate."""

    def act(call: Call) -> Report:
        call.output.store(call.ids)
        return Report(slow_down=True)

    return act


def already_stored() -> Action:
    """Stores what it does not have, and reports the rest as already stored."""

    def act(call: Call) -> Report:
        known = call.output.known(call.ids)
        call.output.store(call.ids, but=known)
        return Report(already_stored=sorted(known))

    return act


def wrong(report: Callable[[int], object] | object, *, stored: bool = False) -> Action:
    """Returns whatever is given, though it makes no sense; a function gets the number of events.

    What it can be understood to call delivered is stored; with ``stored`` the rest is stored too.
    """

    def act(call: Call) -> Report:
        returned = report(len(call.ids)) if callable(report) else report
        readable = isinstance(returned, Report) and isinstance(returned.failed, Mapping)
        unsure: Container[int] = cast("Report", returned).failed if readable else call.indices()
        call.output.store(call.ids, but=() if stored else unsure)
        return cast("Report", returned)

    return act


def wrong_reports(events: int) -> dict[str, object]:
    """Reports that no output should return for so many events, by what is wrong with them."""
    rejected = Failure(Outcome.REJECTED)
    anything: Any = None
    return {
        "no report": None,
        "another object": {"failed": {}},
        "an index too many": Report(failed={events: rejected}),
        "a negative index": Report(failed={-1: rejected}),
        "an index that is text": Report(failed={cast("Any", "0"): rejected}),
        "an index that is a fraction": Report(failed={cast("Any", 0.5): rejected}),
        "a failure that is none": Report(failed={0: anything}),
        "a failure that is text": Report(failed={0: cast("Any", "rejected")}),
        "an outcome that does not exist": Report(failed={0: Failure(cast("Any", "delivered"))}),
        "failures without indices": Report(failed=cast("Any", [rejected])),
        "no failures at all": Report(failed=anything),
        "a wait that is text": Report(failed={0: Failure(Outcome.THROTTLED, retry_after=cast("Any", "10"))}),
        "a wait that is no number": Report(failed={0: Failure(Outcome.THROTTLED, retry_after=math.nan)}),
        "a wait for ever": Report(failed={0: Failure(Outcome.THROTTLED, retry_after=math.inf)}),
        "a wait in the past": Report(failed={0: Failure(Outcome.THROTTLED, retry_after=-5.0)}),
        "a reason that is none": Report(failed={0: Failure(Outcome.REJECTED, anything, anything)}),
        "too many words": Report(failed={0: Failure(Outcome.REJECTED, "x" * 100_000, "y\n\x1b[2J" * 1_000_000)}),
        "already stored beyond the end": Report(already_stored=[events]),
        "already stored below 0": Report(already_stored=[-1]),
        "already stored and failed": Report(failed={0: rejected}, already_stored=[0]),
        "a bookmark that is text": Report(bookmark=cast("Any", "text")),
    }


def nastiness(seed: int, mix: Mapping[str, float] | None = None) -> Iterator[Action]:
    """Actions without end, drawn from a seed. ``mix``: the weight of each kind; what ``MIX`` has is the default."""
    randomness = random.Random(seed)
    weights = mix or MIX
    while True:
        (kind,) = randomness.choices([*weights], [*weights.values()])
        yield _drawn(kind, randomness)


#: Kinds of nastiness and how often they come: mostly it delivers, so that a run ends.
MIX: Mapping[str, float] = {
    "deliver": 8,
    "partial": 5,
    "raise": 2,
    "held": 0.5,
    "exception": 1,
    "wrong": 1,
    "slow_down": 0.5,
    "already_stored": 1,
}
_PARTIAL = (Outcome.THROTTLED, Outcome.NOT_TRIED, Outcome.UNKNOWN, Outcome.TOO_LARGE)
#: Outcomes of a whole batch that cost no event: a batch that is rejected for nothing is lost to the dead letters.
_WHOLE = (Outcome.THROTTLED, Outcome.NOT_TRIED, Outcome.UNKNOWN)
_EXCEPTIONS: tuple[type[Exception], ...] = (ValueError, KeyError, OSError, RuntimeError, RecursionError, MemoryError)


def _drawn(kind: str, randomness: random.Random) -> Action:
    match kind:
        case "deliver":
            return deliver()
        case "partial":
            outcome = randomness.choice(_PARTIAL)
            stored = outcome is Outcome.UNKNOWN and randomness.random() < 0.5
            return fail(outcome, share=randomness.choice((0.05, 0.3, 1.0)), stored=stored)
        case "raise":
            outcome = randomness.choice(_WHOLE)
            return raises(outcome, stored=None if outcome is Outcome.UNKNOWN and randomness.random() < 0.5 else ())
        case "held":
            return raises(Outcome.HELD)
        case "exception":
            return raises(randomness.choice(_EXCEPTIONS)("nasty"), stored=randomness.choice((None, ())))
        case "wrong":
            name = randomness.choice([name for name in wrong_reports(1) if name not in _COSTLY])
            return wrong(lambda events: wrong_reports(events)[name], stored=randomness.random() < 0.5)
        case "slow_down":
            return slow_down()
        case "already_stored":
            return already_stored()
        case "rejected":
            return fail(Outcome.REJECTED, share=0.1)
    raise ValueError(f"no such kind of nastiness: {kind}")


#: Wrong reports that an engine may take at their word, so that events become dead letters.
_COSTLY = {"a reason that is none", "too many words", "already stored and failed"}


def _struck(call: Call, which: Which) -> list[int]:
    if which is None:
        return list(call.indices())
    if callable(which):
        return [index for index in call.indices() if which(call.ids[index], call.batch.events[index])]
    return [index for index in call.indices() if index in which]


# -- the output ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Sent:
    """What was asked of the output, call by call."""

    ids: Sequence[str]
    values: Sequence[tuple[str | None, ...]]
    size: int
    thread: str = field(default_factory=lambda: threading.current_thread().name)


class NastyOutput(Output[OutputSettings]):
    """Does one action per call of ``send``, in turn, then ``then`` for ever.

    ``connecting``: exceptions that ``connect`` raises, one per call, before it succeeds. ``wanted``: what ``values``
    returns. ``bookmarks``: it keeps a place like a file: ``connect`` cuts back to the bookmark what was stored after
    it, so that nothing is doubled if the engine commits bookmarks and positions together. ``clock`` is what ``slow``
    waits by.

    Recorded, and to be read at any time: ``stored``, ``promised``, ``sent``, ``connected`` (the bookmark of each
    ``connect``), ``closed`` (how often), ``most_at_once`` (calls of ``send`` at the same time).
    """

    def __init__(
        self,
        name: str = "nasty",
        settings: OutputSettings | None = None,
        *,
        actions: Iterable[Action] = (),
        then: Action | None = None,
        connecting: Sequence[Exception] = (),
        wanted: Sequence[Value] = (),
        bookmarks: bool = False,
        clock: Clock | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(name, settings or OutputSettings(type="nasty"))
        self.clock = clock or SystemClock()
        #: Set by ``close``: whatever is slow goes on.
        self.released = threading.Event()
        self.stored: list[str] = []
        self.promised: list[str] = []
        self.sent: list[_Sent] = []
        self.connected: list[bytes | None] = []
        self.closed = 0
        self.most_at_once = 0
        self._actions = itertools.chain(actions, itertools.repeat(then or deliver()))
        self._connecting = list(connecting)
        self._wanted = wanted
        self._bookmarks = bookmarks
        self._unborn = True
        self._seed = seed
        self._at_once = 0
        self._changed = threading.Condition(threading.RLock())

    def behave(self, actions: Iterable[Action] = (), then: Action | None = None) -> None:
        """From the next call on: these actions instead of what is left of the others."""
        with self._changed:
            self._actions = itertools.chain(actions, itertools.repeat(then or deliver()))

    def wait(self, condition: Callable[[], object], seconds: float = 30.0) -> None:
        """Until ``condition`` holds; it is asked whenever a call begins, stores or ends. Fails after ``seconds``."""
        with self._changed:
            if not self._changed.wait_for(condition, timeout=seconds):
                raise AssertionError(f"not within {seconds:g} s: {len(self.sent)} calls, {len(self.stored)} stored")

    def store(self, ids: Sequence[str], but: Container[int] = ()) -> None:
        """What the destination has from now on."""
        with self._changed:
            self.stored += [one for index, one in enumerate(ids) if index not in but]
            self._changed.notify_all()

    def known(self, ids: Sequence[str]) -> set[int]:
        """The indices of what is stored."""
        with self._changed:
            there = set(self.stored)
        return {index for index, one in enumerate(ids) if one in there}

    # -- what the engine calls -------------------------------------------------------------------------------------

    def values(self) -> Sequence[Value]:
        return self._wanted

    def connect(self, bookmark: bytes | None) -> None:
        self.connected.append(bookmark)
        self._unborn = bookmark is None
        if self._connecting:
            raise self._connecting.pop(0)
        if self._bookmarks:
            with self._changed:
                del self.stored[int(bookmark or 0) :]

    def check(self) -> Iterator[Check]:
        yield Check(self.name, ok=not self._connecting, mend="wait")

    def prepare(self, batch: Batch) -> bytes | None:
        if not self._bookmarks or not self._unborn:
            return None
        return b"%d" % len(self.stored)

    def send(self, batch: Batch) -> Report:
        ids = [id_of(event) for event in batch.events]
        with self._changed:
            action = next(self._actions)
            number = len(self.sent)
            self.sent.append(_Sent(ids, batch.values, batch.size))
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            self._changed.notify_all()
        before = len(self.stored)
        try:
            report = action(Call(number, batch, ids, self, random.Random(f"{self._seed}/{number}")))
        except BaseException:
            if self._bookmarks:  # all or nothing
                del self.stored[before:]
            raise
        finally:
            with self._changed:
                self._at_once -= 1
                self._changed.notify_all()
        return self._promise(ids, report)

    def _promise(self, ids: Sequence[str], report: Report) -> Report:
        """Notes what a report that makes sense says is delivered."""
        if not isinstance(report, Report) or not isinstance(report.failed, Mapping):
            return report
        with self._changed:
            if all(index in range(len(ids)) for index in [*report.failed, *report.already_stored]):
                self.promised += [one for index, one in enumerate(ids) if index not in report.failed]
            if self._bookmarks and report.bookmark is None:
                self._unborn = False
                return Report(report.failed, report.already_stored, b"%d" % len(self.stored), report.slow_down)
        return report

    def close(self) -> None:
        self.closed += 1
        self.released.set()


class OrderedNastyOutput(NastyOutput):
    """The same as an output that must be sent one batch at a time."""

    ordered = True
