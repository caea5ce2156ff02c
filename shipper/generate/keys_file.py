"""Adds data keys to a keys file: ``{"<the envelope's key field, base64>": "<32-byte key, base64>"}``, mode 0600."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shipper.errors import ShipperError
from shipper.generate.sealer import DataKey


class KeysFileWriter:
    """Every key is in the file before it is used: what was written can be read, whenever the writer ends."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, key: DataKey) -> None:
        """Adds one key and leaves the others. Raises ``ShipperError`` where the file cannot be used."""
        try:
            with _alone(self._path.parent):
                keys = self._read()
                keys[base64.b64encode(key.blob).decode()] = base64.b64encode(key.plain).decode()
                self._replace(json.dumps(keys, indent=1))
        except OSError as error:
            raise ShipperError(
                f"generate: the keys file {self._path} cannot be written: {error.strerror}; stopped. Name another one "
                "with --keys"
            ) from error

    def _read(self) -> dict[str, str]:
        try:
            keys = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except (ValueError, RecursionError):
            keys = None
        if not isinstance(keys, dict):
            # Replacing what is something else would destroy it.
            raise ShipperError(
                f"generate: {self._path} is not a keys file, so it was left alone; name another one with --keys"
            )
        return keys

    def _replace(self, text: str) -> None:
        # mkstemp makes a file that only its owner can read, whatever the umask.
        handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
        try:
            with os.fdopen(handle, "w") as file:
                file.write(text + "\n")
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self._path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps a second writer from losing the first one's keys: a lock on the folder, which needs no file of its own."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
