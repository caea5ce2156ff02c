"""``shipper dead-letters export`` and ``import``: from one state file to another, as JSON lines."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

import click

from shipper.commands.dead_letter_choice import choice
from shipper.commands.options import configuration_option
from shipper.commands.state_access import (
    Answer,
    Change,
    carry_out,
    explained,
    reading,
    transaction,
    writing_beside,
)
from shipper.commands.text import print_json
from shipper.configuration import load
from shipper.errors import ShipperError, StateError
from shipper.state import dead_letters
from shipper.state.dead_letters import Filter
from shipper.state.file import InUse, lock, open_state

#: Lines of one transaction, and their bytes.
_PAGE = 200
_PAGE_BYTES = 8 * 1024 * 1024
#: The longest line that an export has: a record, or an event beside its `raw` line, in base64.
_LONGEST = 512 * 1024 * 1024


@click.command("export")
@choice
@click.option("-o", "target", default="-", metavar="FILE", help="A new file (0600); default: standard output.")
def export_command(config: tuple[Path, ...], chosen: Filter, target: str) -> None:
    """Write dead letters as JSON lines, with everything that another state file needs to take them. They stay here.

    They hold what was read: records still encrypted, events as they are. Keep the file as safe as the events.

    \b
    Example:
      shipper dead-letters export --output siem -o letters.jsonl
      shipper dead-letters export --since 2d | gzip > letters.jsonl.gz
    """
    count = 0
    with reading(load(config).state.path) as connection, _written(target) as file:
        for line in dead_letters.export_lines(connection, chosen):
            file.write(line + b"\n")
            count += 1
    click.echo(f"{count:,} dead letters were written", err=True)


@click.command("import")
@configuration_option
@click.argument("file", type=click.File("rb"))
@click.option("--json", "as_json", is_flag=True, help="What was done, as one JSON object.")
def import_command(config: tuple[Path, ...], file: IO[bytes], as_json: bool) -> None:
    """Take in what `export` has written; - is standard input. What is here already stays as it is.

    \b
    Example:
      shipper dead-letters import letters.jsonl
      gunzip -c letters.jsonl.gz | shipper dead-letters import -
    """
    path = load(config).state.path
    with explained(path):
        try:
            with lock(path), closing(open_state(path)) as connection:
                answer = _take_in(connection, file)
        except InUse:
            # New rows disturb nobody: the running shipper only has to be told that there are some.
            with writing_beside(path) as connection:
                answer = _take_in(connection, file)
            carry_out(path, Change({"do": "imported"}, lambda _: {}))
    if as_json:
        print_json(answer)
    else:
        click.echo(f"{answer['read']:,} dead letters were read, {answer['new']:,} of them are new")


def _take_in(connection: sqlite3.Connection, file: IO[bytes]) -> Answer:
    """A transaction for each page. What stands before a line that is none is taken in; a later import adds the rest."""
    read = new = 0
    lines = _lines(file)
    while page := list(_page(lines)):
        with transaction(connection):
            for number, line in enumerate(page, read + 1):
                try:
                    new += dead_letters.import_line(connection, line)
                except StateError as error:
                    connection.execute("COMMIT")
                    raise StateError(f"{error}; it is number {number:,}, and those before it were taken in") from error
        read += len(page)
    return {"read": read, "new": new}


def _page(lines: Iterator[bytes]) -> Iterator[bytes]:
    size = 0
    for count, line in enumerate(lines, 1):
        yield line
        size += len(line)
        if count == _PAGE or size >= _PAGE_BYTES:
            return


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    while line := file.readline(_LONGEST + 1):
        if len(line) > _LONGEST:
            raise StateError(
                f"dead letters: a line of more than {_LONGEST:,} bytes is not one that `shipper dead-letters export` "
                "wrote; it was not taken in; give the export as it is"
            )
        if line.strip():
            yield line


@contextmanager
def _written(target: str) -> Iterator[IO[bytes]]:
    """Standard output, or a new file that is on disk when the block ends."""
    if target == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        descriptor = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise ShipperError(f"dead letters: {target} exists already; nothing was written; name another file") from error
    except OSError as error:
        raise ShipperError(
            f"dead letters: {target} cannot be written: {error.strerror}; what it holds is not complete"
        ) from error
