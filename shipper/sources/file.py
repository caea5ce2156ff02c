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
from shipper.sources.file_content import Content, open_content, unreadable, written
from shipper.sources.file_turns import Turns
from shipper.sources.file_values import LIMIT, LOOK_BACK, Splitter, may_begin

#: Bytes of one read: about as many records as a chunk takes. (Measured: a quarter of it costs 4 % more per event.)
BLOCK = 1024 * 1024
#: Bytes of the first line that tell one file from another of the same name.
HEAD = 4096
#: Seconds between two looks at a file that does not grow.
POLL = 0.5
#: Seconds for which a renamed file is still watched: its writer may not know yet.
AFTERLIFE = 60.0
#: Bytes without a record after which an empty read shows that reading goes on; no value is as long.
QUIET = 2 * LIMIT
#: How many files are read at the same time; one that is held leaves its turn to another.
TURNS = 2
#: How many files may be held before others wait for them.
READERS = 64
#: The latest time of arrival, in nanoseconds: what 64 bits hold (the year 2262). File systems know later ones.
LATEST = 2**63 - 1


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
    is read from its beginning as the partition ``PATH#FINGERPRINT@POSITION``, where the last record of the former one
    stood. Bytes of a path that are no UTF-8 are written ``\\xff`` in it, and a backslash as two.

    A start at a time: a file last modified before it is passed over up to its present end; any other is read from its
    beginning, for no file tells when a line was written.
    """

    Settings = FileSourceSettings
    max_readers: int | None = READERS

    def __init__(self, name: str, settings: FileSourceSettings) -> None:
        super().__init__(name, settings)
        self._pattern = os.path.abspath(settings.path)  # noqa: PTH100 - resolve() would follow links
        self._folder = _literal_folder(self._pattern)
        self._files: dict[str, _File] = {}
        #: By path: how the file looked when its fingerprint was taken, and the fingerprint.
        self._fingerprints: dict[str, tuple[tuple[int, ...], str | None]] = {}
        self._matched = False
        #: Files that were cut or written anew, and the partition that they are since then.
        self._rewritten: dict[_File, str] = {}
        #: The paths of the last listing.
        self._listed: set[str] = set()
        self._turns = Turns(TURNS)
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
        return f"file:{written(self._pattern)}"

    def partitions(self) -> Sequence[Partition]:
        files = {}
        paths = self._paths()
        self._forget(paths)
        for path in paths:
            fingerprint = self._fingerprint(path)
            if fingerprint is not None:
                file = _File(path, fingerprint)
                files[f"{written(os.path.relpath(path, self._folder))}#{fingerprint}"] = file
                if file in self._rewritten:
                    files[self._rewritten[file]] = file
        self._files = files
        return [Partition(name) for name in files]

    def read(self, partition: Partition, begin: Position | Start, stop: StopSignal) -> Iterator[Read]:
        if self.settings.follow:
            yield from self._read(partition, begin, stop)
            return
        taken = held = False
        try:
            while not (taken := self._turns.take(partition.id, POLL)):
                if stop.is_set():
                    return
                yield Read((), None)
        finally:
            if not taken:
                self._turns.give_up(partition.id)
        try:
            yield from self._read(partition, begin, stop)
        except Held:
            held = True
            raise
        finally:
            self._turns.give_back(partition.id, held=held)

    def _read(self, partition: Partition, begin: Position | Start, stop: StopSignal) -> Iterator[Read]:
        file = self._files.get(partition.id)
        content = open_content(file.path, growing=self.settings.follow) if file else None
        if file is None or content is None:
            yield Read((), 0.0)
            return
        with content:
            reading = self._begin(file, partition, content, begin)
            told = content.offset
            while reading is not None and not stop.is_set():
                records = reading.next()
                if records is not None:
                    # An empty read says that the file can be read; one that is held still cannot.
                    if records or content.offset - told > QUIET:
                        told = content.offset
                        yield Read(records, None)
                elif not self.settings.follow:
                    yield Read(reading.rest(), 0.0)
                    return
                elif content.shrunk():
                    if reading.last is not None:
                        self._rewritten[file] = _anew(partition, reading.last)
                        return
                    # Nothing was given, so after a restart it would be this same partition: go on as that.
                    reading = self._begin(file, partition, content, begin)
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
                os.stat(f"{folder}/.")  # noqa: PTH116 - Path drops the dot, which asks whether it may be entered
            except FileNotFoundError:
                if folder == self._folder:
                    raise Held(
                        "target_not_found", f"there is no folder {written(folder)}", "correct path, or make it"
                    ) from None
            except OSError as error:
                raise unreadable(folder, error) from error
        # Path.is_dir() raises where it may not look; opening such a file will tell.
        paths = [path for path in sorted(_matches(self._pattern)) if not os.path.isdir(path)]  # noqa: PTH112 - see above
        self._matched = self._matched or bool(paths)
        if not self._matched and not (self.settings.follow and glob.has_magic(self._pattern)):
            raise Held(
                "target_not_found", f"no file matches {written(self._pattern)}", "correct path, or put the file there"
            )
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

    def _forget(self, paths: Sequence[str]) -> None:
        """Drops what is known of files that are gone, were they missing twice: a writer may be replacing one."""
        kept = self._listed.union(paths)
        self._fingerprints = {path: known for path, known in self._fingerprints.items() if path in kept}
        # A reader may add to it meanwhile.
        for file in [file for file in list(self._rewritten) if file.path not in kept]:
            del self._rewritten[file]
        self._listed = set(paths)

    def _begin(self, file: _File, partition: Partition, content: Content, begin: Position | Start) -> _Reading | None:
        """A reading that stands where ``begin`` says; ``None`` where this partition has nothing to give any more."""
        content.seek(0)
        if _fingerprint(content, growing=self.settings.follow) != file.fingerprint:
            return None  # another file came between: it is a partition of its own
        if self._rewritten.get(file, partition.id) != partition.id:
            return None
        content.seek(0)
        reading = _Reading(content)
        if isinstance(begin, Position):
            if not reading.seek(begin):
                self._rewritten[file] = _anew(partition, begin.record)
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
        #: The position of the last record that was given, now or before; ``None``: none was.
        self.last: int | None = None
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
        self.last = begin.record
        return True

    def pass_over(self) -> None:
        """Goes to the present end of what is complete."""
        while self.next() is not None:
            pass
        self.last = None  # nothing was given

    def next(self) -> list[Record] | None:
        """The next records; ``None`` where nothing more is there at present."""
        block = self.content.read(max(BLOCK, len(self._pending)))
        return self._split(block, final=False) if block or not self._looked else None

    def rest(self) -> list[Record]:
        """What is left where nothing follows. Raises ``Held`` where compressed data is cut off."""
        if self.content.torn:
            raise Held(
                "unreachable",
                f"{written(self.content.path)} ends within a gzip member, at byte {self.content.offset} of the content",
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
        self._splitter.arrived = min(max(0, self.content.fact().st_mtime_ns), LATEST)
        records, used = self._splitter.split(data, self.offset, before=self._before, final=final)
        self._before = (self._before + data[max(0, used - LOOK_BACK) : used])[-LOOK_BACK:]
        self._pending = data[used:]
        self.offset += used
        if records:
            self._moved_away = None
            self.last = records[-1].position
            if records[0].position == self._finished:
                del records[0]
            self._finished = None
        return records


def _anew(partition: Partition, position: int) -> str:
    """The partition that follows when the file was written anew: the same one after a restart, where only the state's
    position tells; another one each time, though the file may be cut at the same place again."""
    return f"{partition.id}@{position}"


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
