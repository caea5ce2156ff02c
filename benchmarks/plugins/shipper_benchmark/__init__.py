"""An output that takes everything and keeps nothing, and one that never answers: what is left is the engine's cost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from shipper.hookspecs import hookimpl
from shipper.output import Batch, Check, NotTried, Output, OutputSettings, Report


class NullSettings(OutputSettings):
    """``down`` is a table key, so that a second configuration finds the destination in order again."""

    type: Literal["null"] = "null"
    down: bool = Field(False, description="whether nobody answers")


class NullOutput(Output[NullSettings]):
    """``type = "null"``."""

    Settings = NullSettings

    def check(self) -> Iterator[Check]:
        yield Check("nowhere", ok=not self.settings.down)

    def send(self, batch: Batch) -> Report:
        if self.settings.down:
            raise NotTried("nobody answers", reason="refused")
        return Report()


@hookimpl
def shipper_output() -> type[NullOutput]:
    return NullOutput
