"""Builds outputs and sources from a configuration, and exchanges them while others go on (reload).

What is read for an output that ends or changes goes to its spool first, so that the position is past it: whoever takes
over begins there, and nothing is sent twice.
"""

from __future__ import annotations

import functools
import logging
import random
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from shipper.clock import EngineClock
from shipper.decode import Decoder, Origin
from shipper.decode.decoder import RecordDecoder
from shipper.engine.data_keys import key_resolver
from shipper.engine.dead_letter_box import DeadLetterBox
from shipper.engine.delivery import Delivery
from shipper.engine.holds import Holds
from shipper.engine.lane import Lane
from shipper.engine.prepare import Routes
from shipper.engine.shipping import Shipping
from shipper.engine.source_line import SourceLine
from shipper.engine.spool_disk import SpoolDisk
from shipper.engine.threads import Threads
from shipper.errors import ConfigurationError, Problem
from shipper.observe.metrics import Metrics, Queue
from shipper.output import Output
from shipper.plugins import missing_modules, output_class
from shipper.settings import Configuration
from shipper.source import Source
from shipper.sources import source_class
from shipper.state import kept_records, lanes, positions, spool
from shipper.state.lanes import Owing
from shipper.state.spool import Totals
from shipper.state.writer import Writer

log = logging.getLogger("shipper.engine")

#: Seconds that a request under way has when its output is exchanged.
CLOSING = 5.0


class Works:
    """The outputs and sources at work."""

    def __init__(
        self,
        configuration: Configuration,
        *,
        once: bool,
        reading: bool,
        threads: Threads,
        writer: Writer,
        letters: DeadLetterBox,
        holds: Holds,
        metrics: Metrics,
        clock: EngineClock,
        randomness: random.Random,
        disk: SpoolDisk,
    ) -> None:
        """``reading``: without it the sources bring nothing new."""
        self.configuration = configuration
        self._once = once
        self._reading = reading
        self._threads = threads
        self._writer = writer
        self._letters = letters
        self._holds = holds
        self._metrics = metrics
        self._clock = clock
        self._randomness = randomness
        self._disk = disk
        self._claimed: dict[str, str] = {}
        self._closing: dict[str, ExitStack] = {}
        self.outputs: dict[str, Shipping] = {}
        self.sources: dict[str, SourceLine] = {}

    @property
    def lanes(self) -> list[Lane]:
        """Every output's lane."""
        return [one.lane for one in list(self.outputs.values())]

    def start(self, outputs: Sequence[Output[Any]]) -> None:
        """Begins with everything that the configuration names."""
        self._begin_outputs(self.configuration, outputs)
        names = self.configuration.sources
        self._begin_sources(self.configuration, names if self._reading else self._those_that_keep(names))

    def _those_that_keep(self, names: Collection[str]) -> list[str]:
        """The sources that have records to decode; where some are of a source of another name: any may."""
        keep = self._writer.call(kept_records.totals).keys()
        return [name for name in names if name in keep or keep - set(names)]

    def exchange(self, new: Configuration) -> str:
        """Goes over to another configuration, touching only what differs; says what changed.

        Raises ``ConfigurationError``, and changes nothing, where the new one cannot be taken.
        """
        old = self.configuration
        changed = {name for name, table in new.outputs.items() if old.outputs.get(name) != table}
        outputs = build_outputs(new, changed)
        self._refuse_to_forget(new)
        gone = old.outputs.keys() - new.outputs.keys()
        everything = (old.labels, old.transforms, old.event, old.aws) != (
            new.labels,
            new.transforms,
            new.event,
            new.aws,
        )
        affected = {
            name
            for name in {*old.sources, *new.sources}
            if everything
            or old.sources.get(name) != new.sources.get(name)
            or any(_feeds(old, output, name) for output in {*changed, *gone} & old.outputs.keys())
            or any(_feeds(new, output, name) for output in changed)
        }
        if not affected and not changed and not gone:
            self.configuration = new
            return "nothing that is shipped has changed"
        self._end_sources(affected & self.sources.keys())
        try:
            self._see_off(gone, new)
        except ConfigurationError:
            self._begin_sources(old, [name for name in old.sources if name in affected])
            raise
        for name in sorted((changed | gone) & self.outputs.keys()):
            self._end_output(name)
        self.configuration = new
        self._begin_outputs(new, outputs)
        self._begin_sources(new, [name for name in new.sources if name in affected])
        names = [f"outputs {', '.join(sorted(changed | gone))}"] if changed or gone else []
        return "; ".join([*names, *([f"sources {', '.join(sorted(affected))}"] if affected else [])])

    def reread(self, sources: Collection[str], change: Callable[[], None]) -> None:
        """Lets sources begin again where the state file says after ``change``, which moves positions in it."""
        running = [name for name in sources if name in self.sources]
        self._end_sources(running)
        try:
            change()
        finally:
            self._begin_sources(self.configuration, running)

    def stop_reading(self, deadline: float) -> None:
        """Reading ends; waits for the readers until ``deadline`` (monotonic seconds)."""
        for line in self.sources.values():
            line.stop()
        for line in self.sources.values():
            line.join(deadline)

    def close(self) -> None:
        """Releases everything."""
        for line in self.sources.values():
            line.stop()
        for one in self.outputs.values():
            one.abandon()

    def release(self) -> None:
        """Closes the plugins and the sources; after the last commit."""
        for one in self.outputs.values():
            one.output.close()
        for stack in self._closing.values():
            stack.close()

    # -- outputs -----------------------------------------------------------------------------------------------------

    def _begin_outputs(self, configuration: Configuration, outputs: Sequence[Output[Any]]) -> None:
        names = [output.name for output in outputs]
        renamed = {name: table.renamed_from for name, table in configuration.outputs.items() if table.renamed_from}
        for name, former in renamed.items():
            if name in names and self._writer.call(functools.partial(lanes.rename, old=former, new=name)):
                log.info("output %s goes on where %s stood, with all that it still owes", name, former)
        ids = self._writer.call(lambda connection: positions.ensure_lanes(connection, names))
        totals = self._writer.call(spool.totals)
        for output in outputs:
            self.outputs[output.name] = self._shipping(configuration, output, ids[output.name], totals)
        # Where the configuration lists them, whenever they were begun.
        self.outputs = {name: self.outputs[name] for name in configuration.outputs}
        copies = configuration.dead_letters.output
        self._letters.copy_to(self.outputs[copies].lane if copies else None)

    def _shipping(
        self, configuration: Configuration, output: Output[Any], identifier: int, totals: Mapping[int, Totals]
    ) -> Shipping:
        lane = Lane(
            output.name,
            identifier,
            output,
            self._writer,
            self._letters,
            self._metrics,
            self._clock,
            self._disk,
            self._randomness,
            configuration.dead_letters.storm,
        )
        if identifier in totals:
            lane.adopt(totals[identifier])
        delivery = Delivery(lane, self._writer, self._letters, self._holds, self._metrics, self._clock)
        rules = [*configuration.transforms, "match"]
        self._metrics.add_output(lane.name, rules, Queue(lane.owed, lane.queued_bytes, lane.spool_figures))
        shipping = Shipping(output, lane, delivery, self._clock)
        shipping.start(self._threads, self._writer.call(functools.partial(positions.bookmark_of, lane=lane.id)))
        return shipping

    def _end_output(self, name: str) -> None:
        one = self.outputs.pop(name)
        one.close(CLOSING)
        self._writer.call(lambda _: None)  # what it handed in is on disk before anybody takes over
        one.output.close()
        self._holds.release_all(f"output {name}")

    def _see_off(self, gone: Collection[str], new: Configuration) -> None:
        """Gives outputs that are not configured any more a moment to send what was in their queues, which is in their
        spools now. Raises ``ConfigurationError`` where one still owes something then."""
        never = threading.Event()
        until = self._clock.monotonic() + CLOSING
        renamed = {table.renamed_from for table in new.outputs.values()}
        leaving = [self.outputs[name].lane for name in gone if name in self.outputs and name not in renamed]
        while any(lane.spooled().events for lane in leaving) and self._clock.monotonic() < until:
            self._clock.wait(never, 0.05)
        if leaving:
            self._refuse_to_forget(new)

    def _refuse_to_forget(self, new: Configuration) -> None:
        refuse_to_forget(new, self._writer.call(lanes.owing))

    # -- sources -----------------------------------------------------------------------------------------------------

    def _begin_sources(self, configuration: Configuration, names: Collection[str]) -> None:
        lines = {}
        for name in names:
            self._metrics.add_source(name)
            lines[name] = self.sources[name] = self._source_line(configuration, name)
        for name, line in lines.items():
            self._threads.start(f"source {name}", line.run)

    def _end_sources(self, names: Collection[str]) -> None:
        for name in names:
            self.sources[name].stop()
        for name in names:
            self.sources.pop(name).join(float("inf"))
            fed = [one.lane for one in self.outputs.values() if one.feeds_from(name)]
            self._let_send(fed)
            for lane in fed:
                lane.leave(name)
            self._closing.pop(name).close()
            self._claimed = {identity: owner for identity, owner in self._claimed.items() if owner != name}
            self._holds.release_all(f"source {name}")
        self._writer.call(lambda _: None)

    def _let_send(self, fed: Collection[Lane]) -> None:
        """While nothing can be spooled, what is unsettled would be read again: it gets a moment to be sent, and a file
        as long as its own disk refuses it."""
        never = threading.Event()
        until = self._clock.monotonic() + CLOSING
        while (blocked := self._writer.blocked is not None) or self._disk.short():
            if not any(lane.unspooled() for lane in fed) or not (blocked or self._clock.monotonic() < until):
                break
            self._clock.wait(never, 0.05)

    def _source_line(self, configuration: Configuration, name: str) -> SourceLine:
        settings = configuration.sources[name]
        closing = self._closing[name] = ExitStack()
        source: Source[Any] = source_class(settings.type)(name, settings)
        closing.callback(source.close)
        fed = [one.lane for one in self.outputs.values() if one.feeds_from(name)]
        keys = key_resolver(settings, self._clock, self._metrics, closing)
        labels = {**configuration.labels, **settings.labels}
        id_key = configuration.event.id_key.reveal().encode() if configuration.event.id_key else b""

        def origin(source: Source[Any], partition: str) -> Origin:
            return Origin(source.name, partition, source.resource_id, settings.engine, source.facts(), labels, id_key)

        def decoder(origin: Origin) -> Decoder:
            return RecordDecoder(origin, keys, settings.decode)

        return SourceLine(
            source,
            fed,
            Routes(configuration, {lane.name: lane.output.values() for lane in fed}),
            decoder,
            origin,
            self._claim,
            lambda: self.lanes,
            once=self._once,
            reading=self._reading,
            storm=configuration.dead_letters.storm,
            disk=self._disk,
            threads=self._threads,
            writer=self._writer,
            letters=self._letters,
            holds=self._holds,
            metrics=self._metrics,
            clock=self._clock,
        )

    def _claim(self, source: str, identity: str) -> None:
        """Two sources on one stream would share positions, and each would pass what the other has not settled."""
        owner = self._claimed.setdefault(identity, source)
        if owner != source:
            message = f"sources {owner!r} and {source!r} read the same: {identity}; shipper stops"
            raise ConfigurationError(Problem(message, f"sources.{source}", mend="take one of them out"))


def build_outputs(configuration: Configuration, names: Collection[str] | None = None) -> list[Output[Any]]:
    """The configured outputs, or some of them, with everything that is missing said at once."""
    wanted = {name: table for name, table in configuration.outputs.items() if names is None or name in names}
    classes = {name: output_class(settings.type) for name, settings in wanted.items()}
    problems = list(_missing(configuration, classes))
    if problems:
        raise ConfigurationError(*problems)
    return [plugin(name, configuration.outputs[name]) for name, plugin in classes.items()]


def refuse_to_forget(configuration: Configuration, owing: Mapping[str, Owing]) -> None:
    """Raises ``ConfigurationError`` where an output that still owes something is not configured any more."""
    renamed = {table.renamed_from for table in configuration.outputs.values()}
    problems = [
        Problem(
            f"the output {name!r} is not configured any more and still owes {_owed(owed)}",
            f"outputs.{name}",
            mend=f'take it in again, name its successor with renamed_from = "{name}", or give that up with '
            f"`shipper spool drop --output {name}`",
        )
        for name, owed in owing.items()
        if (owed.events or owed.records) and name not in configuration.outputs and name not in renamed
    ]
    if problems:
        raise ConfigurationError(*problems)


def _owed(owed: Owing) -> str:
    parts = [f"{owed.events:,} events in its spool"] if owed.events else []
    return " and ".join([*parts, *([f"{owed.records:,} records that wait for their key"] if owed.records else [])])


def _missing(configuration: Configuration, classes: Mapping[str, type[Output[Any]]]) -> Iterator[Problem]:
    for name, plugin in classes.items():
        problem = missing_modules(configuration.outputs[name].type, plugin)
        if problem is not None:
            yield Problem(problem.message, f"outputs.{name}.type", mend=problem.mend)


def _feeds(configuration: Configuration, output: str, source: str) -> bool:
    sources = configuration.outputs[output].sources
    return sources is None or source in sources
