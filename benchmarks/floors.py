"""The bare loops that shipper is held against: the same work with the same libraries and nothing around it.

``python -m benchmarks.floors NAME INPUT OUTPUT`` runs one of them and prints how many events it saw, so that its CPU
is measured as shipper's is: as a process of its own. Where it posts by HTTP, OUTPUT is the port.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.client
import json
import os
import sqlite3
import sys
from collections.abc import Callable
from datetime import datetime
from itertools import islice
from pathlib import Path

import msgspec
from aws_encryption_sdk import CommitmentPolicy, EncryptionSDKClient
from aws_encryption_sdk.identifiers import EncryptionKeyType, WrappingAlgorithm
from aws_encryption_sdk.internal.crypto.wrapping_keys import WrappingKey
from aws_encryption_sdk.key_providers.raw import RawMasterKeyProvider
from isal import igzip

from benchmarks.inputs import WRAPPING_KEY
from shipper.event import Event
from shipper.generate.sealing import KEY_NAME, PROVIDER

BATCH = 1000
#: Of a request by HTTP; any token does.
_HEADERS = {
    "Content-Type": "application/json",
    "Content-Encoding": "gzip",
    "Authorization": "Splunk 00000000-0000-0000-0000-000000000000",
}
#: Rows of about a megabyte that are committed together.
ROWS_IN_TRANSACTION = 8


class Activity(msgspec.Struct, gc=False):
    """An event of Aurora MySQL, as far as the loop maps it."""

    logTime: str
    startTime: str
    endTime: str
    dbUserName: str
    databaseName: str
    remoteHost: str
    remotePort: str
    command: str
    commandText: str
    objectName: str
    objectType: str
    statementId: int
    substatementId: int
    exitCode: str
    sessionId: str
    transactionId: str
    rowCount: int
    serverHost: str
    serverVersion: str
    serviceName: str
    dbProtocol: str
    netProtocol: str
    errorMessage: str
    pid: int
    class_: str = msgspec.field(name="class")


def lines_to_file(source: Path, target: Path) -> int:
    """JSON lines of Aurora MySQL → native events, one write and one ``fdatasync`` per batch."""
    with target.open("wb", buffering=0) as file:
        return _lines(source, file.write, lambda: os.fdatasync(file.fileno()))


def lines_to_gzip(source: Path, target: Path) -> int:
    """The same, each batch a gzip member of its own."""
    with target.open("wb", buffering=0) as file:
        return _lines(source, lambda body: file.write(igzip.compress(body, 1)), lambda: os.fdatasync(file.fileno()))


def lines_to_nothing(source: Path, target: Path) -> int:
    """The same, and the batch is let go: what is left is decoding, mapping and encoding."""
    del target
    return _lines(source, lambda body: None, lambda: None)


def lines_to_opensearch(source: Path, target: Path) -> int:
    """The same, each batch a compressed ``_bulk`` request on one connection. Nobody looks at the answers."""

    def action(event: bytes) -> bytes:  # the id and the time stand where they always do
        return b'{"create":{"_id":"%b"}}\n{"@timestamp":"%b",' % (event[26:58], event[68:95])

    def wrapped(events: list[bytes]) -> bytes:
        return b"".join([part for event in events for part in (action(event), event[1:], b"\n")])

    return _post(source, target, "/audit/_bulk", wrapped)


def lines_to_splunk_hec(source: Path, target: Path) -> int:
    """The same to Splunk's HTTP Event Collector, every event in an envelope with its time and its id."""
    seconds: dict[bytes, bytes] = {}

    def envelope(event: bytes) -> bytes:
        second = seconds.get(event[68:87])
        if second is None:
            moment = datetime.fromisoformat(event[68:87].decode() + "Z")
            second = seconds[event[68:87]] = b"%d" % moment.timestamp()
        return b'{"time":%b%b,"sourcetype":"aws:rds:das","fields":{"event_id":"%b"},"event":' % (
            second,
            event[87:94],
            event[26:58],
        )

    def wrapped(events: list[bytes]) -> bytes:
        return b"".join([part for event in events for part in (envelope(event), event, b"}")])

    return _post(source, target, "/services/collector/event", wrapped)


def _post(source: Path, target: Path, path: str, wrapped: Callable[[list[bytes]], bytes]) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", int(target.name))

    def post(body: bytes) -> None:
        body = igzip.compress(wrapped(body.split(b"\n")[:-1]), 1)
        connection.request("POST", path, body, _HEADERS)
        connection.getresponse().read()

    count = _lines(source, post, lambda: None)
    connection.close()
    return count


def lines_to_spool(source: Path, target: Path) -> int:
    """The same into rows of a table, as many in a transaction as a queue holds."""
    database = sqlite3.connect(target, isolation_level=None)
    database.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE spool (native BLOB)")
    rows: list[tuple[bytes]] = []

    def commit() -> None:
        if len(rows) < ROWS_IN_TRANSACTION and not final:
            return
        database.execute("BEGIN IMMEDIATE")
        database.executemany("INSERT INTO spool VALUES (?)", rows)
        database.execute("COMMIT")
        rows.clear()

    final = False
    count = _lines(source, lambda body: rows.append((body,)), commit)
    final = True
    commit()
    database.close()
    return count


def spool_to_file(source: Path, target: Path) -> int:
    """Reads the rows of a state file's spool one by one, writes each to a file, and deletes it."""
    database = sqlite3.connect(source, isolation_level=None)
    database.executescript("PRAGMA synchronous = FULL; PRAGMA secure_delete = OFF")
    count = last = 0
    with target.open("wb", buffering=0) as file:
        while row := database.execute(
            "SELECT id, events, native FROM spool WHERE id > ? ORDER BY id LIMIT 1", (last,)
        ).fetchone():
            last, events, native = row
            file.write(native + b"\n")
            os.fdatasync(file.fileno())
            database.execute("DELETE FROM spool WHERE id = ?", (last,))
            count += events
    database.close()
    return count


def _lines(source: Path, write: Callable[[bytes], object], sync: Callable[[], None]) -> int:
    """Read a line, decode it into a struct, map it to the event with an id of its content, encode, join, write."""
    decode = msgspec.json.Decoder(Activity).decode
    encode = msgspec.json.Encoder().encode
    digest = hashlib.blake2b
    moment = datetime.fromisoformat

    def native(line: bytes) -> bytes:
        it = decode(line)
        when = it.logTime
        number = f"{int(moment(when).timestamp() * 1000):012x}{digest(line, digest_size=10).hexdigest()}"
        return encode(
            Event(
                schema_version=1,
                id=number,
                time=f"{when[:10]}T{when[11:-3]}Z",
                engine="aurora-mysql",
                category="read",
                action=it.command.lower(),
                outcome="success" if it.exitCode in ("", "0") else "failure",
                code=it.exitCode or None,
                error=it.errorMessage or None,
                user=it.dbUserName or None,
                database=it.databaseName or None,
                object=it.objectName or None,
                object_type=it.objectType or None,
                command=it.command,
                class_=it.class_,
                statement=it.commandText or None,
                rows=it.rowCount,
                client_host=it.remoteHost or None,
                client_port=int(it.remotePort),
                server_host=it.serverHost or None,
                server_version=it.serverVersion or None,
                service=it.serviceName or None,
                session_id=it.sessionId,
                statement_id=str(it.statementId),
                substatement_id=str(it.substatementId),
                transaction_id=it.transactionId or None,
                pid=it.pid,
                started=f"{it.startTime[:10]}T{it.startTime[11:-3]}Z",
                ended=f"{it.endTime[:10]}T{it.endTime[11:-3]}Z",
                db_protocol=it.dbProtocol,
                network_protocol=it.netProtocol,
                source_name="floor",
            )
        )

    count = 0
    with source.open("rb") as lines:
        while batch := [native(line) for line in islice(lines, BATCH)]:
            write(b"\n".join(batch) + b"\n")
            sync()
            count += len(batch)
    return count


class _Key(RawMasterKeyProvider):  # type: ignore[misc]  # the SDK has no types
    provider_id = PROVIDER
    key = WrappingKey(
        wrapping_algorithm=WrappingAlgorithm.AES_256_GCM_IV12_TAG16_NO_PADDING,
        wrapping_key=WRAPPING_KEY,
        wrapping_key_type=EncryptionKeyType.SYMMETRIC,
    )

    def _get_raw_key(self, key_id: bytes) -> WrappingKey:
        return self.key


def records_by_sdk(source: Path, target: Path) -> int:
    """What a consumer that follows AWS's sample does, but with one provider for all records and no call to KMS:
    envelope, ``aws-encryption-sdk``, gunzip, ``json``. Maps nothing and writes nothing."""
    client = EncryptionSDKClient(commitment_policy=CommitmentPolicy.FORBID_ENCRYPT_ALLOW_DECRYPT)
    provider = _Key()
    provider.add_master_key(KEY_NAME)
    count = 0
    with source.open("rb") as records:
        for record in records:
            message = base64.b64decode(json.loads(record)["databaseActivityEvents"])
            plaintext, _header = client.decrypt(source=message, key_provider=provider)
            count += len(json.loads(gzip.decompress(plaintext))["databaseActivityEventList"])
    return count


FLOORS: dict[str, Callable[[Path, Path], int]] = {
    "lines_to_file": lines_to_file,
    "lines_to_gzip": lines_to_gzip,
    "lines_to_nothing": lines_to_nothing,
    "lines_to_opensearch": lines_to_opensearch,
    "lines_to_splunk_hec": lines_to_splunk_hec,
    "lines_to_spool": lines_to_spool,
    "spool_to_file": spool_to_file,
    "records_by_sdk": records_by_sdk,
}

if __name__ == "__main__":
    name, given, wanted = sys.argv[1:]
    print(FLOORS[name](Path(given), Path(wanted)))
