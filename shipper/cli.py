"""The command line: finds the command, imports only its module, and turns errors into one line and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import click

from shipper import __version__
from shipper.errors import Held, ShipperError

#: Command → the module whose ``command`` it is. Imported only when it is asked for: start-up time is part of the tool.
COMMANDS = {
    "run": "shipper.commands.run",
    "check": "shipper.commands.check",
    "demo": "shipper.commands.demo",
    "generate": "shipper.commands.generate",
    "inspect": "shipper.commands.inspect",
    "dead-letters": "shipper.commands.dead_letters",
    "spool": "shipper.commands.spool",
    "position": "shipper.commands.position",
    "status": "shipper.commands.status",
}

#: Commands of the plan (interface.md) that this version does not have; asked for, they say so instead of "unknown".
NOT_YET = ("tail", "decode", "test", "health", "plugins", "schema", "stream")

EXIT_INTERNAL = 70


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in NOT_YET:
            raise click.UsageError(f"the command {cmd_name!r} is not in this version ({__version__})")
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name]).command
        return command


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="shipper")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def cli(debug: bool) -> None:
    """Ship Amazon Aurora and RDS Database Activity Streams into the SIEM you have, and prove that none was lost.

    \b
    Example:
      shipper demo
      shipper check /etc/shipper/shipper.toml
      shipper run /etc/shipper/shipper.toml
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs a command and ends the process: exit codes as in docs/commands.md; errors are one line on stderr."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    if debug:
        given = ["--debug", *(word for word in given if word != "--debug")]
    try:
        code = cli.main(args=given, prog_name="shipper", standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (ShipperError, Held) as error:
        if debug:
            traceback.print_exc()
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output has gone; Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - the last place where an unknown error becomes a message and a code
        if debug:
            traceback.print_exc()
        click.echo(
            f"error: shipper itself failed: {type(error).__name__}: {error}; this is a bug: run again with --debug "
            "and report the traceback",
            err=True,
        )
        sys.exit(EXIT_INTERNAL)
    sys.exit(code if isinstance(code, int) else 0)
