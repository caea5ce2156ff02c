"""Virtual environments of their own for tests that install something: quick, offline, away from the running one."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


class Environment:
    """A fresh virtual environment that finds the running one's libraries *behind* its own packages.

    ``roots`` are source roots that it finds as well. The running environment's own editable installation is not among
    what it finds: a ``.pth`` file is followed only from the environment's own folder.
    """

    def __init__(self, path: Path, *roots: Path) -> None:
        venv.create(path, with_pip=False, symlinks=True)
        self.path = path
        self.bin = path / "bin"
        self.python = self.bin / "python"
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        self.site_packages = path / "lib" / version / "site-packages"
        libraries = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        lines = [*map(str, roots), *sorted(libraries)]
        (self.site_packages / "libraries.pth").write_text("\n".join(lines) + "\n")

    def install(self, *what: str | Path) -> None:
        """Installs projects or wheels, without their dependencies, a build environment or the network."""
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(self.python), "install"]
        options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--ignore-installed"]
        # pip runs inside the environment but is the running one's: it and the build backend come from there.
        done = subprocess.run(
            [*pip, *options, *map(str, what)], check=False, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr

    def run(
        self, *command: str | Path, cwd: Path, timeout: float = 60, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program of the environment in ``cwd``, with nothing of the running environment's PYTHONPATH."""
        variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        program, *arguments = map(str, command)
        return subprocess.run(
            [str(self.bin / program), *arguments],
            check=False,
            cwd=cwd,
            env=variables | (env or {}),
            capture_output=True,
            text=True,
            timeout=timeout,
        )
