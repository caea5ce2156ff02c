"""Runs the lanes without their sources until what is on disk is delivered."""

from __future__ import annotations

from shipper.commands.run import say, stopped_by_signals
from shipper.engine.pipeline import Pipeline
from shipper.observe.logging import configure
from shipper.settings import Configuration


def deliver(configuration: Configuration) -> int:
    """Delivers what the state file holds, reading nothing new; says how it ended, and gives the exit code of ``run``.

    Raises ``InUse`` where another shipper runs. Nothing is listened to: the port may belong to another shipper.
    """
    configure(configuration.log)
    quiet = configuration.model_copy(update={"server": configuration.server.model_copy(update={"listen": ""})})
    pipeline = Pipeline(quiet, once=True, sources=False)
    with stopped_by_signals(pipeline, reloads=False):
        result = pipeline.run()
    say(result)
    return result.exit_code
