"""A disk that is soon full."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.requirements import require


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """A tmpfs of so many bytes (``64k``, ``1m``) at ``folder``; skips where it cannot be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    there = os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
    require("mount", there, "a small tmpfs cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
