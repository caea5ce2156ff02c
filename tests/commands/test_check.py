"""``shipper check`` says what would be shipped, what is surprising, and who answers."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from shipper.commands import check as command_module
from shipper.commands.check import Answer, ask
from shipper.configuration import load
from shipper.configuration.advice import advice
from shipper.errors import ConfigurationError, Held, Problem
from shipper.output import Check

PLUGIN = """
from shipper.hookspecs import hookimpl
from shipper.output import Check, Held, Output, OutputSettings, Report

class Settings(OutputSettings):
    mood: str = "good"

class Moody(Output):
    Settings = Settings

    def check(self):
        yield Check("reachable", True, "it is there")
        if self.settings.mood == "bad":
            yield Check("permitted", False, "not you", "ask nicely")
        if self.settings.mood == "held":
            raise Held("access_denied", "go away", "grant it")

    def send(self, batch):
        return Report()

@hookimpl
def shipper_output():
    return Moody
"""

CONFIGURATION = """
[sources.captured]
type = "file"
path = "records.jsonl"
decode = "events"

[transforms.quiet]
type = "drop"
match = { user = "rdsadmin" }

[outputs.siem]
type = "moody"
mood = "good"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a plugin, a configuration (``shipper.toml``) and what it names."""
    (tmp_path / "test_plugin_moody.py").write_text(PLUGIN)
    info = tmp_path / "moody-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: moody\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[shipper.outputs]\nmoody = test_plugin_moody\n")
    (tmp_path / "shipper.toml").write_text(CONFIGURATION)
    (tmp_path / "records.jsonl").write_text('{"type":"DatabaseActivityMonitoringRecord"}\n')
    return tmp_path


def _check(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = "import sys; sys.path.insert(0, sys.argv.pop(1)); from shipper.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, str(folder), "check", *arguments],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_valid_configuration_is_summed_up(folder: Path) -> None:
    done = _check(folder, "shipper.toml")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "ok: the configuration is valid")
    (row,) = [line for line in done.stdout.splitlines() if "siem" in line]
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        "siem",
        "moody",
        "captured (file)",
        "quiet",
        "everything",
        "native",
    ]


def test_a_wrong_configuration_exits_with_78_and_every_problem_on_stderr(folder: Path) -> None:
    (folder / "over.toml").write_text("[outputs.siem]\nmod = 1\n[log]\nlevel = 'loud'\n")
    done = _check(folder, "-c", "shipper.toml", "over.toml")
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.splitlines() == [
        "error: the configuration has 2 problems:",
        "  over.toml:2: outputs.siem.mod: unknown key; did you mean mood?",
        '  over.toml:4: log.level: found "loud", allowed: "debug", "info", "warning", "error"',
    ]


def test_plain_arguments_follow_what_c_gave(folder: Path) -> None:
    (folder / "1.toml").write_text("[outputs.siem]\nmood = 'one'\nformat = 'raw'\n")
    (folder / "2.toml").write_text("[outputs.siem]\nformat = 'native'\n")
    assert "raw" in _check(folder, "2.toml", "-c", "shipper.toml", "-c", "1.toml", "1.toml").stdout
    assert "raw" not in _check(folder, "2.toml", "-c", "shipper.toml", "-c", "1.toml").stdout


def test_everything_that_answers_well_is_ok(folder: Path) -> None:
    done = _check(folder, "shipper.toml", "--connect")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "it is there" in done.stdout
    assert done.stdout.splitlines()[-1] == "ok: the configuration is valid, and everything that it names answers"


@pytest.mark.parametrize(
    ("mood", "words"), [("bad", ("permitted", "ask nicely")), ("held", ("access denied", "grant it"))]
)
def test_one_bad_answer_is_exit_code_1_and_says_what_to_do(folder: Path, mood: str, words: tuple[str, str]) -> None:
    (folder / "mood.toml").write_text(f"[outputs.siem]\nmood = '{mood}'\n")
    done = _check(folder, "shipper.toml", "mood.toml", "--connect")
    assert done.returncode == 1
    (row,) = [line for line in done.stdout.splitlines() if words[1] in line]
    assert [cell.strip() for cell in row.strip("│").split("│")][1:3] == [words[0], "no"]
    assert "reachable" in done.stdout


def test_a_secret_that_cannot_be_read_is_a_bad_answer(folder: Path) -> None:
    (folder / "key.toml").write_text("[event]\nid_key = 'file:none'\n")
    done = _check(folder, "shipper.toml", "key.toml", "--connect")
    assert done.returncode == 1
    assert "event.id_key: its file cannot be read" in done.stdout
    (folder / "none").write_text("hunter2")
    done = _check(folder, "shipper.toml", "key.toml", "--connect")
    assert done.returncode == 0
    assert "hunter2" not in done.stdout + done.stderr


def test_warnings_stand_on_stderr_and_change_nothing(folder: Path) -> None:
    (folder / "over.toml").write_text("[outputs.siem]\ntransforms = []\n[state]\npath = '/tmp/shipper.db'\n")
    done = _check(folder, "shipper.toml", "over.toml")
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        "warning: state.path: /tmp/shipper.db is in a folder that a restart may empty: positions and dead letters "
        "would be lost; put it on a disk that stays",
        "warning: transforms.quiet: no output uses this transform; name it in the transforms of an output, "
        "or remove it",
    ]


# Asking


def _never() -> Iterator[Check]:
    threading.Event().wait()
    yield Check("answers", True)


def _raises(error: Exception) -> Iterator[Check]:
    yield Check("first", True)
    raise error


def test_who_does_not_answer_in_time_hides_nobody_elses_answer() -> None:
    answers = ask({"slow": _never, "quick": lambda: iter([Check("reachable", True)])}, 0.2)
    assert answers == [
        Answer("slow", Check("answers", False, "no answer within 0.2 s", "check the address and the network between")),
        Answer("quick", Check("reachable", True)),
    ]


@pytest.mark.parametrize(
    ("error", "check"),
    [
        (Held("access_denied", "no", "grant it"), Check("access denied", False, "no", "grant it")),
        (ConfigurationError(Problem("odd", "a.b")), Check("settings", False, "a.b: odd")),
        (RuntimeError("odd"), Check("answers", False, "RuntimeError: odd")),
    ],
)
def test_what_a_component_raises_is_its_last_answer(error: Exception, check: Check) -> None:
    answers = ask({"a": lambda: _raises(error)}, 10)
    assert [answer.check for answer in answers] == [Check("first", True), check]


def test_a_component_with_nothing_to_ask_is_ok() -> None:
    assert ask({"a": lambda: iter(())}, 10) == [Answer("a", Check("settings", True, "nothing to ask"))]


def test_a_state_folder_that_cannot_be_written_is_a_bad_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def access(path: Path, mode: int) -> bool:
        asked.append(path)
        return False

    monkeypatch.setattr("os.access", access)
    (check,) = command_module._state(tmp_path / "new" / "deep" / "shipper.db")
    assert (check.ok, check.mend) == (False, f"let the user that runs shipper write to {tmp_path}")
    assert asked == [tmp_path]


# Advice


def _advice(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.syspath_prepend(str(folder))
    (folder / "over.toml").write_text("[state]\npath = '/var/lib/shipper/state.db'\n" + text)
    loaded = load([folder / "shipper.toml", folder / "over.toml"], environ={})
    return [f"{problem.key}: {problem.message}" for problem in advice(loaded)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", []),
        (
            "[outputs.siem]\nsources = []\n",
            [
                "outputs.siem.sources: no source feeds this output",
                "sources.captured: no output takes what this source reads",
            ],
        ),
        ("[outputs.siem]\ntransforms = []\n", ["transforms.quiet: no output uses this transform"]),
        (
            "[sources.live]\ntype = 'kinesis'\ncluster = 'c'\npoll_interval = '100ms'\n",
            [
                "sources.live.poll_interval: AWS answers five reads a second of a shard, for all its readers together; "
                "more are throttled"
            ],
        ),
        (
            "[outputs.files]\ntype = 'file'\npath = '/data/{cluster}/a.jsonl'\n"
            "[outputs.same]\ntype = 'file'\npath = '/data/{cluster}/a.jsonl'\n",
            ["outputs.same.path: outputs.files writes to the same path"],
        ),
        (
            "[outputs.files]\ntype = 'file'\npath = '/data/{cluster}/a.jsonl'\n"
            "[sources.captured]\npath = '/data/**/*.jsonl'\n",
            ["outputs.files.path: sources.captured reads what this output writes"],
        ),
    ],
)
def test_what_is_surprising_is_told_and_nothing_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: list[str]
) -> None:
    assert _advice(folder, text, monkeypatch) == told
