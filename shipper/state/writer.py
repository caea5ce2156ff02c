"""The one thread that writes the state file: group commit of everything that came meanwhile.

Threads hand in changes; each change is applied in the order of arrival, several in one transaction, at most about
twenty commits a second. ``call`` waits until its change is on disk; ``submit`` does not.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from shipper.clock import Clock

log = logging.getLogger("shipper.state")

#: Seconds between two commits that nobody waits for.
COMMIT_INTERVAL = 0.05
#: Changes that may wait while the disk refuses; then whoever submits has to wait as well.
MAX_WAITING = 10_000
#: Seconds until a commit that the disk refused is tried again.
RETRY_INTERVAL = 1.0

T = TypeVar("T")
Change = Callable[[sqlite3.Connection], T]


class Writer:
    """Applies changes to the state file. ``run`` is the body of its thread; ``blocked`` says why nothing commits."""

    def __init__(self, connection: sqlite3.Connection, clock: Clock) -> None:
        self.blocked: str | None = None
        self._connection = connection
        self._clock = clock
        self._waiting: deque[tuple[Change[object], Future[object] | None]] = deque()
        self._condition = threading.Condition()
        self._urgent = False
        self._closing = False
        self._pause = threading.Event()

    def submit(self, change: Change[object]) -> None:
        """Hands a change in; it is committed after everything that was handed in before."""
        with self._condition:
            self._condition.wait_for(lambda: len(self._waiting) < MAX_WAITING or self._closing)
            self._waiting.append((change, None))
            self._condition.notify_all()

    def call(self, change: Change[T]) -> T:
        """Hands a change in, waits until it is on disk, and returns what it returned or raises what it raised."""
        future: Future[object] = Future()
        with self._condition:
            self._waiting.append((change, future))
            self._urgent = True
            self._condition.notify_all()
        self._pause.set()
        return future.result()  # type: ignore[return-value]  # the future carries what the change returned

    def run(self, pulse: Callable[[], None]) -> None:
        """Commits until ``close`` was called and nothing waits any more. ``pulse`` is called at each turn."""
        while True:
            pulse()
            with self._condition:
                self._condition.wait_for(lambda: self._waiting or self._closing, timeout=1.0)
                if not self._waiting:
                    if self._closing:
                        return
                    continue
                group = list(self._waiting)
                self._waiting.clear()
                urgent, self._urgent = self._urgent, False
                self._pause.clear()
                self._condition.notify_all()
            self._commit_until_done(group, pulse)
            if not urgent and not self._closing:
                self._clock.wait(self._pause, COMMIT_INTERVAL)

    def close(self) -> None:
        """Lets ``run`` end when all that was handed in is committed."""
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        self._pause.set()

    def _commit_until_done(
        self, group: list[tuple[Change[object], Future[object] | None]], pulse: Callable[[], None]
    ) -> None:
        while True:
            try:
                results = self._commit(group)
                break
            except sqlite3.OperationalError as error:
                # A full or read-only disk ends by itself; until then nothing is lost: positions simply stand still.
                if self.blocked is None:
                    log.warning("state: the disk refuses a commit (%s); everything is kept and tried again", error)
                self.blocked = str(error)
                pulse()
                self._clock.wait(threading.Event(), RETRY_INTERVAL)
        if self.blocked is not None:
            log.info("state: the disk takes commits again")
            self.blocked = None
        for (_, future), result in zip(group, results, strict=True):
            if future is None:
                if isinstance(result, BaseException):
                    raise result
            elif isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)

    def _commit(self, group: list[tuple[Change[object], Future[object] | None]]) -> list[object]:
        results: list[object] = []
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            for change, _ in group:
                connection.execute("SAVEPOINT change")
                try:
                    results.append(change(connection))
                except sqlite3.OperationalError:
                    raise
                except Exception as error:  # noqa: BLE001 - goes to whoever handed the change in
                    connection.execute("ROLLBACK TO change")
                    results.append(error)
                connection.execute("RELEASE change")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return results
