"""A folder in which a shipper runs with rig outputs, and what its operators do there by the real command line."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.command import shipper, start, succeeded
from support.receiver import Receiver
from support.waiting import until

#: How many events the tests of commands work on.
EVENTS = 120
#: Who wrote this into a configuration must not find it in any output.
SECRET = "hunter2-0123456789"


@dataclass(frozen=True, slots=True)
class Site:
    """A folder with captured records, and the configuration ``shipper.toml`` once it is written."""

    folder: Path

    def generate(self, events: int, seed: int = 4) -> None:
        """Appends records of so many events to ``captured.jsonl``, and their keys to ``keys.json``."""
        arguments = ["--engine", "aurora-mysql", "--events", events, "--seed", seed, "--file", "captured.jsonl"]
        succeeded(shipper("generate", *map(str, arguments), "--keys", "keys.json", cwd=self.folder))

    def take_captured(self, other: Site) -> None:
        """The same records and keys as another one has."""
        for name in ("captured.jsonl", "keys.json"):
            shutil.copy(other.folder / name, self.folder)

    def once(self, code: int = 0) -> None:
        """Ships what there is."""
        done = shipper("run", "--once", "shipper.toml", cwd=self.folder)
        assert done.returncode == code, done.stderr

    def configure(
        self, receiver: Receiver, outputs: Sequence[str] = ("siem",), *, more: str = "", of_each: str = ""
    ) -> None:
        """One source, these rig outputs with ``of_each``, and ``more``; a server only where ``more`` has one."""
        tables = [
            f"""
            [outputs.{name}]
            type = "rig"
            url = "{receiver.url}"
            batch = {{ max_events = 20, max_wait = "10ms" }}
            retry = {{ initial = "20ms", max = "200ms" }}
            spool = {{ after = "200ms" }}
            {of_each}
            """
            for name in outputs
        ]
        if "[server]" not in more:
            more += '\n[server]\nlisten = ""\ndrain_timeout = "2s"\n'
        (self.folder / "shipper.toml").write_text(
            f"""
            [sources.captured]
            type = "file"
            path = "captured.jsonl"
            follow = true
            keys = {{ provider = "static", path = "keys.json" }}
            {"".join(tables)}
            {more}
            [event]
            id_key = "{SECRET}"
            """
        )

    def run(self, *arguments: str, code: int = 0, input: str | None = None) -> str:
        """What a command says on standard output; it ends with ``code`` and tells no secret."""
        done = shipper(*arguments, "-c", "shipper.toml", cwd=self.folder, input=input)
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert SECRET not in done.stdout + done.stderr
        return done.stdout if code in (0, 75) else done.stdout + done.stderr

    def json(self, *arguments: str, code: int = 0) -> Any:
        """The same with ``--json``."""
        return json.loads(self.run(*arguments, "--json", code=code))

    def letters(self, *arguments: str) -> list[dict[str, Any]]:
        """The dead letters as the command line lists them."""
        return [json.loads(line) for line in self.run("dead-letters", "list", "--json", *arguments).splitlines()]

    def backlog(self, output: str) -> dict[str, Any]:
        """What ``spool list`` says of one output."""
        (found,) = self.json("spool", "list", "--output", output)["outputs"]
        assert isinstance(found, dict)
        return found

    def books(self) -> dict[str, Any]:
        """The books of every output, which balance, and know all dead letters that are kept."""
        outputs: dict[str, Any] = self.json("status", "--books")["outputs"]
        for name, book in outputs.items():
            assert book["balances"], f"{name}: {book}"
            assert book["dead_letters"] == book["dead_letters_kept"], f"{name}: {book}"
        return outputs

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """A shipper that runs inside the block, and ends without an error after it."""
        process = start("run", "shipper.toml", cwd=self.folder)
        owner = self.folder / "state" / "shipper.db.lock"
        try:
            until(lambda: owner.exists() and owner.read_text() == f"{process.pid}\n", self._log)
            yield process
        except BaseException:
            process.kill()
            process.wait()
            raise
        process.terminate()
        code = process.wait(60)
        log = self._log()
        assert code in (0, 75), log
        assert SECRET not in log

    def wait_until_spooled(self, output: str, events: int) -> None:
        """Until so many events of an output are on disk."""
        until(lambda: self._spooled(output) == events, self._log)

    def _log(self) -> str:
        return (self.folder / "shipper.log").read_text()

    def _spooled(self, output: str) -> int:
        done = shipper("spool", "list", "-c", "shipper.toml", "--json", cwd=self.folder)
        if done.returncode:
            return 0  # it has not made the state file yet
        found = {one["output"]: one["events"] for one in json.loads(done.stdout)["outputs"]}
        return int(found.get(output, 0))
