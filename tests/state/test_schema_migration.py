"""A state file of an older schema becomes one of this; a newer one is refused."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from shipper.errors import StateError
from shipper.source import END, Position
from shipper.state import dead_letters, positions, spool
from shipper.state.dead_letters import Filter
from shipper.state.file import as_text, lock, open_state, read_state

#: What version 1 made, as it stood there.
SCHEMA_1 = """
CREATE TABLE streams (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  identity TEXT NOT NULL UNIQUE,
  series TEXT NOT NULL,
  start TEXT NOT NULL,
  retention REAL
);
CREATE TABLE partitions (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  stream INTEGER NOT NULL REFERENCES streams (id),
  name TEXT NOT NULL,
  begins TEXT NOT NULL,
  UNIQUE (stream, name)
);
CREATE TABLE lanes (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL UNIQUE,
  bookmark BLOB
);
CREATE TABLE positions (
  lane INTEGER NOT NULL REFERENCES lanes (id),
  partition INTEGER NOT NULL REFERENCES partitions (id),
  record TEXT,
  event INTEGER,
  decoder TEXT NOT NULL DEFAULT '',
  arrived INTEGER NOT NULL DEFAULT 0,
  tip REAL NOT NULL DEFAULT 0,
  ended INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (lane, partition)
) WITHOUT ROWID;
CREATE TABLE books (
  lane INTEGER NOT NULL REFERENCES lanes (id),
  entry TEXT NOT NULL,
  reason TEXT NOT NULL,
  count INTEGER NOT NULL,
  PRIMARY KEY (lane, entry, reason)
) WITHOUT ROWID;
CREATE TABLE dead_letters (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  stream INTEGER NOT NULL REFERENCES streams (id),
  partition INTEGER NOT NULL REFERENCES partitions (id),
  record TEXT NOT NULL,
  reference TEXT NOT NULL,
  ordinals TEXT NOT NULL,
  output TEXT NOT NULL,
  source TEXT NOT NULL,
  reason TEXT NOT NULL,
  detail TEXT NOT NULL,
  attempts INTEGER NOT NULL,
  first REAL NOT NULL,
  last REAL NOT NULL,
  arrived INTEGER NOT NULL,
  resource_id TEXT,
  event_id TEXT,
  data BLOB NOT NULL,
  UNIQUE (partition, record, ordinals, output)
);
CREATE INDEX dead_letters_by_output ON dead_letters (output, reason);
PRAGMA user_version=1;
"""

RECORD = 10**55 + 1


def write_schema_1(path: Path) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(f"PRAGMA page_size=16384; PRAGMA auto_vacuum=INCREMENTAL; {SCHEMA_1}")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("INSERT INTO streams (identity, series, start) VALUES ('arn/1', 'arn', 'earliest')")
    connection.execute("INSERT INTO partitions (stream, name, begins) VALUES (1, 'shard', 'start')")
    connection.execute("INSERT INTO lanes (name, bookmark) VALUES ('a', x'01'), ('b', NULL), ('elsewhere', NULL)")
    row = "INSERT INTO positions (lane, partition, record, event, decoder) VALUES (?, 1, ?, ?, '3')"
    connection.executemany(row, [(1, as_text(RECORD), None), (2, as_text(RECORD), 4)])
    connection.execute("INSERT INTO books VALUES (1, 'offered', '', 7)")
    letter = (
        "INSERT INTO dead_letters (id, stream, partition, record, reference, ordinals, output, source, reason, detail, "
        "attempts, first, last, arrived, resource_id, event_id, data) "
        "VALUES (?, 1, 1, ?, 'at', ?, ?, 'orders', 'tampered', 'why', 2, 10.0, 20.0, 5, 'cluster-1', NULL, ?)"
    )
    connection.execute(letter, (3, as_text(RECORD), "", "*", b"as it was read"))
    connection.execute(letter, (5, as_text(RECORD), "[2]", "b", b"not a native event"))
    connection.close()


def test_a_file_of_schema_1_opens_with_all_that_it_held(path: Path) -> None:
    write_schema_1(path)
    with lock(path):
        connection = open_state(path)
        lanes = {name: lane for name, lane in positions.ensure_lanes(connection, []).items() if name != "elsewhere"}
        stream = positions.ensure_stream(connection, "arn/1", "arn", "earliest", None, list(lanes.values()))
        found = positions.ensure_partitions(connection, stream, ["shard"], list(lanes.values()), 0.0)["shard"]
        assert {lane: standing.position for lane, standing in found.standings.items()} == {
            lanes["a"]: Position(RECORD, END),
            lanes["b"]: Position(RECORD, 4),
        }
        assert found.standings[lanes["a"]].decoder == "3"
        assert positions.bookmark_of(connection, lanes["a"]) == b"\x01"
        assert positions.books(connection)["a"] == {"offered": {"": 7}}
        record, event = dead_letters.listing(connection, Filter())
        assert (record.id, record.output, record.attempts, record.first, record.last) == (3, "*", 2, 10.0, 20.0)
        assert (event.id, event.output, event.ordinals, event.resource_id) == (5, "b", (2,), "cluster-1")
        assert dead_letters.data_of(connection, 3) == b"as it was read"
        connection.close()


def test_a_record_of_schema_1_is_owed_to_the_lanes_that_read_it_then(path: Path) -> None:
    write_schema_1(path)
    with lock(path):
        connection = open_state(path)
        stream = positions.ensure_stream(connection, "arn/1", "arn", "earliest", None, [3])
        assert stream.id == 1
        dead_letters.replay(connection, Filter(id=3), spool.next_id(connection))
        assert connection.execute("SELECT lanes FROM kept_records").fetchall() == [("[1, 2]",)]
        connection.close()


def test_an_event_of_schema_1_is_replayed_with_the_bytes_that_it_has(path: Path) -> None:
    write_schema_1(path)
    with lock(path):
        connection = open_state(path)
        connection.execute("UPDATE dead_letters SET data = ? WHERE id = 5", (b"not a native\nevent",))
        dead_letters.replay(connection, Filter(id=5), spool.next_id(connection))
        assert [row.native for row in spool.page(connection, 2, 0, 1000)] == [[b"not a native\nevent"]]
        connection.close()


def test_a_migrated_file_has_the_tables_of_a_new_one(path: Path, tmp_path: Path) -> None:
    write_schema_1(path)
    open_state(path).close()
    open_state(tmp_path / "new.db").close()
    assert tables_of(path) == tables_of(tmp_path / "new.db")


def test_ids_of_dead_letters_are_not_used_again_after_a_migration(path: Path) -> None:
    write_schema_1(path)
    connection = open_state(path)
    connection.execute("DELETE FROM dead_letters")
    (letter,) = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'dead_letters'").fetchone()
    assert letter == 5
    connection.close()


def test_a_migration_that_fails_leaves_the_old_file(path: Path) -> None:
    write_schema_1(path)
    spoilt = sqlite3.connect(path, isolation_level=None)
    spoilt.execute("CREATE TABLE gaps (id INTEGER)")  # the last table that the migration makes
    spoilt.close()
    with pytest.raises(StateError, match="table gaps already exists"):
        open_state(path)
    kept = sqlite3.connect(path, isolation_level=None)
    assert kept.execute("PRAGMA user_version").fetchone() == (1,)
    assert kept.execute("SELECT count(*) FROM dead_letters").fetchone() == (2,)
    kept.close()


def test_a_file_of_schema_1_is_not_read_before_it_was_brought_up_to_date(path: Path) -> None:
    write_schema_1(path)
    with pytest.raises(StateError, match=r"schema 1, this version reads 2; .*`shipper run` brings it up to date"):
        read_state(path)


def test_a_newer_schema_is_refused(path: Path) -> None:
    with lock(path):
        connection = open_state(path)
        connection.execute("PRAGMA user_version=3")
        connection.close()
        for open_it in (open_state, read_state):
            with pytest.raises(
                StateError, match="the file has schema 3, this version knows 2; nothing was started; use"
            ):
                open_it(path)


def tables_of(path: Path) -> set[tuple[str, str, tuple[tuple[object, ...], ...]]]:
    """Kind and name of everything, with columns (type, NOT NULL, default, key) or those of an index."""
    connection = read_state(path)
    found = set()
    for kind, name in connection.execute("SELECT type, name FROM sqlite_master").fetchall():
        columns = connection.execute(f"PRAGMA {kind}_info({name})").fetchall()
        keys = connection.execute(f"PRAGMA foreign_key_list({name})").fetchall() if kind == "table" else []
        found.add((kind, name, (*columns, *keys)))
    connection.close()
    return found
