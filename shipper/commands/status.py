"""``shipper status``: asks the running shipper, or reads the state file."""

from __future__ import annotations

import http.client
import json
import sqlite3
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from shipper import __version__
from shipper.commands.options import configuration_option
from shipper.commands.state_access import Answer, Change, carry_out, reading, transaction
from shipper.commands.text import ago, harmless, print_json, print_table
from shipper.configuration import load
from shipper.observe import status
from shipper.observe.server import is_loopback
from shipper.settings import Configuration
from shipper.state import gaps

#: Seconds that a running shipper has to answer, and bytes that its answer may have.
_PATIENCE = 5.0
_LONGEST = 16 * 1024 * 1024


@click.command("status")
@configuration_option
@click.option("--books", is_flag=True, help="The books of every output that there ever was, and whether they balance.")
@click.option("--acknowledge-gaps", is_flag=True, help="The gaps that are shown are known: show them no more.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(config: tuple[Path, ...], books: bool, acknowledge_gaps: bool, as_json: bool) -> int:
    """Show where everything stands: what each output owes, how far each source is behind, what is held, which gaps
    there are.

    Asks the shipper that runs with this configuration; where none answers, reads the state file. With --books, the exit
    code is 1 when the books of an output do not balance.

    \b
    Example:
      shipper status -c /etc/shipper/shipper.toml
      shipper status --books --json
    """
    if books and acknowledge_gaps:
        raise click.UsageError("--books and --acknowledge-gaps do not go together")
    configuration = load(config)
    path = configuration.state.path
    if acknowledge_gaps:
        answer, _ = carry_out(path, Change({"do": "acknowledge_gaps"}, _acknowledge))
        if as_json:
            print_json(answer)
        else:
            click.echo(f"{answer['gaps']:,} gaps were acknowledged")
        return 0
    if books:
        with reading(path) as connection:
            return _show_books(status.books(connection), as_json=as_json)
    found, why = ask(configuration)
    if found is None:
        with reading(path) as connection:
            found = status.of_state(connection, configuration)
    if as_json:
        print_json(found)
    else:
        _show(found, why)
    return 0


def ask(configuration: Configuration) -> tuple[status.Status | None, str]:
    """What the running shipper says, or ``None`` and why nobody does."""
    address = configuration.server.address
    if address is None:
        return None, "server.listen is off"
    host, port = address
    if not is_loopback(host):
        return None, f"a shipper tells this on loopback only, and server.listen is {configuration.server.listen}"
    connection = http.client.HTTPConnection(host, port, timeout=_PATIENCE)
    try:
        connection.request("GET", "/status")
        response = connection.getresponse()
        body = response.read(_LONGEST)
        found = json.loads(body) if response.status == http.HTTPStatus.OK else None
    except (OSError, http.client.HTTPException, ValueError):
        return None, f"no shipper answers on {configuration.server.listen}"
    finally:
        connection.close()
    state = found.get("state") if isinstance(found, dict) else None
    if not isinstance(state, dict) or state.get("path") != str(configuration.state.path.resolve()):
        return None, f"what answers on {configuration.server.listen} is not the shipper of this state file"
    assert isinstance(found, dict)
    if found.get("version") != __version__:
        return None, f"the shipper that runs is of version {found.get('version')}, this is {__version__}"
    return found, ""


def _acknowledge(connection: sqlite3.Connection) -> Answer:
    with transaction(connection):
        return {"gaps": gaps.acknowledge(connection, time.time())}


def _show_books(found: status.Status, *, as_json: bool) -> int:
    if as_json:
        print_json({"outputs": found})
    else:
        headings = [line for line in _LINES if line in _ALWAYS or any(book[line] for book in found.values())]
        shown = [line.replace("_", " ") for line in headings]
        rows = [
            (name, *(f"{book[line]:,}" for line in headings), "balance" if book["balances"] else "DO NOT BALANCE")
            for name, book in found.items()
        ]
        print_table(("output", *shown, "books"), rows, right=shown)
        for line in _differences(found):
            sys.stdout.write(f"{line}\n")
    return 0 if all(book["balances"] for book in found.values()) else 1


#: In the order of what happens to an event; the last ones are where it is now.
_LINES = (
    "offered", "replayed", "delivered", "already_stored", "filtered", "dead_letters", "replayed_out", "purged",
    "expired", "pending",
)  # fmt: skip
#: Columns that are shown whatever they hold.
_ALWAYS = ("offered", "delivered", "filtered", "dead_letters", "pending")


def _differences(found: status.Status) -> Iterator[str]:
    """Where the dead letters that the books name are not those that are kept."""
    for name, book in found.items():
        kept, said = book["dead_letters_kept"], book["dead_letters"]
        if kept < said:
            yield f"{name}: {said - kept:,} of its dead letters are missing from the state file"
        elif kept > said:
            yield f"{name}: {kept - said:,} more dead letters are kept: read ahead of its position, and counted with it"


def _show(found: status.Status, why: str) -> None:
    if why:
        click.echo(f"from the state file ({harmless(why)}): what is queued, held or lagging is not known", err=True)
    else:
        click.echo(f"shipper {harmless(str(found['version']))}: {harmless(str(found['phase']))}")
    now = time.time()
    outputs = [
        (
            name,
            *(_count(output["pending"][where]) for where in ("queue", "in_flight", "spool")),
            _spool(output["spool"]),
            _since(output["spool"]["oldest"], now),
            f"{sum(output['dead_letters'].values()):,}",
            _since(output["last_delivery"], now),
            _state(output),
        )
        for name, output in found["outputs"].items()
    ]
    right = ("queue", "in flight", "spool", "of its room", "dead letters")
    headings = ("output", *right[:3], right[3], "oldest", right[4], "last delivery", "")
    print_table(headings, outputs, right=right)
    sys.stdout.write("\n")
    sources = [
        (
            name,
            "-" if source["lag_seconds"] is None else f"{source['lag_seconds']:,.0f} s",
            _since(source["last_read"], now),
            f"{source['kept']['records']:,}",
            _state(source),
        )
        for name, source in found["sources"].items()
    ]
    print_table(("source", "lag", "last read", "undecoded records", ""), sources, right=("lag", "undecoded records"))
    _show_the_rest(found)


def _show_the_rest(found: status.Status) -> None:
    for hold in found["held"]:
        if not hold["component"].startswith(("output ", "source ")):
            sys.stdout.write(harmless(f"{hold['component']} is held ({hold['reason']})") + "\n")
    undecodable = sum(found["records_dead_lettered"].values())
    if undecodable:
        sys.stdout.write(f"\n{undecodable:,} records could not be decoded: shipper dead-letters list --output '*'\n")
    if found["gaps"]:
        sys.stdout.write("\ngaps; when they are known: shipper status --acknowledge-gaps\n")
        headings = ("source", "partition", "from", "to", "reason")
        rows = [
            (gap["source"], gap["partition"], gap["since"] or "-", gap["until"] or "-", gap["reason"])
            for gap in found["gaps"]
        ]
        print_table(headings, rows)
    free = found["state"]["disk_free_bytes"]
    if free is not None:
        sys.stdout.write(f"\nstate: {harmless(found['state']['path'])}; {free:,} bytes free on its disk\n")


def _count(events: int | None) -> str:
    return "-" if events is None else f"{events:,}"


def _spool(held: Mapping[str, Any]) -> str:
    if not held["max_bytes"]:
        return f"{held['bytes']:,} bytes" if held["bytes"] else "-"
    return f"{100 * held['bytes'] / held['max_bytes']:.1f} %"


def _since(moment: str | None, now: float) -> str:
    return f"{ago(now - datetime.fromisoformat(moment).timestamp())} ago" if moment else "-"


def _state(component: Mapping[str, Any]) -> str:
    if component["held"]:
        return f"held: {component['held']}"
    return "" if component["configured"] else "left the configuration"
