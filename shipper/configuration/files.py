"""Finds the configuration files, reads them, and lays them over one another, remembering where each value stands."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shipper.configuration.places import KeyPath, places
from shipper.errors import ConfigurationError, Problem

VARIABLE = "SHIPPER_CONFIG"
DEFAULT = Path("/etc/shipper/shipper.toml")


@dataclass(frozen=True, slots=True)
class Place:
    """A file (or ``$SHIPPER_CONFIG``), a line in it (from 1), and which of the files it is."""

    file: str
    line: int
    order: int


@dataclass(slots=True)
class Merged:
    """The files as one table. ``folder`` is what relative paths are relative to; ``where`` says where values stand,
    ``files`` which files were read."""

    folder: Path
    table: dict[str, Any] = field(default_factory=dict)
    where: dict[KeyPath, Place] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)

    def place(self, path: KeyPath) -> Place | None:
        """Where a value stands, or the nearest table around it."""
        for end in range(len(path), 0, -1):
            if found := self.where.get(path[:end]):
                return found
        return None


def read(paths: Sequence[Path | str], environ: Mapping[str, str]) -> Merged:
    """Reads and merges: tables key by key, lists and single values replaced by later files.

    Raises ``ConfigurationError`` with every file that cannot be read or is not TOML.
    """
    named: list[Path | str] = list(paths)
    inline = environ.get(VARIABLE, "") if not named else ""
    if inline and _is_toml(inline):
        merged = Merged(folder=Path.cwd())
        _lay(merged, f"${VARIABLE}", inline, 0)
        return merged
    files = [Path(path) for path in named or [inline or DEFAULT]]
    merged = Merged(folder=files[0].absolute().parent, files=files)
    problems: list[Problem] = []
    for order, path in enumerate(files):
        try:
            _lay(merged, str(path), _text(path, named=bool(named or inline)), order)
        except ConfigurationError as error:
            problems += error.problems
    if problems:
        raise ConfigurationError(*problems)
    return merged


def _is_toml(text: str) -> bool:
    if "\n" in text:
        return True
    try:
        return "=" in text and not Path(text).exists()
    except OSError:  # too long for a path
        return True


def _text(path: Path, *, named: bool) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"byte {error.start} is not UTF-8"
        raise ConfigurationError(Problem(message, file=str(path), mend="save the file as UTF-8")) from None
    except IsADirectoryError:
        problem = Problem("is a folder", file=str(path), mend="name the files in it, one by one")
    except OSError as error:
        mend = f"name a file, or set ${VARIABLE}" if not named else "check the path and its permissions"
        problem = Problem(f"cannot be read: {error.strerror or type(error).__name__}", file=str(path), mend=mend)
    raise ConfigurationError(problem)


#: What ``tomllib`` says → what to do.
_MENDS = (
    ("Invalid value", 'text needs quotes: key = "value"'),
    ("Expected '=' after a key", "a line is [table] or key = value"),
    ("Cannot overwrite a value", "the key is there twice: keep one"),
    ("Cannot declare", "the table is there twice: join the two"),
    ("Expected newline or end of document", "one key = value per line; text needs quotes"),
)


def _lay(merged: Merged, file: str, text: str, order: int) -> None:
    text = text.replace("\r\n", "\n")
    try:
        table = tomllib.loads(text)
        lines = places(text)
    except RecursionError:
        raise ConfigurationError(Problem("nested too deeply", file=file)) from None
    except tomllib.TOMLDecodeError as error:
        what, _, where = str(error).partition(" (at ")
        found = re.match(r"line (\d+), column (\d+)", where)
        line = int(found[1]) if found else text.count("\n") + 1
        mend = next((mend for start, mend in _MENDS if what.startswith(start)), "")
        column = f" in column {found[2]}" if found else " at the end of the file"
        message = f"not TOML: {what[:1].lower()}{what[1:]}{column}"
        raise ConfigurationError(Problem(message, file=file, line=line, mend=mend)) from None
    _merge(merged.table, table, (), {path: Place(file, line, order) for path, line in lines.items()}, merged.where)


def _merge(
    below: dict[str, Any],
    above: dict[str, Any],
    path: KeyPath,
    above_places: dict[KeyPath, Place],
    below_places: dict[KeyPath, Place],
) -> None:
    for key, value in above.items():
        here = (*path, key)
        if isinstance(value, dict) and isinstance(below.get(key), dict):
            _merge(below[key], value, here, above_places, below_places)
            continue
        below[key] = value
        below_places |= {place: at for place, at in above_places.items() if place[: len(here)] == here}
