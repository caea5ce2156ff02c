"""``shipper dead-letters``: what could not be shipped, why, and sending it again; also beside a running shipper."""

from __future__ import annotations

import base64
import sqlite3
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shipper.commands import dead_letters_exchange, dead_letters_removal
from shipper.commands.dead_letter_choice import choice, say_counts
from shipper.commands.options import configuration_option
from shipper.commands.state_access import reading
from shipper.commands.text import WIDE, harmless, print_json, utc
from shipper.configuration import load
from shipper.errors import ShipperError
from shipper.state.dead_letters import EVERY_OUTPUT, Filter, Kept, data_of, listing

#: Columns of a listing, each with its least width; the last one has what is left of the line.
_LAYOUT = "{:>7}  {:20}  {:16}  {:18}  {:16}  {:>10}  {}"
_HEADINGS = ("id", "last met", "output", "reason", "source", "bytes", "detail")


@click.group("dead-letters")
def command() -> None:
    """Look at what could not be shipped (records that cannot be decoded, events that an output refused), and send it
    again or delete it.

    \b
    Example:
      shipper dead-letters list -c /etc/shipper/shipper.toml --since 2h
      shipper dead-letters show -c /etc/shipper/shipper.toml --id 17
      shipper dead-letters replay -c /etc/shipper/shipper.toml --output siem --dry-run
    """


for _other in (
    dead_letters_removal.replay_command,
    dead_letters_removal.purge_command,
    dead_letters_exchange.export_command,
    dead_letters_exchange.import_command,
):
    command.add_command(_other)


@command.command("list")
@choice
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def list_command(config: tuple[Path, ...], chosen: Filter, as_json: bool) -> None:
    """List dead letters, oldest first, and count them by reason.

    \b
    Example:
      shipper dead-letters list --reason tampered --json
    """
    with reading(load(config).state.path) as connection:
        if as_json:
            for kept in listing(connection, chosen):
                print_json(_as_json(kept))
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
    with reading(load(config).state.path) as connection:
        kept = next(listing(connection, Filter(id=letter)), None)
        data = data_of(connection, letter)
    if kept is None or data is None:
        raise ShipperError(f"dead letters: there is none with the id {letter}; see: shipper dead-letters list")
    if raw:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    elif as_json:
        print_json({**_as_json(kept), "data": base64.b64encode(data).decode("ascii")})
    else:
        _print_letter(kept, data)


def _print_list(connection: sqlite3.Connection, chosen: Filter) -> None:
    """Line by line: there may be very many."""
    width = Console().width if sys.stdout.isatty() else WIDE
    headings: tuple[str, ...] | None = _HEADINGS
    for kept in listing(connection, chosen):
        if headings:
            sys.stdout.write(_LAYOUT.format(*headings)[:width].rstrip() + "\n")
            headings = None
        row = (str(kept.id), utc(kept.last), kept.output, kept.reason, kept.source, f"{kept.size:,}", kept.detail)
        sys.stdout.write(harmless(_LAYOUT.format(*row))[:width].rstrip() + "\n")
    if headings:
        click.echo("no dead letters")
        return
    say_counts(connection, chosen)


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
        ("arrived", utc(kept.arrived / 1e9) if kept.arrived else None),
        ("first met", utc(kept.first)),
        ("last met", utc(kept.last)),
        ("attempts", kept.attempts),
        ("event id", kept.event_id),
        ("bytes", kept.size),
    ]
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in rows:
        if value is not None:
            table.add_row(f"[bold]{name}[/bold]", escape(harmless(str(value))))
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
        "arrived": utc(kept.arrived / 1e9) if kept.arrived else None,
        "first": utc(kept.first),
        "last": utc(kept.last),
        "attempts": kept.attempts,
        "event_id": kept.event_id,
        "bytes": kept.size,
    }
