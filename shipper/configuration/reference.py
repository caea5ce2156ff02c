"""The reference tables of docs/configuration.md, made from the settings themselves.

``python -m shipper.configuration.reference docs/configuration.md`` renews the part of the file between its marks; a
test fails while the two differ.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from shipper import plugins
from shipper import settings as tables
from shipper.http import HttpSettings
from shipper.secrets import Secret
from shipper.units import format_duration, format_size

BEGIN = "<!-- reference: made by python -m shipper.configuration.reference -->"
END = "<!-- /reference -->"

#: Heading, table, and the tables whose keys it has too and need not repeat.
SECTIONS: tuple[tuple[str, type[BaseModel], tuple[type[BaseModel], ...]], ...] = (
    ("Top level", tables.Configuration, ()),
    ("`[aws]`", tables.AwsSettings, ()),
    ("`[sources.NAME]`: every source", tables.SourceSettings, ()),
    ('`[sources.NAME]` with `type = "kinesis"`', tables.KinesisSettings, (tables.SourceSettings, tables.AwsSettings)),
    ('`[sources.NAME]` with `type = "file"`', tables.FileSourceSettings, (tables.SourceSettings,)),
    ("`[sources.NAME.keys]`", tables.KeysSettings, (tables.AwsSettings,)),
    ("`[transforms.NAME]`", tables.TransformSettings, ()),
    ("`[outputs.NAME]`: every output", tables.OutputSettings, ()),
    ("`[outputs.NAME.batch]`", tables.BatchSettings, ()),
    ("`[outputs.NAME.retry]`", tables.RetrySettings, ()),
    ("`[outputs.NAME.spool]`", tables.SpoolSettings, ()),
    ("`[outputs.NAME.format]`", tables.FormatSettings, ()),
    ("`[outputs.NAME]`: outputs that ship over the network", tables.NetworkSettings, (tables.OutputSettings,)),
    ("`[outputs.NAME]`: outputs that speak HTTP", HttpSettings, (tables.OutputSettings, tables.NetworkSettings)),
    ("`[outputs.NAME.timeout]`", tables.TimeoutSettings, ()),
    ("`[outputs.NAME.tls]`", tables.TlsSettings, ()),
    ("`[event]`", tables.EventSettings, ()),
    ("`[dead_letters]`", tables.DeadLetterSettings, ()),
    ("`[state]`", tables.StateSettings, ()),
    ("`[server]`", tables.ServerSettings, ()),
    ("`[secrets]`", tables.SecretsSettings, (tables.AwsSettings,)),
    ("`[log]`", tables.LogSettings, ()),
)
#: Outputs that come with shipper, after the common tables of outputs.
OUTPUTS = ("file", "console", "opensearch", "splunk_hec")

_UNITS = {"_size": "size", "_duration": "duration", "_duration_or_never": 'duration or `"never"`'}


def sections() -> Iterator[tuple[str, type[BaseModel], tuple[type[BaseModel], ...]]]:
    """Every table with its heading, in the order of the page."""
    for section in SECTIONS:
        if section[1] is tables.EventSettings:
            for name in OUTPUTS:
                yield from _output(name, plugins.output_class(name).Settings)
        yield section


def reference() -> str:
    """All tables as Markdown."""
    return "\n".join(line for section in sections() for line in _section(*section)) + "\n"


def renewed(page: str) -> str:
    """The page with its part between the marks made anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{reference()}\n{END}{after}"


def _output(
    name: str, settings: type[tables.OutputSettings]
) -> Iterator[tuple[str, type[BaseModel], tuple[type[BaseModel], ...]]]:
    above = (tables.OutputSettings, tables.NetworkSettings, HttpSettings, tables.AwsSettings)
    yield f'`[outputs.NAME]` with `type = "{name}"`', settings, tuple(t for t in above if issubclass(settings, t))
    known = {table for _, table, _ in SECTIONS}
    for key, field in settings.model_fields.items():
        for inner in _flat(field.annotation):
            if isinstance(inner, type) and issubclass(inner, BaseModel) and inner not in known:
                yield f"`[outputs.NAME.{field.alias or key}]` of `{name}`", inner, ()


def _section(heading: str, table: type[BaseModel], above: tuple[type[BaseModel], ...]) -> Iterator[str]:
    yield f"### {heading}"
    yield ""
    yield _plain(" ".join((table.__doc__ or "").split()))
    yield ""
    inherited = {name: base for base in above for name in base.model_fields}
    own = {
        name: field
        for name, field in table.model_fields.items()
        if name not in inherited or (name != "type" and _differs(field, inherited[name].model_fields[name]))
    }
    if own:
        yield "| key | value | default | meaning |"
        yield "|---|---|---|---|"
    for name, field in own.items():
        meaning = (field.description or "").replace("|", "\\|")
        yield f"| `{field.alias or name}` | {_value(field)} | {_default(field)} | {meaning} |"
    if own:
        yield ""


def _differs(field: FieldInfo, inherited: FieldInfo) -> bool:
    return (_value(field), _default(field), field.description) != (
        _value(inherited),
        _default(inherited),
        inherited.description,
    )


def _plain(documentation: str) -> str:
    return documentation.replace("``", "`")


def _unit(field: FieldInfo) -> str:
    for entry in (*field.metadata, *_flat(field.annotation)):
        if isinstance(entry, BeforeValidator) and (unit := _UNITS.get(getattr(entry.func, "__name__", ""))):
            return unit
    return ""


def _value(field: FieldInfo) -> str:
    return _unit(field) or _type(field.annotation)


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return ", ".join(f'`"{value}"`' for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_type(part) for part in arguments if part is not NoneType))
    if origin is dict:
        return "table of texts" if arguments[1] is str else "table"
    if origin in (list, tuple):
        return f"list of {_type(arguments[0])}s"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "text or table" if annotation is tables.FormatSettings else "table"
    names = {str: "text", int: "number", float: "number", bool: "`true`, `false`", Path: "path", Secret: "secret"}
    return names.get(annotation, "time" if annotation.__name__ == "datetime" else annotation.__name__)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    default = field.get_default()
    if default is None:
        return '`"never"`' if "never" in _unit(field) else ""
    if isinstance(default, BaseModel) or field.default_factory is not None:
        return ""
    if _unit(field) == "size":
        return f'`"{format_size(default)}"`'
    if _unit(field):
        return f'`"{format_duration(default)}"`'
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default}`" if isinstance(default, int | float) else f'`"{default}"`'


def _flat(annotation: Any) -> list[Any]:
    arguments = get_args(annotation)
    return [found for argument in arguments for found in _flat(argument)] if arguments else [annotation]


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(renewed(page.read_text()))
