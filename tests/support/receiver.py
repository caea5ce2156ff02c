"""The receiver that the rig output posts to: keeps every event that it acknowledged, and answers by a script."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

RIG = Path(__file__).parent / "rig"

#: Gets the output's name and the events of a request, and says what to answer: ``{"failed": {index: outcome}}``,
#: ``{"held": why}`` or ``{}``. It may block: that is a slow destination.
Script = Callable[[str, list[dict[str, Any]]], dict[str, Any]]


class Receiver:
    """Counts, per output, how often each event id was acknowledged."""

    def __init__(self, script: Script = lambda output, events: {}) -> None:
        self.script = script
        self.ids: dict[str, Counter[str]] = {}
        self.order: dict[str, list[str]] = {}
        self.requests: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._begun = 0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                reply = json.dumps(receiver.take(self.path[1:], body)).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # a shipper that was killed hangs up

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Receiver:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def take(self, output: str, body: bytes) -> dict[str, Any]:
        events = [json.loads(line) for line in body.split(b"\n")]
        with self._changed:
            self._begun += 1
            self._changed.notify_all()
        answer = self.script(output, events)
        refused = set(answer.get("failed", {}))
        with self._changed:
            self.requests[output] += 1
            if "held" not in answer:
                kept = [event["id"] for index, event in enumerate(events) if str(index) not in refused]
                self.ids.setdefault(output, Counter()).update(kept)
                self.order.setdefault(output, []).extend(kept)
            self._changed.notify_all()
        return answer

    def wait(self, condition: Callable[[], bool], seconds: float = 30) -> None:
        """Until ``condition`` holds; it is asked after every request."""
        with self._changed:
            assert self._changed.wait_for(condition, timeout=seconds), f"after {seconds} s: {self.count()}"

    def wait_for_request(self) -> None:
        """Until a request has come, answered or not."""
        self.wait(lambda: self._begun > 0)

    def count(self) -> dict[str, int]:
        return {output: len(ids) for output, ids in self.ids.items()}
