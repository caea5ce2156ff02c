"""Room on the disk of the state file: a reserve that the spool leaves alone, and a ballast that is given up first."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

log = logging.getLogger("shipper.state")

#: Bytes left free for positions and deletions, and the share of a disk on which that would be too much.
RESERVE = 64 * 1000 * 1000
SHARE = 0.05
#: Bytes of the ballast file; on a small disk it is as large as the reserve.
BALLAST = 16 * 1024 * 1024


class Room:
    """``reserve`` in bytes; ``None``: 64 MB, or 5 % of a smaller disk. ``path`` is the state file's."""

    def __init__(self, path: Path, reserve: int | None = None) -> None:
        self._folder = path.parent
        self._ballast = path.with_name(path.name + ".ballast")
        self._reserve = reserve

    def free(self) -> int:
        """Bytes that this process may still write on the disk."""
        disk = os.statvfs(self._folder)
        return disk.f_bavail * disk.f_frsize

    def reserve(self) -> int:
        """Bytes that stay free: nothing is spooled while fewer are."""
        if self._reserve is not None:
            return self._reserve
        disk = os.statvfs(self._folder)
        return min(RESERVE, int(disk.f_blocks * disk.f_frsize * SHARE))

    def short(self) -> bool:
        """Whether less than the reserve is free; a disk that cannot be asked has no room."""
        try:
            return self.free() < self.reserve()
        except OSError:
            return True

    def give_up(self) -> bool:
        """Removes the ballast, so that what must be written can be; whether there was one."""
        try:
            size = self._ballast.stat().st_size
            self._ballast.unlink()
        except OSError:
            return False
        log.warning("state: the disk is full; %s (%d bytes) was removed to go on", self._ballast, size)
        return True

    def restore(self) -> bool:
        """Makes the ballast where there is none and the disk has ample room, twice the reserve beside it; whether there
        is one now. Its blocks are really taken, not only its length."""
        try:
            size = min(BALLAST, self.reserve())
            if self._ballast.exists() and self._ballast.stat().st_size >= size:
                return True
            if size == 0 or self.free() < 2 * self.reserve() + size:
                return False
            descriptor = os.open(self._ballast, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        except OSError:
            return False  # a disk that takes no file has no room for one; tried again later
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError:
            with suppress(OSError):
                self._ballast.unlink()
            return False
        finally:
            os.close(descriptor)
        return True
