"""Which stream of the state file a configured source reads: positions belong to what is read, not to its name."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from shipper.errors import StateError
from shipper.settings import Configuration, FileSourceSettings, KinesisSettings, SourceSettings
from shipper.sources import source_class
from shipper.sources.kinesis_names import STREAM_PREFIX, resolve


def stream_of(connection: sqlite3.Connection, configuration: Configuration, source: str) -> int:
    """The id of the stream that a source reads; of several with one name the last one that was made.

    AWS is asked only where the configuration names a cluster or an instance: which stream is theirs, RDS knows. Raises
    ``StateError`` where the state file knows none, or several that could be meant; ``Held`` where RDS gives no answer.
    """
    settings = configuration.sources.get(source)
    if settings is None:
        message = f"position: the configuration has no source {source!r}"
        raise StateError(f"{message}; sources: {', '.join(configuration.sources)}")
    name = _stream_name(source, settings, ask=True)
    found = {series: stream for stream, series, _ in _matching(connection, source, settings, name)}
    if not found:
        raise StateError(
            f"position: the state file knows nothing of what the source {source!r} reads: it was never run"
        )
    if len(found) > 1:
        raise StateError(
            f"position: the source {source!r} could be any of {', '.join(sorted(found))}; give it its region"
        )
    (stream,) = found.values()
    return stream


def names_of(connection: sqlite3.Connection, configuration: Configuration) -> dict[int, str]:
    """Stream ids and the sources that read them, as far as that can be said without asking AWS."""
    names = {}
    for source, settings in configuration.sources.items():
        name = _stream_name(source, settings, ask=False)
        names.update({stream: source for stream, _, _ in _matching(connection, source, settings, name)})
    return names


def _stream_name(source: str, settings: SourceSettings, *, ask: bool) -> str | None:
    if not isinstance(settings, KinesisSettings):
        return None
    if settings.stream is not None:
        return settings.stream
    if settings.resource_id is not None:
        return STREAM_PREFIX + settings.resource_id
    return resolve(settings, f"source {source}").stream if ask else None


def _matching(
    connection: sqlite3.Connection, source: str, settings: SourceSettings, name: str | None
) -> Iterator[tuple[int, str, str]]:
    """Id, series and identity of the streams that a source may read, the oldest first."""
    rows: list[tuple[int, str, str]] = connection.execute(
        "SELECT id, series, identity FROM streams ORDER BY id"
    ).fetchall()
    if isinstance(settings, FileSourceSettings):
        identity = source_class(settings.type)(source, settings).identity()
        yield from (row for row in rows if row[2] == identity)
    elif isinstance(settings, KinesisSettings) and name is not None:
        for row in rows:
            # arn:aws:kinesis:REGION:ACCOUNT:stream/NAME
            parts = row[1].split(":", 5)
            ours = len(parts) == 6 and parts[2] == "kinesis" and parts[5] == f"stream/{name}"
            if ours and settings.region in (None, parts[3]):
                yield row
