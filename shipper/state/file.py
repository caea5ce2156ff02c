"""Opens the state file: its settings, its lock, and what is wrong with it.

SQLite in WAL mode with ``synchronous=FULL``: a committed transaction survives a power cut. One process writes
(``lock``), others read beside it.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shipper.errors import StateError
from shipper.state import schema
from shipper.state.refusal import is_damage
from shipper.state.room import Room
from shipper.state.schema import DIGITS

#: File systems whose locks and syncs cannot be trusted, by their names in /proc/mounts (proc(5)).
_NETWORK_TYPES = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "fuse.sshfs", "afs"})

#: Tables that are looked through at each start: small, and without them nothing can go on. Damage to a dead letter or
#: a row of the spool is met when it is read.
_CHECKED = ("streams", "partitions", "lanes", "positions", "books")

#: Bytes of WAL that are kept for the next transactions.
_MAX_WAL = 64 * 1024 * 1024


class InUse(StateError):
    """Another process ships with this state file, or changes it, and holds its lock."""


class _Damaged(sqlite3.DatabaseError):
    """What SQLite's own check has found."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


def open_state(path: Path) -> sqlite3.Connection:
    """Opens the file for writing, creating it (0600, folder 0700) with its schema. The caller holds ``lock``.

    Raises ``StateError`` where the file is damaged, of another version, unwritable or on a network disk.
    """
    _refuse_network_disk(path)
    try:
        try:
            return _open(path)
        except (sqlite3.OperationalError, OSError):
            # A full disk refuses even the small files that SQLite keeps beside this one.
            room = Room(path)
            if not (room.short() and room.give_up()):
                raise
            return _open(path)
    except (sqlite3.DatabaseError, OSError) as error:
        if is_damage(error):
            raise damaged(path, error, "nothing was started") from error
        message = f"state: {path} cannot be opened: {error}; nothing was started"
        raise StateError(f"{message}; make its folder writable, or name another path in [state]") from error


def read_state(path: Path) -> sqlite3.Connection:
    """Opens an existing file for reading only, also beside a running shipper. Raises ``StateError``."""
    return _open_for_reading(path, check_same_thread=True)


def open_reader(path: Path) -> sqlite3.Connection:
    """The same for the threads of the running shipper: whoever uses it next need not be the one who opened it, though
    one at a time. Raises ``StateError``."""
    return _open_for_reading(path, check_same_thread=False)


def damaged(path: Path | str, error: BaseException, so: str) -> StateError:
    """What is said about a file that is not what SQLite wrote; ``so``: what the program does about it."""
    return StateError(
        f"state: {path} is damaged: {error}; {so}; restore it, with its -wal file, from a copy. Without one, rescue "
        "what can still be read (`shipper dead-letters export`, `shipper position show`), move it away and start: "
        "every source is then read again from its `start`, and `shipper dead-letters import` takes the export back"
    )


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Holds the exclusive lock that makes this process the only one that ships with this state file.

    Raises ``InUse`` when another process holds it, ``StateError`` when the folder cannot be written.
    """
    lock_path = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(lock_path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        message = f"state: {lock_path} cannot be written: {error.strerror}; nothing was started"
        raise StateError(f"{message}; name a writable local folder in [state] path") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
            message = f"state: {path} is used by another shipper (process {owner}); nothing was started"
            raise InUse(f"{message}; stop that one, or give this one its own [state] path") from error
        with suppress(OSError):  # whose lock it is, is a courtesy that a full disk may refuse
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def as_text(record: int) -> str:
    """A record position as it is stored."""
    return f"{record:0{DIGITS}d}"


def _open(path: Path) -> sqlite3.Connection:
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
    try:
        _prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _open_for_reading(path: Path, check_same_thread: bool) -> sqlite3.Connection:
    if not path.exists():
        raise StateError(f"state: there is no state file {path}; name the configuration that shipper runs with (-c)")
    address = f"{path.absolute().as_uri()}?mode=ro"
    try:
        connection = sqlite3.connect(
            address, uri=True, isolation_level=None, check_same_thread=check_same_thread, timeout=30
        )
        try:
            schema.require(connection)
        except BaseException:
            connection.close()
            raise
    except sqlite3.DatabaseError as error:
        if is_damage(error):
            raise damaged(path, error, "nothing was read") from error
        raise StateError(f"state: {path} cannot be read: {error}") from error
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    # Before the first table: SQLite ignores both afterwards.
    connection.execute("PRAGMA page_size=16384")
    connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    # Debian's build turns it on, which doubles the writes of deleting.
    connection.execute("PRAGMA secure_delete=OFF")
    # A WAL that one large transaction has made long is cut when it begins anew.
    connection.execute(f"PRAGMA journal_size_limit={_MAX_WAL}")
    schema.prepare(connection)
    connection.execute("PRAGMA foreign_keys=ON")
    for table in _CHECKED:
        for (finding,) in connection.execute(f"PRAGMA quick_check({table})"):
            if finding != "ok":
                raise _Damaged(f"{table}: {finding}")


def _refuse_network_disk(path: Path) -> None:
    folder = path.parent.resolve()
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return  # not Linux: nothing to ask
    best = ("", "")
    for line in mounts:
        _, point, kind, *_ = line.split(" ")
        if folder.is_relative_to(point.replace("\\040", " ")) and len(point) >= len(best[0]):
            best = (point, kind)
    if best[1] in _NETWORK_TYPES:
        message = f"state: {folder} is on a network file system ({best[1]}), where locks and syncs cannot be trusted"
        raise StateError(f"{message}; nothing was started; name a folder on a local disk in [state] path")
