"""What is legal in a configuration but surprising: told by ``shipper check``, refused by nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from shipper import plugins
from shipper.errors import Problem
from shipper.settings import Configuration, FileSourceSettings, KinesisSettings

#: Folders that a restart of the machine empties.
_PASSING = tuple(map(Path, ("/tmp", "/var/tmp", "/dev/shm", "/run")))  # noqa: S108  # named, not written to
#: GetRecords: five transactions a second and shard, for all readers together (Kinesis API Reference).
_KINESIS_INTERVAL = 0.2


def advice(configuration: Configuration) -> Iterator[Problem]:
    """One ``Problem`` for each thing that is probably not meant."""
    state = configuration.state.path
    if any(state.is_relative_to(folder) for folder in _PASSING):
        yield Problem(
            f"{state} is in a folder that a restart may empty: positions and dead letters would be lost",
            "state.path",
            mend="put it on a disk that stays",
        )
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
        if problem := plugins.missing_modules(output.type, plugins.output_class(output.type)):
            yield Problem(problem.message, f"outputs.{name}.type", mend=problem.mend)


def _unconnected(configuration: Configuration) -> Iterator[Problem]:
    outputs = configuration.outputs
    for name, output in outputs.items():
        if output.sources == ():
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
