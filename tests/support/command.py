"""Runs the real command line in processes of its own, and kills them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from support.receiver import RIG


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a shipper process sees: this one's environment and the rig output's package."""
    path = os.pathsep.join(filter(None, (str(RIG), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, **(more or {})}


def shipper(
    *arguments: str | Path,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    timeout: float = 120,
    input: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end."""
    command = [sys.executable, "-m", "shipper", *map(str, arguments)]
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment(env),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        input=input,
    )


def start(*arguments: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Starts a command; its words go to ``shipper.log`` in ``cwd``."""
    with (cwd / "shipper.log").open("ab") as log:
        command = [sys.executable, "-m", "shipper", *map(str, arguments)]
        return subprocess.Popen(command, cwd=cwd, env=environment(env), stdout=log, stderr=log)


def succeeded(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    """Fails with what the command said when it did not exit with 0."""
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done
