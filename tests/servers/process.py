"""A server in a process of its own: started on a free port, awaited, ended with the test; its log shown if it fails."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from support.waiting import until

START_SECONDS = 60.0


def free_port() -> int:
    """A port on loopback that nobody listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def serving(
    command: Sequence[str | Path],
    port: int,
    log: Path,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Runs the server until the block ends and gives its URL, once it accepts connections."""
    with (
        log.open("wb") as stream,
        subprocess.Popen(command, cwd=cwd, env=env, stdout=stream, stderr=stream) as process,
    ):

        def answers() -> bool:
            assert process.poll() is None, f"the server ended:\n{log.read_text(errors='replace')[-4000:]}"
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                return False
            return True

        try:
            until(answers, lambda: log.read_text(errors="replace")[-4000:], START_SECONDS)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
