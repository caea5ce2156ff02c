"""Which dead letters a command means: the options, and what they choose."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Callable
from typing import Any, TypeVar

import click

from shipper.commands.options import Moment, configuration_option
from shipper.commands.text import print_json
from shipper.state import dead_letters
from shipper.state.dead_letters import EVERY_OUTPUT, Filter

F = TypeVar("F", bound=Callable[..., Any])


def choice(command: F) -> F:
    """The options that choose dead letters, passed as ``chosen``; and ``-c``."""

    @functools.wraps(command)
    def chosen(
        *args: Any,
        output: str | None,
        reason: str | None,
        since: float | None,
        ids: tuple[int, ...],
        source: str | None,
        **kwargs: Any,
    ) -> Any:
        found = Filter(output=output, reason=reason, since=since, ids=ids or None, source=source)
        return command(*args, chosen=found, **kwargs)

    options = (
        configuration_option,
        click.option("--output", help="Only those of this output; * is what no output could get."),
        click.option("--reason", help="Only this reason."),
        click.option("--since", type=Moment(), help="Only those met since then: a time, or how long ago (2h)."),
        click.option("--id", "ids", type=int, multiple=True, help="Only this one; may be given several times."),
        click.option("--source", help="Only those that this source has read."),
    )
    wrapped: Any = chosen
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[no-any-return]  # the command with other parameters


def as_request(chosen: Filter) -> dict[str, Any]:
    """The same choice as a running shipper takes it."""
    tests = {
        "output": chosen.output,
        "reason": chosen.reason,
        "since": chosen.since,
        "ids": None if chosen.ids is None else list(chosen.ids),
        "source": chosen.source,
    }
    return {name: value for name, value in tests.items() if value is not None}


def how_many(connection: sqlite3.Connection, chosen: Filter) -> int:
    """How many are chosen."""
    return sum(count for _, _, count in dead_letters.counts(connection, chosen))


def say_counts(connection: sqlite3.Connection, chosen: Filter) -> None:
    """How many are chosen, by reason and output, for people."""
    for output, reason, count in dead_letters.counts(connection, chosen):
        whose = "no output could get them" if output == EVERY_OUTPUT else f"refused by {output}"
        click.echo(f"{count:>8,}  {reason} ({whose})")


def say_dry_run(connection: sqlite3.Connection, chosen: Filter, verb: str, *, as_json: bool) -> None:
    """What would be done, and to how many."""
    if as_json:
        found = dead_letters.counts(connection, chosen)
        counts = [{"output": output, "reason": reason, "letters": count} for output, reason, count in found]
        print_json({"dry_run": True, "letters": how_many(connection, chosen), "counts": counts})
        return
    click.echo(f"{how_many(connection, chosen):,} dead letters would be {verb}; nothing was touched")
    say_counts(connection, chosen)
