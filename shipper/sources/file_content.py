"""The uncompressed bytes of a plain or gzip-compressed file, told apart by the file's first bytes, not its name."""

from __future__ import annotations

import errno
import os
import stat
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from isal import igzip_lib

from shipper.errors import Held

#: First bytes of a gzip member (RFC 1952, 2.3.1).
GZIP_MAGIC = b"\x1f\x8b"
_COMPRESSED_BLOCK = 64 * 1024
_GzipError: type[Exception] = igzip_lib.error  # type: ignore[assignment]  # its stub takes the class for an instance


def written(path: str) -> str:
    """A path as text that every encoder takes, and no two paths alike: file systems keep bytes, not characters."""
    return os.fsencode(path).replace(b"\\", rb"\\").decode("utf-8", "backslashreplace")


def open_content(path: str, *, growing: bool = True) -> Content | None:
    """Opens a regular file to be read from its beginning; one that is not ``growing`` to the end that it has now.

    ``None`` where nothing or something else than a regular file is there. Raises ``Held`` where it may not be read.
    """
    try:
        # Not blocking: whoever puts a pipe in the place of a file stops nobody.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ELOOP):
            return None
        raise unreadable(path, error) from error
    try:
        fact = os.fstat(descriptor)
        if not stat.S_ISREG(fact.st_mode):
            os.close(descriptor)
            return None
        compressed = os.pread(descriptor, len(GZIP_MAGIC), 0) == GZIP_MAGIC
    except OSError as error:
        os.close(descriptor)
        raise unreadable(path, error) from error
    return (GzipContent if compressed else PlainContent)(path, descriptor, None if growing else fact.st_size)


def unreadable(path: str, error: OSError) -> Held:
    """The hold for a file that the system does not let us read."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return Held(
            "access_denied",
            f"{written(path)} may not be read ({error.strerror})",
            "permit the shipper's user to read it",
        )
    return Held(
        "unreachable",
        f"{written(path)} cannot be read ({error.strerror})",
        "see to the disk or the mount that holds it",
    )


class Content(ABC):
    """What a file holds. ``offset`` is the place of the next byte in the uncompressed content."""

    def __init__(self, path: str, descriptor: int, end: int | None) -> None:
        self.path = path
        self.offset = 0
        self._descriptor = descriptor
        self._place = 0  # of the next byte on disk
        self._end = end

    @abstractmethod
    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes; none where nothing more is there at present. Raises ``Held``."""

    @abstractmethod
    def seek(self, offset: int) -> bool:
        """Goes to ``offset``; false where the content is shorter."""

    @property
    def torn(self) -> bool:
        """Whether the file ends within a compressed member."""
        return False

    def fact(self) -> os.stat_result:
        """The open file as it is now, whatever its name."""
        return os.fstat(self._descriptor)

    def shrunk(self) -> bool:
        """Whether the file has become shorter than what was read of it."""
        return self.fact().st_size < self._place

    def close(self) -> None:
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _stored(self, size: int) -> bytes:
        if self._end is not None:
            size = min(size, self._end - self._place)
        if size <= 0:
            return b""
        try:
            block = os.pread(self._descriptor, size, self._place)
        except OSError as error:
            raise unreadable(self.path, error) from error
        self._place += len(block)
        return block


class PlainContent(Content):
    """A file that is not compressed."""

    def read(self, size: int) -> bytes:
        block = self._stored(size)
        self.offset = self._place
        return block

    def seek(self, offset: int) -> bool:
        if offset > self.fact().st_size:
            return False
        self.offset = self._place = offset
        return True


class GzipContent(Content):
    """One or more gzip members, one behind the other (RFC 1952, 2.2); zero bytes behind the last are padding."""

    def __init__(self, path: str, descriptor: int, end: int | None) -> None:
        super().__init__(path, descriptor, end)
        self._member: igzip_lib.IgzipDecompressor | None = None
        self._waiting = b""  # stored bytes of the next member

    @property
    def torn(self) -> bool:
        return self._member is not None or bool(self._waiting)

    def read(self, size: int) -> bytes:
        while True:
            stored = b""
            if self._member is None and not self._begin_member():
                return b""
            assert self._member is not None
            if self._waiting:
                stored, self._waiting = self._waiting, b""
            elif self._member.needs_input:
                stored = self._stored(_COMPRESSED_BLOCK)
                if not stored:
                    return b""
            try:
                block: bytes = self._member.decompress(stored, size)
            except (_GzipError, EOFError) as error:
                raise self._damaged() from error
            if self._member.eof:
                self._waiting, self._member = self._member.unused_data, None
            if block:
                self.offset += len(block)
                return block

    def seek(self, offset: int) -> bool:
        if offset < self.offset or offset == 0:  # part of a member may have been read though it gave no byte
            self.offset = self._place = 0
            self._member, self._waiting = None, b""
        while self.offset < offset:
            if not self.read(min(offset - self.offset, 1 << 20)):
                return False
        return True

    def _begin_member(self) -> bool:
        self._waiting = self._waiting.lstrip(b"\0")
        while len(self._waiting) < len(GZIP_MAGIC):
            more = self._stored(_COMPRESSED_BLOCK)
            self._waiting = (self._waiting + more).lstrip(b"\0")
            if not more:
                return False
        if not self._waiting.startswith(GZIP_MAGIC):
            raise self._damaged()
        self._member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        return True

    def _damaged(self) -> Held:
        return Held(
            "unreachable",
            f"{written(self.path)} is damaged: its gzip data cannot be read beyond byte {self.offset} of the content",
            "put an undamaged copy in its place, or move it away",
        )
