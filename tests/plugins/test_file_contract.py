"""The file output passes the contract: in one file, in a file for each user, and compressed."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import pytest
import zstandard

import shipper_file.storage
from shipper.output import Outcome
from shipper.testing import OutputContract
from shipper_file import FileOutput
from shipper_file.settings import FileSettings
from support.faulty_disk import FULL, FaultyDisk


class Disk:
    """A folder on a disk that is full when told so, or has something in its place that is no folder."""

    def __init__(self, path: Path) -> None:
        self.folder = path / "out"
        self._elsewhere = path / "elsewhere"
        self._faults: list[int | str] = []

    def fill_once(self) -> None:
        """The next write finds room for half of it."""
        self._faults = ["short", FULL]

    def fault(self, _number: int, name: str) -> int | str | None:
        return self._faults.pop(0) if self._faults and name == "write" else None

    def go(self) -> None:
        if self.folder.exists():
            self.folder.rename(self._elsewhere)
        self.folder.touch()

    def come(self) -> None:
        self.folder.unlink()
        if self._elsewhere.exists():
            self._elsewhere.rename(self.folder)


class TestOneFile(OutputContract):
    path = "events.jsonl"
    unsupported: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(
            [Outcome.THROTTLED, Outcome.NOT_TRIED, Outcome.UNKNOWN, Outcome.TOO_LARGE, Outcome.REJECTED],
            "a disk that has room takes whatever comes",
        ),
        "partial": "a batch is stored wholly or not at all",
    }

    @pytest.fixture
    def destination(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
        disk = Disk(tmp_path)
        monkeypatch.setattr(shipper_file.storage, "os", FaultyDisk(disk.fault))
        return disk

    def output(self, destination: Disk) -> FileOutput:
        settings = FileSettings.model_validate({"type": "file", "path": f"{destination.folder}/{self.path}"})
        return FileOutput("files", settings)

    def received(self, destination: Disk) -> list[bytes]:
        if not destination.folder.exists():
            return []
        return [line for path in sorted(destination.folder.iterdir()) for line in self.lines(path)]

    def lines(self, path: Path) -> Iterator[bytes]:
        content = self.decompress(path.read_bytes())
        assert not content or content.endswith(b"\n")
        yield from content.split(b"\n")[:-1]

    def decompress(self, content: bytes) -> bytes:
        return content

    def refuse_next(self, destination: Disk, outcome: Outcome, event: bytes | None) -> None:
        assert (outcome, event) == (Outcome.HELD, None)
        destination.fill_once()

    def go_away(self, destination: Disk) -> None:
        destination.go()

    def come_back(self, destination: Disk) -> None:
        destination.come()


class TestAFileForEachUser(TestOneFile):
    path = "{user}.jsonl"


class TestGzip(TestOneFile):
    path = "events.jsonl.gz"

    def decompress(self, content: bytes) -> bytes:
        return gzip.decompress(content)


class TestZstandard(TestOneFile):
    path = "events.jsonl.zst"

    def decompress(self, content: bytes) -> bytes:
        with zstandard.ZstdDecompressor().stream_reader(content, read_across_frames=True) as reader:
            return reader.read()
