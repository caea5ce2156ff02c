"""From an encrypted activity stream to files, by the real command line, through kills: every event exactly once.

Kinesis is kinesis-local and KMS is moto: neither is ours.
"""

from __future__ import annotations

import functools
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest

from servers.kinesis_local import kinesis_local
from servers.moto_server import moto_server
from shipper.clock import SystemClock
from shipper.decode.das.keys import DataKeys
from shipper.decode.das.kms import KmsUnwrap
from support.command import shipper, start, succeeded
from support.oracle import ids_in_files, ids_of_records, stream_records

REGION = "us-east-1"
EVENTS = 6_000
#: In each compression.
KILLS = 8


@dataclass
class Cloud:
    """A Kinesis and a KMS, and how to reach them."""

    kinesis_url: str
    kms_url: str

    def client(self, service: str) -> Any:
        url = self.kinesis_url if service == "kinesis" else self.kms_url
        return boto3.client(service, region_name=REGION, endpoint_url=url)  # type: ignore[call-overload]

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL_KINESIS": self.kinesis_url,
            "AWS_ENDPOINT_URL_KMS": self.kms_url,
            "AWS_DEFAULT_REGION": REGION,
        }


@dataclass
class ActivityStream:
    """A stream with the activity of a cluster on it, and the ids of its events."""

    name: str
    resource_id: str
    ids: Counter[str]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    folder = tmp_path_factory.mktemp("cloud")
    with kinesis_local(folder) as kinesis, moto_server(folder) as kms:
        yield Cloud(kinesis, kms)


@pytest.fixture(scope="module")
def stream(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> ActivityStream:
    """Made by ``shipper generate``, once for all tests that only read it."""
    return generate(cloud, tmp_path_factory.mktemp("generate"))


def generate(cloud: Cloud, folder: Path) -> ActivityStream:
    kinesis, kms = cloud.client("kinesis"), cloud.client("kms")
    resource_id = f"cluster-{uuid4().hex[:26].upper()}"
    name = f"aws-rds-das-{resource_id}"
    kinesis.create_stream(StreamName=name, ShardCount=3)
    kinesis.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 0.1, "MaxAttempts": 300})
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    for engine in ("aurora-postgresql", "aurora-mysql"):
        arguments = ["--engine", engine, "--events", EVENTS // 2, "--events-per-record", 10, "--seed", 7]
        arguments += ["--resource-id", resource_id, "--stream", name, "--kms-key", key]
        succeeded(shipper("generate", *map(str, arguments), cwd=folder, env=cloud.environment))
    keys = DataKeys(KmsUnwrap(kms), max_entries=100, ttl=600, clock=SystemClock())
    ids = ids_of_records(stream_records(kinesis, name), keys, resource_id)
    kinesis.close()
    kms.close()
    assert len(ids) == ids.total() == EVENTS, "the generator made equal events"
    return ActivityStream(name, resource_id, ids)


def configure(folder: Path, stream: ActivityStream, path: str) -> Path:
    configuration = folder / "shipper.toml"
    configuration.write_text(
        f"""
        [sources.orders]
        type = "kinesis"
        resource_id = "{stream.resource_id}"
        poll_interval = "200ms"
        [outputs.files]
        type = "file"
        path = "{path}"
        batch = {{ max_events = 10 }}
        rotate = {{ max_bytes = "200kB" }}
        [server]
        listen = ""
        """
    )
    return configuration


def files(folder: Path) -> list[Path]:
    return sorted((folder / "out").rglob("*.*"))


def test_every_event_arrives_exactly_once_and_a_second_run_adds_nothing(
    cloud: Cloud, stream: ActivityStream, tmp_path: Path
) -> None:
    configuration = configure(tmp_path, stream, "out/{engine}.jsonl")
    succeeded(shipper("run", "--once", configuration, cwd=tmp_path, env=cloud.environment))
    assert ids_in_files(*files(tmp_path)) == stream.ids
    before = {path: path.stat().st_size for path in files(tmp_path)}
    again = succeeded(shipper("run", "--once", configuration, cwd=tmp_path, env=cloud.environment))
    assert {path: path.stat().st_size for path in files(tmp_path)} == before
    assert "balance" in again.stderr
    assert "do not balance" not in again.stderr


@pytest.mark.parametrize(("suffix", "seed"), [("jsonl", 1), ("jsonl.gz", 2), ("jsonl.zst", 3)])
def test_kills_at_random_instants_neither_lose_nor_double_anything(
    cloud: Cloud, stream: ActivityStream, tmp_path: Path, suffix: str, seed: int
) -> None:
    instants = random.Random(seed)
    kills = rounds = 0
    while kills < KILLS:
        # A shipper that was not killed in time has finished: the next round begins from nothing.
        folder = tmp_path / f"round{rounds}"
        folder.mkdir()
        rounds += 1
        configuration = configure(folder, stream, f"out/{{category}}.{suffix}")
        while kills < KILLS:
            written = size_of(folder)
            process = start("run", configuration, cwd=folder, env=cloud.environment)
            begun = wait_until(process, functools.partial(has_changed, folder, written))
            wait_until(process, lambda: False, instants.uniform(0, 0.3))
            assert process.poll() is None, (folder / "shipper.log").read_text()
            process.kill()
            process.wait()
            if not begun:
                break
            kills += 1
        succeeded(shipper("run", "--once", configuration, cwd=folder, env=cloud.environment))
        assert ids_in_files(*files(folder)) == stream.ids


def size_of(folder: Path) -> int:
    """Bytes of all files, also of those that a kill left torn."""
    return sum(path.stat().st_size for path in files(folder))


def has_changed(folder: Path, size: int) -> bool:
    return size_of(folder) != size


def wait_until(process: subprocess.Popen[bytes], condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Whether the condition came true in time; ends early when the process does."""
    deadline = time.monotonic() + seconds
    while not condition():
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        try:
            process.wait(min(left, 0.01))
            return False
        except subprocess.TimeoutExpired:
            continue
    return True
