"""What is packed, and whether it runs where only it is installed."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from shipper import __version__
from support.environments import REPOSITORY, Environment

TOP_LEVEL = {"shipper", "shipper_console", "shipper_file", "shipper_opensearch", "shipper_splunk_hec"}


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(REPOSITORY)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> Path:
    (path,) = distributions.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def packed(wheel: Path) -> set[PurePosixPath]:
    with zipfile.ZipFile(wheel) as archive:
        return {PurePosixPath(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment in which nothing but the wheel and its libraries is found."""
    environment = Environment(tmp_path_factory.mktemp("installed") / "venv")
    environment.install(wheel)
    return environment


def test_the_wheel_holds_the_packages_and_nothing_else(packed: set[PurePosixPath]) -> None:
    assert {path.parts[0] for path in packed} == {*TOP_LEVEL, f"das_shipper-{__version__}.dist-info"}


def test_the_wheel_holds_every_module_and_no_test_of_the_tree(packed: set[PurePosixPath]) -> None:
    sources = {
        path.relative_to(root).as_posix()
        for root in (REPOSITORY, REPOSITORY / "plugins")
        for top in TOP_LEVEL
        for path in (root / top).rglob("*.py")
    }
    assert {str(path) for path in packed if path.suffix == ".py"} == sources
    assert not [path for path in packed if path.name.startswith(("test_", "conftest"))]


def test_type_checkers_of_plugin_authors_see_the_types(packed: set[PurePosixPath]) -> None:
    assert PurePosixPath("shipper/py.typed") in packed


def test_the_licence_travels_along(packed: set[PurePosixPath]) -> None:
    assert PurePosixPath(f"das_shipper-{__version__}.dist-info/licenses/LICENSE") in packed


def test_the_source_distribution_has_no_tests_and_no_tools(distributions: Path) -> None:
    (path,) = distributions.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        tops = {PurePosixPath(name).parts[1] for name in archive.getnames() if len(PurePosixPath(name).parts) > 1}
    assert {"LICENSE", "PKG-INFO", "README.md", "constraints.txt", "plugins", "pyproject.toml", "shipper"} <= tops
    assert not tops & {"tests", "benchmarks", ".ci", ".venv", "Makefile"}


@pytest.mark.parametrize("command", [["shipper"], ["python", "-m", "shipper"]], ids=" ".join)
def test_the_installed_command_runs(installed: Environment, command: list[str], tmp_path: Path) -> None:
    done = installed.run(*command, "--version", cwd=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, f"shipper, version {__version__}"), done.stderr


def test_what_is_imported_is_what_was_installed(installed: Environment, tmp_path: Path) -> None:
    script = f"for name in {sorted(TOP_LEVEL)}: print(__import__(name).__file__)"
    done = installed.run("python", "-c", script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert all(Path(file).is_relative_to(installed.site_packages) for file in done.stdout.split())


def test_built_in_outputs_are_found_by_their_entry_points(installed: Environment, tmp_path: Path) -> None:
    script = "from shipper.plugins import *\nfor p in installed(): print(p.name, output_class(p.name).__module__)"
    done = installed.run("python", "-c", script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = [line.split(" ") for line in done.stdout.splitlines()]
    assert [(name, module.partition(".")[0]) for name, module in found] == [
        ("console", "shipper_console"),
        ("file", "shipper_file"),
        ("opensearch", "shipper_opensearch"),
        ("splunk_hec", "shipper_splunk_hec"),
    ]
