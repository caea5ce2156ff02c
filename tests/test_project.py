"""What holds for the repository as a whole: sizes, first lines, links, dependencies, nothing of one machine."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from support.environments import REPOSITORY

LARGEST = 500

PROJECT: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
NOT_FOR_USERS = {"all", "dev"}


def _files(*patterns: str) -> list[Path]:
    """What is committed, or new and not ignored."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns]
    listed = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
    return [REPOSITORY / name for name in listed.split("\0") if name and (REPOSITORY / name).is_file()]


def _names(paths: list[Path]) -> list[str]:
    return [path.relative_to(REPOSITORY).as_posix() for path in paths]


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except UnicodeDecodeError:
        return ""


def test_no_source_file_is_over_500_lines() -> None:
    large = [path for path in _files("*.py", "*.md", ".ci/*", "Makefile") if len(_text(path).splitlines()) > LARGEST]
    assert _names(large) == []


def test_every_module_says_in_its_first_line_why_it_exists() -> None:
    silent = []
    for path in _files("*.py"):
        documentation = ast.get_docstring(ast.parse(_text(path)), clean=False)
        if not documentation or not documentation.splitlines()[0].strip():
            silent.append(path)
    assert _names(silent) == []


def test_nothing_names_a_package_registry() -> None:
    registry = re.compile(
        r"pypi\.org/simple|pythonhosted\.org|npmjs\.org|maven\.org|maven\.apache\.org|proxy\.golang\.org"
        r"|(index[-_]url|registry)\s*=\s*['\"]?http",
        re.IGNORECASE,
    )
    assert _names([path for path in _files() if registry.search(_text(path))]) == []


def test_nothing_names_a_folder_of_this_machine() -> None:
    folders = [f"{REPOSITORY}/", f"{Path.home()}/"]
    own = [folder for folder in folders if folder != "//"]
    assert _names([path for path in _files() if any(folder in _text(path) for folder in own)]) == []


def test_the_extra_all_is_every_extra_that_a_user_can_want() -> None:
    (everything,) = map(Requirement, EXTRAS["all"])
    assert everything.name == PROJECT["name"]
    assert everything.extras == set(EXTRAS) - NOT_FOR_USERS


def test_every_output_has_an_extra_of_its_name() -> None:
    assert set(PROJECT["entry-points"]["shipper.outputs"]) == set(EXTRAS) - NOT_FOR_USERS


def test_constraints_pin_every_dependency_to_a_version_that_it_allows() -> None:
    pinned = {}
    for line in (REPOSITORY / "constraints.txt").read_text().splitlines():
        if not line.startswith("#"):
            name, version = re.fullmatch(r"([\w.-]+)==([\w.+!]+)", line).groups()  # type: ignore[union-attr]  # fails
            pinned[canonicalize_name(name)] = version
    wanted = map(Requirement, [*PROJECT["dependencies"], *(each for extra in EXTRAS.values() for each in extra)])
    for dependency in wanted:
        if dependency.name != PROJECT["name"]:
            version = pinned.get(canonicalize_name(dependency.name), "nothing")
            assert dependency.specifier.contains(version), f"{dependency} is pinned to {version}"


@pytest.mark.parametrize("name", sorted(PROJECT["entry-points"]["shipper.outputs"]))
def test_an_output_is_imported_without_its_client_library(name: str) -> None:
    script = f"""
import sys
from shipper.plugins import output_class
found = output_class({name!r})
print([module for module in found.requires if module in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_links_between_pages_lead_somewhere() -> None:
    broken = []
    for page in _files("*.md"):
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", _text(page)):
            if not (page.parent / target).exists():
                broken.append(f"{page.relative_to(REPOSITORY)}: {target}")
    assert broken == []


def test_the_manual_lists_every_one_of_its_pages() -> None:
    index = REPOSITORY / "docs" / "README.md"
    listed = {(index.parent / target).resolve() for target in re.findall(r"\]\(([^)#:\s]+)", _text(index))}
    pages = {path for path in _files("docs/*.md", "docs/**/*.md") if path != index}
    assert _names(sorted(pages - listed)) == []


def test_tests_of_one_group_run_in_one_worker(tmp_path: Path) -> None:
    """Else each worker would start servers of its own, and a test that kills one would not be alone with it."""
    (tmp_path / "test_group.py").write_text(
        """
import os, pytest
@pytest.mark.xdist_group("one")
@pytest.mark.parametrize("number", range(6))
def test_where(number):
    with open("workers", "a") as file:
        file.write(os.environ["PYTEST_XDIST_WORKER"] + "\\n")
"""
    )
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadgroup", "-p", "no:cacheprovider"]
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, env=plain)
    workers = (tmp_path / "workers").read_text().split()
    assert len(workers) == 6
    assert len(set(workers)) == 1
