"""``shipper dead-letters``: what could not be shipped, and why. Reads the state file, also beside a running shipper."""

from __future__ import annotations

import base64
import json
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shipper.commands.options import Moment, configuration_option
from shipper.configuration import load
from shipper.errors import ShipperError
from shipper.state.dead_letters import EVERY_OUTPUT, Filter, Kept, counts, data_of, listing
from shipper.state.file import read_state

#: Columns of a listing that goes to a file or another program.
WIDE = 240


@click.group("dead-letters")
def command() -> None:
    """Look at what could not be shipped: records that cannot be decoded, events that an output refused.

    \b
    Example:
      shipper dead-letters list -c /etc/shipper/shipper.toml --since 2h
      shipper dead-letters show -c /etc/shipper/shipper.toml --id 17
    """


@command.command("list")
@configuration_option
@click.option("--output", help="Only those of this output; * is what no output could get.")
@click.option("--reason", help="Only this reason.")
@click.option("--since", type=Moment(), help="Only those met since then: a time, or how long ago (2h).")
@click.option("--id", "letter", type=int, help="Only this one.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def list_command(
    config: tuple[Path, ...],
    output: str | None,
    reason: str | None,
    since: float | None,
    letter: int | None,
    as_json: bool,
) -> None:
    """List dead letters, oldest first, and count them by reason.

    \b
    Example:
      shipper dead-letters list --reason tampered --json
    """
    chosen = Filter(output, reason, since, letter)
    with _state(config) as connection:
        if as_json:
            for kept in listing(connection, chosen):
                click.echo(json.dumps(_as_json(kept)))
            return
        _print_list(connection, chosen)


@command.command("show")
@configuration_option
@click.option("--id", "letter", type=int, required=True, help="Which one; see `list`.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, with the bytes as base64.")
@click.option("--raw", is_flag=True, help="Nothing but its bytes as they were read, for `shipper inspect -`.")
def show_command(config: tuple[Path, ...], letter: int, as_json: bool, raw: bool) -> None:
    """Show one dead letter: where it was read, why it is here, and its bytes as they were read.

    \b
    Example:
      shipper dead-letters show --id 17
      shipper dead-letters show --id 17 --raw | shipper inspect -
    """
    with _state(config) as connection:
        kept = next(listing(connection, Filter(id=letter)), None)
        data = data_of(connection, letter)
    if kept is None or data is None:
        raise ShipperError(f"dead letters: there is none with the id {letter}; see: shipper dead-letters list")
    if raw:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    elif as_json:
        click.echo(json.dumps({**_as_json(kept), "data": base64.b64encode(data).decode("ascii")}))
    else:
        _print_letter(kept, data)


@contextmanager
def _state(config: tuple[Path, ...]) -> Iterator[sqlite3.Connection]:
    connection = read_state(load(config).state.path)
    try:
        yield connection
    finally:
        connection.close()


def _print_list(connection: sqlite3.Connection, chosen: Filter) -> None:
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("id", "last met", "output", "reason", "source", "bytes", "detail"):
        table.add_column(heading, justify="right" if heading in ("id", "bytes") else "left", no_wrap=True)
    for kept in listing(connection, chosen):
        row = (str(kept.id), _utc(kept.last), kept.output, kept.reason, kept.source, f"{kept.size:,}", kept.detail)
        table.add_row(*map(_harmless, row))
    if not table.row_count:
        console.print("no dead letters")
        return
    console.print(table)
    for output, reason, count in counts(connection, chosen):
        whose = "no output could get them" if output == EVERY_OUTPUT else f"refused by {output}"
        console.print(f"{count:>8,}  {reason} ({whose})", markup=False)


def _print_letter(kept: Kept, data: bytes) -> None:
    console = Console(highlight=False)
    rows = [
        ("id", kept.id),
        ("output", "every output: it could not be decoded" if kept.output == EVERY_OUTPUT else kept.output),
        ("reason", kept.reason),
        ("detail", kept.detail),
        ("source", kept.source),
        ("resource id", kept.resource_id),
        ("partition", kept.partition),
        ("position", kept.reference),
        ("ordinals", ", ".join(map(str, kept.ordinals)) or "the whole record"),
        ("arrived", _utc(kept.arrived / 1e9) if kept.arrived else None),
        ("first met", _utc(kept.first)),
        ("last met", _utc(kept.last)),
        ("attempts", kept.attempts),
        ("event id", kept.event_id),
        ("bytes", kept.size),
    ]
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in rows:
        if value is not None:
            table.add_row(f"[bold]{name}[/bold]", _harmless(str(value)))
    console.print(table)
    console.print("\nas it was read:" if kept.output == EVERY_OUTPUT else "\nthe event:")
    text = data[:4096].decode("utf-8", "backslashreplace")
    console.print(
        "".join(character if character.isprintable() else f"\\x{ord(character):02x}" for character in text),
        markup=False,
        soft_wrap=True,
    )
    if len(data) > 4096:
        console.print(f"… {len(data) - 4096:,} more bytes: --raw writes all of them", markup=False)


def _harmless(text: str) -> str:
    """A cell without markup or control characters: what was refused may have been made by an attacker."""
    return escape("".join(character if character.isprintable() else "�" for character in text))


def _as_json(kept: Kept) -> dict[str, Any]:
    return {
        "id": kept.id,
        "output": kept.output,
        "reason": kept.reason,
        "detail": kept.detail,
        "source": kept.source,
        "resource_id": kept.resource_id,
        "partition": kept.partition,
        "position": kept.reference,
        "ordinals": list(kept.ordinals),
        "arrived": _utc(kept.arrived / 1e9) if kept.arrived else None,
        "first": _utc(kept.first),
        "last": _utc(kept.last),
        "attempts": kept.attempts,
        "event_id": kept.event_id,
        "bytes": kept.size,
    }


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
