"""The contract of outputs finds what it looks for: outputs that break it, each in one way, fail the test for that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import ClassVar
from xml.etree import ElementTree

import pytest

from support import broken_outputs
from support.environments import REPOSITORY
from support.shelf import KeepingShelfOutput, ShelfContract, ShelfOutput

BROKEN = Path(broken_outputs.__file__)


class TestShelf(ShelfContract):
    """An output without a fault passes every test."""


class TestKeepingShelf(ShelfContract):
    """So does one with a bookmark."""

    plugin: ClassVar[type[ShelfOutput]] = KeepingShelfOutput
    test_its_module_has_the_hook = None  # type: ignore[assignment]  # the hook of its module returns the other one


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Test class → what its one test said when it failed."""
    report = tmp_path_factory.mktemp("contract") / "report.xml"
    ids = [f"{BROKEN}::{name}::{test}" for name, test in broken_outputs.EXPECTED.items()]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *ids]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        said = "".join(fault.get("message", "") for fault in case if fault.tag in ("failure", "error"))
        if said:
            found[case.get("classname", "").rpartition(".")[2]] = said
    return found


@pytest.mark.parametrize("name", broken_outputs.EXPECTED)
def test_an_output_that_breaks_the_contract_fails(failed: dict[str, str], name: str) -> None:
    assert name in failed, f"{broken_outputs.EXPECTED[name]} passes"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("TestDropsAnEvent", "1 of 3 events are not at the destination"),
        ("TestDoublesAnEvent", "1 events are at the destination more than once"),
        ("TestChangesAnEvent", "arrived with other user"),
        ("TestPointsBeyondTheBatch", "the index 1 is none of a batch of 1 events"),
        ("TestShowsItsTokenInAnException", "secret number 0 is shown in what send raised (Unknown)"),
        ("TestShowsItsTokenInACause", "secret number 0 is shown in what send raised (OSError)"),
        ("TestLogsItsToken", "secret number 0 is shown in a log record of shipper.shelf"),
        ("TestLogsAnEvent", "an event's statement is shown in a log record of shipper.shelf"),
        ("TestSaysNothingOfRefusals", "override `refuse_next`, or say in `unsupported` why it cannot be"),
    ],
)
def test_a_failure_says_what_is_wrong(failed: dict[str, str], name: str, words: str) -> None:
    assert words in failed[name]


def test_the_package_for_tests_can_be_imported_without_pytest() -> None:
    """``shipper demo`` has its fakes from there, where no developer's tool is installed."""
    program = (
        "import sys; sys.modules['pytest'] = None\n"
        "import shipper.testing, shipper.testing.kinesis, shipper.testing.nasty\n"
        "assert 'shipper.testing.contract' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
