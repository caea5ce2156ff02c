"""Paths in the configuration: a relative one is relative to the folder of the first configuration file.

A settings class, a plugin's too, gives its field one of these types; ``shipper.configuration`` says which folder by
pydantic's validation context. Settings that are made without it (in a test, in code) keep relative paths as they are.
"""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, ValidationInfo

#: Key of the validation context that holds the folder, a ``Path``.
FOLDER = "folder"


def _folder(info: ValidationInfo) -> Path | None:
    context: dict[str, Any] = info.context or {}
    return context.get(FOLDER)


def _path(value: Path, info: ValidationInfo) -> Path:
    folder = _folder(info)
    return folder / value if folder else value


def _pattern(value: str, info: ValidationInfo) -> str:
    folder = _folder(info)
    return value if folder is None or Path(value).is_absolute() else str(Path(glob.escape(str(folder)), value))


def _template(value: str, info: ValidationInfo) -> str:
    folder = _folder(info)
    if folder is None or Path(value).is_absolute():
        return value
    # A template that leaves its folder is refused, so that what leads out of this one is resolved here.
    while value.startswith(("./", "../")):
        folder = folder.parent if value.startswith("../") else folder
        value = value.partition("/")[2]
    return str(folder).replace("{", "{{").replace("}", "}}") + f"/{value}"


#: One file or folder.
LocalPath = Annotated[Path, AfterValidator(_path)]
#: A path or a glob pattern; the folder's own ``*``, ``?`` and ``[`` stand for themselves.
LocalPattern = Annotated[str, AfterValidator(_pattern)]
#: A path with templates in it, such as ``out/{cluster}.jsonl``; the folder's own braces stand for themselves.
LocalTemplate = Annotated[str, AfterValidator(_template)]
