"""A destination in this process with two good outputs, and the contract as their author would write it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import ClassVar

import pytest
from pydantic import Field as Key

from shipper.errors import Held
from shipper.hookspecs import hookimpl
from shipper.output import (
    Batch,
    Check,
    Failure,
    NotTried,
    Outcome,
    Output,
    OutputSettings,
    Report,
)
from shipper.secrets import Secret
from shipper.testing import OutputContract
from shipper.values import Field, Value

TOKEN = "hunter2-or-so"


class Shelf:
    """A destination in this process: takes events, or refuses them as it was told."""

    def __init__(self) -> None:
        self.events: list[bytes] = []
        self.away = False
        self.refusal: tuple[Outcome, bytes | None] | None = None
        self.lock = threading.Lock()

    def put(self, events: Sequence[bytes]) -> dict[int, Outcome]:
        """Stores what it does not refuse; says what became of the rest."""
        if self.away:
            raise ConnectionRefusedError
        with self.lock:
            refusal, self.refusal = self.refusal, None
            failed = {}
            if refusal is not None:
                outcome, one = refusal
                failed = {index: outcome for index, event in enumerate(events) if one is None or event == one}
            self.events += [event for index, event in enumerate(events) if failed.get(index) in (None, Outcome.UNKNOWN)]
            return failed


class ShelfSettings(OutputSettings):
    token: Secret = Key(description="opens the shelf")


class ShelfOutput(Output[ShelfSettings]):
    """Good in every way; the outputs below are not."""

    Settings = ShelfSettings
    shelf: Shelf

    def values(self) -> Sequence[Value]:
        return (Field("id"), Field("statement"))

    def check(self) -> Iterator[Check]:
        yield Check("shelf", ok=not self.shelf.away, mend="put it back")

    def send(self, batch: Batch) -> Report:
        try:
            failed = self.shelf.put(batch.events)
        except ConnectionRefusedError:
            raise NotTried("the shelf is away") from None
        if len(failed) == len(batch) and Outcome.HELD in failed.values():
            raise Held("refused", "the shelf is locked", "unlock it")
        return Report(failed={index: Failure(outcome, "refused", "it said so") for index, outcome in failed.items()})


class KeepingShelfOutput(ShelfOutput):
    """Keeps a place, as the file output does: how many events the shelf holds. What came after it is taken off."""

    ordered = True

    def connect(self, bookmark: bytes | None) -> None:
        if self.shelf.away:
            raise Held("unreachable", "the shelf is away", "put it back")
        self._known = bookmark is not None
        if bookmark is not None and bookmark.isdigit():
            del self.shelf.events[int(bookmark) :]

    def prepare(self, batch: Batch) -> bytes | None:
        return None if self._known else self._place()

    def send(self, batch: Batch) -> Report:
        report = super().send(batch)
        self._known = True
        return Report(failed=report.failed, bookmark=self._place())

    def _place(self) -> bytes:
        return b"%d" % len(self.shelf.events)


@hookimpl
def shipper_output() -> type[ShelfOutput]:
    return ShelfOutput


class ShelfContract(OutputContract):
    """What the author of the shelf's output writes."""

    secrets = (TOKEN,)
    plugin: ClassVar[type[ShelfOutput]] = ShelfOutput

    @pytest.fixture
    def destination(self) -> Shelf:
        return Shelf()

    def output(self, destination: Shelf) -> ShelfOutput:
        output = self.plugin("shelf", self.plugin.Settings.model_validate({"type": "shelf", "token": TOKEN}))
        output.shelf = destination
        return output

    def received(self, destination: Shelf) -> list[bytes]:
        return list(destination.events)

    def refuse_next(self, destination: Shelf, outcome: Outcome, event: bytes | None) -> None:
        destination.refusal = (outcome, event)

    def go_away(self, destination: Shelf) -> None:
        destination.away = True

    def come_back(self, destination: Shelf) -> None:
        destination.away = False
