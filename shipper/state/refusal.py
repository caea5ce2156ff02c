"""Why SQLite refuses: what ends by itself, and what does not."""

from __future__ import annotations

import sqlite3


def is_full(error: sqlite3.Error) -> bool:
    """Whether SQLite says that the disk is full."""
    return _code(error) == sqlite3.SQLITE_FULL


def is_damage(error: BaseException) -> bool:
    """Whether SQLite says that the file is not what it wrote."""
    return isinstance(error, sqlite3.Error) and _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _code(error: sqlite3.Error) -> int:
    """The primary result code; extended ones carry more in the higher bits."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
