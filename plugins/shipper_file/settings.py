"""The keys of the file output, and what its path says: a literal folder, a name, numbers, a compression."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from shipper.paths import LocalTemplate
from shipper.settings import OutputSettings, Table
from shipper.units import Duration, Size
from shipper_file.compression import missing, suffix_of


def _file_path(value: str) -> str:
    if value.startswith("{"):
        raise PydanticCustomError("path", "a path begins with a folder, not with a value of the event: write out/{…}")
    if value.endswith("/") or PurePosixPath(value).name in ("", "..") or "\0" in value:
        raise PydanticCustomError("path", 'the path of a file is needed, such as "out/{engine}.jsonl"')
    if ".." in value[_beginning(value) :].split("/"):
        raise PydanticCustomError("path", 'no ".." may follow a value of the event')
    module = missing(value)
    if module is not None:
        raise PydanticCustomError(
            "module",
            "{suffix} needs {module}, which this environment lacks: pip install 'das-shipper[file]', or use .gz",
            {"suffix": suffix_of(value), "module": module},
        )
    return value


class RotateSettings(Table):
    """When a new numbered file is begun; nothing is ever renamed."""

    max_bytes: Size | None = Field(None, ge=1, description="once a file has reached this size on disk; default: never")
    max_age: Duration | None = Field(None, gt=0, description="once a file is older than this; default: never")


class FileSettings(OutputSettings):
    """Events as lines in files, each batch on disk before it counts as delivered."""

    type: Literal["file"] = Field("file", description="`file`")
    path: Annotated[LocalTemplate, AfterValidator(_file_path)] = Field(
        description="a template such as `out/{cluster}/{time:%Y-%m-%d}.jsonl.gz`; `.gz` and `.zst` compress"
    )
    rotate: RotateSettings = Field(RotateSettings(), description="when a new numbered file is begun; default: never")


@dataclass(frozen=True, slots=True)
class PathParts:
    """A path template taken apart: ``folder`` is literal, ``extension`` and ``suffix`` are the name's literal end."""

    folder: str
    extension: str
    suffix: str

    def numbered(self, target: str, number: int) -> str:
        """What the file of a target is called: ``a.jsonl.gz``, then ``a.1.jsonl.gz`` …"""
        if number == 0:
            return target
        end = self.extension + self.suffix
        return f"{target.removesuffix(end)}.{number}{end}"

    def number_of(self, target: str, path: str) -> int | None:
        """The number in the name of one of a target's files."""
        end = self.extension + self.suffix
        beginning = target.removesuffix(end) + "."
        if path == target:
            return 0
        digits = path.removeprefix(beginning).removesuffix(end)
        numbered = len(digits) < 10 and digits.isdecimal() and self.numbered(target, int(digits)) == path
        return int(digits) if numbered else None


def take_apart(template: str) -> PathParts:
    """The parts of an absolute path template."""
    suffix = suffix_of(template)
    name = template.removesuffix(suffix)
    ending = name[name.rfind("}") + 1 :].rpartition("/")[2]
    stem, dot, extension = ending.rpartition(".")
    literal_name = "}" not in name.rpartition("/")[2]
    has_extension = bool(dot) and (bool(stem) or not literal_name)
    return PathParts(
        template[: _beginning(template)].rstrip("/") or "/", dot + extension if has_extension else "", suffix
    )


def _beginning(template: str) -> int:
    """How long the literal folder is, with its last slash."""
    brace = template.find("{")
    return template.rfind("/", 0, brace if brace >= 0 else len(template)) + 1
