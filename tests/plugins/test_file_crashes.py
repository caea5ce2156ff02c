"""The file output's promise: whatever call a crash, a power cut or an error hits, each event is there exactly once."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
import zstandard

import shipper_file.storage
from shipper.errors import Held
from shipper.output import Batch, NotTried
from shipper_file import FileOutput
from shipper_file.settings import FileSettings
from support.faulty_disk import BROKEN, FULL, Crash, FaultyDisk

SUFFIXES = ["", ".gz", ".zst"]
Fault = Callable[[int, str], int | str | None]


def event(number: int) -> bytes:
    return b'{"n":%d}' % number


#: Which target each event of each batch goes to: two files, a folder that appears later, files that rotate.
SCRIPT = [["a/x", "a/x"], ["a/x", "b/y"], ["a/x"], ["b/y", "b/y", "a/x"], ["c/z"], ["a/x", "b/y", "c/z"], ["a/x"]]


class Rig:
    """The engine's part: what it commits, and in which order."""

    def __init__(self, folder: Path, suffix: str) -> None:
        self.folder = folder
        self.suffix = suffix
        #: Called after an error with the files as they were before the batch.
        self.after_an_error: Callable[[dict[str, bytes]], None] = lambda _before: None
        self.template = f"{folder}/deep/out/{{database}}/{{user}}.jsonl{suffix}"
        self.settings = FileSettings.model_validate({"path": self.template, "rotate": {"max_bytes": 40}})
        self.committed: tuple[int, bytes | None] = (0, None)
        self.sent: tuple[int, bytes | None] = (0, None)
        numbers = iter(range(1000))
        self.batches = [
            Batch([event(next(numbers)) for _ in targets], [(self.path(target),) for target in targets], 0)
            for targets in SCRIPT
        ]

    def path(self, target: str) -> str:
        return f"{self.folder}/deep/out/{target}.jsonl{self.suffix}"

    def run(self, fault: Fault = lambda _number, _name: None) -> FaultyDisk:
        """Starts, connects, sends what is not committed; commits in groups of three, as the state file does."""
        disk = FaultyDisk(fault)
        output = FileOutput("files", self.settings)
        with pytest.MonkeyPatch.context() as monkeypatch, suppress(Crash):
            monkeypatch.setattr(shipper_file.storage, "os", disk)
            self._deliver(output)
        output.close()  # the system closes what a dead process had open
        return disk

    def _deliver(self, output: FileOutput) -> None:
        while True:
            try:
                output.connect(self.committed[1])
                break
            except Held:
                continue
        self.sent = self.committed
        while self.sent[0] < len(self.batches):
            batch = self.batches[self.sent[0]]
            before = self.files()
            try:
                bookmark = output.prepare(batch)
                if bookmark is not None:
                    self.committed = (self.sent[0], bookmark)
                report = output.send(batch)
            except (Held, NotTried):
                self.after_an_error(before)
                continue
            assert not report.failed
            self.sent = (self.sent[0] + 1, report.bookmark)
            if self.sent[0] % 3 == 0 or self.sent[0] == len(self.batches):
                self.committed = self.sent

    def files(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in sorted(self.folder.rglob("*.jsonl*"))}

    def content(self, target: str) -> list[bytes]:
        """Lines of a target's files, in the order of their numbers."""
        path = Path(self.path(target))
        stem = path.name.removesuffix(f".jsonl{self.suffix}")
        numbered = {}
        for found in path.parent.glob(f"{stem}.*"):
            middle = found.name.removeprefix(stem).removesuffix(f".jsonl{self.suffix}")
            numbered[int(middle[1:] or 0)] = self.unpack(found.read_bytes())
        return [line for _, content in sorted(numbered.items()) for line in content.splitlines()]

    def unpack(self, content: bytes) -> bytes:
        if self.suffix == ".gz":
            return gzip.decompress(content) if content else b""
        if self.suffix == ".zst":
            with zstandard.ZstdDecompressor().stream_reader(content, read_across_frames=True) as reader:
                return reader.read()
        return content

    def check(self) -> None:
        """Each event once, in its target's files, in the order in which it was read."""
        wanted: dict[str, list[bytes]] = {}
        for batch, targets in zip(self.batches, SCRIPT, strict=True):
            for one, target in zip(batch.events, targets, strict=True):
                wanted.setdefault(target, []).append(one)
        assert {target: self.content(target) for target in wanted} == wanted


def of(faults: Mapping[int, int | str]) -> Fault:
    return lambda call, _name: faults.get(call)


def at(number: int, what: int | str) -> Fault:
    return of({number: what})


def among(numbers: range, what: int) -> Fault:
    return of(dict.fromkeys(numbers, what))


def _filled(files: dict[str, bytes]) -> dict[str, bytes]:
    return {path: content for path, content in files.items() if content}


@pytest.fixture
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Rig]:
    """Makes rigs in folders of their own."""
    return lambda: Rig(tmp_path_factory.mktemp("crash"), request.param)


every_suffix = pytest.mark.parametrize("rig", SUFFIXES, indirect=True)


@every_suffix
def test_the_script_does_all_that_can_crash(rig: Callable[[], Rig]) -> None:
    one = rig()
    names: list[str] = []
    one.run(lambda _number, name: names.append(name))
    one.check()
    assert set(names) == set(FaultyDisk.COUNTED) - {"ftruncate"}
    assert any(".1.jsonl" in path for path in one.files()), "something rotated"


@every_suffix
@pytest.mark.parametrize("power", [False, True], ids=["killed", "power cut"])
def test_a_crash_at_any_call_doubles_and_loses_nothing(rig: Callable[[], Rig], power: bool) -> None:
    calls = rig().run().calls
    for number in range(1, calls + 1):
        one = rig()
        disk = one.run(at(number, "crash"))
        if power:
            disk.cut_the_power()
        one.run()
        one.check()


@every_suffix
def test_a_crash_while_recovering_from_a_crash_doubles_and_loses_nothing(rig: Callable[[], Rig]) -> None:
    randomness = random.Random(7)
    for _ in range(60):
        one = rig()
        for _ in range(4):
            disk = one.run(at(randomness.randint(1, 60), "crash"))
            if randomness.random() < 0.5:
                disk.cut_the_power()
        one.run()
        one.check()


@every_suffix
@pytest.mark.parametrize("error", [FULL, BROKEN])
def test_an_error_at_any_call_leaves_every_file_as_it_was(rig: Callable[[], Rig], error: int) -> None:
    calls = rig().run().calls
    failed = 0
    for number in range(1, calls + 1):
        one = rig()

        def unchanged(before: dict[str, bytes], one: Rig = one) -> None:
            nonlocal failed
            failed += 1
            assert _filled(one.files()) == _filled(before)

        one.after_an_error = unchanged
        one.run(at(number, error))
        one.check()
    assert failed == calls


@every_suffix
def test_errors_that_also_hit_the_cutting_back_are_made_good_later(rig: Callable[[], Rig]) -> None:
    calls = rig().run().calls
    for number in range(1, calls + 1):
        for length in (2, 3, 6):
            one = rig()
            one.run(among(range(number, number + length), FULL))
            one.check()


@every_suffix
def test_a_crash_after_an_error_doubles_and_loses_nothing(rig: Callable[[], Rig]) -> None:
    calls = rig().run().calls
    for number in range(1, calls + 1):
        for later in (1, 2, 3, 5):
            one = rig()
            faults: dict[int, int | str] = {number: BROKEN, number + later: "crash"}
            one.run(of(faults))
            one.run()
            one.check()


@every_suffix
def test_short_writes_are_completed(rig: Callable[[], Rig]) -> None:
    one = rig()
    shortened: list[int] = []

    def every_second(number: int, name: str) -> str | None:
        if name != "write" or number % 2:
            return None
        shortened.append(number)
        return "short"

    one.run(every_second)
    one.check()
    assert shortened
