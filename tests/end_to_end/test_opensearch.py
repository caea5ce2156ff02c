"""Encrypted activity to a real OpenSearch by the real command line, while the server and then shipper are killed:
nothing is lost, nothing is doubled."""

from __future__ import annotations

from pathlib import Path

import pytest

from servers.opensearch import Api, Server
from support.command import shipper, start, succeeded
from support.oracle import ids_in_files
from support.waiting import until

pytestmark = pytest.mark.xdist_group("opensearch")

PATIENCE = 180.0


def configure(folder: Path, server: Server, place: str) -> Path:
    configuration = folder / "shipper.toml"
    configuration.write_text(
        f"""
        [sources.captured]
        type = "file"
        path = "captured.jsonl"
        keys = {{ provider = "static", path = "keys.json" }}

        [outputs.search]
        type = "opensearch"
        hosts = "{server.url}"
        {place}
        batch = {{ max_events = 250, max_wait = "100ms" }}
        retry = {{ initial = "100ms", max = "1s" }}
        concurrency = 2

        [outputs.files]
        type = "file"
        path = "out/events.jsonl"

        [server]
        listen = ""
        drain_timeout = "120s"
        """
    )
    return configuration


def generate(folder: Path, events: int) -> None:
    arguments = ["--engine", "aurora-postgresql", "--events", events, "--events-per-record", 10, "--seed", 11]
    succeeded(shipper("generate", *map(str, arguments), "--file", "captured.jsonl", "--keys", "keys.json", cwd=folder))


def stored(api: Api, place: str) -> int:
    status, answer = api.try_("GET", f"/{place}/_count")
    return int(answer["count"]) if status == 200 else 0


@pytest.mark.parametrize(
    ("place", "found_in"),
    [
        pytest.param('index = "audit-{engine}"', "audit-*", id="index"),
        pytest.param('data_stream = "audit"', "audit", id="data stream", marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize("events", [20_000, pytest.param(100_000, marks=pytest.mark.long)])
def test_a_killed_server_and_a_killed_shipper_lose_and_double_nothing(
    opensearch_server: Server, tmp_path: Path, events: int, place: str, found_in: str
) -> None:
    api = Api(opensearch_server.url)
    api.clean()
    generate(tmp_path, events)
    configuration = configure(tmp_path, opensearch_server, place)

    process = start("run", "--once", configuration, cwd=tmp_path)
    try:
        until(lambda: stored(api, found_in) > events // 20, (tmp_path / "shipper.log").read_text, PATIENCE)
        opensearch_server.kill()
        assert process.poll() is None, "it was too quick for this test"
        opensearch_server.start()
        before = stored(api, found_in)
        until(lambda: stored(api, found_in) > before, (tmp_path / "shipper.log").read_text, PATIENCE)
    finally:
        process.kill()
        process.wait()
    succeeded(shipper("run", "--once", configuration, cwd=tmp_path, timeout=PATIENCE))

    generated = ids_in_files(tmp_path / "out" / "events.jsonl")
    assert len(generated) == generated.total() == events
    found = [document["_source"]["id"] for document in api.documents(found_in)]
    assert len(found) == events
    assert set(found) == set(generated)
    books = succeeded(shipper("status", "--books", "-c", configuration, cwd=tmp_path))
    assert "do not balance" not in books.stdout + books.stderr
    api.clean()
