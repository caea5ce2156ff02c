"""Options that several commands have: which configuration, and types of values."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from shipper.units import parse_duration

F = TypeVar("F", bound=Callable[..., Any])

_HELP = "Configuration file; may be given several times: later ones add and override."


if TYPE_CHECKING:
    _Seconds = click.ParamType[float]
else:
    _Seconds = click.ParamType  # generic since click 8.4 only


class Lasting(_Seconds):
    """A duration such as ``10m``; seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds, or click's error of wrong usage."""
        if isinstance(value, float):
            return value
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Moment(_Seconds):
    """A time (``2026-01-31T12:00Z``), or how long ago (``2h``); seconds since 1970 UTC."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds since 1970 UTC, or click's error of wrong usage."""
        if isinstance(value, float):
            return value
        try:
            return time.time() - parse_duration(value)
        except ValueError:
            pass
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f'{value!r} is neither a time ("2026-01-31T12:00Z") nor how long ago ("2h")', param, ctx)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def confirmed(question: str, yes: bool) -> bool:
    """Asks on a terminal whether to do what cannot be undone; says what was not done. Raises click's error of wrong
    usage where nobody can be asked and ``yes`` was not given."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise click.UsageError("this cannot be undone: give --yes where nobody can be asked")
    if click.confirm(question):
        return True
    click.echo("nothing was done")
    return False


def configuration_option(command: F) -> F:
    """``-c/--config FILE``, repeatable, passed as ``config``: none means what ``shipper.configuration.load`` says."""
    return click.option("-c", "--config", multiple=True, metavar="FILE", type=click.Path(path_type=Path), help=_HELP)(
        command
    )


def configuration_argument(command: F) -> F:
    """The same, and plain arguments, which follow what ``-c`` gave."""

    @functools.wraps(command)
    def with_files(*args: Any, config: tuple[Path, ...], files: tuple[Path, ...], **kwargs: Any) -> Any:
        return command(*args, config=(*config, *files), **kwargs)

    argument = click.argument("files", nargs=-1, metavar="[CONFIG]...", type=click.Path(path_type=Path))
    return argument(configuration_option(with_files))  # type: ignore[return-value]  # the same but for one parameter
