"""``shipper spool``: what waits on disk for each output, sending it, moving it, giving it up."""

from __future__ import annotations

import functools
import sqlite3
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click

from shipper.commands.draining import deliver
from shipper.commands.options import configuration_option, confirmed
from shipper.commands.state_access import (
    Answer,
    Change,
    carry_out,
    page_by_page,
    reading,
    require_state,
    shrink,
    transaction,
)
from shipper.commands.text import ago, print_json, print_table, utc
from shipper.configuration import load
from shipper.errors import StateError
from shipper.settings import Configuration
from shipper.state import kept_records, lanes, positions, spool
from shipper.state.file import InUse
from shipper.state.spool import Totals

#: Rows of one transaction.
_PAGE = 200
_NONE = Totals(0, 0, 0, 0.0)


@click.group("spool")
def command() -> None:
    """Look at what waits on disk for each output, send it, move it to another output, or give it up.

    \b
    Example:
      shipper spool list -c /etc/shipper/shipper.toml
      shipper spool move -c /etc/shipper/shipper.toml --output old_siem --to siem
    """


@command.command("list")
@configuration_option
@click.option("--output", help="Only this output.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def list_command(config: tuple[Path, ...], output: str | None, as_json: bool) -> None:
    """List each output's backlog on disk, also that of outputs that left the configuration, and the records that wait
    for their key.

    \b
    Example:
      shipper spool list
      shipper spool list --output siem --json
    """
    configuration = load(config)
    with reading(configuration.state.path) as connection:
        connection.execute("BEGIN")  # one moment for all figures
        backlogs = _backlogs(connection, configuration)
        kept = kept_records.totals(connection)
    if output is not None:
        backlogs = [backlog for backlog in backlogs if backlog.output == output]
        if not backlogs:
            raise StateError(f"spool: neither the configuration nor the state file knows an output {output!r}")
    if as_json:
        outputs = [{**backlog._asdict(), "oldest": _time(backlog.oldest)} for backlog in backlogs]
        sources = [
            {"source": name, "records": count, "bytes": size, "oldest": _time(since)}
            for name, (count, size, since) in kept.items()
        ]
        print_json({"outputs": outputs, "sources": sources})
        return
    _print(backlogs)
    if kept:
        sys.stdout.write("\nrecords that cannot be decoded yet:\n")
        rows = [(name, f"{count:,}", f"{size:,}", _age(since)) for name, (count, size, since) in kept.items()]
        print_table(("source", "records", "bytes", "oldest"), rows, right=("records", "bytes"))


@command.command("drain")
@configuration_option
def drain_command(config: tuple[Path, ...]) -> int:
    """Deliver what waits on disk, without reading anything new, and end.

    A running shipper does so by itself: beside one, this is refused. Ends as `run --once` does: with 75 when something
    is still on disk because its output made no progress.

    \b
    Example:
      shipper spool drain -c /etc/shipper/shipper.toml
    """
    configuration = load(config)
    require_state(configuration.state.path)
    try:
        return deliver(configuration)
    except InUse as error:
        raise StateError(
            f"spool: a shipper runs with {configuration.state.path}, and drains it by itself; nothing was started; "
            "see `shipper spool list`, and why an output is held with `shipper status`"
        ) from error


@command.command("move")
@configuration_option
@click.option("--output", required=True, help="Whose backlog.")
@click.option("--to", required=True, help="The output that gets it, at the end of its line.")
@click.option("--json", "as_json", is_flag=True, help="What was done, as one JSON object.")
def move_command(config: tuple[Path, ...], output: str, to: str, as_json: bool) -> None:
    """Append an output's backlog on disk to another's line: of one that left the configuration or, where no shipper
    runs, of any.

    The events are rendered by the output that gets them; its `match` and its transforms are not applied. In the books
    they are purged there and replayed here.

    \b
    Example:
      shipper spool move --output old_siem --to siem
    """
    configuration = load(config)
    path = configuration.state.path
    if to not in configuration.outputs:
        raise click.UsageError(f"--to: there is no output {to!r}; outputs: {', '.join(configuration.outputs)}")
    if output == to:
        raise click.UsageError("--output and --to name the same output")
    _require_output(path, output)
    act = functools.partial(_move, output=output, to=to)
    change = Change({"do": "spool_move", "output": output, "to": to}, act, functools.partial(_waiting, output=output))
    answer, _ = carry_out(path, change)
    if as_json:
        print_json(answer)
    else:
        click.echo(f"{answer['events']:,} events were moved from {output} to {to}")


@command.command("drop")
@configuration_option
@click.option("--output", required=True, help="Whose backlog.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="What was done, as one JSON object.")
def drop_command(config: tuple[Path, ...], output: str, yes: bool, as_json: bool) -> int:
    """Delete what waits on disk for an output, for good: of one that left the configuration or, where no shipper runs,
    of any. It counts as purged in the books.

    An output that left the configuration is forgotten altogether, with its positions and its share of records that
    cannot be decoded yet; what it refused stays among the dead letters.

    \b
    Example:
      shipper spool drop --output old_siem
    """
    configuration = load(config)
    path = configuration.state.path
    _require_output(path, output)
    with reading(path) as connection:
        owed = lanes.owing(connection)[output]
    if owed.events or owed.records:
        records = f", and its share of {owed.records:,} records that cannot be decoded yet," if owed.records else ""
        if not confirmed(f"Give up {owed.events:,} events that wait for {output}{records} for good?", yes):
            return 1
    act = functools.partial(_drop, output=output, forget=output not in configuration.outputs)
    change = Change({"do": "spool_drop", "output": output}, act, functools.partial(_waiting, output=output))
    answer, _ = carry_out(path, change)
    if as_json:
        print_json(answer)
    else:
        click.echo(f"{answer['events']:,} events of {output} were deleted")
    return 0


class _Backlog(NamedTuple):
    """``oldest`` in seconds since 1970 UTC, 0: nothing; ``max_bytes``: ``None`` where it left the configuration;
    ``records``: those that wait for their key and are owed to it."""

    output: str
    configured: bool
    events: int
    bytes: int
    max_bytes: int | None
    oldest: float
    records: int


def _backlogs(connection: sqlite3.Connection, configuration: Configuration) -> list[_Backlog]:
    """Of every output that the configuration or the state file knows."""
    ids = dict(connection.execute("SELECT name, id FROM lanes ORDER BY id").fetchall())
    totals, owing = spool.totals(connection), lanes.owing(connection)
    found = []
    for name in dict.fromkeys([*configuration.outputs, *ids]):
        held = totals.get(ids.get(name, 0), _NONE)
        settings = configuration.outputs.get(name)
        limit = settings.spool.max_bytes if settings else None
        records = owing[name].records if name in owing else 0
        found.append(_Backlog(name, settings is not None, held.events, held.bytes, limit, held.oldest, records))
    return found


def _print(backlogs: Sequence[_Backlog]) -> None:
    rows = [
        (
            backlog.output,
            f"{backlog.events:,}",
            f"{backlog.bytes:,}",
            "" if backlog.max_bytes is None else f"{backlog.max_bytes:,}",
            _age(backlog.oldest),
            f"{backlog.records:,}",
            "" if backlog.configured else "left the configuration",
        )
        for backlog in backlogs
    ]
    headings = ("output", "events", "bytes", "of at most", "oldest", "undecoded records", "")
    print_table(headings, rows, right=headings[1:4] + headings[5:6])


def _age(since: float) -> str:
    return f"{utc(since)} ({ago(time.time() - since)} ago)" if since else "-"


def _time(seconds: float) -> str | None:
    return utc(seconds) if seconds else None


def _require_output(path: Path, name: str) -> None:
    with reading(path) as connection:
        known = [lane for (lane,) in connection.execute("SELECT name FROM lanes ORDER BY id").fetchall()]
    if name not in known:
        raise StateError(f"spool: the state file knows no output {name!r}; it knows: {', '.join(known) or 'none'}")


def _waiting(connection: sqlite3.Connection, output: str) -> int:
    row = connection.execute("SELECT id FROM lanes WHERE name = ?", (output,)).fetchone()
    return spool.totals(connection).get(row[0], _NONE).events if row else 0


def _move(connection: sqlite3.Connection, output: str, to: str) -> Answer:
    with transaction(connection):
        ids = positions.ensure_lanes(connection, [to])
    return {
        "events": page_by_page(
            connection,
            lambda connection: spool.move(connection, ids[output], ids[to], spool.next_id(connection), _PAGE),
        )
    }


def _drop(connection: sqlite3.Connection, output: str, forget: bool) -> Answer:
    ids = positions.ensure_lanes(connection, [])
    events = page_by_page(connection, lambda connection: spool.drop(connection, ids[output], _PAGE))
    if forget:
        with transaction(connection):
            lanes.forget(connection, output)
    shrink(connection)
    return {"events": events}
