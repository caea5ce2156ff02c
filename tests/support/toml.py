"""Configurations for tests: captured records in a file, shipped to a rig or to files, with what each test adds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

Value: TypeAlias = "str | Path | int | float | Sequence[Value] | Mapping[str, Value]"


def configuration(*tables: str, **source: Value) -> str:
    """``[sources.captured]``: ``captured.jsonl`` with the keys of ``keys.json``, or what ``source`` says instead; no
    HTTP server; and these tables, which may be written by hand or by the functions below."""
    keys: dict[str, Value] = {"path": "captured.jsonl", "keys": {"provider": "static", "path": "keys.json"}}
    captured = table("sources.captured", **{"type": "file", **keys, **source})
    quiet = () if any(_begins(text, "server") for text in tables) else (table("server", listen=""),)
    return "\n".join([captured, *tables, *quiet])


def rig(name: str, url: str, **keys: Value) -> str:
    """``[outputs.NAME]`` that posts to a ``Receiver``."""
    return table(f"outputs.{name}", type="rig", url=url, **keys)


def files(name: str = "out", path: str | Path = "out.jsonl", **keys: Value) -> str:
    """``[outputs.NAME]`` into files."""
    return table(f"outputs.{name}", type="file", path=path, **keys)


def table(name: str, **keys: Value) -> str:
    """``[NAME]`` with these keys, ending with a line feed."""
    return f"[{name}]\n" + "".join(f"{key} = {_text(value)}\n" for key, value in keys.items())


def _begins(text: str, name: str) -> bool:
    return any(line.strip() == f"[{name}]" for line in text.splitlines())


def _text(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | Path):
        # JSON's text is TOML's, but for the escape of DEL.
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_text(key)} = {_text(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, Sequence):
        return "[" + ", ".join(_text(inner) for inner in value) + "]"
    return str(value)
