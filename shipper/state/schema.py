"""The tables of the state file, and how a file of an older schema becomes one of this."""

from __future__ import annotations

import sqlite3

from shipper.errors import StateError

SCHEMA = 2

#: Digits of a stored record position. Sequence numbers differ in length; padded text sorts as the numbers do, and an
#: INTEGER column would turn them into floating point.
DIGITS = 80

# Ids are AUTOINCREMENT: a rowid starts again when its table empties, and a late deletion would hit a new row. Columns
# that are counted or filtered stand before the blobs, so that reading them touches no overflow page.
_FIRST_TABLES = """
-- What is read, whatever the configuration calls it. `start` was resolved once, before the first read; 'imported':
-- known from imported dead letters alone.
CREATE TABLE streams (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  identity TEXT NOT NULL UNIQUE,
  series TEXT NOT NULL,
  start TEXT NOT NULL,
  retention REAL
);

-- `begins`: 'start' for what existed when the stream was first listed, 'beginning' for what came later, 'imported' for
-- what is known from imported dead letters alone.
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

CREATE TABLE books (
  lane INTEGER NOT NULL REFERENCES lanes (id),
  entry TEXT NOT NULL,
  reason TEXT NOT NULL,
  count INTEGER NOT NULL,
  PRIMARY KEY (lane, entry, reason)
) WITHOUT ROWID;
"""

_POSITIONS = """
-- One explicit row per lane and partition. `record` NULL: nothing is settled yet; then `begins` ('earliest' or a time)
-- says where a lane begins that was told to read again, NULL: where the partition does. `event` NULL: the record is
-- finished. `arrived` (ns) is the record's, `tip` (s) the last moment when the reader saw nothing more.
CREATE TABLE positions (
  lane INTEGER NOT NULL REFERENCES lanes (id),
  partition INTEGER NOT NULL REFERENCES partitions (id),
  record TEXT,
  event INTEGER,
  decoder TEXT NOT NULL DEFAULT '',
  arrived INTEGER NOT NULL DEFAULT 0,
  tip REAL NOT NULL DEFAULT 0,
  ended INTEGER NOT NULL DEFAULT 0,
  begins TEXT,
  PRIMARY KEY (lane, partition)
) WITHOUT ROWID;
CREATE INDEX positions_by_partition ON positions (partition);
"""

_DEAD_LETTERS = """
-- Keyed by what was read: meeting it again updates the row. `output` is '*' for a record that could not be decoded;
-- `lanes` is then a JSON list of the lanes that it is owed to, '' for every lane that reads its partition. `ordinals`
-- is a JSON list of indices in the record, '' for all of it; `reference` is the source's own name for the position (a
-- sequence number). `data` is the record as it was read, or the event's native line, `raw` its line of that format.
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
  lanes TEXT NOT NULL DEFAULT '',
  data BLOB NOT NULL,
  raw BLOB,
  UNIQUE (partition, record, ordinals, output)
);
"""

_SECOND_TABLES = """
CREATE INDEX dead_letters_by_output ON dead_letters (output, reason);
CREATE INDEX dead_letters_in_line ON dead_letters (output);
CREATE INDEX dead_letters_by_reason ON dead_letters (reason);
CREATE INDEX dead_letters_by_age ON dead_letters (last);

-- Keys of records among the dead letters that were replayed or purged, until every lane is past them. `output`: '*'.
CREATE TABLE tombstones (
  partition INTEGER NOT NULL REFERENCES partitions (id),
  record TEXT NOT NULL,
  ordinals TEXT NOT NULL,
  output TEXT NOT NULL,
  PRIMARY KEY (partition, record, ordinals, output)
) WITHOUT ROWID;

-- The tail of each lane's line. One row is up to a thousand events, oldest first by id. `places` (msgpack) says where
-- they were read; `native` holds their native lines and `raw` those of the format of that name, joined by line feeds.
-- `time`: when it was spooled, `oldest`: the oldest event's time, both in seconds; `bytes`: of both blobs.
CREATE TABLE spool (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  lane INTEGER NOT NULL REFERENCES lanes (id),
  events INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  time REAL NOT NULL,
  oldest REAL NOT NULL,
  places BLOB NOT NULL,
  native BLOB NOT NULL,
  raw BLOB
);
CREATE INDEX spool_in_line ON spool (lane, id, events, bytes, time);

-- Records that cannot be decoded now, as they were read, for the lanes (JSON list of ids) and ordinals (JSON list, ''
-- for all) that they are owed to. `replayed`: a dead letter that was sent again. `time` in seconds, `arrived` in ns.
CREATE TABLE kept_records (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  stream INTEGER NOT NULL REFERENCES streams (id),
  partition INTEGER NOT NULL REFERENCES partitions (id),
  source TEXT NOT NULL,
  record TEXT NOT NULL,
  reference TEXT NOT NULL,
  resource_id TEXT,
  arrived INTEGER NOT NULL,
  time REAL NOT NULL,
  lanes TEXT NOT NULL,
  ordinals TEXT NOT NULL,
  replayed INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  data BLOB NOT NULL
);
CREATE INDEX kept_records_in_line ON kept_records (stream);
CREATE INDEX kept_records_by_partition ON kept_records (stream, partition);
CREATE INDEX kept_records_by_source ON kept_records (source, id, bytes, time);

-- What commands ask of the running shipper: `request` and `answer` are JSON, `state` is waiting, done or failed.
CREATE TABLE control (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  request TEXT NOT NULL,
  asked REAL NOT NULL,
  state TEXT NOT NULL DEFAULT 'waiting',
  answer TEXT
);

-- What a stream lost before it could be read, shown until somebody has acknowledged it. Times in seconds.
CREATE TABLE gaps (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  source TEXT NOT NULL,
  partition TEXT NOT NULL,
  since REAL NOT NULL,
  until REAL NOT NULL,
  reason TEXT NOT NULL,
  noticed REAL NOT NULL,
  acknowledged REAL
);
"""

# Schema 1 had no spool; its positions had no `begins`, its dead letters no `lanes` and no `raw`. A record that could
# not be decoded was owed to every lane that read its partition.
_FROM_1 = f"""
ALTER TABLE positions RENAME TO old_positions;
{_POSITIONS}
INSERT INTO positions (lane, partition, record, event, decoder, arrived, tip, ended)
  SELECT lane, partition, record, event, decoder, arrived, tip, ended FROM old_positions;
DROP TABLE old_positions;
DROP INDEX dead_letters_by_output;
ALTER TABLE dead_letters RENAME TO old_dead_letters;
{_DEAD_LETTERS}
INSERT INTO dead_letters (id, stream, partition, record, reference, ordinals, output, source, reason, detail, attempts,
    first, last, arrived, resource_id, event_id, lanes, data)
  SELECT id, stream, partition, record, reference, ordinals, output, source, reason, detail, attempts,
    first, last, arrived, resource_id, event_id,
    CASE output WHEN '*' THEN
      (SELECT json_group_array(lane) FROM positions WHERE positions.partition = old_dead_letters.partition)
    ELSE '' END, data FROM old_dead_letters ORDER BY id;
DROP TABLE old_dead_letters;
{_SECOND_TABLES}
"""  # noqa: S608 - made of our own words

_FRESH = _FIRST_TABLES + _POSITIONS + _DEAD_LETTERS + _SECOND_TABLES

#: What turns a file of the schema before the key's successor into the next one.
_MIGRATIONS = {0: (_FRESH, SCHEMA), 1: (_FROM_1, 2)}


def prepare(connection: sqlite3.Connection) -> None:
    """Makes the tables of a new file, or those of an older schema into these, each in one transaction.

    Foreign keys are not enforced meanwhile. Raises ``StateError`` for a schema that this version does not know.
    """
    while (found := version(connection)) in _MIGRATIONS:
        tables, reached = _MIGRATIONS[found]
        try:
            connection.executescript(f"BEGIN IMMEDIATE; {tables} PRAGMA user_version={reached}; COMMIT;")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    require(connection)


def require(connection: sqlite3.Connection) -> None:
    """Raises ``StateError`` unless the file has the schema that this version reads."""
    found = version(connection)
    if found in _MIGRATIONS:
        message = f"state: the file has schema {found}, this version reads {SCHEMA}; nothing was read"
        raise StateError(f"{message}; `shipper run` brings it up to date when it starts with this version")
    if found != SCHEMA:
        message = f"state: the file has schema {found}, this version knows {SCHEMA}; nothing was started"
        raise StateError(f"{message}; use the version that wrote it, or name another path in [state]")


def version(connection: sqlite3.Connection) -> int:
    """The schema of the file; 0: it has no tables yet."""
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    return int(found)
