"""The configuration of a fault test: what it begins with, and how people change it while shippers run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from faults.feeds import CLUSTER
from faults.schedule import STORM, Schedule

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
SLOW_CATEGORIES = ("read", "write", "ddl", "authentication", "privilege")
#: Mistakes that a reload, and a start, has to refuse.
_MISTAKES = {
    "no TOML": "\n[outputs.NAME]\nNAME NAME\n",
    "unknown key": "\n[transforms.more]\ntype = 'drop'\nmatch = { user = 'nobody' }\nNAME = 7\n",
    "unknown type": "\n[outputs.more]\ntype = 'NAME'\n",
}


@dataclass(slots=True)
class _Output:
    """What may change of one output."""

    name: str
    batch: int
    after: str
    bounds: str = ""
    retry: str = "200ms"
    labels: str = ""
    former: str = ""

    def lines(self) -> str:
        bounds = f", {self.bounds}" if self.bounds else ""
        # A spool takes a batch at least.
        fitting = ', max_bytes = "20kB"' if self.bounds else ""
        lines = [
            f'batch = {{ max_events = {self.batch}, max_wait = "20ms"{fitting} }}',
            f'retry = {{ initial = "20ms", max = "{self.retry}" }}',
            f'spool = {{ after = "{self.after}"{bounds} }}',
        ]
        lines += [f'labels = {{ round = "{self.labels}" }}'] if self.labels else []
        lines += [f'renamed_from = "{self.former}"'] if self.former else []
        return "\n".join(lines)


class Configuration:
    """Writes ``shipper.toml``, whole at every moment."""

    def __init__(
        self, folder: Path, schedule: Schedule, addresses: Mapping[str, str], siems: Mapping[str, str]
    ) -> None:
        """``addresses``: URLs of ``kinesis``, ``kms``, ``quick`` and ``slow``; ``siems``: settings of the others."""
        self.path = folder / "shipper.toml"
        settings = schedule.settings
        self._sources = "".join({"stream": _STREAM, "lines": _LINES}[source] for source in schedule.sources)
        self._settings = settings
        self._addresses = addresses
        self._siems = siems
        self._outputs = {
            output: _Output(
                output, int(settings[f"{output}_batch"]), settings["after"], settings.get(f"{output}_spool", "")
            )
            for output in schedule.outputs
        }
        self._labels = ""
        self._changes = 0
        self._mistake = self._mistakes = ""
        self._write()

    @property
    def wrong(self) -> bool:
        """Whether it cannot be taken at present."""
        return bool(self._mistake)

    @property
    def names(self) -> dict[str, str]:
        """What the outputs are called, now and earlier → what they were called first."""
        now = {one.name: output for output, one in self._outputs.items()}
        return now | {output: output for output in self._outputs}

    def name(self, output: str) -> str:
        """What an output is called now."""
        return self._outputs[output].name

    def change(self, output: str, setting: str) -> None:
        """Another value for a setting of an output; of ``all``: another label for everything."""
        self._changes += 1
        changes = self._changes
        if output == "all":
            self._labels = f"labels = {{ round = 'all {changes}' }}"
        else:
            one = self._outputs[output]
            one.batch = (3, 20, 200)[changes % 3] if setting == "batch" else one.batch
            one.retry = ("50ms", "500ms")[changes % 2] if setting == "retry" else one.retry
            one.after = ("300ms", "800ms")[changes % 2] if setting == "after" else one.after
            one.labels = f"{changes}" if setting == "labels" else one.labels
        self._write()

    def rename(self, output: str) -> None:
        """Another name, that says which it was."""
        one = self._outputs[output]
        one.former, one.name = one.name, f"{one.name}_renamed"
        self._write()

    def spoil(self, how: str) -> None:
        """Somebody makes a mistake."""
        # Never twice the same: what is said again, a log only counts.
        self._mistakes += "x"
        self._mistake = _MISTAKES[how].replace("NAME", self._mistakes)
        self._write()

    def mend(self) -> None:
        """The mistake is found."""
        self._mistake = ""
        self._write()

    def _write(self) -> None:
        new = self.path.with_suffix(".new")
        new.write_text(self._text() + self._mistake)
        new.replace(self.path)

    def _text(self) -> str:
        files, quick, slow = (self._outputs[output] for output in ("files", "quick", "slow"))
        siems = "".join(
            f"[outputs.{self._outputs[output].name}]\n{fixed}\n{self._outputs[output].lines()}\n"
            for output, fixed in self._siems.items()
        )
        settings, addresses = self._settings, self._addresses
        categories = ", ".join(f'"{category}"' for category in SLOW_CATEGORIES)
        return f"""\
{self._labels}
[aws]
region = "us-east-1"
endpoint_url = {{ kinesis = "{addresses["kinesis"]}", kms = "{addresses["kms"]}" }}
{self._sources}
[transforms.noise]
type = "drop"
match = {{ user = "rdsadmin" }}
[outputs.{files.name}]
type = "file"
path = "disk/out/{{category}}.jsonl{settings["suffix"]}"
transforms = []
{files.lines()}{settings["rotate"]}
[outputs.{quick.name}]
type = "rig"
url = "{addresses["quick"]}"
concurrency = 4
{quick.lines()}
[outputs.{slow.name}]
type = "rig"
url = "{addresses["slow"]}"
match = {{ category = [{categories}] }}
{slow.lines()}
{siems}[dead_letters]
storm = {STORM}
[state]
path = "disk/state/shipper.db"
[server]
listen = ""
drain_timeout = "{settings["drain"]}"
[log]
format = "text"
"""
