"""The same promises at full size: a million events, memory that does not grow, and kills all along the way."""

from __future__ import annotations

import functools
import os
import random
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from isal import igzip

from shipper.decode import Origin
from shipper.decode.decoder import RecordDecoder
from shipper.generate.activity import Generator
from shipper.source import Record
from support.command import environment, shipper, start, succeeded
from support.oracle import ids_in_files

pytestmark = pytest.mark.long

gzip_open: Any = igzip.open  # it has no types

EVENTS = 1_000_000
KILLS = 60
#: Peak memory of the whole process, in KiB, as the kernel counts it.
MAX_RSS_KIB = 300 * 1024


class _NoKeys:
    def data_key(self, blob: bytes, resource_id: str | None) -> bytes:
        raise AssertionError("nothing here is encrypted")


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gzipped file of decrypted records with a million events, ten each."""
    folder = tmp_path_factory.mktemp("captured")
    generator = Generator("aurora-postgresql", seed=11, start=datetime(2026, 3, 5, tzinfo=UTC), rate=5000)
    with gzip_open(folder / "captured.jsonl.gz", "wb", compresslevel=1) as file:
        for record in generator.records(EVENTS):
            file.write(record.plaintext + b"\n")
    return folder


@functools.cache
def _ids(captured: Path) -> frozenset[str]:
    decoder = RecordDecoder(Origin("s", "p"), _NoKeys())
    ids: set[str] = set()
    with gzip_open(captured / "captured.jsonl.gz") as lines:
        for line in lines:
            ids.update(event.id for event in decoder.decode(Record(0, line.rstrip(b"\n"), 0), "").events)
    assert len(ids) == EVENTS
    return frozenset(ids)


def configure(folder: Path, captured: Path, more: str = "") -> str:
    (folder / "shipper.toml").write_text(
        f"""
        [sources.captured]
        type = "file"
        path = "{captured}/captured.jsonl.gz"
        decode = "events"
        [outputs.files]
        type = "file"
        path = "out/{{category}}.jsonl.gz"
        rotate = {{ max_bytes = "20MB" }}
        {more}
        [server]
        listen = ""
        """
    )
    return "shipper.toml"


def check(folder: Path, captured: Path) -> None:
    found = ids_in_files(*(folder / "out").glob("*"))
    assert found.keys() == _ids(captured)
    assert found.total() == EVENTS


def test_a_million_events_arrive_exactly_once_in_bounded_memory(captured: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "shipper", "run", "--once", configure(tmp_path, captured)]
    pid = os.posix_spawn(sys.executable, ["python", "-c", _CHDIR, str(tmp_path), *command], environment())
    _, status, usage = os.wait4(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    check(tmp_path, captured)
    assert usage.ru_maxrss <= MAX_RSS_KIB


_CHDIR = "import os, sys; os.chdir(sys.argv[1]); os.execv(sys.argv[2], sys.argv[2:])"


def test_kills_all_along_a_million_events(captured: Path, tmp_path: Path) -> None:
    name = configure(tmp_path, captured)
    instants = random.Random(5)
    sizes: Counter[int] = Counter()
    for _ in range(KILLS):
        process = start("run", name, cwd=tmp_path)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(instants.uniform(0.6, 1.6))
        process.kill()
        process.wait()
        sizes[sum(path.stat().st_size for path in (tmp_path / "out").glob("*"))] += 1
    assert len(sizes) > KILLS / 4, "most kills came before anything was written"
    succeeded(shipper("run", "--once", name, cwd=tmp_path, timeout=600))
    check(tmp_path, captured)
