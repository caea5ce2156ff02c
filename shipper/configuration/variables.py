"""``${NAME}``, ``${NAME:-default}`` and ``$${`` in the values of the configuration, replaced after parsing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shipper.configuration.places import KeyPath

_USE = re.compile(r"\$\$\{|\$\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\})?")


@dataclass(slots=True)
class Replaced:
    """The table with its variables replaced.

    ``whole`` holds the values that are one ``${…}`` and nothing else: they may stand for numbers and booleans.
    ``used`` says which variables a value came from, so that messages name these instead of quoting what may be a
    secret; ``values`` are the variables' values, for the same reason. ``problems`` are paths and what is wrong there.
    """

    table: dict[str, Any]
    whole: set[KeyPath] = field(default_factory=set)
    used: dict[KeyPath, tuple[str, ...]] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    problems: list[tuple[KeyPath, str, str]] = field(default_factory=list)


def replace(table: Mapping[str, Any], environ: Mapping[str, str]) -> Replaced:
    """A copy of the table with every variable in a string value replaced, once: the result is not looked at again."""
    replaced = Replaced(table={})
    replaced.table = {key: _replace(value, (key,), environ, replaced) for key, value in table.items()}
    return replaced


def _replace(value: Any, path: KeyPath, environ: Mapping[str, str], replaced: Replaced) -> Any:
    if isinstance(value, dict):
        return {key: _replace(inner, (*path, key), environ, replaced) for key, inner in value.items()}
    if isinstance(value, list):
        return [_replace(inner, (*path, index), environ, replaced) for index, inner in enumerate(value)]
    if not isinstance(value, str) or "${" not in value:
        return value
    names: list[str] = []

    def text(found: re.Match[str]) -> str:
        name, default = found["name"], found["default"]
        if found[0] == "$${":
            return "${"
        if name is None:
            replaced.problems.append(
                (
                    path,
                    "${ begins a variable that does not end or has no proper name",
                    "write ${NAME}; $${ stands for ${",
                )
            )
            return ""
        names.append(name)
        if name not in environ and default is None:
            mend = f"set it, or write ${{{name}:-default}}"
            replaced.problems.append((path, f"the environment variable {name} is not set", mend))
            return ""
        # Like a shell's ":-": what is set but empty takes the default too.
        result = environ.get(name, "") or default or ""
        replaced.values[name] = result
        return result

    result = _USE.sub(text, value)
    if names:
        replaced.used[path] = tuple(dict.fromkeys(names))
        if (found := _USE.fullmatch(value)) and found["name"]:
            replaced.whole.add(path)
    return result
