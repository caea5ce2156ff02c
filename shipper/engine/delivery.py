"""Sends a lane's parcels and decides what follows from each outcome; the plugin only reports.

What failed is sent again, alone; what the destination refuses for good becomes a dead letter; a held output is tried
again slowly, and that time counts neither as an attempt nor towards ``give_up_after`` (delivery.md, Outcomes). A
permission or a configuration that is wrong never makes dead letters.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from shipper.clock import Clock
from shipper.engine.breaker import SUSPECT_AFTER
from shipper.engine.dead_letter_box import COPY, DeadLetterBox
from shipper.engine.holds import Holds
from shipper.engine.lane import Lane
from shipper.engine.letters import DETAIL, event_letter
from shipper.engine.parcel import PLUGIN, Family, Parcel, Verdict
from shipper.engine.storm import replay_of
from shipper.engine.threads import Pulse
from shipper.errors import HELD_REASONS, Held
from shipper.observe.metrics import Metrics
from shipper.output import Batch, DeliveryError, Failure, Outcome, Report
from shipper.state import positions
from shipper.state.dead_letters import DeadLetter
from shipper.state.spool import Totals
from shipper.state.writer import Writer
from shipper.templates import is_chosen_by_users

log = logging.getLogger("shipper.engine")


class Delivery:
    """The senders of one lane."""

    def __init__(
        self,
        lane: Lane,
        writer: Writer,
        letters: DeadLetterBox,
        holds: Holds,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._lane = lane
        self._output = lane.output
        self._breaker = lane.breaker
        self._component = f"output {lane.name}"
        self._writer = writer
        self._letters = letters
        self._holds = holds
        self._metrics = metrics
        self._clock = clock
        self._storm = lane.storm
        #: Dead letters since something passed last: sent again where it turns out to have been a storm.
        self._row: list[DeadLetter] = []
        #: Places among the values that are targets which a database's users can choose.
        self._targets = [slot for slot, value in enumerate(lane.output.values()) if is_chosen_by_users(value)]
        self._abandoned = threading.Event()
        self._connecting = threading.Lock()
        self._connected = False
        self._failing = False
        #: What the plugin raised by mistake since something passed last.
        self._stumbled: set[type[Exception]] = set()

    @property
    def connected(self) -> bool:
        """Whether the output was connected to."""
        return self._connected

    def abandon(self) -> None:
        """Sending stops: no further attempt is made. What is not settled is left to the lane."""
        self._abandoned.set()

    def run(self, bookmark: bytes | None, pulse: Pulse) -> None:
        """The body of a sender's thread: connects once for all of them, then sends until the lane gives no more."""
        if not self._connect(bookmark, pulse):
            return
        while not self._abandoned.is_set():
            with pulse.idle():
                self._writer.wait_while_blocked(self._abandoned)
                parcel = self._lane.take()
            if parcel is None:
                return
            batch = parcel.content()
            report = self._send(batch, pulse)
            with self._lane.lock():
                self._conclude(parcel, batch, report)

    # -- connecting ------------------------------------------------------------------------------------------------

    def _connect(self, bookmark: bytes | None, pulse: Pulse) -> bool:
        with pulse.idle(), self._connecting:
            while not self._connected:
                if self._abandoned.is_set():
                    return False
                try:
                    self._output.connect(bookmark)
                    self._connected = True
                    self._holds.release(self._component)
                except Held as held:
                    self._clock.wait(self._abandoned, self._holds.hold(self._component, held))
                except Exception as error:
                    log.exception("%s: connecting failed; it is tried again", self._component)
                    failed = Held("unreachable", f"connecting failed: {type(error).__name__}")
                    self._clock.wait(self._abandoned, self._holds.hold(self._component, failed))
        return True

    # -- one request -------------------------------------------------------------------------------------------------

    def _send(self, batch: Batch, pulse: Pulse) -> Report | Held:
        """Calls the plugin. Whatever it raises becomes a report, but for ``Held``."""
        pulse()
        started = self._clock.monotonic()
        try:
            bookmark = self._output.prepare(batch)
            if bookmark is not None:
                with pulse.idle():
                    self._writer.call(partial(positions.keep_bookmark, lane=self._lane.id, bookmark=bookmark))
            report: Report | Held = _checked(self._output.send(batch), len(batch))
        except Held as held:
            return held
        except DeliveryError as error:
            report = Report(failed=dict.fromkeys(range(len(batch)), error.failure))
        except Exception as error:
            if type(error) not in self._stumbled:  # once, not at every retry
                self._stumbled.add(type(error))
                log.exception("%s: the plugin failed; its batch counts as unknown and is sent again", self._component)
            failure = Failure(Outcome.UNKNOWN, PLUGIN, f"the plugin raised {type(error).__name__}")
            report = Report(failed=dict.fromkeys(range(len(batch)), failure))
        self._metrics.sent(self._lane.name, batch.size, self._clock.monotonic() - started)
        return report

    def _conclude(self, parcel: Parcel, batch: Batch, report: Report | Held) -> None:
        """What follows from a request. Inside the lane's lock. The parcel counts as under way until it is put back:
        what goes to the spool meanwhile must not overtake it."""
        # A closed lane's is in the spool, and somebody else's.
        self._lane.landed(parcel, [] if self._lane.closed else self._follow(parcel, batch, report))

    def _follow(self, parcel: Parcel, batch: Batch, report: Report | Held) -> list[Parcel]:
        """What is to be sent again of a parcel."""
        lane = self._lane
        if isinstance(report, Held):
            self._metrics.batch(lane.name, Outcome.HELD)
            self._failed_wholly(parcel, Failure(Outcome.HELD, report.reason, str(report)))
            self._hold(report)
            return self._divided(parcel)
        indices = list(parcel.open)  # of the batch's events, in the parcel
        verdict, large, held = self._classify(parcel, batch, indices, report)
        parcel.attempts += 1
        passed = bool(verdict.stored or verdict.already_stored)
        self._metrics.batch(lane.name, next(iter(report.failed.values())).outcome if report.failed else "delivered")
        held = self._weigh(parcel, verdict, passed=passed) or held
        failed, answered = list(verdict.again), bool(verdict.refused or large)
        if held is None:  # a fault that a person has to mend gives nothing up
            self._give_up(parcel, verdict)
        self._settle(parcel, verdict)
        self._say(verdict.again, report)
        if passed:
            self._breaker.passed()
            self._stumbled.clear()
            parcel.failures = 0
            parcel.apart = bool(failed)
            self._bury_overtaken(parcel)
        elif answered:
            self._breaker.answered()
        elif failed:
            self._failed_wholly(parcel, report.failed[indices.index(failed[0])])
            if held is None and (self._breaker.open or not self._lonely(parcel)):
                self._breaker.failed()
        if held is None:
            self._holds.release(self._component)
        if report.slow_down or any(one.outcome is Outcome.THROTTLED for one in report.failed.values()):
            self._breaker.slow_down(_pause(report), asked=report.slow_down)
        if held is not None:
            self._hold(held)
        if verdict.again:
            self._metrics.retried(lane.name, len(verdict.again))
            self._breaker.postpone(parcel, _pause(report))
        return self._divided(parcel, large)

    def _classify(
        self, parcel: Parcel, batch: Batch, indices: Sequence[int], report: Report
    ) -> tuple[Verdict, list[int], Held | None]:
        """What became of each event; which are too large together; and why the output is held, if it is."""
        verdict = Verdict(bookmark=report.bookmark)
        already = {indices[index] for index in report.already_stored if index not in report.failed}
        verdict.already_stored = sorted(already)
        if report.failed:
            verdict.stored = [
                index for number, index in enumerate(indices) if number not in report.failed and index not in already
            ]
        else:
            verdict.stored = [index for index in indices if index not in already] if already else list(indices)
        large: list[int] = []
        held: Held | None = None
        unknown = 0
        refused_targets = self._refused_targets(batch, report)
        for number, failure in sorted(report.failed.items()):
            index = indices[number]
            match failure.outcome:
                case Outcome.REJECTED:
                    verdict.refused[index] = (_reason(failure), failure)
                case Outcome.TOO_LARGE if len(indices) > 1:
                    large.append(index)
                    verdict.again.append(index)
                case Outcome.TOO_LARGE:
                    if not self._shorten(parcel, index):
                        verdict.refused[index] = ("too_large", failure)
                    else:
                        verdict.again.append(index)
                case Outcome.HELD if number in refused_targets:
                    verdict.refused[index] = ("target_refused", failure)
                case Outcome.HELD:
                    verdict.again.append(index)
                    reason = failure.reason if failure.reason in HELD_REASONS else "refused"
                    held = held or Held(reason, failure.detail or failure.reason or str(failure.outcome))
                case _:
                    verdict.again.append(index)
                    unknown += failure.outcome is Outcome.UNKNOWN
        self._metrics.possible_duplicates(self._lane.name, unknown)
        # What was not tried goes out again at once, but an output that does nothing else is not asked in a tight loop.
        untried = sum(failure.outcome is Outcome.NOT_TRIED for failure in report.failed.values())
        settled = len(verdict.again) < len(indices)
        only = untried > 0 and untried == len(verdict.again)
        parcel.at_once = bool(large) or (only and (settled or not parcel.at_once))
        return verdict, large, held

    def _refused_targets(self, batch: Batch, report: Report) -> frozenset[int]:
        """Events that the destination refuses for where they go, when the place came from event fields and it takes
        others: who may name a database must not be able to stop its audit trail."""
        held = {number for number, failure in report.failed.items() if failure.outcome is Outcome.HELD}
        if not held or not self._targets or len(held) == len(batch):
            return frozenset()
        refused = {self._target(batch, number) for number in held}
        others = {self._target(batch, number) for number in range(len(batch)) if number not in report.failed}
        return frozenset(number for number in held if self._target(batch, number) in refused - others and others)

    def _target(self, batch: Batch, number: int) -> tuple[str | None, ...]:
        values = batch.values[number]
        return tuple(values[slot] for slot in self._targets)

    # -- the fault is not always the data's ----------------------------------------------------------------------------

    def _weigh(self, parcel: Parcel, verdict: Verdict, *, passed: bool) -> Held | None:
        """Whether refusals are to be believed. Where not, their events are sent again, and this is why it is held."""
        if passed:
            if self._storm.passed():
                self._end_of_storm()
            self._row = []
        if not verdict.refused:
            return None
        reason, failure = next(iter(verdict.refused.values()))
        held = self._disbelief(0 if passed or parcel.judged else len(verdict.refused), reason, failure)
        if held is not None:
            self._doubt(verdict)
        return held

    def _disbelief(self, count: int, reason: str, failure: Failure) -> Held | None:
        """Why so many more events do not become dead letters; ``count`` 0: they are refused while others pass."""
        if not self._letters.has_room():
            return self._letters.full()
        begins = not self._storm.raging
        if not count or not self._storm.refused(count):
            return None
        self._lane.spool_now()  # what was refused just before is in the dead letters then
        if begins:
            self._recall()
        return Held(
            "storm",
            f"everything is refused ({reason}: {failure.detail[:DETAIL]}), so the fault is not the data's",
            "mend the destination or this output's configuration; what was refused is sent again then",
        )

    def _doubt(self, verdict: Verdict) -> None:
        verdict.again = sorted((*verdict.again, *verdict.refused))
        verdict.refused.clear()

    def _end_of_storm(self) -> None:
        """Something passed: what waits is judged by itself now. A full disk may have kept some of what was refused from
        being a dead letter when the storm began."""
        self._lane.judge_all()
        self._recall()

    def _recall(self) -> None:
        """What was refused just before a storm was seen is sent again. When it begins, so that nobody who comes after
        this process need know of it."""
        if self._row:
            lane, ids = self._lane, self._lane.disk.reserve(len(self._row))

            def sent_again(totals: Totals) -> None:
                lane.disk.committed(ids)
                lane.adopt(totals)

            self._writer.submit(replay_of(self._row, lane, ids.start, self._clock.now()), sent_again)

    def _failed_wholly(self, parcel: Parcel, failure: Failure) -> None:
        if not parcel.failures:
            parcel.passes_before = self._breaker.passes
        parcel.failures += 1
        parcel.last = failure

    def _lonely(self, parcel: Parcel) -> bool:
        """Whether one event alone fails again and again although the output takes others: that says nothing about the
        output, and others do not wait for it."""
        proven = parcel.apart or self._breaker.passes > parcel.passes_before
        unknown = parcel.last is not None and parcel.last.outcome is Outcome.UNKNOWN
        return unknown and proven and len(parcel.open) == 1 and parcel.failures >= SUSPECT_AFTER

    def _divided(self, parcel: Parcel, large: Sequence[int] = ()) -> list[Parcel]:
        """What is put back of a parcel: where the fault seems to lie in it, its halves; a single event that a plugin
        stumbles over, or whose target is refused, while all others pass, is settled as a dead letter."""
        if large and self._output.ordered:
            return [*parcel.halves()]
        if large:
            chosen = [index for index in large if index in parcel.open]
            others = [index for index in parcel.open if index not in large]
            halves = parcel.select(chosen, (*parcel.number, 0)).halves()
            return [*halves, parcel.select(others, (*parcel.number, 1))] if others else [*halves]
        failure = parcel.last
        if not parcel.open or failure is None or failure.outcome not in (Outcome.UNKNOWN, Outcome.HELD):
            return [parcel]
        others_passed = self._breaker.passes > parcel.passes_before
        if not others_passed or parcel.failures < (1 if parcel.suspect and len(parcel.open) > 1 else SUSPECT_AFTER):
            return [parcel]
        if len(parcel.open) > 1:
            parcel.suspect = True
            parcel.family = parcel.family or Family()
            return [*parcel.halves()]
        if failure.outcome is Outcome.HELD and self._targets:
            self._refuse(parcel, "target_refused", failure)
        elif failure.reason == PLUGIN and (parcel.family is None or parcel.family.passed):
            self._refuse(parcel, "rejected", failure)  # but a batch of which every event seems guilty has none
        return [parcel]

    def _refuse(self, parcel: Parcel, reason: str, failure: Failure) -> None:
        """The one event of a parcel is guilty."""
        held = self._disbelief(0 if parcel.judged else 1, reason, failure)
        if held is not None:
            self._hold(held)
            return
        self._settle(parcel, Verdict(refused={parcel.open[0]: (reason, failure)}))

    def _bury_overtaken(self, parcel: Parcel) -> None:
        """Where order is kept, a plugin that stumbles over an event would let nothing pass behind it. So the events
        behind are tried one by one (``Retries``), and when one passes, those that it has overtaken are guilty."""
        if parcel.family is not None:
            parcel.family.passed = True
        if not self._output.ordered or self._storm.raging:
            return
        for other in self._lane.before(parcel):
            failure = other.last
            if len(other.open) == 1 and failure is not None and failure.reason == PLUGIN and not other.judged:
                self._refuse(other, "rejected", failure)

    # -- settling ------------------------------------------------------------------------------------------------------

    def _give_up(self, parcel: Parcel, verdict: Verdict) -> None:
        if verdict.again and self._breaker.gives_up(parcel) and self._letters.has_room():
            given_up = Failure(Outcome.REJECTED, "gave_up", "not delivered within give_up_after")
            verdict.refused |= dict.fromkeys(verdict.again, ("gave_up", given_up))
            verdict.again = []

    def _settle(self, parcel: Parcel, verdict: Verdict) -> None:
        letters: dict[int, DeadLetter] = {}
        for index, (reason, failure) in verdict.refused.items():
            part, begin, _ = next(parcel.runs([index])) if len(parcel.batch) > 1 else (parcel.slices[0], 0, 1)
            item = part.start + begin - part.first
            place = part.origin.places(item, item + 1)[0]
            if place.ordinal == COPY:
                continue  # of a dead letter: another one would say nothing more
            raw = parcel.batch.events[index] if self._lane.settings.format.type == "raw" else None
            letters[index] = event_letter(
                place, self._lane.name, parcel.native[index], raw, reason, failure.detail, self._clock.now(),
                max(1, parcel.attempts),
            )  # fmt: skip
        if letters and not verdict.stored and not verdict.already_stored and not parcel.judged:
            self._row += letters.values()
        if verdict.refused or verdict.stored or verdict.already_stored:
            self._lane.settle(parcel, verdict, letters)

    def _shorten(self, parcel: Parcel, index: int) -> bool:
        """Cuts an event that the destination finds too large to half its size; false where it may not be cut."""
        lane = self._lane
        if lane.settings.oversize != "truncate":
            return False
        shorter = lane.rendering.truncated(parcel.native[index], len(parcel.batch.events[index]) // 2)
        if shorter is None:
            return False
        (line,), (values,) = lane.rendering([shorter], None)
        native, events = list(parcel.native), list(parcel.batch.events)
        native[index], events[index] = shorter, line
        parcel.native = native
        parcel.batch = Batch(events, parcel.batch.values, sum(map(len, events)))
        del values
        return True

    def _hold(self, held: Held) -> None:
        self._breaker.hold(self._holds.hold(self._component, held))

    def _say(self, again: Sequence[int], report: Report) -> None:
        """Logs the first failure of a row of them, and its end."""
        if again and not self._failing and report.failed:
            first = next(iter(report.failed.values()))
            what = f"{first.outcome}{f' ({first.detail[:DETAIL]})' if first.detail else ''}"
            log.warning("%s: %d events were not delivered: %s; they are sent again", self._component, len(again), what)
        elif self._failing and not again:
            log.info("%s delivers again", self._component)
        self._failing = bool(again)


def _checked(report: Report, count: int) -> Report:
    """The report, where it speaks of events that the batch has: a plugin may return anything."""
    if not isinstance(report, Report) or not isinstance(report.failed, Mapping):
        raise TypeError(f"send returned {type(report).__name__} instead of a Report, or failures that are no mapping")
    for index in (*report.failed, *report.already_stored):
        if not isinstance(index, int) or not 0 <= index < count:
            raise IndexError(f"send reported an event that a batch of {count} does not have")
    if report.bookmark is not None and not isinstance(report.bookmark, bytes):
        raise TypeError(f"send returned a bookmark of type {type(report.bookmark).__name__}")
    if not report.failed:
        return report
    same: dict[int, Failure] = {}  # most often all events share one
    failed = {index: _plain(failure, same) for index, failure in report.failed.items()}
    return replace(report, failed=failed)


def _plain(failure: Failure, same: dict[int, Failure]) -> Failure:
    """The failure with a text that is one and not too long, and a wait that is none in the past."""
    known = same.get(id(failure))
    if known is not None:
        return known
    if not isinstance(failure, Failure):
        raise TypeError(f"send reported a failure of type {type(failure).__name__}")
    wait = failure.retry_after
    if wait is not None and wait != wait:  # noqa: PLR0124 - not a number
        raise ValueError("send reported a wait that is no number")
    plain = Failure(
        Outcome(failure.outcome),
        str(failure.reason or "")[:DETAIL],
        str(failure.detail or "")[:DETAIL],
        None if wait is None else max(0.0, wait),
    )
    same[id(failure)] = plain
    return plain


def _pause(report: Report) -> float:
    """Seconds that the destination asked to be left alone."""
    return max((failure.retry_after or 0.0 for failure in report.failed.values()), default=0.0)


def _reason(failure: Failure) -> str:
    return failure.reason if failure.reason in ("gave_up", "target_refused") else "rejected"
