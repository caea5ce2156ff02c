"""Reads files that match a path or a pattern: captured records, Firehose objects, events as JSON."""

from __future__ import annotations

import glob
import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from shipper.errors import Held
from shipper.settings import FileSourceSettings
from shipper.source import END, Check, Partition, Position, Read, Record, Source, Start, StopSignal
from shipper.sources.file_content import Content, open_content, unreadable
from shipper.sources.file_values import LOOK_BACK, Splitter, may_begin

#: Bytes of one read: a few hundred records.
BLOCK = 256 * 1024
#: Bytes of the first line that tell one file from another of the same name.
HEAD = 4096
#: Seconds between two looks at a file that does not grow.
POLL = 0.5
#: Seconds for which a renamed file is still watched: its writer may not know yet.
AFTERLIFE = 60.0


@dataclass(frozen=True, slots=True)
class _File:
    path: str
    fingerprint: str


class FileSource(Source[FileSourceSettings]):
    """Files as partitions. A record is one JSON value; its position is the offset of its first byte in the
    uncompressed content; ``arrived`` is the file's time of last modification.

    A partition is called ``PATH#FINGERPRINT``: the path below the pattern's literal folder, and a hash of the first
    line (at most 4 KiB), so that another file of the same name is another partition while a growing one stays what it
    is. A file that turns out to be shorter than its position, or to hold no value there, was cut or written anew: it
    is read from its beginning as the partition ``PATH#FINGERPRINT@POSITION``.

    A start at a time: a file last modified before it is passed over up to its present end; any other is read from its
    beginning, for no file tells when a line was written.
    """

    Settings = FileSourceSettings
    max_readers: int | None = 2

    def __init__(self, name: str, settings: FileSourceSettings) -> None:
        super().__init__(name, settings)
        self._pattern = os.path.abspath(settings.path)  # noqa: PTH100 - resolve() would follow links
        self._folder = _literal_folder(self._pattern)
        self._files: dict[str, _File] = {}
        #: By path: how the file looked when its fingerprint was taken, and the fingerprint.
        self._fingerprints: dict[str, tuple[tuple[int, ...], str | None]] = {}
        self._matched = False
        #: Files that were cut or written anew, and the position at which that showed.
        self._rewritten: dict[_File, int] = {}
        #: What a file was long when it was first read; what is added later belongs to ``follow``.
        self._ends: dict[str, int] = {}
        if settings.follow:
            self.max_readers = None  # a reader that follows never makes room for another one

    @property
    def resource_id(self) -> str | None:
        return self.settings.resource_id

    def connect(self) -> None:
        """Raises ``Held`` where nothing can be found: no folder, no permission, or no file that matches."""
        self._paths()

    def identity(self) -> str:
        """The absolute pattern."""
        return f"file:{self._pattern}"

    def partitions(self) -> Sequence[Partition]:
        files = {}
        for path in self._paths():
            fingerprint = self._fingerprint(path)
            if fingerprint is not None:
                file = _File(path, fingerprint)
                name = f"{os.path.relpath(path, self._folder)}#{fingerprint}"
                files[name] = file
                if file in self._rewritten:
                    files[f"{name}@{self._rewritten[file]}"] = file
        self._files = files
        return [Partition(name) for name in files]

    def read(self, partition: Partition, begin: Position | Start, stop: StopSignal) -> Iterator[Read]:
        file = self._files.get(partition.id)
        content = open_content(file.path, self._end(partition)) if file else None
        if file is None or content is None:
            yield Read((), 0.0)
            return
        with content:
            reading = self._begin(file, partition, content, begin)
            while reading is not None and not stop.is_set():
                records = reading.next()
                if records is not None:
                    yield Read(records, None)
                elif not self.settings.follow:
                    yield Read(reading.rest(), 0.0)
                    return
                elif content.shrunk():
                    self._rewritten[file] = reading.offset
                    return
                elif reading.abandoned():
                    yield Read(reading.rest(), 0.0)
                    return
                else:
                    yield Read((), 0.0)
                    stop.wait(POLL)
            if reading is None:
                yield Read((), 0.0)

    def check(self) -> Iterator[Check]:
        try:
            contents = [open_content(path) for path in self._paths()]
        except Held as held:
            yield Check(self.settings.path, ok=False, detail=held.detail, mend=held.mend)
            return
        found = 0
        for content in contents:
            if content is not None:
                content.close()
                found += 1
        detail = f"{found} files can be read" if found != 1 else "1 file can be read"
        yield Check(self.settings.path, ok=True, detail=detail)

    def _paths(self) -> list[str]:
        """Every file that matches. Raises ``Held`` where a typo or a permission may hide some."""
        for folder in _folders(self._pattern):
            try:
                os.scandir(folder).close()
            except FileNotFoundError:
                if folder == self._folder:
                    raise Held("target_not_found", f"there is no folder {folder}", "correct path, or make it") from None
            except OSError as error:
                raise unreadable(folder, error) from error
        paths = [path for path in sorted(_matches(self._pattern)) if not Path(path).is_dir()]
        self._matched = self._matched or bool(paths)
        if not self._matched and not (self.settings.follow and glob.has_magic(self._pattern)):
            raise Held("target_not_found", f"no file matches {self._pattern}", "correct path, or put the file there")
        return paths

    def _fingerprint(self, path: str) -> str | None:
        """``None`` while a file has no first line yet (without ``follow``: no content)."""
        content = open_content(path)
        if content is None:
            return None
        with content:
            fact = content.fact()
            look = (fact.st_dev, fact.st_ino, fact.st_size, fact.st_mtime_ns)
            known = self._fingerprints.get(path)
            if known is None or known[0] != look:
                known = self._fingerprints[path] = (look, _fingerprint(content, growing=self.settings.follow))
            return known[1]

    def _end(self, partition: Partition) -> int | None:
        """Where reading ends, on disk. A file that does not follow is read to the end that it has at first."""
        if self.settings.follow or (file := self._files.get(partition.id)) is None:
            return None
        try:
            return self._ends.setdefault(partition.id, Path(file.path).stat().st_size)
        except OSError:
            return None  # opening it will tell

    def _begin(self, file: _File, partition: Partition, content: Content, begin: Position | Start) -> _Reading | None:
        """A reading that stands where ``begin`` says; ``None`` where this partition has nothing to give any more."""
        if _fingerprint(content, growing=self.settings.follow) != file.fingerprint:
            return None  # another file came between: it is a partition of its own
        if file in self._rewritten and not partition.id.endswith(f"@{self._rewritten[file]}"):
            return None
        content.seek(0)
        reading = _Reading(content)
        if isinstance(begin, Position):
            if not reading.seek(begin):
                self._rewritten[file] = begin.record
                return None
        elif isinstance(begin, datetime) and content.fact().st_mtime < begin.timestamp():
            if not self.settings.follow:
                return None
            reading.pass_over()
        return reading


class _Reading:
    """Reads one open file on from a place."""

    def __init__(self, content: Content) -> None:
        self.content = content
        #: Where the first byte stands that was not given as part of a record.
        self.offset = 0
        self._splitter = Splitter()
        self._before = b""
        self._pending = b""
        self._looked = True  # at what is pending
        self._finished: int | None = None
        self._moved_away: float | None = None

    def seek(self, begin: Position) -> bool:
        """Goes to a record; false where none can begin there: then it is not the file that the position is about."""
        start = max(0, begin.record - LOOK_BACK)
        if not self.content.seek(start):
            return False
        around = b""
        while (missing := begin.record + LOOK_BACK - start - len(around)) and (more := self.content.read(missing)):
            around += more
        self._before, here = around[: begin.record - start], around[begin.record - start :]
        if not here or not may_begin(self._before, here):
            return False
        self._pending, self.offset, self._looked = here, begin.record, False
        self._finished = begin.record if begin.event == END else None
        return True

    def pass_over(self) -> None:
        """Goes to the present end of what is complete."""
        while self.next() is not None:
            pass

    def next(self) -> list[Record] | None:
        """The next records; ``None`` where nothing more is there at present."""
        block = self.content.read(max(BLOCK, len(self._pending)))
        return self._split(block, final=False) if block or not self._looked else None

    def rest(self) -> list[Record]:
        """What is left where nothing follows. Raises ``Held`` where compressed data is cut off."""
        if self.content.torn:
            raise Held(
                "unreachable",
                f"{self.content.path} ends within a gzip member, at byte {self.content.offset} of the content",
                "put a complete copy in its place, or set follow = true where it is still written",
            )
        return self._split(b"", final=True)

    def abandoned(self) -> bool:
        """Whether nothing more is to be expected: deleted, or another file has its name and it has stopped growing."""
        fact = self.content.fact()
        try:
            named = Path(self.content.path).stat()
        except OSError:
            named = None
        if named is not None and os.path.samestat(named, fact):
            self._moved_away = None
            return False
        if self._moved_away is None:
            self._moved_away = time.monotonic()
        return fact.st_nlink == 0 or time.monotonic() - self._moved_away > AFTERLIFE

    def _split(self, block: bytes, *, final: bool) -> list[Record]:
        self._looked = True
        data = self._pending + block if self._pending else block
        self._splitter.arrived = self.content.fact().st_mtime_ns
        records, used = self._splitter.split(data, self.offset, before=self._before, final=final)
        self._before = (self._before + data[max(0, used - LOOK_BACK) : used])[-LOOK_BACK:]
        self._pending = data[used:]
        self.offset += used
        if records:
            self._moved_away = None
            if records[0].position == self._finished:
                del records[0]
            self._finished = None
        return records


def _fingerprint(content: Content, *, growing: bool) -> str | None:
    head, readable = b"", True
    try:
        while len(head) < HEAD and b"\n" not in head and (more := content.read(HEAD - len(head))):
            head += more
    except Held:
        readable = False  # what could be read tells it well enough; reading it will hold
    line, line_feed, _ = head.partition(b"\n")
    whole = bool(line_feed) or len(head) == HEAD or not readable
    if not whole and (growing or not (head or content.torn)):
        return None
    return hashlib.sha256(line).hexdigest()[:16]


def _matches(pattern: str) -> Iterator[str]:
    return glob.iglob(pattern, recursive=True)  # noqa: PTH207 - pathlib takes no absolute patterns


def _literal_folder(pattern: str) -> str:
    folder = Path(pattern).parent
    while glob.has_magic(str(folder)):
        folder = folder.parent
    return str(folder)


def _folders(pattern: str) -> Iterator[str]:
    """The folders in which a pattern looks: the literal one, and those that its parts match."""
    yield _literal_folder(pattern)
    folder = Path(pattern).parent
    while glob.has_magic(str(folder)):
        yield from _matches(f"{folder}/")
        folder = folder.parent
