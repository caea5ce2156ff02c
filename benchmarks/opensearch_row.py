"""JSON lines → OpenSearch with gzip, against a sink that answers at once: ``python -m benchmarks.opensearch_row``.

The sink is a process of its own, so that its CPU is not counted. The floor is the loop that compresses into a file.
"""

from __future__ import annotations

import socketserver
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from isal import igzip

from benchmarks.rows import ROWS, Row, measure

_ITEM = b'{"create":{"status":201}}'
_BATCH = 'batch = { max_events = 5000, max_bytes = "5MB" }'


class _Sink(socketserver.StreamRequestHandler):
    """Counts the events of each request and says that all of them were created."""

    def handle(self) -> None:
        while self.rfile.readline():
            length, packed = 0, False
            while (line := self.rfile.readline().strip().lower()) != b"":
                name, _, value = line.partition(b":")
                length = int(value) if name == b"content-length" else length
                packed = packed or (name == b"content-encoding" and b"gzip" in value)
            body = self.rfile.read(length)
            count = (igzip.decompress(body) if packed else body).count(b"\n") // 2
            answer = b'{"errors":false,"items":[' + b",".join([_ITEM] * count) + b"]}"
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(answer)
            self.wfile.write(head + answer)


@contextmanager
def opensearch_rows() -> Iterator[tuple[Row, ...]]:
    """The rows, while their sink runs."""
    with subprocess.Popen([sys.executable, "-m", __spec__.name, "--sink"], stdout=subprocess.PIPE) as sink:
        assert sink.stdout is not None
        try:
            port = int(sink.stdout.readline())
            table = (
                f'type = "opensearch"\nhosts = "http://127.0.0.1:{port}"\nindex = "audit"\ntemplate = "none"\n{_BATCH}'
            )
            (base,) = (row for row in ROWS if row.floor == "lines_to_gzip")
            plain = f'{table}\ncompression = "none"'
            yield (
                replace(base, name="JSON lines → OpenSearch, gzip", outputs={"search": table}),
                replace(base, name="JSON lines → OpenSearch", floor="lines_to_nothing", outputs={"search": plain}),
            )
        finally:
            sink.kill()


def _serve() -> None:
    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), _Sink) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()


if __name__ == "__main__":
    if "--sink" in sys.argv:
        _serve()
    else:
        with opensearch_rows() as rows:
            for row in rows:
                found = measure(row, 3)
                print(
                    f"{row.name}: {found.shipper.per_event:.2f} µs per event, floor {found.floor.per_event:.2f} µs, "
                    f"ratio {found.ratio:.2f} ± {found.noise:.0%}, start {found.shipper.start:.2f} s, "
                    f"{found.shipper.rss / 1e6:.0f} MB"
                )
