"""A real state file for every test."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from shipper.state import positions
from shipper.state.file import lock, open_state
from state.samples import Scene


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "shipper.db"


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    with lock(path):
        opened = open_state(path)
        yield opened
        opened.close()


@pytest.fixture
def scene(connection: sqlite3.Connection) -> Scene:
    lanes = positions.ensure_lanes(connection, ["a", "b"])
    stream = positions.ensure_stream(connection, "arn/1", "arn", "earliest", 86400.0, list(lanes.values()))
    partitions = positions.ensure_partitions(connection, stream, ["shard"], list(lanes.values()), 1000.0)
    return Scene(connection, lanes["a"], lanes["b"], stream, partitions["shard"].id)
