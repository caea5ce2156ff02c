"""One folder and the files that are written below it: opening without following links, appending, cutting back."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shipper_file.bookmark import TAIL, Mark, checksum

_FOLDER_MODE, _FILE_MODE = 0o700, 0o600
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE_FLAGS = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


#: What opening says where a file or its folder is gone, or a link stands in its place.
_ELSEWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class Changed(Exception):
    """A file is not what this output left: renamed, deleted, cut, or written by somebody else."""


class Folder:
    """The literal beginning of a path. Below it no symbolic link is followed: names there come from events."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._prefix = path.rstrip("/") + "/"
        self._not_durable: set[Path] = set()

    def full(self, path: str) -> str:
        return self._prefix + path

    def exists(self, path: str) -> bool:
        return os.path.lexists(self.full(path))

    def siblings(self, path: str) -> list[str]:
        """The names in the folder that holds ``path``."""
        try:
            return [found.name for found in Path(self.full(path)).parent.iterdir()]
        except FileNotFoundError:
            return []

    def open_parent(self, path: str, *, create: bool) -> int:
        """A descriptor of the folder that holds ``path``. What is created is 0700 and durable."""
        if create:
            self._make(Path(self.path))
            while self._not_durable:
                self._sync(next(iter(self._not_durable)))
        descriptor = os.open(self.path, _FOLDER_FLAGS)
        try:
            for name in path.split("/")[:-1]:
                if create:
                    with suppress(FileExistsError):
                        os.mkdir(name, _FOLDER_MODE, dir_fd=descriptor)
                    os.fsync(descriptor)
                inner = os.open(name, _FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = inner
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _make(self, path: Path) -> None:
        if path.is_dir():
            return
        self._make(path.parent)
        self._not_durable.add(path.parent)
        try:
            os.mkdir(path, _FOLDER_MODE)  # noqa: PTH102 - the same call as below, which pathlib cannot make
        except FileExistsError:
            if not path.is_dir():
                raise

    def _sync(self, path: Path) -> None:
        descriptor = os.open(path, _FOLDER_FLAGS)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._not_durable.discard(path)


class OutputFile:
    """A file that one output writes, or is about to begin. What stands beyond ``length`` bytes does not count."""

    def __init__(self, folder: Folder, target: str, path: str, number: int, born: float) -> None:
        self.folder = folder
        self.target = target
        self.path = path
        self.number = number
        self.born = born
        self.length = 0
        self.tail = b""
        #: There may be bytes beyond ``length`` that could not be cut off.
        self.frayed = False
        self._descriptor: int | None = None
        self._identity: tuple[int, int] | None = None
        self._mark: Mark | None = None

    @property
    def begun(self) -> bool:
        """Whether it exists on disk."""
        return self._identity is not None

    @property
    def is_open(self) -> bool:
        return self._descriptor is not None

    def mark(self) -> Mark:
        """What the bookmark says of it."""
        if self._mark is None:
            self._mark = Mark(self.target, self.path, self.number, self.length, checksum(self.tail), self.born)
        return self._mark

    def is_intact(self) -> bool:
        """Whether the name still stands for this file, and nobody else changed its length. Raises ``OSError``."""
        try:
            fact = os.lstat(self.folder.full(self.path))
        except OSError as error:
            if error.errno not in _ELSEWHERE:
                raise
            return False
        return (fact.st_dev, fact.st_ino) == self._identity and fact.st_size == self.length

    def append(self, content: bytes) -> None:
        """Writes behind the end; ``sync`` makes it durable and ``accept`` counts it. Raises ``OSError``,
        ``Changed``."""
        descriptor = self._open()
        if os.fstat(descriptor).st_size != self.length:
            raise Changed
        self.frayed = True
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]

    def sync(self) -> None:
        assert self._descriptor is not None
        os.fdatasync(self._descriptor)

    def accept(self, content: bytes) -> None:
        """What was appended is stored."""
        self.frayed = False
        self.length += len(content)
        self.tail = content[-TAIL:] if len(content) >= TAIL else (self.tail + content)[-TAIL:]
        self._mark = None

    def cut(self) -> None:
        """Cuts off what a failed call may have left beyond ``length``, through a new descriptor: after a failed sync
        the old one is not to be trusted (Linux may drop what it could not write). Raises ``OSError``."""
        self.close()
        if not self.frayed:
            return
        try:
            descriptor = self._open()
        except Changed:
            self.frayed = False  # it is not ours any more
            return
        if os.fstat(descriptor).st_size > self.length:
            os.ftruncate(descriptor, self.length)
            os.fdatasync(descriptor)
        self.frayed = False

    def recover(self, mark: Mark) -> str | None:
        """Takes up a file that a bookmark tells of and cuts it to the length there. Returns what is wrong with it
        where that may not be done; then it is left alone. Raises ``OSError``."""
        try:
            with self._parent(create=False) as parent:
                self._descriptor = descriptor = os.open(self._name, _FILE_FLAGS, dir_fd=parent)
        except OSError as error:
            if error.errno not in _ELSEWHERE:
                raise
            return "is missing" if mark.length else None
        fact = os.fstat(descriptor)
        fault = _fault(fact, mark)
        if fault is None:
            self.tail = _read(descriptor, max(0, mark.length - TAIL), mark.length)
            fault = None if checksum(self.tail) == mark.checksum else "holds other bytes"
        if fault is not None:
            self.close()
            return fault
        if fact.st_size > mark.length:
            os.ftruncate(descriptor, mark.length)
            os.fdatasync(descriptor)
        self.length = mark.length
        self._identity = (fact.st_dev, fact.st_ino)
        return None

    def close(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)

    @property
    def _name(self) -> str:
        return self.path.rpartition("/")[2]

    @contextmanager
    def _parent(self, *, create: bool) -> Iterator[int]:
        descriptor = self.folder.open_parent(self.path, create=create)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _open(self) -> int:
        if self._descriptor is not None:
            return self._descriptor
        flags = _FILE_FLAGS if self.begun else _FILE_FLAGS | os.O_CREAT | os.O_EXCL
        try:
            with self._parent(create=not self.begun) as parent:
                descriptor = os.open(self._name, flags, _FILE_MODE, dir_fd=parent)
                self._descriptor = descriptor
                fact = os.fstat(descriptor)
                identity = (fact.st_dev, fact.st_ino)
                if self._identity not in (None, identity):
                    self.close()
                    raise Changed
                self._identity = identity
                os.fsync(parent)
        except OSError as error:
            if error.errno == errno.EEXIST or (self.begun and error.errno in _ELSEWHERE):
                raise Changed from error
            raise
        return descriptor


def _fault(fact: os.stat_result, mark: Mark) -> str | None:
    if not stat.S_ISREG(fact.st_mode):
        return "is no file"
    if fact.st_size < mark.length:
        return "is shorter"
    if mark.length == 0 and (fact.st_uid != os.geteuid() or fact.st_nlink != 1 or stat.S_IMODE(fact.st_mode) & 0o077):
        return "was made by somebody else"  # no checksum can tell: only a file as this output makes them is cut
    return None


def _read(descriptor: int, start: int, end: int) -> bytes:
    found = b""
    while missing := end - start - len(found):
        block = os.pread(descriptor, missing, start + len(found))
        if not block:
            break
        found += block
    return found
