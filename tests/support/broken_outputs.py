"""Outputs that break the contract, each in one way, and the test that has to notice it. Nobody collects this file but
tests/testing/test_output_contract.py.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import ConfigDict
from pydantic import Field as Key

from shipper.output import Batch, Check, Failure, Held, Outcome, Rejected, Report, Unknown
from shipper.secrets import Secret
from shipper.testing import OutputContract
from support.shelf import TOKEN, KeepingShelfOutput, ShelfContract, ShelfOutput, ShelfSettings

log = logging.getLogger("shipper.shelf")

#: Name of a test class → the test of it that fails.
EXPECTED: dict[str, str] = {}

Send = Callable[[ShelfOutput, Batch], Any]


def breaks(test: str) -> Callable[[type[ShelfOutput]], type[ShelfOutput]]:
    """Has the contract tested on an output, of which one test is expected to fail."""

    def add(plugin: type[ShelfOutput]) -> type[ShelfOutput]:
        name = f"Test{plugin.__name__}"
        EXPECTED[name] = test
        globals()[name] = type(name, (ShelfContract,), {"plugin": plugin, "__module__": __name__})
        return plugin

    return add


def part(batch: Batch, events: list[bytes]) -> Batch:
    return Batch(events, [()] * len(events), sum(map(len, events)))


# -- events that are lost, doubled or changed ------------------------------------------------------------------------


@breaks("test_every_event_of_a_batch_is_delivered_once[3]")
class DropsAnEvent(ShelfOutput):
    def send(self, batch: Batch) -> Report:
        return super().send(part(batch, list(batch.events[:-1] or batch.events)))


@breaks("test_an_event_is_delivered")
class DoublesAnEvent(ShelfOutput):
    def send(self, batch: Batch) -> Report:
        return super().send(part(batch, [*batch.events, batch.events[0]]))


@breaks("test_an_event_is_delivered")
class ChangesAnEvent(ShelfOutput):
    def send(self, batch: Batch) -> Report:
        return super().send(part(batch, [event.replace(b'"app"', b'"APP"') for event in batch.events]))


@breaks("test_a_hostile_event_arrives_unchanged_and_harms_no_neighbour[line and paragraph separators]")
class SplitsAtEverythingThatLooksLikeALine(ShelfOutput):
    def send(self, batch: Batch) -> Report:
        lines = b"\n".join(batch.events).decode().splitlines()
        return super().send(part(batch, [line.encode() for line in lines]))


@breaks("test_an_ordered_output_keeps_the_order")
class TurnsTheOrderAround(ShelfOutput):
    ordered = True

    def send(self, batch: Batch) -> Report:
        return super().send(part(batch, list(batch.events[::-1])))


@breaks("test_batches_are_all_there_before_the_output_is_closed")
class BuffersUntilItIsClosed(ShelfOutput):
    kept: tuple[bytes, ...] = ()

    def send(self, batch: Batch) -> Report:
        self.kept += tuple(batch.events)
        return Report()

    def close(self) -> None:
        self.shelf.put(self.kept)
        self.kept = ()


@breaks("test_several_threads_send_at_once")
class SharesABufferBetweenThreads(ShelfOutput):
    def send(self, batch: Batch) -> Report:
        self._buffer = batch
        threading.Event().wait(0.002)
        return super().send(self._buffer)


@breaks("test_a_batch_is_not_changed_by_sending_it")
class EatsTheBatch(ShelfOutput):
    def send(self, batch: Batch) -> Report:
        report = super().send(batch)
        assert isinstance(batch.events, list)
        batch.events.clear()
        return report


@breaks("test_a_statement_of_a_megabyte_is_delivered")
class DoesNotSayWhatItsLimitIs(ShelfOutput):
    def send(self, batch: Batch) -> Report:
        if batch.size > 500_000:
            raise Rejected("too much")
        return super().send(batch)


@breaks("test_events_of_which_nothing_is_known_are_delivered")
class TakesEveryValueForText(ShelfOutput):
    def send(self, batch: Batch) -> Report:
        assert all(value.upper() for values in batch.values for value in values if value is not TOKEN)  # type: ignore[union-attr]
        return super().send(batch)


# -- reports that are wrong ------------------------------------------------------------------------------------------


@breaks("test_an_event_is_delivered")
class PointsBeyondTheBatch(ShelfOutput):
    def send(self, batch: Batch) -> Report:
        super().send(batch)
        return Report(failed={len(batch): Failure(Outcome.THROTTLED)})


@breaks("test_an_event_is_delivered")
class ReportsNothing(ShelfOutput):
    def send(self, batch: Batch) -> Report:
        super().send(batch)
        return None  # type: ignore[return-value]  # that is its fault


@breaks("test_what_is_sent_again_is_doubled_or_reported_as_already_stored")
class CallsEverythingAlreadyStored(ShelfOutput):
    def send(self, batch: Batch) -> Report:
        super().send(batch)
        return Report(already_stored=range(len(batch)))


@breaks("test_one_refused_event_of_a_batch_is_reported_alone[rejected]")
class RefusesTheBatchForOneEvent(ShelfOutput):
    def send(self, batch: Batch) -> Report:
        report = super().send(batch)
        return Report(failed=dict.fromkeys(range(len(batch)), next(iter(report.failed.values()))))


@breaks("test_a_refused_batch_is_reported_so_and_is_taken_afterwards[held]")
class RejectsWhatAPermissionRefuses(ShelfOutput):
    def send(self, batch: Batch) -> Report:
        try:
            return super().send(batch)
        except Held as held:
            raise Rejected(held.detail) from None


@breaks("test_a_refused_batch_is_reported_so_and_is_taken_afterwards[throttled]")
class SwallowsRefusals(ShelfOutput):
    def send(self, batch: Batch) -> Report:
        super().send(batch)
        return Report()


@breaks("test_a_refused_batch_is_reported_so_and_is_taken_afterwards[unknown]")
class RaisesWhatNobodyKnows(ShelfOutput):
    def send(self, batch: Batch) -> Report:
        if super().send(batch).failed:
            raise RuntimeError("something went wrong")
        return Report()


@breaks("test_a_refusal_that_a_person_has_to_see_says_why[rejected]")
class DoesNotSayWhy(ShelfOutput):
    def send(self, batch: Batch) -> Report:
        report = super().send(batch)
        return Report(failed={index: Failure(failure.outcome) for index, failure in report.failed.items()})


@breaks("test_a_hold_has_a_reason_of_the_list_and_says_what_to_do")
class InventsAReason(ShelfOutput):
    def send(self, batch: Batch) -> Report:
        try:
            return super().send(batch)
        except Held as held:
            raise Held("locked_shelf", held.detail, held.mend) from None


# -- a destination that goes away, and closing -----------------------------------------------------------------------


@breaks("test_while_the_destination_is_away_no_event_is_refused_or_called_delivered")
class RejectsEventsInAnOutage(ShelfOutput):
    def send(self, batch: Batch) -> Report:
        if self.shelf.away:
            raise Rejected("nobody there")
        return super().send(batch)


@breaks("test_while_the_destination_is_away_no_event_is_refused_or_called_delivered")
class CallsEventsDeliveredInAnOutage(ShelfOutput):
    def send(self, batch: Batch) -> Report:
        return Report() if self.shelf.away else super().send(batch)


@breaks("test_when_the_destination_is_back_the_same_output_delivers")
class NeverReconnects(ShelfOutput):
    dead = False

    def send(self, batch: Batch) -> Report:
        self.dead = self.dead or self.shelf.away
        if self.dead:
            raise Unknown("the connection is closed")
        return super().send(batch)


@breaks("test_connecting_while_the_destination_is_away_succeeds_or_holds")
class FailsToConnectInItsOwnWay(ShelfOutput):
    def connect(self, bookmark: bytes | None) -> None:
        if self.shelf.away:
            raise ConnectionRefusedError


@breaks("test_closing_twice_is_harmless")
class ClosesOnlyOnce(ShelfOutput):
    closed = False

    def close(self) -> None:
        assert not self.closed
        self.closed = True


@breaks("test_closing_what_was_never_connected_is_harmless")
class ClosesOnlyWhatIsOpen(ShelfOutput):
    def connect(self, bookmark: bytes | None) -> None:
        self.connection = object()

    def close(self) -> None:
        del self.connection


# -- bookmarks -------------------------------------------------------------------------------------------------------


@breaks("test_a_kill_between_send_and_commit_costs_nothing")
class ForgetsItsBookmark(KeepingShelfOutput):
    def connect(self, bookmark: bytes | None) -> None:
        super().connect(None)


@breaks("test_a_kill_before_anything_was_committed_costs_nothing")
class BeginsWithoutABookmark(KeepingShelfOutput):
    def prepare(self, batch: Batch) -> bytes | None:
        return None


@breaks("test_a_bookmark_that_makes_no_sense_loses_nothing[a deep list]")
class ChokesOnABookmark(KeepingShelfOutput):
    def connect(self, bookmark: bytes | None) -> None:
        super().connect(None if bookmark is None else b"%d" % int(bookmark))


@breaks("test_a_bookmark_that_makes_no_sense_loses_nothing[an empty table]")
class CutsOnABookmarkThatItCannotRead(KeepingShelfOutput):
    def connect(self, bookmark: bytes | None) -> None:
        readable = bookmark is None or bookmark.isdigit()
        super().connect(bookmark if readable else b"0")


@breaks("test_preparing_stores_nothing_and_may_be_repeated")
class StoresWhenItPrepares(KeepingShelfOutput):
    def prepare(self, batch: Batch) -> bytes | None:
        self.shelf.put(batch.events)
        return super().prepare(batch)


@breaks("test_an_output_with_a_bookmark_is_sent_one_batch_at_a_time")
class KeepsAPlaceForManySenders(KeepingShelfOutput):
    ordered = False


# -- secrets and audit data ------------------------------------------------------------------------------------------


@breaks("test_while_the_destination_is_away_no_event_is_refused_or_called_delivered")
class ShowsItsTokenInAnException(ShelfOutput):
    def send(self, batch: Batch) -> Report:
        if self.shelf.away:
            raise Unknown(f"GET /?token={self.settings.token.reveal()}: connection refused")
        return super().send(batch)


@breaks("test_while_the_destination_is_away_no_event_is_refused_or_called_delivered")
class ShowsItsTokenInACause(ShelfOutput):
    def send(self, batch: Batch) -> Report:
        if self.shelf.away:
            raise Unknown("connection refused") from OSError(self.settings.token.reveal())
        return super().send(batch)


@breaks("test_a_refused_batch_is_reported_so_and_is_taken_afterwards[rejected]")
class ShowsItsTokenInAFailure(ShelfOutput):
    def send(self, batch: Batch) -> Report:
        detail = self.settings.token.reveal()
        failed = super().send(batch).failed
        return Report(failed={index: Failure(failure.outcome, "no", detail) for index, failure in failed.items()})


@breaks("test_an_event_is_delivered")
class LogsItsToken(ShelfOutput):
    def send(self, batch: Batch) -> Report:
        log.debug("sending with %s", self.settings.token.reveal())
        return super().send(batch)


@breaks("test_an_event_is_delivered")
class LogsAnEvent(ShelfOutput):
    def send(self, batch: Batch) -> Report:
        log.debug("sending %r", batch.events[0])
        return super().send(batch)


@breaks("test_deliveries_are_not_logged")
class LogsDeliveries(ShelfOutput):
    def send(self, batch: Batch) -> Report:
        log.info("%d events are delivered", len(batch))
        return super().send(batch)


@breaks("test_no_secret_shows_in_what_the_output_looks_like")
class ShowsItsTokenInItsText(ShelfOutput):
    def __repr__(self) -> str:
        return f"<shelf with {self.settings.token.reveal()}>"


@breaks("test_no_secret_shows_in_what_check_says")
class ShowsItsTokenInACheck(ShelfOutput):
    def check(self) -> Iterator[Check]:
        yield Check(f"the shelf of {self.settings.token.reveal()}", ok=True)


class WithAnotherSecret(ShelfSettings):
    key: Secret = Key("nobody watches this", description="one more", validate_default=True)


@breaks("test_every_secret_of_the_settings_is_watched")
class HasASecretThatNobodyWatches(ShelfOutput):
    Settings = WithAnotherSecret


# -- settings, checks, modules ---------------------------------------------------------------------------------------


class WithAPassword(ShelfSettings):
    password: str = Key(default="", description="a secret, and only text")


@breaks("test_keys_with_the_name_of_a_secret_hold_one")
class KeepsAPasswordAsText(ShelfOutput):
    Settings = WithAPassword


class WithAnUndescribedKey(ShelfSettings):
    colour: str = "red"


@breaks("test_every_key_is_described")
class DoesNotDescribeAKey(ShelfOutput):
    Settings = WithAnUndescribedKey


class WithAnyKey(ShelfSettings):
    model_config = ConfigDict(extra="ignore")


@breaks("test_a_key_that_does_not_exist_is_refused")
class IgnoresMisspeltKeys(ShelfOutput):
    Settings = WithAnyKey


@breaks("test_check_writes_no_event_and_disturbs_nothing")
class WritesWhenItChecks(ShelfOutput):
    def check(self) -> Iterator[Check]:
        self.shelf.put([b'{"id":"probe"}'])
        yield Check("shelf", ok=True)


@breaks("test_check_says_what_is_wrong_while_the_destination_is_away")
class FindsNoFault(ShelfOutput):
    def check(self) -> Iterator[Check]:
        yield Check("shelf", ok=True)


@breaks("test_importing_the_plugin_imports_nothing_that_it_requires")
class ImportsItsClientAtOnce(ShelfOutput):
    requires = ("pydantic",)


@breaks("test_it_can_be_configured_without_what_it_requires")
class NeedsItsClientToBeMade(ShelfOutput):
    requires = ("zipapp",)

    def __init__(self, name: str, settings: ShelfSettings) -> None:
        super().__init__(name, settings)
        __import__("zipapp")


@breaks("test_its_module_has_the_hook")
class HasNoHook(ShelfOutput):
    pass


# -- an author who says too little -----------------------------------------------------------------------------------


class TestSaysNothingOfRefusals(ShelfContract):
    refuse_next = OutputContract.refuse_next


class TestMisspellsACapability(ShelfContract):
    unsupported = {"outages": "it is always there"}  # noqa: RUF012 - as an author would write it


EXPECTED["TestSaysNothingOfRefusals"] = "test_a_refused_batch_is_reported_so_and_is_taken_afterwards[held]"
EXPECTED["TestMisspellsACapability"] = "test_what_is_unsupported_is_something_that_the_contract_asks_for"
