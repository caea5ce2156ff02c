"""Output plugins are found by the name that users write, and only what is named is imported."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shipper import plugins
from shipper.errors import ConfigurationError
from shipper.output import Batch, Output, OutputSettings, Report

OUTPUT = """
from shipper.hookspecs import hookimpl
from shipper.output import Output, Report

class Theirs(Output):
    requires = ("json", "a_module_that_nobody_has", "a_package.that_nobody_has")
    def send(self, batch):
        return Report()

@hookimpl
def shipper_output():
    return Theirs
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """``install(package, name, module, code)``: a package with one output."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(package: str, name: str, module: str, code: str = OUTPUT) -> None:
        (tmp_path / f"{module}.py").write_text(code)
        info = tmp_path / f"{package.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[shipper.outputs]\n{name} = {module}\n")

    yield install
    for module in [name for name in sys.modules if name.startswith("test_plugin_")]:
        del sys.modules[module]


def _refusal(name: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        plugins.output_class(name)
    return str(caught.value)


def test_a_plugin_is_found_by_the_name_of_its_entry_point(install: Install) -> None:
    install("their-package", "theirs", "test_plugin_one")
    found = plugins.output_class("theirs")
    assert issubclass(found, Output)
    assert found.__module__ == "test_plugin_one"


def test_what_is_installed_is_listed_without_importing_it(install: Install) -> None:
    install("their-package", "theirs", "test_plugin_broken", "raise RuntimeError('imported')")
    assert plugins.Installed("theirs", "their-package", "test_plugin_broken") in plugins.installed()
    assert "test_plugin_broken" not in sys.modules


def test_naming_one_plugin_imports_no_other(install: Install) -> None:
    install("their-package", "theirs", "test_plugin_one")
    install("other-package", "others", "test_plugin_other")
    plugins.output_class("theirs")
    assert "test_plugin_other" not in sys.modules


def test_an_unknown_name_is_told_the_nearest_and_all_that_there_are(install: Install) -> None:
    install("their-package", "theirs", "test_plugin_one")
    assert _refusal("their") == (
        'no output plugin is called "their"; did you mean "theirs"? '
        "installed: console, file, opensearch, splunk_hec, theirs"
    )


def test_two_packages_with_one_name_are_refused_and_both_named(install: Install) -> None:
    install("their-package", "theirs", "test_plugin_one")
    install("other-package", "theirs", "test_plugin_other")
    assert _refusal("theirs") == (
        'two packages bring an output called "theirs": other-package (test_plugin_other) and '
        "their-package (test_plugin_one); uninstall one of them"
    )


def test_one_package_found_twice_is_one_plugin(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("their-package", "theirs", "test_plugin_one")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert plugins.output_class("theirs").__name__ == "Theirs"
    assert [plugin.name for plugin in plugins.installed()].count("theirs") == 1


def test_a_plugin_that_cannot_be_imported_is_told_with_its_package(install: Install) -> None:
    install("their-package", "theirs", "test_plugin_broken", "import a_module_that_nobody_has")
    assert _refusal("theirs") == (
        'the output plugin "theirs" of their-package cannot be imported: '
        "ModuleNotFoundError(\"No module named 'a_module_that_nobody_has'\"); mend or reinstall their-package"
    )


@pytest.mark.parametrize(
    "code",
    ["", "from shipper.hookspecs import hookimpl\n@hookimpl\ndef shipper_output():\n    return dict\n"],
    ids=["no hook", "no output"],
)
def test_a_module_that_returns_no_output_is_refused(install: Install, code: str) -> None:
    install("their-package", "theirs", "test_plugin_empty", code)
    assert _refusal("theirs") == (
        "test_plugin_empty of their-package has no hook shipper_output that returns an Output class; "
        "see docs/writing-an-output.md"
    )


def test_modules_that_are_missing_are_told_with_how_to_install_them(install: Install) -> None:
    install("their-package", "theirs", "test_plugin_one")
    problem = plugins.missing_modules("theirs", plugins.output_class("theirs"))
    assert problem is not None
    assert str(problem) == (
        'the output type "theirs" needs a_module_that_nobody_has, a_package.that_nobody_has, which this environment '
        "lacks; pip install 'their-package[theirs]'"
    )


def test_nothing_is_missing_where_everything_is_there() -> None:
    class Complete(Output[OutputSettings]):
        requires = ("json",)

        def send(self, batch: Batch) -> Report:
            return Report()

    assert plugins.missing_modules("file", Complete) is None
