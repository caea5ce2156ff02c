"""What is legal in a configuration but surprising: told by ``shipper check``, refused by nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from shipper import plugins
from shipper.errors import Problem
from shipper.output import Limits
from shipper.settings import Configuration, FileSourceSettings, KinesisSettings, NetworkSettings, OutputSettings
from shipper.units import format_duration, format_size

#: Folders that a restart of the machine empties.
_PASSING = tuple(map(Path, ("/tmp", "/var/tmp", "/dev/shm", "/run")))  # noqa: S108  # named, not written to
#: GetRecords: five transactions a second and shard, for all readers together (Kinesis API Reference).
_KINESIS_INTERVAL = 0.2
#: An event has about 1 KB beside its statement and its parameters; names may be long.
_SMALL_EVENT = 2_000
#: A commit of positions, the deletions that make room, and their share of the write-ahead log.
_SMALL_RESERVE = 16_000_000
_DAY = 86_400.0


def advice(configuration: Configuration) -> Iterator[Problem]:
    """One ``Problem`` for each thing that is probably not meant."""
    state = configuration.state.path
    if any(state.is_relative_to(folder) for folder in _PASSING):
        yield Problem(
            f"{state} is in a folder that a restart may empty: positions and dead letters would be lost",
            "state.path",
            mend="put it on a disk that stays",
        )
    if configuration.state.reserve is not None and configuration.state.reserve < _SMALL_RESERVE:
        yield Problem(
            "when spooling has filled the disk down to this, positions and deletions may not fit",
            "state.reserve",
            mend='write "16MB" or more, or remove it',
        )
    yield from _dead_letters(configuration)
    yield from _unconnected(configuration)
    for name, source in configuration.sources.items():
        if isinstance(source, KinesisSettings) and source.poll_interval < _KINESIS_INTERVAL:
            yield Problem(
                "AWS answers five reads a second of a shard, for all its readers together; more are throttled",
                f"sources.{name}.poll_interval",
                mend='write "200ms" or more',
            )
    yield from _paths(configuration)
    for name, output in configuration.outputs.items():
        plugin = plugins.output_class(output.type)
        if problem := plugins.missing_modules(output.type, plugin):
            yield Problem(problem.message, f"outputs.{name}.type", mend=problem.mend)
        yield from _sizes(f"outputs.{name}", output, plugin.limits)


def _dead_letters(configuration: Configuration) -> Iterator[Problem]:
    letters = configuration.dead_letters
    if letters.max_age is not None and letters.max_age < _DAY:
        yield Problem(
            f"what could not be shipped is deleted after {format_duration(letters.max_age)}: hardly time to see it",
            "dead_letters.max_age",
            mend='write "7d" or more, or "never"',
        )
    if letters.output is None:
        return
    if len(configuration.outputs) == 1:
        yield Problem(
            f"outputs.{letters.output} is the only output: what it refuses cannot go there either",
            "dead_letters.output",
            mend="name an output of its own for dead letters",
        )
    elif configuration.outputs[letters.output].sources is None:
        yield Problem(
            "gets the events of all sources, beside the dead letters",
            f"outputs.{letters.output}",
            mend="write sources = [] where it is for dead letters only, or name the sources that are meant",
        )


def _sizes(path: str, output: OutputSettings, limits: Limits) -> Iterator[Problem]:
    batch, largest = output.batch, output.max_event_bytes
    if output.spool.after <= batch.max_wait:
        yield Problem(
            f"events wait {format_duration(batch.max_wait)} for a batch that does not fill, and go to disk after "
            f"{format_duration(output.spool.after)}: they are written there before they are sent",
            f"{path}.spool.after",
            mend="make it longer than batch.max_wait",
        )
    for key, given, limit, text in (
        ("batch.max_events", batch.max_events, limits.max_events, str),
        ("batch.max_bytes", batch.max_bytes, limits.max_bytes, format_size),
        ("max_event_bytes", largest, limits.max_event_bytes, format_size),
    ):
        meant = key == "max_event_bytes" or key.removeprefix("batch.") in batch.model_fields_set
        if meant and given is not None and limit is not None and given > limit:
            yield Problem(
                f"the destination takes at most {text(limit)}, and that counts",
                f"{path}.{key}",
                mend="write no more than that, or remove it",
            )
    if largest is not None and largest > batch.max_bytes:
        yield Problem(
            f"an event of more than {format_size(batch.max_bytes)} is sent alone, in a batch larger than "
            "batch.max_bytes allows",
            f"{path}.max_event_bytes",
            mend="make batch.max_bytes at least as large",
        )
    if largest is not None and largest < _SMALL_EVENT:
        yield Problem(
            "many events are larger even without their statement, and become dead letters",
            f"{path}.max_event_bytes",
            mend=f'write "{format_size(_SMALL_EVENT)}" or more',
        )
    bounded = largest is not None or limits.max_event_bytes is not None or isinstance(output, NetworkSettings)
    if output.oversize == "truncate" and not bounded:
        yield Problem(
            "nothing is cut: this destination takes events of any size",
            f"{path}.oversize",
            mend="give max_event_bytes, or remove oversize",
        )


def _unconnected(configuration: Configuration) -> Iterator[Problem]:
    outputs = configuration.outputs
    for name, output in outputs.items():
        if output.sources == () and name != configuration.dead_letters.output:
            yield Problem("no source feeds this output", f"outputs.{name}.sources", mend="name one, or remove the key")
    for source in configuration.sources:
        if all(output.sources is not None and source not in output.sources for output in outputs.values()):
            yield Problem(
                "no output takes what this source reads",
                f"sources.{source}",
                mend="name it in the sources of an output, or remove it",
            )
    for transform in configuration.transforms:
        if all(output.transforms is not None and transform not in output.transforms for output in outputs.values()):
            yield Problem(
                "no output uses this transform",
                f"transforms.{transform}",
                mend="name it in the transforms of an output, or remove it",
            )


def _paths(configuration: Configuration) -> Iterator[Problem]:
    written: dict[str, str] = {}
    for name, output in configuration.outputs.items():
        path = getattr(output, "path", None)
        if not isinstance(path, str | Path) or output.type != "file":
            continue
        path = str(path)
        if (other := written.setdefault(path, name)) != name:
            yield Problem(
                f"outputs.{other} writes to the same path", f"outputs.{name}.path", mend="give each output its own"
            )
        # Any value will do for a template's fields: what matters is where the files are and how they end.
        example = re.sub(r"\{[^{}]*\}", "x", path)
        for source_name, source in configuration.sources.items():
            if isinstance(source, FileSourceSettings) and fnmatchcase(example, source.path.replace("**/", "*")):
                yield Problem(
                    f"sources.{source_name} reads what this output writes",
                    f"outputs.{name}.path",
                    mend="write to a folder that the source's pattern does not cover",
                )
