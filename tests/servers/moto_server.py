"""moto in a process of its own: KMS and whatever else of AWS a test asks for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servers.process import free_port, serving


@contextmanager
def moto_server(folder: Path) -> Iterator[str]:
    """Runs one and gives its URL; its log is ``folder/moto.log``."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with serving(command, port, folder / "moto.log") as url:
        yield url
