"""Plays a schedule: the real command line, three outputs of different temper, and all that goes wrong with them."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from faults.destination import Destination
from faults.feeds import CLUSTER, Lines, Stream
from faults.schedule import END_OF_PLAN, Fault, Feed, Life, Schedule
from shipper.settings import OutputSettings
from support.behaviours import Step
from support.clock_shift import jump
from support.command import environment, shipper, succeeded
from support.fault_proxy import FaultProxy
from support.small_disk import mounted

CLOCK_SHIFT = Path(__file__).parents[1] / "support" / "clock_shift.py"
SMALL_DISK = "48m"
#: What quick never takes, by outcome: one in so many events.
REFUSED = {"rejected": 37, "too_large": 53}
#: Seconds of real time that a process gets to give a sign of life, to end when it was asked to, to drain everything.
AWAKENING, ENDING, DRAINING = 5.0, 40.0, 90.0
#: Seconds until a process that refused to start is started again.
RESTART = 0.2
#: Exit codes of a run that was asked to stop: done, something is still owed, the same but safe in the spool.
STOPPED = (0, 1, 75)

_CONFIGURATION = """\
[aws]
region = "us-east-1"
endpoint_url = {{ kinesis = "{kinesis}", kms = "{kms}" }}
{sources}
[transforms.noise]
type = "drop"
match = {{ user = "rdsadmin" }}
[outputs.files]
type = "file"
path = "{disk}/out/{{category}}.jsonl{suffix}"
transforms = []
batch = {{ max_events = {files_batch}, max_wait = "20ms" }}
retry = {{ initial = "20ms", max = "200ms" }}{rotate}{spool}
[outputs.quick]
type = "rig"
url = "{quick}"
concurrency = 4
batch = {{ max_events = {quick_batch}, max_wait = "20ms" }}
retry = {{ initial = "20ms", max = "200ms" }}{spool}
[outputs.slow]
type = "rig"
url = "{slow}"
match = {{ category = ["read", "write", "ddl", "authentication", "privilege"] }}
batch = {{ max_events = {slow_batch}, max_wait = "20ms" }}
retry = {{ initial = "20ms", max = "200ms" }}{spool}
[state]
path = "{disk}/state/shipper.db"
[server]
listen = ""
drain_timeout = "{drain}"
[log]
format = "text"
"""
_STREAM = f"""
[sources.stream]
type = "kinesis"
resource_id = "{CLUSTER}"
poll_interval = "50ms"
keys = {{ ttl = "300ms" }}
"""
_LINES = """
[sources.lines]
type = "file"
path = "lines/*.jsonl"
follow = true
decode = "events"
"""
_SLOW_CATEGORIES = {"read", "write", "ddl", "authentication", "privilege"}


@dataclass(frozen=True, slots=True)
class End:
    """A process's end: when it was asked for or came, when the process was gone (monotonic seconds), and whether
    all that it had read was settled or in the spool: then only what had no answer yet may be sent again."""

    asked: float
    gone: float
    clean: bool


class Stage:
    """One schedule's world; use it as a context manager, then ``play``."""

    def __init__(self, folder: Path, schedule: Schedule) -> None:
        self.folder = folder
        self.schedule = schedule
        self.ends: list[End] = []
        #: What has happened, with the real time since the beginning.
        self.history: list[str] = []
        self._rng = random.Random(f"stage {schedule.seed}")
        self._closing = ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self._started = time.monotonic()
        self._offset = folder / "clock"
        self._plan = sorted(self._moments(), key=lambda moment: moment[0])
        self._now = 0.0
        self._disk_full = self._full_since_start = False

    def __enter__(self) -> Stage:
        with ExitStack() as stack:
            seed = self.schedule.seed
            self.disk = self.folder / "disk"
            if self.schedule.small_disk:
                stack.enter_context(mounted(self.disk, SMALL_DISK))
            else:
                self.disk.mkdir()
            jump(self._offset, 0.0)
            self.quick = stack.enter_context(Destination(seed=seed, refuses=REFUSED, remembers=False))
            self.slow = stack.enter_context(Destination(seed=seed, refuses={}, remembers=True))
            self.way_to_quick = stack.enter_context(FaultProxy(self.quick.port, seed=seed))
            self.way_to_slow = stack.enter_context(FaultProxy(self.slow.port, seed=seed))
            feeds = self.schedule.feeds
            self.stream = Stream(self._rng, [feed for feed in feeds if feed.source == "stream"])
            stack.enter_context(self.stream.kinesis)
            stack.enter_context(self.stream.kms)
            self.lines = Lines(self.folder / "lines", self._rng, [feed for feed in feeds if feed.source == "lines"])
            self._configure()
            stack.callback(self._put_down)
            self._closing = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()

    # -- what there is to see --------------------------------------------------------------------------------------

    @property
    def state(self) -> Path:
        """The state file."""
        return self.disk / "state" / "shipper.db"

    def files(self) -> list[Path]:
        """What the file output has written."""
        return sorted((self.disk / "out").rglob("*.*"))

    def letters(self) -> list[dict[str, Any]]:
        """The dead letters, as the command line lists them."""
        done = succeeded(shipper("dead-letters", "list", "--json", "-c", "shipper.toml", cwd=self.folder))
        return [json.loads(line) for line in done.stdout.splitlines()]

    def report(self) -> str:
        """What was planned, what happened, and the end of the log."""
        log = (self.folder / "shipper.log").read_text(errors="backslashreplace").splitlines()[-60:]
        return "\n".join(["", "PLAN", str(self.schedule), "WHAT HAPPENED", *self.history, "LOG", *log])

    # -- playing ---------------------------------------------------------------------------------------------------

    def play(self) -> None:
        """Runs all lives, lifts all faults, and lets a last run settle everything."""
        for number, life in enumerate(self.schedule.lives, 1):
            self._live(number, life)
        self._carry_out(max(self._now, END_OF_PLAN))
        self.lines.finish()
        self.stream.finish()
        self._say("everything works again; the last run")
        with (self.folder / "shipper.log").open("ab") as log:
            command = [*self._command(), "--once", "shipper.toml", "last.toml"]
            done = subprocess.run(
                command, cwd=self.folder, env=environment(), stdout=log, stderr=log, timeout=DRAINING, check=False
            )
        self._say(f"it ended with {done.returncode}")
        assert done.returncode == 0, f"the last run ended with {done.returncode}"

    def _live(self, number: int, life: Life) -> None:
        process = self._begin_life(number, life)
        until = self._now + life.seconds
        if number == len(self.schedule.lives):
            until = max(until, END_OF_PLAN)  # the last one sees the whole of the plan
        self._pass(until - self._now, process)
        while process.poll() is not None:
            # Somebody starts again what refused to start on a full disk; nothing else may end by itself.
            assert self._refused(process), f"process {number} ended by itself with {process.returncode}"
            self._pass(RESTART, None)
            process = self._begin_life(number, life)
            self._pass(until - self._now, process)
        asked = time.monotonic()
        self._end(process, life)
        self.ends.append(End(asked, time.monotonic(), process.returncode in (0, 75)))
        self._say(f"process {number} is gone ({life.ending}): {process.returncode}")
        self._process = None
        self._pass(life.gap, None)

    def _begin_life(self, number: int, life: Life) -> subprocess.Popen[bytes]:
        before = self._signs()
        self._say(f"process {number} starts")
        self._full_since_start = self._disk_full
        process = self._process = self._start()
        if life.awaited:
            deadline = time.monotonic() + AWAKENING
            while self._signs() == before and time.monotonic() < deadline and not _ended(process, 0.01):
                pass
        return process

    def _refused(self, process: subprocess.Popen[bytes]) -> bool:
        """Whether it may have refused to start: the disk is full, and there is no ballast left to give up."""
        ballast = self.state.with_name(self.state.name + ".ballast")
        return self._full_since_start and process.returncode == 1 and not ballast.exists()

    def _end(self, process: subprocess.Popen[bytes], life: Life) -> None:
        first, _, second = life.ending.partition(", ")
        numbers = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT}
        process.send_signal(numbers[first])
        if second:
            self._pass(life.grace, process)
            process.send_signal(numbers[second])
        deadline = time.monotonic() + ENDING
        while process.poll() is None:
            assert time.monotonic() < deadline, f"after {life.ending} it did not end in {ENDING:g} s"
            self._pass(0.1, process)
        # Before shipper has its handlers, and after, a signal is what Python or the system make of it.
        codes = {*STOPPED, *(-numbers[one] for one in (first, second) if one), *((130,) if second == "int" else ())}
        assert process.returncode in codes, f"after {life.ending} it ended with {process.returncode}"

    def _start(self) -> subprocess.Popen[bytes]:
        with (self.folder / "shipper.log").open("ab") as log:
            command = [*self._command(), "shipper.toml"]
            return subprocess.Popen(command, cwd=self.folder, env=environment(), stdout=log, stderr=log)

    def _command(self) -> list[str]:
        return [sys.executable, "-P", str(CLOCK_SHIFT), str(self._offset), "run"]

    def _put_down(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _signs(self) -> tuple[object, ...]:
        """What changes when a process does something."""
        wal = self.state.with_name(self.state.name + "-wal")
        sizes = tuple(path.stat().st_size for path in (wal, *self.files()) if path.exists())
        return self.quick.come, self.slow.come, self.stream.kinesis.calls.total(), sizes

    # -- the plan --------------------------------------------------------------------------------------------------

    def _moments(self) -> Iterator[tuple[float, Feed | Fault, bool]]:
        for feed in self.schedule.feeds:
            yield feed.at, feed, True
        for fault in self.schedule.faults:
            yield fault.at, fault, True
            yield fault.at + fault.seconds, fault, False

    def _pass(self, seconds: float, process: subprocess.Popen[bytes] | None) -> None:
        """So many seconds of the plan go by, or fewer when the process ends."""
        began, since = time.monotonic(), self._now
        while (gone := time.monotonic() - began) < seconds:
            self._carry_out(since + gone)
            next_ = self._plan[0][0] - since if self._plan else seconds
            if _ended(process, max(0.001, min(next_, seconds) - gone)):
                break
        self._carry_out(since + max(0.0, min(seconds, time.monotonic() - began)))

    def _carry_out(self, now: float) -> None:
        """Everything that is due."""
        self._now = now
        while self._plan and self._plan[0][0] <= now:
            _, what, begins = self._plan.pop(0)
            if isinstance(what, Feed):
                self._say(str(what))
                (self.stream if what.source == "stream" else self.lines).feed(what)
            elif begins:
                self._say(str(what))
                self._begin(what)
            else:
                self._say(f"{what.where}: {what.kind} is over")
                self._mend(what)

    def _begin(self, fault: Fault) -> None:
        match fault.where:
            case "quick" | "slow":
                destination = self.quick if fault.where == "quick" else self.slow
                seconds = fault.details.get("seconds", 0.1)
                destination.step = replace(Step(), **{**fault.details, "kind": fault.kind, "seconds": seconds})
            case "way to quick" | "way to slow":
                way = self.way_to_quick if fault.where == "way to quick" else self.way_to_slow
                way.behave(fault.kind, **fault.details)  # type: ignore[arg-type]  # a kind of the proxy's
            case "disk":
                self._fill()
            case "clock":
                jump(self._offset, fault.details["by"])
            case _:
                self.stream.begin(fault)

    def _mend(self, fault: Fault) -> None:
        match fault.where:
            case "quick":
                self.quick.step = Step()
            case "slow":
                self.slow.step = Step()
            case "way to quick":
                self.way_to_quick.behave("pass")
            case "way to slow":
                self.way_to_slow.behave("pass")
            case "disk":
                (self.disk / "filler").unlink()
                self._disk_full = False
            case "clock":
                jump(self._offset, 0.0)
            case _:
                self.stream.end(fault)

    def _fill(self) -> None:
        """Takes all room that the disk has."""
        self._disk_full = self._full_since_start = True
        with (self.disk / "filler").open("wb") as file:
            for size in (1024 * 1024, 4096):
                with suppress(OSError):
                    while os.write(file.fileno(), bytes(size)) == size:
                        pass

    # -- words -----------------------------------------------------------------------------------------------------

    def _configure(self) -> None:
        settings = dict(self.schedule.settings)
        after = settings.pop("after")
        spool = f'\nspool = {{ after = "{after}" }}' if "spool" in OutputSettings.model_fields else ""
        sources = "".join({"stream": _STREAM, "lines": _LINES}[source] for source in self.schedule.sources)
        services = {"kinesis": self.stream.kinesis.endpoint_url, "kms": self.stream.kms.endpoint_url}
        ways = {"quick": self.way_to_quick.url, "slow": self.way_to_slow.url}
        text = _CONFIGURATION.format(
            disk="disk", category="{category}", sources=sources, spool=spool, **services, **ways, **settings
        )
        (self.folder / "shipper.toml").write_text(text)
        (self.folder / "last.toml").write_text('[server]\ndrain_timeout = "20s"\n')

    def _say(self, what: str) -> None:
        line = f"  {time.monotonic() - self._started:6.2f}  plan {self._now:5.2f}  {what}"
        self.history.append(line)
        with (self.folder / "shipper.log").open("a") as log:
            log.write(f"--- {line}\n")


def slow_wants(category: str) -> bool:
    """Whether slow's ``match`` lets a category through."""
    return category in _SLOW_CATEGORIES


def _ended(process: subprocess.Popen[bytes] | None, seconds: float) -> bool:
    """Waits so long, or until the process has ended; says whether it has."""
    if process is None:
        time.sleep(seconds)
        return False
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True
