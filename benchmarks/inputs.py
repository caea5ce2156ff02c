"""What the benchmarks read: generated activity, the same bytes in every run."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import msgspec

from shipper.generate.activity import Generator
from shipper.generate.sealing import seal

WRAPPING_KEY = bytes(range(32))
KEY_BLOB = b"\x01\x02\x02\x00x" + bytes(179)

_LONGEST_LINE = 4096
_START = datetime(2026, 1, 5, 9, tzinfo=UTC)


class _Record(msgspec.Struct):
    databaseActivityEventList: list[msgspec.Raw]


def write_lines(path: Path, events: int) -> None:
    """Bare Aurora MySQL events, one per line, as the file source reads them: about 700 bytes each, without a bulk job's
    statements of 20 kB."""
    decode = msgspec.json.Decoder(_Record).decode
    written = 0
    with path.open("wb") as file:
        for plaintext in _plaintexts("aurora-mysql", events_per_record=100, events=None):
            for event in decode(plaintext).databaseActivityEventList:
                line = msgspec.json.format(event, indent=-1)
                if len(line) <= _LONGEST_LINE and written < events:
                    file.write(line + b"\n")
                    written += 1
            if written == events:
                return


def write_records(path: Path, *, suite: int, events_per_record: int, records: int) -> None:
    """Sealed records, one envelope per line, each with ``events_per_record`` events."""
    engine, version, frame_length = {
        0x0178: ("aurora-postgresql", "1.1", 4096),
        0x0378: ("aurora-mysql", "1.2", 262_144),
    }[suite]
    plaintexts = _plaintexts(engine, events_per_record=events_per_record, events=None)
    with path.open("wb") as file:
        for plaintext in islice(plaintexts, records):
            file.write(
                seal(
                    plaintext,
                    wrapping_key=WRAPPING_KEY,
                    key_blob=KEY_BLOB,
                    suite=suite,
                    frame_length=frame_length,
                    version=version,
                )
                + b"\n"
            )


def write_keys(path: Path) -> None:
    """The keys file for all of them."""
    key, blob = (base64.b64encode(each).decode() for each in (WRAPPING_KEY, KEY_BLOB))
    path.write_text(json.dumps({blob: key}))
    path.chmod(0o600)


def _plaintexts(engine: str, *, events_per_record: int, events: int | None) -> Iterator[bytes]:
    """Records with events, heartbeats left out; without ``events`` only those that are full."""
    # Fast enough in the stream's time that no record is closed early by its age.
    rate = 1000.0 * events_per_record
    generator = Generator(engine, seed=1, start=_START, rate=rate, events_per_record=events_per_record)
    for record in generator.records(events if events is not None else 1_000_000_000):
        if not record.heartbeat and (events is not None or record.events == events_per_record):
            yield record.plaintext
