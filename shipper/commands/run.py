"""``shipper run``: ships until it is stopped or, with ``--once``, until everything is settled."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click
from rich.console import Console

from shipper.commands import books
from shipper.commands.options import Lasting, configuration_argument
from shipper.configuration import load
from shipper.engine.pipeline import Pipeline, Result
from shipper.observe.logging import configure

EXIT_STRICT = 3


@click.command("run")
@configuration_argument
@click.option("--once", is_flag=True, help="Stop when every source was read to its present end and all is settled.")
@click.option("--timeout", type=Lasting(), help="With --once: give up after this, for example 10m.")
@click.option("--strict", is_flag=True, help="With --once: exit with 3 when anything became a dead letter.")
def command(config: tuple[Path, ...], once: bool, timeout: float | None, strict: bool) -> int:
    """Ship until stopped.

    SIGTERM and SIGINT stop reading, send what is queued and commit; a second one exits at once. Nothing is lost either
    way. SIGHUP loads the configuration again and goes over to it; a wrong one changes nothing.

    \b
    Example:
      shipper run /etc/shipper/shipper.toml
      shipper run --once --timeout 10m --strict backfill.toml
    """
    if not once and (timeout is not None or strict):
        raise click.UsageError("--timeout and --strict need --once")
    configuration = load(config)
    configure(configuration.log)
    pipeline = Pipeline(configuration, once=once, timeout=timeout, load_again=lambda: load(config))
    with stopped_by_signals(pipeline):
        result = pipeline.run()
    say(result)
    if result.exit_code == 0 and strict and result.dead_lettered:
        return EXIT_STRICT
    return result.exit_code


def say(result: Result) -> None:
    """Prints how a run ended, for people."""
    console = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 120)
    books.show(console, result.books, result.owed, result.spooled)
    for hold in result.held:
        console.print(f"{hold.component} is held ({hold.reason}): {hold.detail}", markup=False)
    if result.message:
        console.print(result.message, markup=False)
    if result.spooled:
        spooled = ", ".join(f"{count:,} of {name}" for name, count in result.spooled.items())
        console.print(f"in the spool: {spooled}; they are on disk and are sent by the next run")
    for name, (records, size) in result.kept.items():
        console.print(
            f"source {name} keeps {records:,} records ({size:,} bytes) as they were read: they cannot be decoded now; "
            "they are on disk, and are decoded first when they can be",
            markup=False,
        )
    if result.owed:
        owed = ", ".join(f"{count:,} of {name}" for name, count in result.owed.items())
        console.print(f"not settled: {owed}; they stay behind the position and are read again{_keeps(result)}")


def _keeps(result: Result) -> str:
    return "" if result.retention is None else f"; the stream keeps them {result.retention / 3600:.0f} h"


@contextmanager
def stopped_by_signals(pipeline: Pipeline, *, reloads: bool = True) -> Iterator[None]:
    """SIGTERM and SIGINT stop the pipeline, twice at once. SIGHUP reloads it, or, without ``reloads``, stops it too."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        if pipeline.stopping:
            os._exit(1)  # asked twice: at once. What was not committed stays behind the position.
        pipeline.stop()

    def reload(_number: int, _frame: FrameType | None) -> None:
        pipeline.reload()

    handlers = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: reload if reloads else stop}
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
