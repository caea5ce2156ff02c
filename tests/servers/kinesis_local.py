"""kinesis-local from npm: Kinesis as others understand it. Slow, and realistic where shards split and merge."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servers.process import free_port, serving
from support.requirements import require

VERSION = "0.6.2"
_CACHE = Path(__file__).parents[2] / ".cache" / "npm"
_PACKAGE = _CACHE / "node_modules" / "kinesis-local"
_INSTALL_SECONDS = 120


@contextmanager
def kinesis_local(folder: Path) -> Iterator[str]:
    """Runs one and gives its URL; its log is ``folder/kinesis-local.log``. Skips where Node.js or the package cannot be
    had."""
    node, npm = shutil.which("node"), shutil.which("npm")
    require("npm", bool(node and npm), "neither Node.js nor npm is on the PATH")
    assert node is not None
    assert npm is not None
    _install(npm)
    port, tls_port = free_port(), free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "KINESIS_MOCK_PLAIN_PORT": str(port),
        "KINESIS_MOCK_TLS_PORT": str(tls_port),
    }
    # It finds its settings in its working directory only.
    with serving([node, "main.js"], port, folder / "kinesis-local.log", cwd=_PACKAGE, env=environment) as url:
        yield url


def _install(npm: str) -> None:
    """Once per checkout, also when several workers ask at the same time."""
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / "kinesis-local.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = _CACHE / f"kinesis-local-{VERSION}.installed"
        if wanted.exists():
            return
        command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(_CACHE), f"kinesis-local@{VERSION}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False)
        require("npm", done.returncode == 0, f"npm cannot install kinesis-local: {done.stderr.strip()[-300:]}")
        wanted.touch()
