"""Where a relative path of the configuration leads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from shipper.paths import FOLDER, LocalPath, LocalPattern, LocalTemplate

INSIDE = {FOLDER: Path("/etc/ship[1]/{a}")}


@pytest.mark.parametrize(
    ("template", "path"),
    [
        ("out/{cluster}.jsonl", "/etc/ship[1]/{{a}}/out/{cluster}.jsonl"),
        ("{cluster}.jsonl", "/etc/ship[1]/{{a}}/{cluster}.jsonl"),
        ("./out", "/etc/ship[1]/{{a}}/out"),
        ("../out", "/etc/ship[1]/out"),
        (".././../out", "/etc/out"),
        ("../../../../out", "/out"),
        ("out/../x", "/etc/ship[1]/{{a}}/out/../x"),
        ("/out/{x}", "/out/{x}"),
    ],
)
def test_a_template_begins_beside_the_first_file(template: str, path: str) -> None:
    found = TypeAdapter(LocalTemplate).validate_python(template, context=INSIDE)
    assert found.replace("//", "/") == path


@pytest.mark.parametrize(
    ("pattern", "path"), [("in/*.jsonl", "/etc/ship[[]1]/{a}/in/*.jsonl"), ("/in/[ab]", "/in/[ab]")]
)
def test_a_pattern_begins_beside_the_first_file_whose_folder_is_no_pattern(pattern: str, path: str) -> None:
    assert TypeAdapter(LocalPattern).validate_python(pattern, context=INSIDE) == path


@pytest.mark.parametrize("kind", [LocalPath, LocalPattern, LocalTemplate])
def test_without_a_folder_a_path_stays_as_it_is(kind: Any) -> None:
    assert str(TypeAdapter(kind).validate_python("a/../b")) == "a/../b"
