"""An ``os`` whose every n-th writing call fails, writes short, or is the last one before a crash or a power cut."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Crash(BaseException):
    """The process is gone: nothing after this happens."""


class FaultyDisk:
    """Stands in for the module ``os`` in the code under test. Calls that write are numbered from 1.

    ``fault(number, name)`` says what becomes of a call: ``None`` it is done; an errno it fails; ``"crash"`` the process
    ends instead of it; ``"short"`` (write) only half is written.
    """

    COUNTED = ("open", "write", "fdatasync", "fsync", "ftruncate", "mkdir")

    def __init__(self, fault: Callable[[int, str], int | str | None]) -> None:
        self.calls = 0
        self.crashed = False
        self._fault = fault
        self._synced: dict[str, int] = {}  # how many bytes of a file would survive a power cut
        self._unsynced_names: set[str] = set()  # what would not survive it at all

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return getattr(self, f"_{name}", real) if name in self.COUNTED else real

    def _before(self, name: str) -> int | str | None:
        if self.crashed:
            raise Crash
        self.calls += 1
        fault = self._fault(self.calls, name)
        if isinstance(fault, int):
            raise OSError(fault, os.strerror(fault))
        if fault == "crash" and name != "write":
            self.crashed = True
            raise Crash
        return fault

    def _open(self, path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        self._before("open")
        descriptor = os.open(path, flags, mode, dir_fd=dir_fd)
        if flags & os.O_CREAT:
            self._unsynced_names.add(_path(descriptor))
            self._synced[_path(descriptor)] = 0
        return descriptor

    def _mkdir(self, path: str | Path, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        self._before("mkdir")
        os.mkdir(path, mode, dir_fd=dir_fd)
        self._unsynced_names.add(str(path) if dir_fd is None else f"{_path(dir_fd)}/{path}")

    def _write(self, descriptor: int, content: memoryview) -> int:
        fault = self._before("write")
        if fault in ("short", "crash"):
            content = content[: (len(content) + 1) // 2]
        self._synced.setdefault(_path(descriptor), os.fstat(descriptor).st_size)
        written = os.write(descriptor, content)
        if fault == "crash":
            self.crashed = True
            raise Crash
        return written

    def _fdatasync(self, descriptor: int) -> None:
        self._before("fdatasync")
        self._synced[_path(descriptor)] = os.fstat(descriptor).st_size

    def _fsync(self, descriptor: int) -> None:
        self._before("fsync")
        folder = _path(descriptor)
        self._unsynced_names = {name for name in self._unsynced_names if os.path.dirname(name) != folder}  # noqa: PTH120

    def _ftruncate(self, descriptor: int, length: int) -> None:
        self._before("ftruncate")
        os.ftruncate(descriptor, length)

    def cut_the_power(self) -> None:
        """Takes away whatever was not synced: the disk as it is found after a power cut."""
        for name, length in self._synced.items():
            if os.path.exists(name) and os.path.getsize(name) > length:  # noqa: PTH110, PTH202
                os.truncate(name, length)
        for name in sorted(self._unsynced_names, reverse=True):
            path = Path(name)
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def _path(descriptor: int) -> str:
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())


FULL = errno.ENOSPC
BROKEN = errno.EIO
