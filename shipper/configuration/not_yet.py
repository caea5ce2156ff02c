"""What the documented plan of the configuration has and this version lacks: refused by name instead of "unknown"."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from shipper import __version__, plugins
from shipper.configuration.places import KeyPath

#: Keys, with ``*`` for a name that the user chose, and what to do until they exist.
KEYS: dict[str, str] = {
    "sources.*.timezone": "remove it: times in activity streams are UTC",
    "sources.*.consumer": "remove it: shards are polled",
    "state.type": "remove it: the state is a file",
    "state.table": "remove it: the state is a file",
    "server.status_token": "remove it: /health, /ready and /metrics need none",
}


def _pattern(value: object) -> bool:
    return isinstance(value, list) or (isinstance(value, str) and bool(set("*?[") & set(value)))


def _one_of(*values: str) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and value in values


def _output_to_come(value: object) -> bool:
    planned = _one_of("opensearch", "splunk_hec", "kafka", "cloudwatch_logs")
    return planned(value) and value not in {plugin.name for plugin in plugins.installed()}


#: Keys that exist but not with these values, and what to write.
VALUES: dict[str, tuple[Callable[[object], bool], str]] = {
    "sources.*.type": (_one_of("cloudwatch_logs", "s3"), 'the sources of this version are "kinesis" and "file"'),
    "sources.*.decode": (_one_of("engine_log"), 'write "auto", "das" or "events"'),
    "sources.*.engine": (
        _one_of("mysql", "mariadb", "postgresql", "documentdb"),
        'engines with an activity stream are "aurora-postgresql", "aurora-mysql", "oracle" and "sqlserver"',
    ),
    "sources.*.stream": (_pattern, "name one stream; several streams are several sources"),
    "transforms.*.type": (_one_of("redact", "sample"), 'the transforms of this version are "keep" and "drop"'),
    "outputs.*.type": (_output_to_come, "this version ships to files and the console; other outputs come as plugins"),
    "outputs.*.format": (_one_of("ecs", "ocsf", "cim", "cef", "leef"), 'write "native" or "raw"'),
    "outputs.*.format.type": (_one_of("ecs", "ocsf", "cim", "cef", "leef"), 'write "native" or "raw"'),
}


def take_out(table: dict[str, Any]) -> Iterator[tuple[KeyPath, str, str]]:
    """Takes what this version lacks out of the table, and yields the path, what is wrong and the mend for each.

    A table of a type that this version lacks is emptied: nothing else about it can be judged.
    """
    for pattern, mend in KEYS.items():
        for around, key, parent in list(_find(table, tuple(pattern.split(".")))):
            del parent[key]
            yield (*around, key), f"not in this version ({__version__})", mend
    for pattern, (lacks, mend) in VALUES.items():
        for around, key, parent in list(_find(table, tuple(pattern.split(".")))):
            value = parent[key]
            if lacks(value):
                name = f'"{value}"' if isinstance(value, str) else "a list"
                if key == "type":
                    parent.clear()
                else:
                    del parent[key]
                yield (*around, key), f"{name} is not in this version ({__version__})", mend


def _find(table: Any, pattern: tuple[str, ...], path: KeyPath = ()) -> Iterator[tuple[KeyPath, str, dict[str, Any]]]:
    """Every place that the pattern names: the path to its table, the key in it, the table."""
    if not isinstance(table, dict):
        return
    head, *rest = pattern
    for key in list(table) if head == "*" else [head] * (head in table):
        if rest:
            yield from _find(table[key], tuple(rest), (*path, key))
        else:
            yield path, key, table
