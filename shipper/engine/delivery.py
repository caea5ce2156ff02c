"""Sends a lane's batches and decides what follows from each outcome; the plugin only reports.

What failed is sent again, alone; what the destination refuses for good becomes a dead letter; a held output is tried
again slowly, and that time counts neither as an attempt nor towards ``give_up_after`` (delivery.md, Outcomes).
"""

from __future__ import annotations

import logging
import random
import threading
from collections import Counter
from collections.abc import Sequence

import msgspec
from tenacity import RetryCallState, Retrying, retry_if_result, stop_when_event_set

from shipper.clock import Clock
from shipper.engine.dead_letter_box import DeadLetterBox
from shipper.engine.holds import Holds
from shipper.engine.lane import Lane, Parcel, Slice, delivered
from shipper.engine.ledger import Tally
from shipper.engine.threads import Pulse
from shipper.errors import HELD_REASONS, Held
from shipper.observe.metrics import Metrics
from shipper.output import Batch, DeliveryError, Failure, Outcome, Report
from shipper.state import positions
from shipper.state.dead_letters import DeadLetter
from shipper.state.writer import Writer

log = logging.getLogger("shipper.engine")

#: Characters of a destination's words that a dead letter keeps.
DETAIL = 500


class _Identified(msgspec.Struct):
    id: str


class _Parcel:
    """A parcel in delivery: which events are settled how, and the last bookmark that covers what was sent."""

    def __init__(self, parcel: Parcel, started: float, pulse: Pulse) -> None:
        self.parcel = parcel
        self.pulse = pulse
        self.started = started
        self.held = 0.0
        self.attempts = 0
        self.bookmark: bytes | None = None
        self.already_stored: set[int] = set()
        self.refused: dict[int, Failure] = {}
        self.pause = 0.0
        self.at_once = False
        self.slow_down = False


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
        randomness: random.Random,
    ) -> None:
        self._lane = lane
        self._output = lane.output
        self._retry = lane.settings.retry
        self._component = f"output {lane.name}"
        self._writer = writer
        self._letters = letters
        self._holds = holds
        self._metrics = metrics
        self._clock = clock
        self._randomness = randomness
        self._abandoned = threading.Event()
        self._connecting = threading.Lock()
        self._connected = False
        self._failing = False

    def abandon(self) -> None:
        """Sending stops: no further attempt is made. What is not settled stays behind the position."""
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
            self._deliver(parcel, pulse)

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

    # -- one parcel ------------------------------------------------------------------------------------------------

    def _deliver(self, parcel: Parcel, pulse: Pulse) -> None:
        delivery = _Parcel(parcel, self._clock.monotonic(), pulse)
        retrying = Retrying(
            retry=retry_if_result(bool),
            stop=stop_when_event_set(self._abandoned),
            wait=lambda state: self._wait(delivery, state),
            sleep=lambda seconds: self._sleep(seconds, pulse),
            retry_error_callback=lambda state: None if state.outcome is None else state.outcome.result(),
        )
        remaining = list(range(len(parcel.batch)))

        def attempt() -> list[int]:
            nonlocal remaining
            pulse()
            if not self._abandoned.is_set():
                remaining = self._attempt(delivery, remaining)
            return remaining

        if retrying(attempt):
            return  # abandoned: the position stays before this parcel
        if delivery.refused and not self._wait_for_room(pulse):
            return
        self._settle(delivery)

    def _attempt(self, delivery: _Parcel, indices: list[int]) -> list[int]:
        """One call of ``send``; returns what has to be sent again."""
        batch = _part(delivery.parcel.batch, indices)
        delivery.pause = 0.0
        try:
            report = self._send(batch, delivery.pulse)
        except Held as held:
            self._hold(delivery, held)
            self._metrics.batch(self._lane.name, Outcome.HELD)
            return indices
        held_by = next((one for one in report.failed.values() if one.outcome is Outcome.HELD), None)
        if held_by is None:
            self._holds.release(self._component)
        delivery.attempts += 1
        delivery.slow_down |= report.slow_down
        if report.bookmark is not None:
            delivery.bookmark = report.bookmark
        delivery.already_stored.update(indices[index] for index in report.already_stored)
        again = self._classify(delivery, indices, report)
        worst = next(iter(report.failed.values())).outcome if report.failed else "delivered"
        self._metrics.batch(self._lane.name, worst)
        if held_by is not None:
            reason = held_by.reason if held_by.reason in HELD_REASONS else "refused"
            self._hold(delivery, Held(reason, held_by.detail or held_by.reason))
        elif again and self._given_up(delivery):
            for index in again:
                delivery.refused[index] = Failure(Outcome.REJECTED, "gave_up", "not delivered within give_up_after")
            return []
        if again:
            self._metrics.retried(self._lane.name, len(again))
        self._say(again, report)
        return again

    def _hold(self, delivery: _Parcel, held: Held) -> None:
        """Notes the hold; the time until the next try counts neither as an attempt nor towards ``give_up_after``."""
        delivery.pause = self._holds.hold(self._component, held)
        delivery.held += delivery.pause

    def _say(self, again: list[int], report: Report) -> None:
        """Logs the first failure of a row of them, and its end."""
        if again and not self._failing:
            first = next(iter(report.failed.values()))
            what = f"{first.outcome}{f' ({first.detail[:DETAIL]})' if first.detail else ''}"
            log.warning("%s: %d events were not delivered: %s; they are sent again", self._component, len(again), what)
        elif self._failing and not again:
            log.info("%s delivers again", self._component)
        self._failing = bool(again)

    def _send(self, batch: Batch, pulse: Pulse) -> Report:
        """Calls the plugin. Whatever it raises becomes a report, but for ``Held``."""
        started = self._clock.monotonic()
        try:
            bookmark = self._output.prepare(batch)
            if bookmark is not None:
                with pulse.idle():
                    self._writer.call(lambda connection: positions.keep_bookmark(connection, self._lane.id, bookmark))
            report = _checked(self._output.send(batch), len(batch))
        except Held:
            raise
        except DeliveryError as error:
            report = Report(failed=dict.fromkeys(range(len(batch)), error.failure))
        except Exception as error:
            log.exception("%s: the plugin failed; its batch counts as unknown and is sent again", self._component)
            failure = Failure(Outcome.UNKNOWN, "plugin", type(error).__name__)
            report = Report(failed=dict.fromkeys(range(len(batch)), failure))
        self._metrics.sent(self._lane.name, batch.size, self._clock.monotonic() - started)
        return report

    def _classify(self, delivery: _Parcel, indices: list[int], report: Report) -> list[int]:
        again: list[int] = []
        too_large: list[int] = []
        # What was not tried goes out again at once, but an output that says so each time is not asked in a tight loop.
        delivery.at_once = not delivery.at_once and all(
            failure.outcome is Outcome.NOT_TRIED for failure in report.failed.values()
        )
        possible_duplicates = 0
        for index, failure in report.failed.items():
            match failure.outcome:
                case Outcome.REJECTED:
                    delivery.refused[indices[index]] = failure
                case Outcome.TOO_LARGE:
                    too_large.append(indices[index])
                    if len(indices) == 1:
                        delivery.refused[indices[index]] = failure
                case _:
                    again.append(indices[index])
                    possible_duplicates += failure.outcome is Outcome.UNKNOWN
                    delivery.pause = max(delivery.pause, min(failure.retry_after or 0.0, self._retry.max))
        self._metrics.possible_duplicates(self._lane.name, possible_duplicates)
        if len(indices) > 1:
            # Each half on its own: what one of them refuses again is halved again, until the guilty event is alone.
            middle = (len(too_large) + 1) // 2
            for half in (too_large[:middle], too_large[middle:]):
                if half and not self._abandoned.is_set():
                    again += self._attempt(delivery, half)
                else:
                    again += half
        return sorted(again)

    def _given_up(self, delivery: _Parcel) -> bool:
        limit = self._retry.give_up_after
        return limit is not None and self._clock.monotonic() - delivery.started - delivery.held >= limit

    def _wait(self, delivery: _Parcel, state: RetryCallState) -> float:
        if delivery.pause or delivery.at_once:
            return delivery.pause
        ceiling = min(self._retry.max, self._retry.initial * 2.0 ** min(state.attempt_number - 1, 30))
        return self._randomness.uniform(0, ceiling)

    def _sleep(self, seconds: float, pulse: Pulse) -> None:
        with pulse.idle():
            self._clock.wait(self._abandoned, seconds)

    # -- settling --------------------------------------------------------------------------------------------------

    def _wait_for_room(self, pulse: Pulse) -> bool:
        """Waits while the dead letters are full; false when sending was stopped meanwhile."""
        with pulse.idle():
            while not self._abandoned.is_set():
                try:
                    self._letters.require_room()
                except Held as held:
                    self._clock.wait(self._abandoned, self._holds.hold(self._component, held))
                else:
                    self._holds.release(self._component)
                    return True
        return False

    def _settle(self, delivery: _Parcel) -> None:
        parcel = delivery.parcel
        tallies: list[Tally] = []
        letters: list[DeadLetter] = []
        first = 0
        for part in parcel.slices:
            count = part.stop - part.start
            tally = delivered(count)
            if delivery.refused or delivery.already_stored:
                tally = self._tally(delivery, first, count)
                letters += self._refused(delivery, part, first)
            tallies.append(tally)
            first += count
        self._lane.settle(parcel, tallies, letters, delivery.bookmark)
        self._metrics.settled(self._lane.name, tallies, parcel.time)
        if delivery.slow_down:
            self._clock.wait(self._abandoned, self._retry.initial)

    def _tally(self, delivery: _Parcel, first: int, count: int) -> Tally:
        tally: Tally = Counter()
        for index in range(first, first + count):
            if index in delivery.refused:
                tally["dead_lettered", _reason(delivery.refused[index])] += 1
            elif index in delivery.already_stored:
                tally["already_stored", ""] += 1
            else:
                tally["delivered", ""] += 1
        return tally

    def _refused(self, delivery: _Parcel, part: Slice, first: int) -> list[DeadLetter]:
        """Dead letters for what was refused of one slice, whose first event is the batch's event ``first``."""
        letters = []
        for index in sorted(delivery.refused.keys() & range(first, first + part.stop - part.start)):
            position = part.entry.position(part.start + index - first)
            failure = delivery.refused[index]
            event = delivery.parcel.batch.events[index]
            letters.append(
                DeadLetter(
                    stream=part.ledger.stream,
                    partition=part.ledger.partition,
                    record=position.record,
                    reference=part.ledger.reference(position.record),
                    ordinals=(position.event,),
                    output=self._lane.name,
                    source=part.ledger.source,
                    reason=_reason(failure),
                    detail=failure.detail[:DETAIL],
                    time=self._clock.now(),
                    arrived=part.entry.chunk.arrived,
                    data=event,
                    event_id=_event_id(event),
                    attempts=delivery.attempts,
                )
            )
        return letters


def _checked(report: Report, count: int) -> Report:
    """The report, where it speaks of events that the batch has: a plugin may return anything."""
    if not isinstance(report, Report):
        raise TypeError(f"send returned {type(report).__name__} instead of a Report")
    if not all(0 <= index < count for index in (*report.failed, *report.already_stored)):
        raise IndexError(f"send reported an event that a batch of {count} does not have")
    return report


def _part(batch: Batch, indices: Sequence[int]) -> Batch:
    if len(indices) == len(batch):
        return batch
    events = [batch.events[index] for index in indices]
    return Batch(events, [batch.values[index] for index in indices], sum(map(len, events)))


def _reason(failure: Failure) -> str:
    if failure.reason in ("gave_up", "target_refused"):
        return failure.reason
    return "too_large" if failure.outcome is Outcome.TOO_LARGE else "rejected"


def _event_id(event: bytes) -> str | None:
    """The event's own id, where the format has one."""
    try:
        return msgspec.json.decode(event, type=_Identified).id
    except msgspec.MsgspecError:
        return None
