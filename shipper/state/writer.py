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
from typing import Any, TypeVar

from shipper.clock import Clock
from shipper.errors import StateError
from shipper.state.file import damaged
from shipper.state.refusal import is_damage
from shipper.state.room import Room
from shipper.state.upkeep import Upkeep

log = logging.getLogger("shipper.state")

#: Seconds between two commits that nobody waits for.
COMMIT_INTERVAL = 0.05
#: Bytes that may wait for their commit before whoever has more is to wait.
BEHIND = 16 * 1024 * 1024
#: Seconds until a commit that the disk refused is tried again.
RETRY_INTERVAL = 1.0

T = TypeVar("T")
Change = Callable[[sqlite3.Connection], T]
_Waiting = tuple[Change[Any], "Future[Any] | None", Callable[[Any], None] | None, int]


class Writer:
    """Applies changes to the state file. ``run`` is the body of its thread; ``blocked`` says why nothing commits.

    A change may be applied several times before it is committed: what must happen once belongs into ``committed``,
    which is called with what the change returned, after the commit. ``room``: whose ballast is given up when the disk
    is full. While nothing waits, pages that deletions have freed go back to the disk.
    """

    def __init__(self, connection: sqlite3.Connection, clock: Clock, room: Room | None = None) -> None:
        self.blocked: str | None = None
        self._connection = connection
        self._clock = clock
        self._upkeep = Upkeep(connection, clock, room)
        self._waiting: deque[_Waiting] = deque()
        self._condition = threading.Condition()
        self._size = 0
        self._urgent = False
        self._closing = False
        self._given_up = threading.Event()
        self._dead: BaseException | None = None
        self._pause = threading.Event()

    def submit(self, change: Change[T], committed: Callable[[T], None] | None = None, size: int = 0) -> None:
        """Hands a change in; it is committed after everything that was handed in before, or not at all. ``size``: bytes
        that it keeps in memory until then.

        Never waits. Raises ``StateError`` when the writer has died: then nothing is committed any more.
        """
        with self._condition:
            self._require_life()
            self._waiting.append((change, None, committed, size))
            self._size += size
            self._condition.notify_all()

    @property
    def behind(self) -> bool:
        """Whether so much waits for its commit that whoever has more should wait: the disk is slower than what comes,
        and memory is bounded."""
        return self._size >= BEHIND

    def call(self, change: Change[T]) -> T:
        """Hands a change in, waits until it is on disk, and returns what it returned or raises what it raised.

        Raises ``StateError`` when the writer has died, or ended before the disk took the change.
        """
        future: Future[T] = Future()
        with self._condition:
            self._require_life()
            self._waiting.append((change, future, None, 0))
            self._urgent = True
            self._condition.notify_all()
        self._pause.set()
        return future.result()

    def wait_while_blocked(self, stop: threading.Event) -> None:
        """Until the disk takes commits, or ``stop`` is set: what cannot be committed must not pile up in memory."""
        while self.blocked is not None and self._dead is None and not self._clock.wait(stop, RETRY_INTERVAL):
            pass

    def wait_while_behind(self, stop: threading.Event) -> None:
        """The same until the disk has caught up with what was handed in."""
        self.wait_while_blocked(stop)
        while self.behind and self._dead is None and not self._clock.wait(stop, COMMIT_INTERVAL):
            pass

    def run(self, pulse: Callable[[], None]) -> None:
        """Commits until ``close`` was called and nothing waits any more. ``pulse`` is called at each turn."""
        group: list[_Waiting] = []
        more_upkeep = False
        try:
            while True:
                pulse()
                with self._condition:
                    timeout = 0.0 if more_upkeep else 1.0
                    self._condition.wait_for(lambda: self._waiting or self._closing, timeout=timeout)
                    if not self._waiting and self._closing:
                        return
                    group = list(self._waiting)
                    self._waiting.clear()
                    urgent, self._urgent = self._urgent, False
                    self._pause.clear()
                if not group:
                    more_upkeep = self._upkeep.turn(idle=True)
                    continue
                more_upkeep = False
                if not self._commit_until_done(group, pulse):
                    return
                if not urgent and not self._closing:
                    if not self._waiting:
                        self._upkeep.turn(idle=False)
                    self._clock.wait(self._pause, COMMIT_INTERVAL)
        except BaseException as error:
            self._dead = error
            if is_damage(error):
                (_, _, path), *_ = self._connection.execute("PRAGMA database_list").fetchall()
                raise damaged(path, error, "stopped; positions stand where they were") from error
            raise
        finally:
            self._refuse_the_rest(group)

    def close(self) -> None:
        """Lets ``run`` end when all that was handed in is committed."""
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        self._pause.set()

    def give_up(self) -> None:
        """Lets ``run`` end although the disk takes no commits: positions stay where they are."""
        self.close()
        self._given_up.set()

    def _require_life(self) -> None:
        if self._dead is not None:
            message = f"state: the writer has ended ({type(self._dead).__name__}); nothing is committed any more"
            raise StateError(f"{message}; positions stand where they were: start again")

    def _refuse_the_rest(self, group: list[_Waiting]) -> None:
        """Whoever still waits is told: nobody may wait for ever for a thread that has ended."""
        with self._condition:
            self._dead = self._dead or StateError("closed")
            rest = [*group, *self._waiting]
            self._waiting.clear()
        for _, future, _, _ in rest:
            if future is not None and not future.done():
                future.set_exception(StateError("state: shipper stopped before the disk took the change"))

    def _commit_until_done(self, group: list[_Waiting], pulse: Callable[[], None]) -> bool:
        """False when the disk refused until it was given up."""
        while True:
            try:
                results = self._commit(group)
                break
            except sqlite3.OperationalError as error:
                if self._upkeep.make_room(error):
                    continue
                # A full or read-only disk ends by itself; until then nothing is lost: positions simply stand still.
                if self.blocked is None:
                    log.warning("state: the disk refuses a commit (%s); everything is kept and tried again", error)
                self.blocked = str(error)
                pulse()
                if self._clock.wait(self._given_up, RETRY_INTERVAL):
                    log.warning("state: given up after the disk refused (%s); positions stand where they were", error)
                    return False
        if self.blocked is not None:
            log.info("state: the disk takes commits again")
            self.blocked = None
        with self._condition:
            self._size -= sum(size for _, _, _, size in group)
        for (_, future, committed, _), result in zip(group, results, strict=True):
            if committed is not None:
                committed(result)
            if future is None:
                continue
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)
        return True

    def _commit(self, group: list[_Waiting]) -> list[Any]:
        """Applies the group in one transaction. A change that fails and that somebody waits for fails alone; one that
        nobody waits for takes the whole group with it: what follows may rest on it (a position on a dead letter)."""
        results: list[Any] = []
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            for change, future, _, _ in group:
                if future is None:
                    results.append(change(connection))
                    continue
                connection.execute("SAVEPOINT change")
                try:
                    results.append(change(connection))
                except sqlite3.OperationalError:
                    raise
                except Exception as error:
                    if is_damage(error):
                        raise
                    connection.execute("ROLLBACK TO change")
                    results.append(error)
                connection.execute("RELEASE change")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return results
