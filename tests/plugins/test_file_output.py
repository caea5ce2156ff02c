"""The file output: which file events go to, who else's files it leaves alone, and what it says when it cannot write."""

from __future__ import annotations

import gzip
import json
import logging
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import zstandard
from pydantic import ValidationError

import shipper_file
from shipper.errors import Held
from shipper.output import Batch, NotTried, Outcome, Report, Target
from shipper.paths import FOLDER
from shipper.plugins import output_class
from shipper_file import FileOutput
from shipper_file.settings import FileSettings, take_apart
from support.small_disk import mounted


class MovedClock:
    """A clock that stands until a test moves it."""

    def __init__(self) -> None:
        self.time = 1_700_000_000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def wait(self, event: Any, seconds: float) -> bool:
        raise AssertionError("an output does not wait")


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., FileOutput]]:
    """Makes outputs of ``tmp_path/out/…`` and closes them."""
    made: list[FileOutput] = []

    def _make(path: str = "out/events.jsonl", bookmark: bytes | None = None, **settings: Any) -> FileOutput:
        clock = settings.pop("clock", None)
        output = FileOutput("files", FileSettings.model_validate({"path": f"{tmp_path}/{path}"} | settings), clock)
        made.append(output)
        output.connect(bookmark)
        return output

    yield _make
    for output in made:
        output.close()


def ship(output: FileOutput, *events: bytes, path: str | None = None) -> Report:
    """Does what the engine does with one batch."""
    (target,) = output.values()
    batch = Batch(events, [(path or target.template,)] * len(events), sum(map(len, events)))
    output.prepare(batch)
    return output.send(batch)


def test_the_configuration_finds_it() -> None:
    assert output_class("file") is FileOutput
    assert FileOutput.ordered


def test_events_are_lines_in_the_order_in_which_they_came(make: Callable[..., FileOutput], tmp_path: Path) -> None:
    output = make()
    assert ship(output, b"1", b"2").failed == {}
    ship(output, b"3")
    assert (tmp_path / "out/events.jsonl").read_bytes() == b"1\n2\n3\n"


def test_a_gzip_file_has_one_member_per_batch(make: Callable[..., FileOutput], tmp_path: Path) -> None:
    output = make("out/events.jsonl.gz")
    ship(output, b"1", b"2")
    first = (tmp_path / "out/events.jsonl.gz").read_bytes()
    ship(output, b"3")
    whole = (tmp_path / "out/events.jsonl.gz").read_bytes()
    assert gzip.decompress(first) == b"1\n2\n"
    assert gzip.decompress(whole[len(first) :]) == b"3\n"


def test_a_zstd_file_has_one_frame_per_batch(make: Callable[..., FileOutput], tmp_path: Path) -> None:
    output = make("out/events.jsonl.zst")
    ship(output, b"1", b"2")
    first = (tmp_path / "out/events.jsonl.zst").read_bytes()
    ship(output, b"3")
    whole = (tmp_path / "out/events.jsonl.zst").read_bytes()
    assert zstandard.decompress(first) == b"1\n2\n"
    assert zstandard.decompress(whole[len(first) :]) == b"3\n"


def test_events_of_one_batch_are_told_apart_by_their_path(make: Callable[..., FileOutput], tmp_path: Path) -> None:
    output = make("out/{database}/{user}.jsonl")
    paths = [f"{tmp_path}/out/{name}.jsonl" for name in ("a/x", "b/y", "a/x", "a/y")]
    batch = Batch([b"1", b"2", b"3", b"4"], [(path,) for path in paths], 4)
    output.prepare(batch)
    output.send(batch)
    assert (tmp_path / "out/a/x.jsonl").read_bytes() == b"1\n3\n"
    assert (tmp_path / "out/b/y.jsonl").read_bytes() == b"2\n"
    assert (tmp_path / "out/a/y.jsonl").read_bytes() == b"4\n"


def test_nobody_else_may_read_what_it_makes(make: Callable[..., FileOutput], tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        ship(make("out/{user}/e.jsonl"), b"1", path=f"{tmp_path}/out/a/e.jsonl")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("out", "out/a", "out/a/e.jsonl")]
    assert modes == [0o700, 0o700, 0o600]


def test_the_path_is_a_target_of_the_engine(make: Callable[..., FileOutput], tmp_path: Path) -> None:
    assert make("out/{database}.jsonl").values() == (Target(f"{tmp_path}/out/{{database}}.jsonl"),)


# -- new files ------------------------------------------------------------------------------------------------------


def test_a_new_file_gets_no_byte_before_its_bookmark(make: Callable[..., FileOutput], tmp_path: Path) -> None:
    output = make()
    batch = Batch([b"1"], [(f"{tmp_path}/out/events.jsonl",)], 1)
    bookmark = output.prepare(batch)
    assert bookmark is not None
    (mark,) = json.loads(bookmark)["files"]
    assert (mark["path"], mark["length"]) == ("events.jsonl", 0)
    assert not (tmp_path / "out/events.jsonl").exists()
    output.send(batch)
    assert output.prepare(batch) is None


def test_a_file_that_reached_its_size_is_followed_by_a_numbered_one(
    make: Callable[..., FileOutput], tmp_path: Path
) -> None:
    output = make(rotate={"max_bytes": 4})
    for event in (b"1", b"2", b"3", b"4", b"5"):
        ship(output, event)
    files = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert files == {"events.jsonl": b"1\n2\n", "events.1.jsonl": b"3\n4\n", "events.2.jsonl": b"5\n"}


def test_a_file_that_is_old_is_followed_by_a_numbered_one(make: Callable[..., FileOutput], tmp_path: Path) -> None:
    clock = MovedClock()
    output = make("out/e.jsonl.gz", rotate={"max_age": "1h"}, clock=clock)
    ship(output, b"1")
    clock.time += 3599
    report = ship(output, b"2")
    output = make("out/e.jsonl.gz", report.bookmark, rotate={"max_age": "1h"}, clock=clock)
    clock.time += 1
    ship(output, b"3")
    assert gzip.decompress((tmp_path / "out/e.jsonl.gz").read_bytes()) == b"1\n2\n"
    assert gzip.decompress((tmp_path / "out/e.1.jsonl.gz").read_bytes()) == b"3\n"


def test_writing_goes_on_in_the_same_file_after_a_restart(make: Callable[..., FileOutput], tmp_path: Path) -> None:
    report = ship(make(), b"1")
    ship(make(bookmark=report.bookmark), b"2")
    assert (tmp_path / "out/events.jsonl").read_bytes() == b"1\n2\n"


def test_what_was_written_after_the_bookmark_is_cut_off(make: Callable[..., FileOutput], tmp_path: Path) -> None:
    output = make()
    report = ship(output, b"1")
    ship(output, b"lost with the crash")
    make(bookmark=report.bookmark)
    assert (tmp_path / "out/events.jsonl").read_bytes() == b"1\n"


def test_it_is_cut_off_also_where_the_path_has_changed_since(make: Callable[..., FileOutput], tmp_path: Path) -> None:
    output = make("old/events.jsonl")
    report = ship(output, b"1")
    ship(output, b"2")
    ship(make("new/events.jsonl", report.bookmark), b"2")
    assert (tmp_path / "old/events.jsonl").read_bytes() == b"1\n"
    assert (tmp_path / "new/events.jsonl").read_bytes() == b"2\n"


# -- other people's files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("taken", [["events.jsonl"], ["events.jsonl", "events.1.jsonl", "events.7.jsonl"]])
def test_a_file_that_it_does_not_know_is_left_alone(
    make: Callable[..., FileOutput], tmp_path: Path, caplog: pytest.LogCaptureFixture, taken: list[str]
) -> None:
    (tmp_path / "out").mkdir()
    for name in taken:
        (tmp_path / "out" / name).write_bytes(b"theirs\n")
    ship(make(), b"1")
    assert all((tmp_path / "out" / name).read_bytes() == b"theirs\n" for name in taken)
    (ours,) = {path.name for path in (tmp_path / "out").iterdir()} - set(taken)
    assert ours == ("events.8.jsonl" if len(taken) > 1 else "events.1.jsonl")
    assert "events.jsonl exists" in caplog.text


def _cut(path: Path) -> None:
    os.truncate(path, 1)


def _edit(path: Path) -> None:
    path.write_bytes(b"X" + path.read_bytes()[1:])


def _replace(path: Path) -> None:
    path.rename(path.with_name("rotated"))
    path.write_bytes(b"theirs, and longer\n")


def _link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


_CHANGES = [_cut, Path.unlink, _replace, _link]


@pytest.mark.parametrize(
    ("change", "running"),
    [(_edit, False), *((change, running) for change in _CHANGES for running in (False, True))],
)
def test_a_file_that_somebody_changed_is_neither_cut_nor_extended(
    make: Callable[..., FileOutput],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    change: Callable[[Path], None],
    running: bool,
) -> None:
    path = tmp_path / "out/events.jsonl"
    output = make()
    report = ship(output, b"first", b"second")
    change(path)
    before = path.read_bytes() if path.exists() else None
    if not running:
        output = make(bookmark=report.bookmark)
    ship(output, b"third")
    assert (path.read_bytes() if path.exists() else None) == before
    assert (tmp_path / "out/events.1.jsonl").read_bytes() == b"third\n"
    assert str(path) in caplog.text
    assert "a new file is begun" in caplog.text


def test_a_file_made_by_somebody_else_between_bookmark_and_first_byte_is_left_alone(
    make: Callable[..., FileOutput], tmp_path: Path
) -> None:
    batch = Batch([b"1"], [(f"{tmp_path}/out/events.jsonl",)], 1)
    bookmark = make().prepare(batch)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/events.jsonl").write_bytes(b"theirs\n")
    (tmp_path / "out/events.jsonl").chmod(0o644)
    ship(make(bookmark=bookmark), b"1")
    assert (tmp_path / "out/events.jsonl").read_bytes() == b"theirs\n"
    assert (tmp_path / "out/events.1.jsonl").read_bytes() == b"1\n"


@pytest.mark.parametrize("begun", [False, True])
def test_a_change_between_prepare_and_send_is_known_not_to_be_stored(
    make: Callable[..., FileOutput], tmp_path: Path, begun: bool
) -> None:
    path = tmp_path / "out/events.jsonl"
    output = make()
    batch = Batch([b"2"], [(str(path),)], 1)
    if begun:
        ship(output, b"1")
    output.prepare(batch)
    path.parent.mkdir(exist_ok=True)
    with path.open("ab") as file:
        file.write(b"theirs\n")
    with pytest.raises(NotTried, match="changed by somebody else"):
        output.send(batch)
    assert path.read_bytes().endswith(b"theirs\n"), "nobody's bytes are cut off but its own"
    ship(output, b"2")
    assert (tmp_path / "out/events.1.jsonl").read_bytes() == b"2\n"


def test_an_empty_file_made_by_somebody_else_is_not_taken_over(make: Callable[..., FileOutput], tmp_path: Path) -> None:
    output = make()
    batch = Batch([b"1"], [(f"{tmp_path}/out/events.jsonl",)], 1)
    output.prepare(batch)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/events.jsonl").touch()
    with pytest.raises(NotTried):
        output.send(batch)
    assert (tmp_path / "out/events.jsonl").read_bytes() == b""


def test_two_targets_of_one_batch_never_share_a_file(make: Callable[..., FileOutput], tmp_path: Path) -> None:
    output = make("out/{user}.jsonl", rotate={"max_bytes": 1})
    paths = [f"{tmp_path}/out/x.jsonl", f"{tmp_path}/out/x.1.jsonl"]
    ship(output, b"1", path=paths[0])
    batch = Batch([b"2", b"3"], [(path,) for path in paths], 2)
    output.prepare(batch)
    output.send(batch)
    assert sorted(path.read_bytes() for path in (tmp_path / "out").iterdir()) == [b"1\n", b"2\n", b"3\n"]


def test_values_cannot_lead_out_of_the_folder_through_a_link(make: Callable[..., FileOutput], tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a").symlink_to(tmp_path / "secret")
    with pytest.raises(Held) as held:
        ship(make("out/{user}/e.jsonl"), b"1", path=f"{tmp_path}/out/a/e.jsonl")
    assert held.value.reason == "unwritable"
    assert list((tmp_path / "secret").iterdir()) == []


@pytest.mark.parametrize("target", ["../e.jsonl", "./e.jsonl", "a//e.jsonl", "x" * 300 + "/e.jsonl", "a/" + "x" * 250])
def test_a_name_that_no_file_can_have_refuses_its_events_alone(
    make: Callable[..., FileOutput], tmp_path: Path, target: str
) -> None:
    output = make("out/{user}/{database}")
    batch = Batch([b"1", b"2"], [(f"{tmp_path}/out/{target}",), (f"{tmp_path}/out/a/good",)], 2)
    output.prepare(batch)
    report = output.send(batch)
    assert [(index, one.outcome, one.reason) for index, one in report.failed.items()] == [
        (0, Outcome.REJECTED, "target_refused")
    ]
    assert (tmp_path / "out/a/good").read_bytes() == b"2\n"
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_a_value_that_looks_like_a_number_shares_no_file(make: Callable[..., FileOutput], tmp_path: Path) -> None:
    output = make("out/{user}.jsonl", rotate={"max_bytes": 1})
    for event, user in ((b"1", "x.1"), (b"2", "x"), (b"3", "x"), (b"4", "x.1"), (b"5", "x." + "9" * 90), (b"6", "x")):
        ship(output, event, path=f"{tmp_path}/out/{user}.jsonl")
    assert sorted(path.read_bytes() for path in (tmp_path / "out").iterdir()) == [b"%d\n" % n for n in range(1, 7)]


# -- many files -----------------------------------------------------------------------------------------------------


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_more_files_than_may_be_open_are_written(
    make: Callable[..., FileOutput], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipper_file, "MAX_OPEN", 3)
    output = make("out/{user}.jsonl")
    paths = [(f"{tmp_path}/out/{number}.jsonl",) for number in range(20)]
    before = _open_files()
    for _ in range(2):
        batch = Batch([b"e"] * 20, paths, 20)
        output.prepare(batch)
        output.send(batch)
        assert _open_files() <= before + 3
    assert {path.read_bytes() for path in (tmp_path / "out").iterdir()} == {b"e\ne\n"}


def test_the_bookmark_forgets_what_was_not_written_to_for_long(
    make: Callable[..., FileOutput], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipper_file, "MAX_KNOWN", 2)
    output = make("out/{time}.jsonl", max_targets=1)
    for day in ("1", "2", "3", "2", "4"):
        report = ship(output, b"e", path=f"{tmp_path}/out/{day}.jsonl")
    assert report.bookmark is not None
    assert [mark["path"] for mark in json.loads(report.bookmark)["files"]] == ["2.jsonl", "4.jsonl"]
    ship(output, b"late", path=f"{tmp_path}/out/1.jsonl")
    assert (tmp_path / "out/1.1.jsonl").read_bytes() == b"late\n"


# -- when it cannot write -------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "small", "64k") as folder:
        yield folder


def test_a_full_disk_holds_and_leaves_no_half_batch(make: Callable[..., FileOutput], small_disk: Path) -> None:
    with closing(make("small/{user}.jsonl")) as output:
        a, b = str(small_disk / "a.jsonl"), str(small_disk / "b.jsonl")
        ship(output, b"x" * 20_000, path=a)
        batch = Batch([b"y" * 20_000, b"z" * 40_000], [(a,), (b,)], 60_000)
        for _ in range(2):
            output.prepare(batch)
            with pytest.raises(Held) as held:
                output.send(batch)
            assert held.value.reason == "disk_full"
            assert (small_disk / "a.jsonl").read_bytes() == b"x" * 20_000 + b"\n"
            assert (small_disk / "b.jsonl").read_bytes() == b""
        subprocess.run(["mount", "-o", "remount,size=256k", str(small_disk)], check=True)
        output.prepare(batch)
        output.send(batch)
        assert (small_disk / "a.jsonl").stat().st_size == 40_002
        assert (small_disk / "b.jsonl").stat().st_size == 40_001


def test_a_disk_that_may_only_be_read_holds(make: Callable[..., FileOutput], small_disk: Path) -> None:
    with closing(make("small/new/e.jsonl")) as output:
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
        with pytest.raises(Held) as held:
            ship(output, b"1")
        assert held.value.reason == "unwritable"
        (check,) = output.check()
        assert not check.ok
        assert check.mend


def test_check_writes_nothing(make: Callable[..., FileOutput], tmp_path: Path) -> None:
    (check,) = make("out/deep/e.jsonl").check()
    assert check.ok
    assert list(tmp_path.iterdir()) == []


def test_a_bookmark_that_cannot_be_read_begins_new_files(
    make: Callable[..., FileOutput], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ship(make(), b"1")
    for bookmark in (b"not json", b'{"version":2,"folder":"/","files":[]}'):
        make(bookmark=bookmark)
        assert "its bookmark cannot be read" in caplog.text
    ship(make(bookmark=b"{}"), b"2")
    assert (tmp_path / "out/events.jsonl").read_bytes() == b"1\n"
    assert (tmp_path / "out/events.1.jsonl").read_bytes() == b"2\n"


def test_warnings_name_the_output_and_no_event(
    make: Callable[..., FileOutput], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = make()
    ship(output, b"audit data")
    (tmp_path / "out/events.jsonl").unlink()
    ship(output, b"audit data")
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("shipper.output.file", logging.WARNING)
    assert "output files: " in record.getMessage()
    assert "audit data" not in caplog.text


# -- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("{cluster}/e.jsonl", "begins with a folder"),
        ("out/", "path of a file is needed"),
        ("out/..", "path of a file is needed"),
        ("out/{cluster}/../e.jsonl", "may follow a value"),
    ],
)
def test_a_path_that_names_no_file_below_a_folder_is_refused(path: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        FileSettings.model_validate({"path": path})


def test_zst_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ValidationError, match=r"das-shipper\[file\]"):
        FileSettings.model_validate({"path": "out/e.jsonl.zst"})
    FileSettings.model_validate({"path": "out/e.jsonl.gz"})


def test_a_relative_path_is_beside_the_configuration(tmp_path: Path) -> None:
    settings = FileSettings.model_validate({"path": "out/{user}.jsonl"}, context={FOLDER: tmp_path})
    assert FileOutput("files", settings).values() == (Target(f"{tmp_path}/out/{{user}}.jsonl"),)


@pytest.mark.parametrize(
    ("template", "folder", "target", "second"),
    [
        ("/a/e.jsonl", "/a", "e.jsonl", "e.1.jsonl"),
        ("/a/e", "/a", "e", "e.1"),
        ("/a/.hidden", "/a", ".hidden", ".hidden.1"),
        ("/e.tar.gz", "/", "e.tar.gz", "e.1.tar.gz"),
        ("/a/x-{user}.log.zst", "/a", "x-b.c.log.zst", "x-b.c.1.log.zst"),
        ("/a/{user}", "/a", "b.c", "b.c.1"),
        ("/a/b/{user}/{time:%Y/%m}.jsonl.gz", "/a/b", "u/202401.jsonl.gz", "u/202401.1.jsonl.gz"),
        ("/a/{user}/e.jsonl", "/a", "u/e.jsonl", "u/e.1.jsonl"),
    ],
)
def test_numbers_stand_before_the_extension(template: str, folder: str, target: str, second: str) -> None:
    parts = take_apart(template)
    assert parts.folder == folder
    assert parts.numbered(target, 0) == target
    assert parts.numbered(target, 1) == second
    assert [parts.number_of(target, name) for name in (target, second, "other")] == [0, 1, None]
    assert parts.number_of(target, parts.numbered(target, 10**9)) is None, "a value may look like any number"
