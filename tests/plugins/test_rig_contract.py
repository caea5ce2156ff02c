"""The rig output passes the contract too: its receiver can be made to do everything that the contract asks for."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import msgspec
import pytest

from shipper.output import Outcome, Output
from shipper.testing import OutputContract
from support.receiver import RIG, Receiver


class TestRig(OutputContract):
    module: ClassVar[str] = "shipper_rig"
    plugin: ClassVar[str] = "RigOutput"

    @pytest.fixture(autouse=True)
    def _installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(str(RIG))

    @pytest.fixture
    def destination(self) -> Iterator[Whole]:
        with Whole() as receiver:
            yield receiver

    def output(self, destination: Whole) -> Output[Any]:
        settings = importlib.import_module("shipper_rig").RigSettings(type="rig", url=destination.url)
        output: Output[Any] = getattr(importlib.import_module(self.module), self.plugin)("siem", settings)
        return output

    def received(self, destination: Whole) -> list[Mapping[str, Any]]:
        return list(destination.events)

    def refuse_next(self, destination: Whole, outcome: Outcome, event: bytes | None) -> None:
        kind = "unknown_stored" if outcome is Outcome.UNKNOWN else str(outcome)
        if event is None:
            destination.behave([(kind, {"requests": 1, "whole": True})])
        else:
            destination.behave([(kind, {"requests": 1, "having": msgspec.json.decode(event)["id"]})])

    def go_away(self, destination: Whole) -> None:
        destination.stop()

    def come_back(self, destination: Whole) -> None:
        destination.start()


class TestOrderedRig(TestRig):
    module = "shipper_rig.ordered"
    plugin = "OrderedRigOutput"


class Whole(Receiver):
    """A receiver that remembers the events themselves, not only their ids."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Mapping[str, Any]] = []
        self._known: dict[str, Mapping[str, Any]] = {}

    def take(self, output: str, body: bytes) -> bytes | None:
        for line in body.split(b"\n"):
            event = msgspec.json.decode(line)
            self._known[event["id"]] = event
        return super().take(output, body)

    def _keep(self, output: str, *ids: str) -> None:
        super()._keep(output, *ids)
        self.events += [self._known[one] for one in ids]
