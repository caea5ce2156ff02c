"""kinesis-local from npm: Kinesis as others understand it. Slow, and realistic where shards split and merge."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.requirements import require

VERSION = "0.6.2"
_CACHE = Path(__file__).parents[2] / ".cache" / "npm"
_PACKAGE = _CACHE / "node_modules" / "kinesis-local"
_INSTALL_SECONDS = 120
_START_SECONDS = 60.0


@contextmanager
def kinesis_local(folder: Path) -> Iterator[str]:
    """Runs one and gives its URL; its log is ``folder/kinesis-local.log``. Skips where Node.js or the package cannot be
    had."""
    node, npm = shutil.which("node"), shutil.which("npm")
    require("npm", bool(node and npm), "neither Node.js nor npm is on the PATH")
    assert node is not None
    assert npm is not None
    _install(npm)
    port, tls_port = _free_ports()
    log = folder / "kinesis-local.log"
    environment = {
        "PATH": os.environ["PATH"],
        "KINESIS_MOCK_PLAIN_PORT": str(port),
        "KINESIS_MOCK_TLS_PORT": str(tls_port),
    }
    with (
        log.open("wb") as stream,
        # It finds its settings in its working directory only.
        subprocess.Popen([node, "main.js"], cwd=_PACKAGE, env=environment, stdout=stream, stderr=stream) as process,
    ):
        try:
            _wait(process, port, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


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


def _free_ports() -> tuple[int, int]:
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(
                    f"kinesis-local does not answer:\n{log.read_text(errors='replace')[-4000:]}"
                ) from None
            time.sleep(0.05)
