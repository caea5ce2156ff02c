"""What no single key shows: names that must exist, keys that exclude or need one another, rules that must compile."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from shipper.configuration.explain import Finding, nearest, one_of
from shipper.configuration.places import KeyPath
from shipper.event import FIELDS
from shipper.fields import UnknownField
from shipper.fields import field as event_field
from shipper.output import Output
from shipper.settings import (
    AwsSettings,
    FileSourceSettings,
    FormatSettings,
    KeysSettings,
    KinesisSettings,
    OutputSettings,
    SourceSettings,
    TransformSettings,
)
from shipper.templates import check_template
from shipper.transforms import compile_transform
from shipper.transforms.match import MatchError, compile_match
from shipper.units import format_size
from shipper.values import Target, Text

_NAMES_OF_A_STREAM = ("cluster", "instance", "resource_id", "stream")
#: Services that shipper itself calls. Others may be a plugin's, but hardly when they look like one of these.
_SERVICES = ("kinesis", "kms", "rds", "sts", "logs", "secretsmanager", "ssm")


@dataclass(slots=True)
class Draft:
    """The tables that are right by themselves. ``names`` are the user's names of each kind, also of wrong tables;
    ``dead_letters_to`` is what the files give as ``dead_letters.output``."""

    names: dict[str, list[str]]
    aws: AwsSettings = field(default_factory=AwsSettings)
    sources: dict[str, SourceSettings] = field(default_factory=dict)
    transforms: dict[str, TransformSettings] = field(default_factory=dict)
    outputs: dict[str, tuple[type[Output[Any]], OutputSettings]] = field(default_factory=dict)
    dead_letters_to: str | None = None


def check(draft: Draft) -> Iterator[Finding]:
    """Everything that is wrong with the tables together."""
    if not draft.names["sources"]:
        yield Finding(("sources",), "there is no source", 'add [sources.NAME] with type = "kinesis" or "file"')
    if not draft.names["outputs"]:
        yield Finding(("outputs",), "there is no output", 'add [outputs.NAME] with type = "file", for example')
    yield from _services(("aws",), draft.aws)
    for name, source in draft.sources.items():
        yield from _source(("sources", name), source)
    yield from _same_stream(draft.sources)
    for name, transform in draft.transforms.items():
        try:
            compile_transform(transform)
        except MatchError as error:
            yield _match(("transforms", name, "match"), error)
    for name, (plugin, settings) in draft.outputs.items():
        yield from _output(("outputs", name), name, plugin, settings, draft)
    yield from _earlier_names(draft)
    if draft.dead_letters_to and draft.names["outputs"]:
        yield from _exists(("dead_letters", "output"), "outputs", draft.dead_letters_to, draft.names["outputs"])


def _source(path: KeyPath, source: SourceSettings) -> Iterator[Finding]:
    if isinstance(source, AwsSettings):
        yield from _services(path, source)
    if isinstance(source, KinesisSettings):
        given = [key for key in _NAMES_OF_A_STREAM if getattr(source, key) is not None]
        if not given:
            yield Finding(path, "nothing says which stream to read", f"give one of {', '.join(_NAMES_OF_A_STREAM)}")
        elif len(given) > 1:
            yield Finding(path, f"{' and '.join(given)} name the stream, each in its own way", "keep one of them")
    if isinstance(source, (KinesisSettings, FileSourceSettings)):
        yield from _keys(path, source, source.keys)


def _keys(path: KeyPath, source: KinesisSettings | FileSourceSettings, keys: KeysSettings) -> Iterator[Finding]:
    yield from _services((*path, "keys"), keys)
    if keys.provider == "static" and keys.path is None:
        yield Finding((*path, "keys", "path"), "is missing: with static keys, the file that holds them")
    if keys.provider == "kms" and keys.path is not None:
        yield Finding((*path, "keys", "path"), "is for static keys only", 'write provider = "static", or remove path')
    encrypted = isinstance(source, FileSourceSettings) and source.decode != "events"
    if encrypted and keys.provider == "kms" and source.resource_id is None:
        yield Finding(
            (*path, "resource_id"),
            "is missing: KMS unwraps a captured record's key only for the cluster or instance that it came from",
            'give resource_id = "cluster-…", or keys = { provider = "static", path = "…" }, '
            'or decode = "events" where nothing is encrypted',
        )


def _services(path: KeyPath, aws: AwsSettings) -> Iterator[Finding]:
    if isinstance(aws.endpoint_url, Mapping):
        for service in aws.endpoint_url:
            if service not in _SERVICES and (near := difflib.get_close_matches(service, _SERVICES, 1, 0.8)):
                yield Finding((*path, "endpoint_url", service), "unknown service", f"did you mean {near[0]}?")


def _same_stream(sources: Mapping[str, SourceSettings]) -> Iterator[Finding]:
    seen: dict[tuple[object, ...], str] = {}
    for name, source in sources.items():
        if isinstance(source, KinesisSettings):
            stream = (source.region, source.role_arn, *(getattr(source, key) for key in _NAMES_OF_A_STREAM))
            first = seen.setdefault(stream, name)
            if first != name and any(stream[2:]):
                yield Finding(
                    ("sources", name),
                    f"reads the same stream as sources.{first}",
                    "remove one of them: a source feeds as many outputs as you like",
                )


def _output(
    path: KeyPath, name: str, plugin: type[Output[Any]], settings: OutputSettings, draft: Draft
) -> Iterator[Finding]:
    if isinstance(settings, AwsSettings):
        yield from _services(path, settings)
    for kind, given in (("sources", settings.sources), ("transforms", settings.transforms)):
        yield from _names((*path, kind), kind, given or (), draft.names[kind])
    if plugin.ordered and settings.concurrency != 1:
        yield Finding(
            (*path, "concurrency"),
            f'an output of type "{settings.type}" keeps order and sends one batch at a time',
            "remove concurrency",
        )
    if settings.retry.initial > settings.retry.max:
        yield Finding((*path, "retry"), "initial is longer than max", "make max at least as long")
    yield from _sizes(path, settings)
    if settings.match is not None:
        try:
            compile_match(settings.match)
        except MatchError as error:
            yield _match((*path, "match"), error)
    yield from _format((*path, "format"), settings.type, settings.format)
    yield from _templates(path, name, plugin, settings)


def _names(path: KeyPath, kind: str, given: Collection[str], known: Collection[str]) -> Iterator[Finding]:
    for index, name in enumerate(given):
        yield from _exists((*path, index), kind, name, known)
    if len(set(given)) < len(given):
        yield Finding(path, "a name is there twice", "keep one")


def _exists(path: KeyPath, kind: str, name: str, known: Collection[str]) -> Iterator[Finding]:
    if name not in known:
        near = nearest(name, known)
        there = f"there are {one_of(known)}" if known else f"there are no {kind}"
        yield Finding(path, f"[{kind}.{name}] does not exist", f'did you mean "{near}"?' if near else there)


def _match(path: KeyPath, error: MatchError) -> Finding:
    for part in re.findall(r"[^.\[\]]+", error.key):
        path = (*path, int(part) if part.isdecimal() else part)
    return Finding(path, error.message, error.mend)


def _sizes(path: KeyPath, settings: OutputSettings) -> Iterator[Finding]:
    spool = settings.spool.max_bytes
    if spool < settings.batch.max_bytes:
        yield Finding(
            (*path, "spool", "max_bytes"),
            f"the spool holds {format_size(spool)}, less than one batch of {format_size(settings.batch.max_bytes)}",
            "make spool.max_bytes at least as large as batch.max_bytes",
        )
    elif settings.max_event_bytes is not None and spool < settings.max_event_bytes:
        yield Finding(
            (*path, "spool", "max_bytes"),
            f"the spool holds {format_size(spool)}, less than one event of {format_size(settings.max_event_bytes)}",
            "make spool.max_bytes at least as large as max_event_bytes",
        )
    if settings.oversize == "truncate" and settings.format.type != "native":
        yield Finding(
            (*path, "oversize"),
            f"only the format native has fields that can be cut, not {settings.format.type}",
            'write format = "native", or oversize = "dead_letter"',
        )


def _earlier_names(draft: Draft) -> Iterator[Finding]:
    """``renamed_from``: what one output owes goes to one other, and to nobody while it is still configured."""
    heirs: dict[str, str] = {}
    for name, (_, settings) in draft.outputs.items():
        earlier, path = settings.renamed_from, ("outputs", name, "renamed_from")
        if earlier is None:
            continue
        if earlier == name:
            yield Finding(path, "is the output's own name", "write its earlier name, or remove renamed_from")
        elif earlier in draft.names["outputs"]:
            yield Finding(
                path,
                f"[outputs.{earlier}] is still there, and keeps what it owes",
                f"remove renamed_from, or [outputs.{earlier}]",
            )
        elif heirs.setdefault(earlier, name) != name:
            yield Finding(
                path,
                f"outputs.{heirs[earlier]} goes on for {earlier} already",
                "keep one of the two: what an output owes goes to one other",
            )


def _format(path: KeyPath, type_: str, settings: FormatSettings) -> Iterator[Finding]:
    if settings.type == "pretty" and type_ != "console":
        yield Finding(path, "pretty is for people who look at a console", 'write "native" or "raw"')
    if settings.only is not None and settings.except_ is not None:
        yield Finding(path, "only and except exclude each other", "keep one of them")
    for key, names in (("only", settings.only), ("except", settings.except_)):
        if names is not None and settings.type != "native":
            yield Finding((*path, key), "is for the format native", 'write type = "native", or remove it')
        for index, name in enumerate(names or ()):
            if name not in FIELDS:
                try:
                    event_field(name)
                except UnknownField as error:
                    yield Finding((*path, key, index), error.message, error.mend)
                else:
                    table = name.partition(".")[0]
                    yield Finding((*path, key, index), "only whole fields can be chosen", f'write "{table}"')


def _templates(path: KeyPath, name: str, plugin: type[Output[Any]], settings: OutputSettings) -> Iterator[Finding]:
    try:
        values = plugin(name, settings).values()
    except Exception as error:  # noqa: BLE001  # whatever a plugin does wrong is told about that output
        yield Finding(path, f"the plugin cannot be made with these settings: {type(error).__name__}: {error}")
        return
    for value in values:
        if isinstance(value, Target | Text):
            try:
                check_template(value.template, target=isinstance(value, Target))
            except ValueError as error:
                keys = [key for key, given in settings if given == value.template]
                yield Finding((*path, *keys[:1]), str(error))
