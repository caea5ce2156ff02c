"""``shipper position``: where each output stands in what its sources read, and reading again from a time."""

from __future__ import annotations

import functools
import sqlite3
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from shipper.commands.options import Moment, configuration_option
from shipper.commands.state_access import Answer, Change, carry_out, reading, transaction
from shipper.commands.streams import names_of, stream_of
from shipper.commands.text import ago, print_json, print_table, utc
from shipper.configuration import load
from shipper.errors import StateError
from shipper.settings import Configuration
from shipper.source import EARLIEST, END, Start
from shipper.state import stands
from shipper.state.stands import Stand


@click.group("position")
def command() -> None:
    """See where each output stands in what its sources read, and let one output read again.

    \b
    Example:
      shipper position show -c /etc/shipper/shipper.toml
      shipper position set -c /etc/shipper/shipper.toml --output new_siem --source orders --time 24h --dry-run
    """


@command.command("show")
@configuration_option
@click.option("--output", help="Only this output.")
@click.option("--source", help="Only what this source reads.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def show_command(config: tuple[Path, ...], output: str | None, source: str | None, as_json: bool) -> None:
    """Show where each output stands in each partition (a shard, a file).

    \b
    Example:
      shipper position show --output siem
    """
    configuration = load(config)
    with reading(configuration.state.path) as connection:
        found = stands.stands(connection)
        names = names_of(connection, configuration)
        if source is not None:
            stream = stream_of(connection, configuration, source)
            names[stream] = source
            found = [stand for stand in found if stand.stream_id == stream]
    found = [stand for stand in found if output in (None, stand.lane)]
    if as_json:
        for stand in found:
            print_json(_as_json(stand, names.get(stand.stream_id)))
    elif not found:
        click.echo("no positions")
    else:
        _print(found, names)


@command.command("set")
@configuration_option
@click.option("--output", required=True, help="The output that gets events again; the others get nothing twice.")
@click.option("--source", required=True, help="The source that it reads again.")
@click.option("--time", "since", type=Moment(), help="From what arrived then: a time, or how long ago (24h).")
@click.option("--earliest", is_flag=True, help="From the oldest that there is.")
@click.option("--dry-run", is_flag=True, help="Only say what would be read again.")
@click.option("--json", "as_json", is_flag=True, help="What was done, as one JSON object.")
def set_command(
    config: tuple[Path, ...],
    output: str,
    source: str,
    since: float | None,
    earliest: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Let one output read a source again from a time on, while the others stay where they are.

    A running shipper begins at once; else the next run does. What the output has had already comes again: one that
    stores by event id keeps it once. What waits in its spool stays there.

    \b
    Example:
      shipper position set --output new_siem --source orders --time 2026-01-31T00:00Z
      shipper position set --output new_siem --source orders --earliest --dry-run
    """
    if (since is None) != earliest:
        raise click.UsageError("give either --time or --earliest")
    configuration = load(config)
    path = configuration.state.path
    _require_fed(configuration, output, source)
    begins: Start = EARLIEST if since is None else datetime.fromtimestamp(since, UTC)
    said = "the oldest that there is" if since is None else f"what arrived at {utc(since)}"
    with reading(path) as connection:
        stream = stream_of(connection, configuration, source)
        affected = [stand for stand in stands.stands(connection) if (stand.lane, stand.stream_id) == (output, stream)]
    # What was read to its end before that time holds nothing of it.
    passed = [stand for stand in affected if since is not None and stand.ended and stand.arrived < since * 1e9]
    if not affected:
        raise StateError(f"position: the output {output!r} stands nowhere in {source!r} yet; it begins there by itself")
    if dry_run:
        affected = [stand for stand in affected if stand not in passed]
        if as_json:
            print_json({"dry_run": True, "partitions": len(affected)})
            return
        click.echo(f"{output} would read {source} again from {said}; now it stands here, and nothing was touched:")
        _print(affected, {stream: source})
        return
    stored = begins.isoformat() if isinstance(begins, datetime) else "earliest"
    request = {"do": "position_set", "output": output, "source": source, "time": stored}
    act = functools.partial(_begin_again, output=output, stream=stream, begins=begins)
    answer, running = carry_out(path, Change(request, act))
    if as_json:
        print_json({**answer, "by": "running shipper" if running else "this command"})
        return
    when = "the running shipper has begun" if running else "the next run begins there"
    click.echo(f"{output} reads {source} again from {said}, in {answer['partitions']:,} partitions; {when}")


def _require_fed(configuration: Configuration, output: str, source: str) -> None:
    settings = configuration.outputs.get(output)
    if settings is None:
        raise StateError(f"position: there is no output {output!r}; outputs: {', '.join(configuration.outputs)}")
    if source not in configuration.sources:
        raise StateError(f"position: there is no source {source!r}; sources: {', '.join(configuration.sources)}")
    if settings.sources is not None and source not in settings.sources:
        raise StateError(f"position: the output {output!r} takes no events of {source!r}; see its key `sources`")


def _begin_again(connection: sqlite3.Connection, output: str, stream: int, begins: Start) -> Answer:
    with transaction(connection):
        (lane,) = connection.execute("SELECT id FROM lanes WHERE name = ?", (output,)).fetchone()
        return {"partitions": stands.begin_again(connection, lane, stream, begins, time.time())}


def _as_json(stand: Stand, source: str | None) -> dict[str, Any]:
    position = stand.position
    return {
        "output": stand.lane,
        "source": source,
        "stream": stand.stream,
        "partition": stand.partition,
        "position": None if position is None else str(position.record),
        "next_event": None if position is None or position.event == END else position.event,
        "arrived": utc(stand.arrived / 1e9) if stand.arrived else None,
        "tip": utc(stand.tip) if stand.tip else None,
        "ended": stand.ended,
        "begins": stand.begins,
    }


def _print(found: list[Stand], names: dict[int, str]) -> None:
    headings = ("output", "source", "partition", "position", "arrived", "age", "")
    now = time.time()
    rows = []
    for stand in found:
        arrived = stand.arrived / 1e9
        rows.append(
            (
                stand.lane,
                names.get(stand.stream_id, stand.stream),
                stand.partition,
                _position(stand),
                utc(arrived) if arrived else "-",
                ago(now - arrived) if arrived else "-",
                "read to its end" if stand.ended else "",
            )
        )
    print_table(headings, rows, right=("age",))


def _position(stand: Stand) -> str:
    if stand.position is None:
        return f"begins again: {stand.begins}" if stand.begins else "its beginning"
    if stand.position.record < 0:
        return "nothing was there"
    inside = "" if stand.position.event == END else f", event {stand.position.event}"
    return f"{stand.position.record}{inside}"
