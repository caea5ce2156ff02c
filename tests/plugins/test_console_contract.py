"""The console output passes the contract, on a pipe in the place of standard output."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import ClassVar

import pytest

from shipper.output import Outcome
from shipper.testing import OutputContract
from shipper_console import ConsoleOutput, ConsoleSettings


class Pipe:
    """Standard output, and somebody who reads it."""

    def __init__(self) -> None:
        self.reading, writing = os.pipe()
        self.stdout = os.fdopen(writing, "w")
        self._content = b""
        self._arrived = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with os.fdopen(self.reading, "rb", buffering=0) as reader:
            while content := reader.read(1 << 16):
                with self._arrived:
                    self._content += content
                    self._arrived.notify_all()

    def lines(self) -> list[bytes]:
        """What has been read when a line that is written now has come through."""
        self.stdout.write("until here\n")
        self.stdout.flush()
        with self._arrived:
            assert self._arrived.wait_for(lambda: self._content.endswith(b"until here\n"), 30)
            self._content = self._content.removesuffix(b"until here\n")
            return self._content.split(b"\n")[:-1]

    def close(self) -> None:
        self.stdout.close()
        self._reader.join(30)


class TestConsole(OutputContract):
    unsupported: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(
            [Outcome.THROTTLED, Outcome.NOT_TRIED, Outcome.UNKNOWN, Outcome.TOO_LARGE, Outcome.REJECTED],
            "standard output takes whatever is written",
        ),
        Outcome.HELD: "a reader that has gone does not come back to this process",
        "outage": "a reader that has gone does not come back to this process",
        "partial": "standard output takes whatever is written",
    }

    @pytest.fixture
    def destination(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipe]:
        pipe = Pipe()
        yield pipe
        monkeypatch.undo()
        pipe.close()

    @pytest.fixture(autouse=True)
    def _in_its_place(self, destination: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdout", destination.stdout)

    def output(self, destination: Pipe) -> ConsoleOutput:
        sys.stdout = destination.stdout
        return ConsoleOutput("screen", ConsoleSettings())

    def received(self, destination: Pipe) -> list[bytes]:
        return destination.lines()
