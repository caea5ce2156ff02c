"""docs/configuration.md documents every key that exists, and none that does not."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from pydantic import BaseModel

from shipper import settings
from shipper.configuration import not_yet, reference

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def _documented() -> dict[str, set[str]]:
    """Heading → the keys of its table."""
    found: dict[str, set[str]] = {}
    heading = ""
    for line in PAGE.read_text().partition(reference.BEGIN)[2].splitlines():
        if line.startswith("### "):
            heading = line.removeprefix("### ")
            found[heading] = set()
        elif key := re.match(r"\| `([a-z_]+)` \|", line):
            found[heading].add(key[1])
    return found


def test_the_page_is_what_the_settings_say() -> None:
    """Mend it by ``python -m shipper.configuration.reference docs/configuration.md``."""
    assert PAGE.read_text() == reference.renewed(PAGE.read_text())


def test_every_key_of_every_table_is_documented_and_nothing_else() -> None:
    documented = _documented()
    for heading, table, above in reference.sections():
        inherited = {name for base in above for name in base.model_fields}
        keys = {field.alias or name for name, field in table.model_fields.items()}
        assert documented[heading] <= keys
        assert keys - documented[heading] <= inherited
    assert len(documented) == len(list(reference.sections()))


def test_every_settings_table_is_on_the_page() -> None:
    shown = {table for _, table, _ in reference.sections()}
    tables = {
        table
        for table in vars(settings).values()
        if isinstance(table, type) and issubclass(table, BaseModel) and table.__module__ == settings.__name__
    }
    assert tables - shown == {settings.Table}


def test_every_key_has_a_meaning() -> None:
    for _, table, _ in reference.sections():
        for name, field in table.model_fields.items():
            assert field.description, f"{table.__name__}.{name}"


def test_what_is_not_in_this_version_is_said() -> None:
    text = PAGE.read_text().partition("## Not in this version")[2].partition("## ")[0]
    for pattern in not_yet.KEYS:
        key = pattern.split(".")[-1]
        assert f"`{key}`" in text or f".{key}`" in text, pattern


def test_every_piece_of_toml_on_the_page_is_toml() -> None:
    pieces = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert pieces
    for piece in pieces:
        tomllib.loads(piece)
