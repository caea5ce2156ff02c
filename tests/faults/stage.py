"""Plays a schedule: the real command line, outputs of different temper, and all that goes wrong with them."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from faults.commands import Commands
from faults.configuration import Configuration
from faults.destination import Destination
from faults.feeds import Lines, Stream
from faults.schedule import END_OF_PLAN, SIEMS, Fault, Feed, Life, Schedule
from faults.siems import Search, Siem, Splunk
from shipper.state import dead_letters
from shipper.state.dead_letters import Filter, Kept
from shipper.state.file import read_state
from support.behaviours import Step
from support.clock_shift import jump
from support.command import environment, shipper, succeeded
from support.fault_proxy import FaultProxy
from support.small_disk import mounted

CLOCK_SHIFT = Path(__file__).parents[1] / "support" / "clock_shift.py"
SMALL_DISK = "48m"
#: What quick never takes, by outcome: one in so many events.
REFUSED = {"rejected": 61, "too_large": 97}
#: Seconds of real time that a process gets to give a sign of life, to end when it was asked to, to drain everything.
AWAKENING, ENDING, DRAINING = 5.0, 40.0, 90.0
#: Seconds until a process that refused to start is started again, and that one gets to refuse a wrong configuration.
RESTART, REFUSAL = 0.2, 20.0
#: Seconds in which a reload lets requests that are under way end, before it looks after positions again.
RELOADING = 6.0
#: Exit code of a configuration that cannot be taken.
WRONG = 78
#: Exit codes of a run that was asked to stop: done, something is still owed, the same but safe in the spool.
STOPPED = (0, 1, 75)
#: What a shipper says that refuses to reload, and one that does reload.
NOT_TAKEN, TAKEN = b"the configuration was not taken over", b"the configuration was loaded again"
IN_USE = b"is used by another shipper"
_WORDS = {
    "storm": b"is held (storm)",
    "blocked": b"is held (unwritable)",
    "wrong configuration": NOT_TAKEN,
    "reload": TAKEN,
    "renamed": b"goes on where",
    "replay": b"events to the ends of their lines",
    "purge": b"dead letters were deleted",
}


@dataclass(frozen=True, slots=True)
class End:
    """A process's end: when it was asked for or came, when the process was gone (monotonic seconds), and whether
    all that it had read was settled or in the spool: then only what had no answer yet may be sent again."""

    asked: float
    gone: float
    clean: bool


class Stage:
    """One schedule's world; use it as a context manager, then ``play``. ``opensearch``: the URL of a server, where the
    schedule ships to one."""

    def __init__(self, folder: Path, schedule: Schedule, opensearch: str | None = None) -> None:
        self.folder = folder
        self.schedule = schedule
        self.siems: dict[str, Siem] = {}
        if set(SIEMS) <= set(schedule.outputs):
            assert opensearch is not None
            self.siems = {"search": Search(opensearch, schedule.seed), "splunk": Splunk(schedule.seed)}
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
        # Seconds that did not count, because the plan stood still.
        self._stood = 0.0
        self._disk_full = self._full_since_start = self._wrong_since_start = False
        self._stopped = False
        #: What lets positions stand still (``disk``, ``process``, ``reload``), from when to when (monotonic seconds).
        self.troubles: list[tuple[str, float, float]] = []
        self._trouble: dict[str, float] = {}
        self.commands = Commands(folder)

    def __enter__(self) -> Stage:
        with ExitStack() as stack:
            seed = self.schedule.seed
            self.disk = self.folder / "disk"
            if self.schedule.small_disk:
                stack.enter_context(mounted(self.disk, SMALL_DISK))
            else:
                self.disk.mkdir()
            jump(self._offset, 0.0)
            if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in a shell's background, and so for what is begun
                stack.callback(signal.signal, signal.SIGINT, signal.SIG_IGN)
                signal.signal(signal.SIGINT, signal.default_int_handler)
            self.quick = stack.enter_context(Destination(seed=seed, refuses=REFUSED, remembers=False))
            self.slow = stack.enter_context(Destination(seed=seed, refuses={}, remembers=True))
            self.way_to_quick = stack.enter_context(FaultProxy(self.quick.port, seed=seed))
            self.way_to_slow = stack.enter_context(FaultProxy(self.slow.port, seed=seed))
            feeds = self.schedule.feeds
            self.stream = Stream(self._rng, [feed for feed in feeds if feed.source == "stream"])
            stack.enter_context(self.stream.kinesis)
            stack.enter_context(self.stream.kms)
            self.lines = Lines(self.folder / "lines", self._rng, [feed for feed in feeds if feed.source == "lines"])
            addresses = {"kinesis": self.stream.kinesis.endpoint_url, "kms": self.stream.kms.endpoint_url}
            addresses |= {"quick": self.way_to_quick.url, "slow": self.way_to_slow.url}
            siems = {name: stack.enter_context(siem).settings() for name, siem in self.siems.items()}
            self.configuration = Configuration(self.folder, self.schedule, addresses, siems)
            (self.folder / "last.toml").write_text('[server]\ndrain_timeout = "20s"\n')
            stack.callback(self._put_down)
            stack.callback(self.commands.put_down)
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

    def letters(self) -> list[Kept]:
        """The dead letters."""
        with closing(read_state(self.state)) as connection:
            return list(dead_letters.listing(connection, Filter()))

    def traces(self) -> set[str]:
        """What has left its traces: in the log, in what commands said, in the state file's largest ids, where
        it went."""
        log = self._log().read_bytes()
        said = (self.folder / "commands.log").read_bytes() if self.commands.ended else b""
        found = {name for name, words in _WORDS.items() if words in log + said}
        with closing(read_state(self.state)) as connection:
            found |= {name for (name,) in connection.execute("SELECT name FROM sqlite_sequence WHERE seq > 0")}
        found |= {f"{name} doubled" for name, siem in self.siems.items() if max(siem.stored().values()) > 1}
        found |= {f"{name} lost some" for name, siem in self.siems.items() if siem.lost}
        books = json.loads(self.said("status", "--books", "--json"))["outputs"]
        found |= {f"{name} already stored" for name, book in books.items() if book["already_stored"]}
        return found | {letter.reason for letter in self.letters()}

    def said(self, *arguments: str) -> str:
        """What a command says."""
        return succeeded(shipper(*arguments, "-c", "shipper.toml", cwd=self.folder)).stdout

    def report(self) -> str:
        """What was planned, what happened, and the end of the log."""
        log = self._log().read_text(errors="backslashreplace").splitlines()[-60:]
        return "\n".join(["", "PLAN", str(self.schedule), "WHAT HAPPENED", *self.history, "LOG", *log])

    # -- playing ---------------------------------------------------------------------------------------------------

    def play(self) -> None:
        """Runs all lives, lifts all faults, and lets a last run settle everything."""
        for number, life in enumerate(self.schedule.lives, 1):
            self._live(number, life)
        self._carry_out(max(self._now, END_OF_PLAN))
        self._say("everything works again")
        self.commands.wait()
        self.ends += [End(began, gone, code in (0, 75)) for began, gone, code in self.commands.ended]
        self.lines.finish()
        self.stream.finish()
        self._say("the last run")
        with self._log().open("ab") as log:
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
            # Somebody starts again what refused to start; nothing may end by itself.
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
        self._wrong_since_start = self.configuration.wrong
        self._begun, self._log_begun = time.monotonic(), self._log().stat().st_size
        process = self._process = self._start()
        self._stopped = False
        if life.awaited:
            deadline = time.monotonic() + AWAKENING
            while self._signs() == before and time.monotonic() < deadline and not _ended(process, 0.01):
                pass
        return process

    def _refused(self, process: subprocess.Popen[bytes]) -> bool:
        """Whether it may have refused to start: the disk is full, and there is no ballast left to give up; the
        configuration is wrong; or a command has the state file."""
        if process.returncode == WRONG:
            return self._wrong_since_start
        ballast = self.state.with_name(self.state.name + ".ballast")
        full = self._full_since_start and not ballast.exists()
        in_use = self.commands.running_since(self._begun) and IN_USE in self._log().read_bytes()[self._log_begun :]
        return process.returncode == 1 and (full or in_use)

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
        with self._log().open("ab") as log:
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
        began, since = time.monotonic() - self._stood, self._now
        while (gone := time.monotonic() - self._stood - began) < seconds:
            self._carry_out(since + gone)
            next_ = self._plan[0][0] - since if self._plan else seconds
            if _ended(process, max(0.001, min(next_, seconds) - gone)):
                break
        self._carry_out(since + max(0.0, min(seconds, time.monotonic() - self._stood - began)))

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
                destination.step = replace(Step(), **{"kind": fault.kind, **fault.details, "seconds": seconds})
            case "way to quick" | "way to slow":
                way = self.way_to_quick if fault.where == "way to quick" else self.way_to_slow
                way.behave(fault.kind, **fault.details)  # type: ignore[arg-type]  # a kind of the proxy's
            case "way to search" | "way to splunk":
                way = self.siems[fault.where.removeprefix("way to ")].way
                way.behave(fault.kind, **fault.details)  # type: ignore[arg-type]  # as above
            case "search" | "splunk":
                self.siems[fault.where].begin(fault)
            case "disk":
                self._trouble["disk"] = time.monotonic()
                self._fill(int(fault.details.get("left", 0)))
            case "clock":
                jump(self._offset, fault.details["by"])
            case "process":
                self._trouble["process"] = time.monotonic()
                self._stopped = True
                if self._process is not None:
                    self._process.send_signal(signal.SIGSTOP)
            case "configuration":
                self._configure(fault)
            case "commands":
                self._type(fault)
            case _:
                self.stream.begin(fault)

    def _configure(self, fault: Fault) -> None:
        details = fault.details
        match fault.kind:
            case "change":
                self.configuration.change(details["output"], details["setting"])
            case "rename":
                self.configuration.rename(details["output"])
                if not details["reload"]:
                    return
            case "wrong":
                self.configuration.spoil(details["how"])
                self._wrong_since_start = True
        before = self._log().read_bytes().count(NOT_TAKEN)
        if not self._reload():
            return
        now = time.monotonic()
        self.troubles.append(("reload", now, now + RELOADING))
        process = self._process
        if fault.kind == "wrong" and not self._stopped and not self._disk_full:
            # The plan stands still meanwhile: whatever else goes on, it says that it does not take it.
            while self._log().read_bytes().count(NOT_TAKEN) == before and not _ended(process, 0.02):
                assert time.monotonic() - now < REFUSAL, "a wrong configuration was not refused"
            self._stood += time.monotonic() - now

    def _reload(self) -> bool:
        """Sends SIGHUP, once the process takes it; whether it was sent."""
        process = self._process
        if process is None or process.poll() is not None:
            return False
        caught = re.search(r"^SigCgt:\s*(\w+)$", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
        if caught is None or not int(caught[1], 16) >> (signal.SIGHUP - 1) & 1:
            return False
        process.send_signal(signal.SIGHUP)
        return True

    def _type(self, fault: Fault) -> None:
        match fault.kind:
            case "replay":
                output = fault.details["output"]
                which = [] if output == "all" else ["--output", self.configuration.name(output)]
                self.commands.begin("dead-letters", "replay", *which)
            case "purge":
                quick = self.configuration.name("quick")
                self.commands.begin("dead-letters", "purge", "--output", quick, "--reason", "rejected", "--yes")

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
            case "way to search" | "way to splunk":
                self.siems[fault.where.removeprefix("way to ")].way.behave("pass")
            case "search" | "splunk":
                self.siems[fault.where].mend(fault)
            case "disk":
                (self.disk / "filler").unlink()
                self._disk_full = False
                self._over("disk")
            case "clock":
                jump(self._offset, 0.0)
            case "process":
                self._stopped = False
                if self._process is not None:
                    self._process.send_signal(signal.SIGCONT)
                self._over("process")
            case "configuration":
                self.configuration.mend()
            case "commands":
                pass  # it ends by itself
            case _:
                self.stream.end(fault)

    def _over(self, where: str) -> None:
        self.troubles.append((where, self._trouble.pop(where), time.monotonic()))

    def _fill(self, left: int) -> None:
        """Takes all room that the disk has, but for ``left`` bytes."""
        self._disk_full = self._full_since_start = True
        with (self.disk / "filler").open("wb") as file, suppress(OSError):
            free = os.statvfs(self.disk)
            if left:  # somebody may write meanwhile: then it is full, or almost
                os.posix_fallocate(file.fileno(), 0, max(1, free.f_bavail * free.f_frsize - left))
            for size in () if left else (1024 * 1024, 4096):
                with suppress(OSError):
                    while os.write(file.fileno(), bytes(size)) == size:
                        pass

    # -- words -----------------------------------------------------------------------------------------------------

    def _log(self) -> Path:
        return self.folder / "shipper.log"

    def _say(self, what: str) -> None:
        line = f"  {time.monotonic() - self._started:6.2f}  plan {self._now:5.2f}  {what}"
        self.history.append(line)
        with self._log().open("a") as log:
            log.write(f"--- {line}\n")


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
