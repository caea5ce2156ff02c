"""Destinations that answer at once, each a process of its own, so that its CPU is not counted.

``python -m benchmarks.sinks NAME`` listens on a free port of the loopback interface and prints it.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_ITEM = b'{"create":{"status":201}}'


def opensearch(body: bytes) -> bytes:
    """Every document of a ``_bulk`` request was created."""
    return b'{"errors":false,"items":[' + b",".join([_ITEM] * (body.count(b"\n") // 2)) + b"]}"


def splunk_hec(body: bytes) -> bytes:
    """The request was taken."""
    del body
    return b'{"text":"Success","code":0}'


SINKS: dict[str, Callable[[bytes], bytes]] = {"opensearch": opensearch, "splunk_hec": splunk_hec}


@contextmanager
def running(name: str) -> Iterator[int]:
    """The sink's port, while its process runs."""
    command = [sys.executable, "-m", "benchmarks.sinks", name]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _serve(answer: Callable[[bytes], bytes]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(listening.getsockname()[1], flush=True)
        while True:
            connection, _ = listening.accept()
            threading.Thread(target=_converse, args=(connection, answer), daemon=True).start()


def _converse(connection: socket.socket, answer: Callable[[bytes], bytes]) -> None:
    with connection, connection.makefile("rb") as requests:
        while requests.readline():
            length, packed = 0, False
            while line := requests.readline().strip().lower():
                name, _, value = line.partition(b":")
                length = int(value) if name == b"content-length" else length
                packed = packed or (name == b"content-encoding" and b"gzip" in value)
            body: bytes = requests.read(length)
            reply = answer(zlib.decompress(body, wbits=zlib.MAX_WBITS | 16) if packed else body)
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(reply)
            connection.sendall(head + reply)


if __name__ == "__main__":
    _serve(SINKS[sys.argv[1]])
