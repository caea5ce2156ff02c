"""An output that writes events to standard output, one per line."""

from __future__ import annotations

import os
import select
import sys
import threading
from typing import Literal

from pydantic import Field

from shipper.errors import Held
from shipper.hookspecs import hookimpl
from shipper.output import Batch, Output, OutputSettings, Report

#: One for the process: two console outputs never mix their lines.
_lock = threading.Lock()


class ConsoleSettings(OutputSettings):
    """Events on standard output."""

    type: Literal["console"] = Field("console", description="`console`")


class ConsoleOutput(Output[ConsoleSettings]):
    """Writes each batch in one piece. Delivered means handed to the system: what reads a pipe may still lose it.

    A reader that has gone holds the output: nothing is lost, and the events are written after a restart.
    """

    Settings = ConsoleSettings
    ordered = True

    def send(self, batch: Batch) -> Report:
        content = b"\n".join((*batch.events, b""))
        with _lock:
            try:
                sys.stdout.flush()  # what others printed comes first
                _write(sys.stdout.fileno(), content)
            except BrokenPipeError as error:
                raise Held(
                    "refused",
                    "whoever read standard output has closed it",
                    "start the shipper again with a reader; the events are kept",
                ) from error
            except OSError as error:
                raise Held("unwritable", f"standard output cannot be written ({error.strerror})") from error
        return Report()


def _write(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:  # whoever shares the terminal or the pipe has made it non-blocking
            select.select([], [descriptor], [])


@hookimpl
def shipper_output() -> type[ConsoleOutput]:
    return ConsoleOutput
