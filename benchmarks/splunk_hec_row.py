"""``python -m benchmarks.splunk_hec_row``: JSON lines to a Splunk HEC that answers at once, beside a bare loop.

The sink is a process of its own, whose CPU does not count. The row and its floor use ``benchmarks.rows`` as they are;
the floor's loop is here, because it needs to know where the sink listens.
"""

from __future__ import annotations

import argparse
import http.client
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from isal import igzip

from benchmarks import floors
from benchmarks.inputs import write_lines
from benchmarks.measure import Run, cost, run
from benchmarks.rows import REPOSITORY
from shipper.state import positions
from shipper.state.file import read_state

SIZES = (20_000, 140_000)

_ANSWER = b'{"text":"Success","code":0}'
_REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(_ANSWER), _ANSWER)

CASES: Mapping[str, str] = {
    "JSON lines → splunk_hec, gzip": "",
    "JSON lines → splunk_hec, not compressed": 'compression = "none"',
    "JSON lines → splunk_hec, gzip, metadata of each event": (
        'index = "das_{database}"\nhost = "{server_host}"\nsource = "{user}"\nindexed_fields = ["user", "action"]'
    ),
}


def main() -> None:
    """Measures and prints: µs of CPU per event of shipper and of the floor, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="only the cases whose name contains this")
    parser.add_argument("--scale", type=float, default=1.0)
    given = parser.parse_args()
    sizes = tuple(max(1, int(size * given.scale)) for size in SIZES)
    events = (sizes[0], sizes[1])
    with tempfile.TemporaryDirectory(prefix="shipper-benchmark-") as name, sink() as port:
        folders = [Path(name, str(size)) for size in events]
        for folder, size in zip(folders, events, strict=True):
            folder.mkdir()
            write_lines(folder / "input.jsonl", size)
        for case, settings in CASES.items():
            if given.only not in case:
                continue
            runs: dict[tuple[str, int], list[Run]] = {}
            for _ in range(given.rounds):
                for index, folder in enumerate(folders):
                    runs.setdefault(("shipper", index), []).append(_ship(folder, events[index], port, settings))
                    runs.setdefault(("floor", index), []).append(_floor(folder, events[index], port, settings))
            shipped = cost(runs["shipper", 0], runs["shipper", 1], events)
            floor = cost(runs["floor", 0], runs["floor", 1], events)
            print(
                f"{case}: {shipped.per_event:.2f} µs per event (± {shipped.spread * 50:.0f} %), "
                f"floor {floor.per_event:.2f} µs, ratio {shipped.per_event / floor.per_event:.2f}, "
                f"RSS {shipped.rss / 1e6:.0f} MB"
            )


@contextmanager
def sink() -> Iterator[int]:
    """A process that answers every post at once; its port."""
    command = [sys.executable, "-c", "from benchmarks.splunk_hec_row import serve; serve()"]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def serve() -> None:
    """The sink's process: prints its port."""
    listening = socket.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    while True:
        connection, _ = listening.accept()
        threading.Thread(target=_answer, args=(connection,), daemon=True).start()


def _answer(connection: socket.socket) -> None:
    buffer = bytearray(1 << 20)
    held = b""
    while True:
        while (end := held.find(b"\r\n\r\n")) < 0:
            received = connection.recv(65_536)
            if not received:
                return
            held += received
        (length,) = (
            int(line.partition(b":")[2])
            for line in held[:end].split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        )
        left = length - (len(held) - end - 4)
        while left > 0:
            left -= connection.recv_into(buffer, min(left, len(buffer)))
        held = b""
        connection.sendall(_REPLY)


def lines_to_http(source: Path, port: int, gzip: bool) -> int:
    """What has to be done at least: decode, map, encode, put the envelope around, join, compress, post."""
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def post(body: bytes) -> None:
        events = body.split(b"\n")[:-1]
        around = b'{"time":1767323045.000001,"sourcetype":"aws:rds:das","fields":{"event_id":"%b"},"event":'
        body = b"".join([part for event in events for part in (around % event[25:57], event, b"}")])
        connection.request("POST", "/services/collector/event", igzip.compress(body, 1) if gzip else body)
        connection.getresponse().read()

    return floors._lines(source, post, lambda: None)


def _ship(folder: Path, events: int, port: int, settings: str) -> Run:
    (folder / "shipper.toml").write_text(
        f"""
[sources.input]
type = "file"
path = "input.jsonl"
decode = "events"

[outputs.splunk]
type = "splunk_hec"
url = "http://127.0.0.1:{port}"
token = "00000000-0000-0000-0000-000000000000"
{settings}

[server]
listen = ""
"""
    )
    used = run([sys.executable, "-m", "shipper", "run", "--once", "shipper.toml"], folder, folder / "log")
    state = read_state(folder / "state" / "shipper.db")
    delivered = sum(positions.books(state)["splunk"]["delivered"].values())
    state.close()
    for path in (folder / "state").iterdir():
        path.unlink()
    if delivered != events:
        raise RuntimeError(f"{delivered} of {events} events were delivered")
    return used


def _floor(folder: Path, events: int, port: int, settings: str) -> Run:
    script = (
        "import sys; from pathlib import Path; from benchmarks.splunk_hec_row import lines_to_http; "
        "print(lines_to_http(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == 'gzip'))"
    )
    compression = "none" if "none" in settings else "gzip"
    command = [sys.executable, "-c", script, str(folder / "input.jsonl"), str(port), compression]
    used = run(command, REPOSITORY, folder / "log")
    if int((folder / "log").read_text()) != events:
        raise RuntimeError("the floor lost events")
    return used


if __name__ == "__main__":
    main()
