"""What the author of an output tells the contract, and how the contract's tests watch what the output says."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import msgspec
import pytest

from shipper.event import Event
from shipper.output import Batch, DeliveryError, Failure, Held, Outcome, Output, Report
from shipper.testing.contract.events import MARK, batch_of, event

#: What a destination may be unable to do on order, beside each ``Outcome``.
CAPABILITIES = frozenset({*map(str, Outcome), "partial", "outage"})

#: Makes an output, connects it with a bookmark, and closes it at the test's end.
Make = Callable[..., Output[Any]]


class Ground:
    """The hooks of ``OutputContract``, and what its tests share."""

    #: Every secret text that ``output`` is configured with: none of them may ever be shown.
    secrets: ClassVar[Sequence[str]] = ()
    #: What this destination cannot be made to do, and why: an ``Outcome``'s value, ``"partial"``, ``"outage"``. Tests
    #: that need it are skipped with these words.
    unsupported: ClassVar[Mapping[str, str]] = {}

    # -- what the author provides ----------------------------------------------------------------------------------

    @pytest.fixture
    def destination(self) -> Any:
        """Override: an empty destination for one test, made anew; torn down after ``yield``."""
        raise NotImplementedError("override the fixture `destination`")

    def output(self, destination: Any) -> Output[Any]:
        """Override: an output configured for the destination, not connected. Called again for a second instance."""
        raise NotImplementedError("override `output`")

    def received(self, destination: Any) -> Sequence[bytes | str | Mapping[str, Any]]:
        """Override: every event that the destination has now, as often as it has it, in its order where it keeps one:
        the event's JSON, taken out of whatever the output wrapped it in."""
        raise NotImplementedError("override `received`")

    def refuse_next(self, destination: Any, outcome: Outcome, event: bytes | None) -> None:
        """Override: the next request is answered so that the output must report ``outcome`` for ``event``, or for the
        whole batch where that is ``None``; the request after it is taken again. Name in ``unsupported`` the outcomes
        that this destination never leads to, and ``"partial"`` if it takes a batch wholly or not at all."""
        raise NotImplementedError("override `refuse_next`, or say in `unsupported` why it cannot be")

    def go_away(self, destination: Any) -> None:
        """Override: the destination cannot be reached from now on. It keeps what it has."""
        raise NotImplementedError('override `go_away` and `come_back`, or say in `unsupported` why "outage" cannot be')

    def come_back(self, destination: Any) -> None:
        """Override: the end of ``go_away``."""
        raise NotImplementedError("override `come_back`")

    # -- what the tests stand on -----------------------------------------------------------------------------------

    @pytest.fixture(autouse=True)
    def logged(self) -> Iterator[list[logging.LogRecord]]:
        """Every log record of the test. In none of them may be a secret or audit data."""
        records: list[logging.LogRecord] = []
        handler = _Records(records)
        root = logging.getLogger()
        level = root.level
        root.addHandler(handler)
        root.setLevel(logging.DEBUG)
        try:
            yield records
        finally:
            root.setLevel(level)
            root.removeHandler(handler)
        for record in records:
            self.show_nothing(f"{record.getMessage()} {record.args}", f"a log record of {record.name}")
            if record.exc_info and record.exc_info[1] is not None:
                self.show_nothing_in_error(record.exc_info[1], f"an exception logged by {record.name}")

    @pytest.fixture
    def make(self, destination: Any) -> Iterator[Make]:
        """``make()`` gives a connected output, ``make(bookmark)`` one that goes on from there,
        ``make(connected=False)`` one that is only configured."""
        made: list[Output[Any]] = []

        def _make(bookmark: bytes | None = None, *, connected: bool = True) -> Output[Any]:
            output = self.output(destination)
            made.append(output)
            if connected:
                output.connect(bookmark)
            return output

        yield _make
        for output in made:
            output.close()

    def need(self, *capabilities: str) -> None:
        """Skips the test, with the author's words, where the destination cannot do what it needs."""
        for capability in capabilities:
            if capability in self.unsupported:
                pytest.skip(f"not supported by this destination: {capability}: {self.unsupported[capability]}")

    def batch(self, output: Output[Any], events: Sequence[Event]) -> Batch:
        return batch_of(output.values(), events)

    def deliver(self, output: Output[Any], events: Sequence[Event]) -> Report:
        """Sends a batch of which every event must be delivered."""
        report = self.send(output, self.batch(output, events))
        assert not report.failed, f"nothing was wrong, and yet the output reports {dict(report.failed)}"
        return report

    def send(self, output: Output[Any], batch: Batch) -> Report:
        """Does what the engine does with a batch, and checks what comes back."""
        try:
            output.prepare(batch)
            report = output.send(batch)
        except Exception as error:
            self.show_nothing_in_error(error, "what send raised")
            raise
        self.check_report(report, len(batch))
        return report

    def failures(self, output: Output[Any], batch: Batch) -> dict[int, Failure]:
        """What became of each event that was not delivered, whether the output raised or reported it."""
        try:
            return dict(self.send(output, batch).failed)
        except Held as held:
            return dict.fromkeys(range(len(batch)), Failure(Outcome.HELD, held.reason, held.detail))
        except DeliveryError as error:
            self.check_failure(error.failure)
            return dict.fromkeys(range(len(batch)), error.failure)

    def check_report(self, report: Report, events: int) -> None:
        """A legal report: its indices are the batch's, and each has a failure that says what the engine knows."""
        assert isinstance(report, Report), f"send returned {type(report).__name__}, not a Report"
        for index, failure in report.failed.items():
            assert type(index) is int, f"the index {index!r} is no integer"
            assert 0 <= index < events, f"the index {index} is none of a batch of {events} events"
            self.check_failure(failure)
        for index in report.already_stored:
            assert 0 <= index < events, f"already_stored has {index}, which is none of a batch of {events} events"
            assert index not in report.failed, f"event {index} is reported as already stored and as failed"
        assert report.bookmark is None or isinstance(report.bookmark, bytes), "a bookmark is bytes"
        assert isinstance(report.slow_down, bool), "slow_down is true or false"

    def check_failure(self, failure: Failure) -> None:
        assert isinstance(failure, Failure), f"{type(failure).__name__} stands where a Failure belongs"
        assert isinstance(failure.outcome, Outcome), f"{failure.outcome!r} is no Outcome"
        assert isinstance(failure.reason, str), "a reason is text"
        assert isinstance(failure.detail, str), "a detail is text"
        wait = failure.retry_after
        assert wait is None or 0 <= wait < float("inf"), f"retry_after is seconds from now, not {wait!r}"
        self.show_nothing(f"{failure.reason} {failure.detail}", "a failure's words")

    def has(self, destination: Any, events: Sequence[Event], *, doubled: bool = False) -> None:
        """Checks that the destination has exactly these events, unchanged, each once (``doubled``: or more often)."""
        found = [decoded(one) for one in self.received(destination)]
        counted = Counter(str(one.get("id")) for one in found)
        expected = {one.id: msgspec.json.decode(msgspec.json.encode(one)) for one in events}
        lost = sorted(expected.keys() - counted.keys())
        assert not lost, f"{len(lost)} of {len(expected)} events are not at the destination: {lost[:5]}"
        foreign = sorted(counted.keys() - expected.keys())
        assert not foreign, f"the destination has {len(foreign)} events that were not to be there: {foreign[:5]}"
        more = {one: count for one, count in counted.items() if count > 1}
        assert doubled or not more, f"{len(more)} events are at the destination more than once: {list(more)[:5]}"
        for one in found:
            wrong = [name for name in {*one, *expected[one["id"]]} if one.get(name) != expected[one["id"]].get(name)]
            assert not wrong, f"the event {one['id']} arrived with other {', '.join(sorted(wrong))}"

    def show_nothing(self, text: str, where: str) -> None:
        """Fails when a text has a secret or audit data in it. The message does not repeat it."""
        for number, secret in enumerate(self.secrets):
            if secret in text:
                pytest.fail(f"secret number {number} is shown in {where}")
        if MARK in text:
            pytest.fail(f"an event's statement is shown in {where}")

    def show_nothing_in_error(self, error: BaseException | None, where: str) -> None:
        """The same for an exception and all that a traceback would print before it."""
        seen: set[int] = set()
        while error is not None and id(error) not in seen:
            seen.add(id(error))
            self.show_nothing(f"{error} {error!r}", f"{where} ({type(error).__name__})")
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


class _Records(logging.Handler):
    """Keeps what is logged, at every level."""

    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__(logging.DEBUG)
        self._records = records

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)


def ordinary(count: int, first: int = 1) -> list[Event]:
    """Events with numbers from ``first`` on."""
    return [event(number) for number in range(first, first + count)]


def decoded(one: bytes | str | Mapping[str, Any]) -> Mapping[str, Any]:
    """What ``received`` returned of one event, as a table."""
    if isinstance(one, Mapping):
        return one
    try:
        decoded = msgspec.json.decode(one)
    except msgspec.DecodeError as error:
        raise AssertionError(f"the destination has something that is no JSON: {error}") from None
    assert isinstance(decoded, dict), "the destination has something that is no event"
    return decoded
