"""What people type while shippers run, die and start again: each command is a process of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from support.command import environment

#: Seconds that a command gets: it waits for half a minute for a shipper that does not answer.
PATIENCE = 60.0
#: Done, not done, something is left, the configuration is wrong.
EXPECTED = (0, 1, 75, 78)


class Commands:
    """Commands that were begun, and how they ended."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[tuple[subprocess.Popen[bytes], float]] = []
        #: When each one began and was gone (monotonic seconds), and its exit code.
        self.ended: list[tuple[float, float, int]] = []

    def begin(self, *arguments: str) -> None:
        """Starts one."""
        command = [sys.executable, "-m", "shipper", *arguments, "-c", "shipper.toml"]
        with (self._folder / "commands.log").open("ab") as log:
            log.write(f"--- {' '.join(arguments)}\n".encode())
            log.flush()
            process = subprocess.Popen(command, cwd=self._folder, env=environment(), stdout=log, stderr=log)
        self._running.append((process, time.monotonic()))

    def running_since(self, moment: float) -> bool:
        """Whether any ran at ``moment`` (monotonic seconds) or later."""
        self._collect()
        return bool(self._running) or any(gone >= moment for _, gone, _ in self.ended)

    def wait(self) -> None:
        """Until all have ended. Raises ``AssertionError`` where one does not, or not as it should."""
        for process, _ in self._running:
            process.wait(PATIENCE)
        self._collect()
        said = (self._folder / "commands.log").read_text() if self.ended else ""
        codes = [code for _, _, code in self.ended]
        assert all(code in EXPECTED for code in codes), f"commands ended with {codes}:\n{said}"
        assert "Traceback" not in said, said

    def put_down(self) -> None:
        """Kills what still runs."""
        for process, _ in self._running:
            process.kill()
            process.wait()

    def _collect(self) -> None:
        gone = [(process, began) for process, began in self._running if process.poll() is not None]
        self._running = [one for one in self._running if one not in gone]
        self.ended += [(began, time.monotonic(), process.returncode) for process, began in gone]
