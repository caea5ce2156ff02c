"""An output plugin like a third party's, found through a ``dist-info`` folder, and a way to load inline files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from shipper import configuration
from shipper.settings import Configuration

#: Lines 1 to 5 of a test's file: what it adds begins in line 6, inside [outputs.siem].
BASE = """\
[sources.orders]
type = "kinesis"
cluster = "orders-prod"
[outputs.siem]
type = "sink"
"""

PLUGIN = """
from shipper.hookspecs import hookimpl
from shipper.output import AwsSettings, NetworkSettings, Output, Report, Target, Text
from shipper.paths import LocalTemplate
from shipper.secrets import Secret
from shipper.settings import Table
from shipper.units import Size
from pydantic import field_validator


class Ack(Table):
    interval: int = 10


class Settings(NetworkSettings, AwsSettings):
    url: str = "https://sink.example"
    token: Secret | None = None
    tokens: tuple[Secret, ...] = ()
    ack: bool | Ack = False
    index: str | None = None
    header: str | None = None
    path: LocalTemplate | None = None
    ratio: float = 1.0
    limit: Size | None = None
    hosts: tuple[str, ...] = ()
    mode: str = "fine"

    @field_validator("mode")
    @classmethod
    def _mode(cls, mode):
        if mode != "fine":
            raise ValueError(f"the mode {mode} is not fine")
        return mode


class Sink(Output):
    Settings = Settings

    def values(self):
        wanted = [Target(self.settings.index)] if self.settings.index else []
        return wanted + ([Text(self.settings.header)] if self.settings.header else [])

    def send(self, batch):
        return Report()


@hookimpl
def shipper_output():
    return Sink
"""

ORDERED = """
from shipper.hookspecs import hookimpl
from shipper.output import Output, Report


class Ordered(Output):
    ordered = True

    def send(self, batch):
        return Report()


@hookimpl
def shipper_output():
    return Ordered
"""


@pytest.fixture(autouse=True)
def third_party(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Installs the output types ``sink`` and ``ordered_sink``; more files may be put into the folder."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "their_sink.py").write_text(PLUGIN)
    (folder / "their_ordered_sink.py").write_text(ORDERED)
    info = folder / "their_outputs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-outputs\nVersion: 1.0\n")
    points = "sink = their_sink\nordered_sink = their_ordered_sink\n"
    (info / "entry_points.txt").write_text(f"[shipper.outputs]\n{points}")
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for module in [name for name in sys.modules if name.startswith("their_")]:
        del sys.modules[module]


Load = Callable[..., Configuration]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """``load(text, …)`` writes each text to a file (``1.toml``, ``2.toml`` …) and loads them in this order."""

    def load_texts(*texts: str, environ: Mapping[str, str] | None = None) -> Configuration:
        paths = []
        for number, text in enumerate(texts, 1):
            paths.append(tmp_path / f"{number}.toml")
            paths[-1].write_text(text)
        return configuration.load(paths, environ=environ or {})

    return load_texts
