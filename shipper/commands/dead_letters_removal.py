"""``shipper dead-letters replay`` and ``purge``: by the running shipper, or under its lock where none runs."""

from __future__ import annotations

import dataclasses
import functools
import sqlite3
import sys
import time
from pathlib import Path

import click

from shipper.commands.dead_letter_choice import as_request, choice, how_many, say_counts, say_dry_run
from shipper.commands.draining import deliver
from shipper.commands.options import confirmed
from shipper.commands.state_access import Answer, Change, carry_out, page_by_page, reading, shrink, transaction
from shipper.commands.text import print_json
from shipper.configuration import load
from shipper.settings import Configuration
from shipper.state import dead_letters, spool
from shipper.state.dead_letters import EVERY_OUTPUT, Filter
from shipper.state.file import InUse


@click.command("replay")
@choice
@click.option("--dry-run", is_flag=True, help="Only count them.")
@click.option("--json", "as_json", is_flag=True, help="What was done, as one JSON object.")
def replay_command(config: tuple[Path, ...], chosen: Filter, dry_run: bool, as_json: bool) -> int:
    """Send dead letters again: all of them, or those that the options choose.

    An event goes to the end of its output's line; a record is decoded again, for the outputs that it is owed to. Mend
    first what refused them. A running shipper does it, and goes on delivering after this command has ended; where none
    runs, this command delivers them, without reading anything new, and ends as `run --once` does.

    \b
    Example:
      shipper dead-letters replay --output siem --reason rejected --dry-run
      shipper dead-letters replay --output siem --reason rejected
    """
    configuration = load(config)
    path = configuration.state.path
    if dry_run:
        with reading(path) as connection:
            say_dry_run(connection, chosen, "sent again", as_json=as_json)
        return 0
    act = functools.partial(_move, chosen=chosen, configuration=configuration)
    left = functools.partial(_movable, chosen=chosen, configuration=configuration)
    answer, running = carry_out(path, Change({"do": "replay", "filter": as_request(chosen)}, act, left))
    _say_replayed(answer, running, as_json=as_json)
    with reading(path) as connection:
        _say_left(connection, chosen, configuration)
    if running or not (answer["events"] or answer["records"]):
        return 0
    try:
        return deliver(configuration)
    except InUse:
        click.echo("a shipper was started meanwhile; it sends them", err=True)
        return 0


@click.command("purge")
@choice
@click.option("--dry-run", is_flag=True, help="Only count them.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="What was done, as one JSON object.")
def purge_command(config: tuple[Path, ...], chosen: Filter, dry_run: bool, yes: bool, as_json: bool) -> int:
    """Delete dead letters for good: all of them, or those that the options choose. They count as purged in the books.

    \b
    Example:
      shipper dead-letters purge --output siem --reason rejected --dry-run
      shipper dead-letters purge --output siem --reason rejected --yes
    """
    path = load(config).state.path
    with reading(path) as connection:
        if dry_run:
            say_dry_run(connection, chosen, "deleted", as_json=as_json)
            return 0
        count = how_many(connection, chosen)
        if count and not yes and sys.stdin.isatty():
            say_counts(connection, chosen)
    if count and not confirmed(f"Delete {count:,} dead letters for good?", yes):
        return 1
    left = functools.partial(how_many, chosen=chosen)
    change = Change({"do": "purge", "filter": as_request(chosen)}, functools.partial(_purge, chosen=chosen), left)
    answer, _ = carry_out(path, change)
    if as_json:
        print_json(answer)
    else:
        click.echo(f"{answer['purged']:,} dead letters were deleted")
    return 0


def _move(connection: sqlite3.Connection, chosen: Filter, configuration: Configuration) -> Answer:
    """Moves them to the ends of their lines, a transaction for each page: what is moved is sent by whoever runs next,
    and what is not is still a dead letter."""
    served = _served(connection, configuration)
    events = records = 0
    page = chosen
    while True:
        with transaction(connection):
            moved = dead_letters.replay(connection, page, spool.next_id(connection), now=time.time(), lanes=served)
        if moved.last_letter <= (page.after or 0):
            return {"events": events, "records": records}
        events += moved.letters - moved.records
        records += moved.records
        page = dataclasses.replace(chosen, after=moved.last_letter)


def _purge(connection: sqlite3.Connection, chosen: Filter) -> Answer:
    count = page_by_page(connection, lambda connection: dead_letters.purge(connection, chosen))
    shrink(connection)
    return {"purged": count}


def _served(connection: sqlite3.Connection, configuration: Configuration) -> list[int]:
    """Ids of the lanes that the configuration serves, also under an earlier name."""
    names = {*configuration.outputs, *(table.renamed_from for table in configuration.outputs.values())}
    return [lane for lane, name in connection.execute("SELECT id, name FROM lanes").fetchall() if name in names]


def _movable(connection: sqlite3.Connection, chosen: Filter, configuration: Configuration) -> int:
    """How many are chosen that somebody can take."""
    served = {EVERY_OUTPUT, *configuration.outputs}
    return sum(count for output, _, count in dead_letters.counts(connection, chosen) if output in served)


def _say_replayed(answer: Answer, running: bool, *, as_json: bool) -> None:
    if as_json:
        print_json({**answer, "by": "running shipper" if running else "this command"})
        return
    events, records = answer["events"], answer["records"]
    if not events and not records:
        click.echo("no dead letters were sent again")
        return
    parts = [f"{events:,} events to the ends of their lines"] if events else []
    parts += [f"{records:,} records to be decoded again"] if records else []
    then = "the running shipper delivers them" if running else "they are delivered now"
    click.echo(f"moved {' and '.join(parts)}; {then}")


def _say_left(connection: sqlite3.Connection, chosen: Filter, configuration: Configuration) -> None:
    """Events of an output that nobody serves stay dead letters."""
    names = {EVERY_OUTPUT, *configuration.outputs}
    names |= {table.renamed_from or "" for table in configuration.outputs.values()}
    left: dict[str, int] = {}
    for output, _, count in dead_letters.counts(connection, chosen):
        if output not in names:
            left[output] = left.get(output, 0) + count
    for output, count in left.items():
        click.echo(
            f"{count:,} stay: their output {output!r} is not configured; take it in again, or name its successor with "
            f'renamed_from = "{output}"',
            err=True,
        )
