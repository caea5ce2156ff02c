"""What ``shipper check --connect`` asks about data keys: is one record's key unwrapped, or the keys file usable?"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from typing import Any

from shipper import aws
from shipper.decode import Undecodable
from shipper.decode.das.envelope import parse_envelope
from shipper.decode.das.keys import KeysFile
from shipper.decode.das.kms import KmsUnwrap
from shipper.errors import ConfigurationError
from shipper.output import Check
from shipper.settings import FileSourceSettings, KeysSettings, KinesisSettings
from shipper.source import EARLIEST, Source
from shipper.sources import source_class

#: So many records at most are looked at until one has an encrypted data key.
MAX_RECORDS = 100
_SUBJECT = "kms:Decrypt"


def check_keys(name: str, settings: KinesisSettings | FileSourceSettings) -> Iterator[Check]:
    """Static keys: reads the file. KMS: unwraps the data key of the oldest record that the source has, because KMS
    says nothing about a permission without a ciphertext. No event is decrypted. May raise ``Held``."""
    keys = settings.keys
    if keys.provider == "static":
        yield _keys_file(keys)
        return
    source = source_class(settings.type)(name, settings)
    with closing(source):
        source.connect()
        blob = _oldest_blob(source)
        if blob is None:
            yield Check(_SUBJECT, True, "not asked: the source has no encrypted record at present")
            return
        kms = aws.client("kms", keys)
        with closing(kms):
            try:
                KmsUnwrap(kms).unwrap(blob, source.resource_id)
            except Undecodable as error:
                mend = "check resource_id: KMS unwraps a key only for the cluster or instance that it was made for"
                yield Check(_SUBJECT, False, str(error), mend)
            else:
                yield Check(_SUBJECT, True, f"unwraps the data key of a record of {source.resource_id}")


def _keys_file(keys: KeysSettings) -> Check:
    assert keys.path is not None
    try:
        KeysFile(keys.path)
    except ConfigurationError as error:
        (problem,) = error.problems
        return Check("keys file", False, f"{problem.file}: {problem.message}", problem.mend)
    return Check("keys file", True, str(keys.path))


def _oldest_blob(source: Source[Any]) -> bytes | None:
    for data in islice(_records(source), MAX_RECORDS):
        try:
            blob = parse_envelope(data).key_blob
        except Undecodable:
            continue
        if blob:
            return blob
    return None


def _records(source: Source[Any]) -> Iterator[bytes]:
    """What every partition holds, the oldest first, up to where it is empty or nothing more is there at present."""
    stop = threading.Event()
    for partition in source.partitions():
        for read in source.read(partition, EARLIEST, stop):
            yield from (record.data for record in read.records)
            if read.end or read.lag == 0:
                break
