"""``shipper check``: validates the configuration, and with ``--connect`` asks everything that it names."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from shipper import plugins
from shipper.commands.keys_check import check_keys
from shipper.commands.options import configuration_argument
from shipper.configuration import load
from shipper.configuration.advice import advice
from shipper.errors import Held, ShipperError
from shipper.output import Check, Output
from shipper.secrets import Secret, secrets_in
from shipper.settings import Configuration, FileSourceSettings, KinesisSettings, OutputSettings, SourceSettings
from shipper.sources import source_class

#: Every source, output and secret has this long to answer (seconds); all are asked at the same time.
PATIENCE = 20.0
_WIDTH_OF_PIPES = 160


@click.command("check")
@configuration_argument
@click.option("--connect", is_flag=True, help="Also ask every source, key, output and secret one cheap question.")
def command(config: tuple[Path, ...], connect: bool) -> int:
    """Validate the configuration, and warn of what is legal but surprising.

    Nothing is shipped and no event is read. With --connect everything that the configuration names is asked whether it
    is there and lets us in; exit code 1 when any answer is no. A wrong configuration is exit code 78.

    \b
    Example:
      shipper check /etc/shipper/shipper.toml
      shipper check base.toml production.toml --connect
    """
    configuration = load(config)
    out = _console(sys.stdout.isatty())
    for problem in advice(configuration):
        click.echo(f"warning: {problem}", err=True)
    out.print(_summary(configuration))
    if not connect:
        out.print("ok: the configuration is valid")
        return 0
    answers = ask(questions(configuration), PATIENCE)
    out.print(_table(answers))
    refused = sum(not answer.check.ok for answer in answers)
    if refused:
        out.print(f"not ok: {refused} of {len(answers)} answers are no")
        return 1
    out.print("ok: the configuration is valid, and everything that it names answers")
    return 0


Ask = Callable[[], Iterator[Check]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What one component said."""

    component: str
    check: Check


def questions(configuration: Configuration) -> dict[str, Ask]:
    """Component → what to ask it: the state, sources, their keys, outputs, secrets."""
    asked: dict[str, Ask] = {"state.path": lambda: _state(configuration.state.path)}
    for name, source in configuration.sources.items():
        asked[f"sources.{name}"] = _source(name, source)
        if isinstance(source, KinesisSettings | FileSourceSettings) and source.decode != "events":
            asked[f"sources.{name}.keys"] = partial(check_keys, name, source)
    for name, output in configuration.outputs.items():
        asked[f"outputs.{name}"] = _output(name, output)
    for key, secret in secrets_in(configuration):
        if secret.kind != "text":
            asked[key] = _secret(secret)
    return asked


@dataclass(slots=True)
class _Conversation:
    answers: list[Check] = field(default_factory=list)
    over: bool = False


def ask(asked: dict[str, Ask], patience: float) -> list[Answer]:
    """Asks all of them at the same time, and waits ``patience`` seconds in all. A component that has not come to an
    end by then gets a bad answer; its thread ends with the process."""
    said: SimpleQueue[tuple[str, Check | None]] = SimpleQueue()
    for component, question in asked.items():
        threading.Thread(target=_converse, args=(component, question, said), daemon=True, name=component).start()
    conversations = {component: _Conversation() for component in asked}
    deadline = time.monotonic() + patience
    while not all(conversation.over for conversation in conversations.values()):
        try:
            component, check = said.get(timeout=max(0.0, deadline - time.monotonic()))
        except Empty:
            break
        conversation = conversations[component]
        if check is None:
            conversation.over = True
        else:
            conversation.answers.append(check)
    answers: list[Answer] = []
    for component, conversation in conversations.items():
        checks = list(conversation.answers)
        if not conversation.over:
            detail = f"no answer within {patience:g} s"
            checks.append(Check("answers", False, detail, "check the address and the network between"))
        elif not checks:
            checks.append(Check("settings", True, "nothing to ask"))
        answers += [Answer(component, check) for check in checks]
    return answers


def _converse(component: str, question: Ask, said: SimpleQueue[tuple[str, Check | None]]) -> None:
    try:
        for check in question():
            said.put((component, check))
    except Held as held:
        said.put((component, Check(held.reason.replace("_", " "), False, held.detail, held.mend)))
    except ShipperError as error:
        said.put((component, Check("settings", False, str(error))))
    except Exception as error:  # noqa: BLE001  # a plugin's fault is its answer, and must not hide the others'
        said.put((component, Check("answers", False, f"{type(error).__name__}: {error}")))
    finally:
        said.put((component, None))


def _state(path: Path) -> Iterator[Check]:
    place = path
    while not place.exists() and place != place.parent:
        place = place.parent
    writable = os.access(place, os.W_OK | (os.X_OK if place.is_dir() else 0))
    mend = "" if writable else f"let the user that runs shipper write to {place}"
    yield Check("writable", writable, str(path), mend)


def _source(name: str, settings: SourceSettings) -> Ask:
    def question() -> Iterator[Check]:
        source = source_class(settings.type)(name, settings)
        try:
            yield from source.check()
        finally:
            source.close()

    return question


def _output(name: str, settings: OutputSettings) -> Ask:
    def question() -> Iterator[Check]:
        plugin: type[Output[Any]] = plugins.output_class(settings.type)
        if missing := plugins.missing_modules(settings.type, plugin):
            yield Check("installed", False, missing.message, missing.mend)
            return
        output = plugin(name, settings)
        try:
            yield from output.check()
        finally:
            output.close()

    return question


def _secret(secret: Secret) -> Ask:
    def question() -> Iterator[Check]:
        secret.reveal()
        yield Check("readable", True, secret.kind)

    return question


def _console(terminal: bool) -> Console:
    return Console(highlight=False, soft_wrap=not terminal, width=None if terminal else _WIDTH_OF_PIPES)


def _summary(configuration: Configuration) -> Table:
    table = Table(title="what is shipped where", title_justify="left")
    for column in ("output", "type", "from", "transforms", "match", "format"):
        table.add_column(column)
    for name, output in configuration.outputs.items():
        sources = configuration.sources if output.sources is None else output.sources
        transforms = configuration.transforms if output.transforms is None else output.transforms
        table.add_row(
            Text(name),
            Text(output.type),
            Text(", ".join(f"{source} ({configuration.sources[source].type})" for source in sources) or "nothing"),
            Text(", ".join(transforms) or "none"),
            Text(", ".join(output.match or ()) or "everything"),
            Text(output.format.type),
        )
    return table


def _table(answers: list[Answer]) -> Table:
    table = Table(title="what was asked", title_justify="left")
    for column in ("component", "asked", "answer", "detail", "what to do"):
        table.add_column(column, overflow="fold")
    for answer in answers:
        check = answer.check
        verdict = Text("ok", "green") if check.ok else Text("no", "bold red")
        table.add_row(Text(answer.component), Text(check.subject), verdict, Text(check.detail), Text(check.mend))
    return table
