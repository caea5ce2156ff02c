"""Keeps the keys that wrap messages' data keys: a cache of those that KMS unwrapped, or a file of unwrapped ones."""

from __future__ import annotations

import binascii
import hashlib
import stat
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Protocol

import msgspec

from shipper.clock import Clock
from shipper.decode import Reason, Undecodable
from shipper.decode.das.kms import KmsUnwrap
from shipper.decode.das.message import KEY_BYTES
from shipper.errors import ConfigurationError, Held, Problem

__all__ = ["REFUSAL_TTL", "DataKeys", "KeysFile", "KmsUnwrap", "Unwrap"]

#: How long a refusal is remembered, in seconds: a backlog of records must not become as many requests.
REFUSAL_TTL = 5.0


class Unwrap(Protocol):
    """How a blob becomes a key, for instance ``KmsUnwrap``."""

    def unwrap(self, blob: bytes, resource_id: str | None) -> bytes:
        """The 32-byte key. Raises ``Undecodable`` (``key_refused``) and ``Held``; called by many threads."""


class DataKeys:
    """Remembers unwrapped keys, so that KMS is asked once per key: an engine uses one for many records.

    Bounded by ``max_entries`` (the least recently used goes first) and by ``ttl`` seconds, after which a permission
    that was taken away shows. Threads that miss the same key at the same time make one request. Keys stay in memory.
    """

    def __init__(self, unwrap: Unwrap, *, max_entries: int, ttl: float, clock: Clock) -> None:
        self._unwrap = unwrap
        self._max_entries = max_entries
        self._ttl = ttl
        self._clock = clock
        self._lock = threading.Lock()
        self._answers: OrderedDict[tuple[bytes, str | None], _Answer] = OrderedDict()
        self._asked: dict[tuple[bytes, str | None], threading.Event] = {}
        #: Answered from memory, refusals included, and not (metric ``data_key_cache_requests_total``).
        self.hits = 0
        self.misses = 0

    def data_key(self, blob: bytes, resource_id: str | None) -> bytes:
        """The 32-byte key of ``blob``; see ``KeyResolver``."""
        name = (hashlib.sha256(blob).digest(), resource_id)
        while True:
            with self._lock:
                answer = self._remembered(name)
                if answer is not None:
                    self.hits += 1
                    break
                done = self._asked.get(name)
                if done is None:
                    self.misses += 1
                    done = self._asked[name] = threading.Event()
                    asking = True
                else:
                    asking = False
            if asking:
                answer = self._ask(name, blob, done)
                break
            done.wait()
        return answer.key()

    def _remembered(self, name: tuple[bytes, str | None]) -> _Answer | None:
        answer = self._answers.get(name)
        if answer is None:
            return None
        if self._clock.monotonic() >= answer.until:
            del self._answers[name]
            return None
        self._answers.move_to_end(name)
        return answer

    def _ask(self, name: tuple[bytes, str | None], blob: bytes, done: threading.Event) -> _Answer:
        try:
            try:
                found: bytes | Held | Undecodable = self._unwrap.unwrap(blob, name[1])
            except (Held, Undecodable) as refusal:
                found = refusal
            keep = self._ttl if isinstance(found, bytes) else min(REFUSAL_TTL, self._ttl)
            answer = _Answer(found, self._clock.monotonic() + keep)
            with self._lock:
                self._answers[name] = answer
                while len(self._answers) > self._max_entries:
                    self._answers.popitem(last=False)
            return answer
        finally:
            # Also after an error that nobody expects: then the next of those that wait asks again.
            with self._lock:
                del self._asked[name]
            done.set()


class _Answer:
    """A key, or why there is none, and until when (monotonic seconds) that holds."""

    __slots__ = ("_found", "until")

    def __init__(self, found: bytes | Held | Undecodable, until: float) -> None:
        self._found = found
        self.until = until

    def key(self) -> bytes:
        if isinstance(self._found, bytes):
            return self._found
        # A new one for each: threads would write their tracebacks into a shared exception.
        if isinstance(self._found, Held):
            raise Held(self._found.reason, self._found.detail, self._found.mend)
        raise Undecodable(self._found.reason, self._found.detail)


class KeysFile:
    """Keys that were unwrapped before, from a JSON file: ``{"<key field, base64>": "<32-byte key, base64>"}``.

    The file is as secret as the audit trail, so it is refused where anybody but its owner may read it. It is read again
    when it has changed and a key is missing: ``shipper generate`` adds to it. Raises ``ConfigurationError``.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen, self._keys = self._load()

    def data_key(self, blob: bytes, resource_id: str | None) -> bytes:
        """The key of ``blob``, wherever the record came from; see ``KeyResolver``."""
        key = self._keys.get(blob) or self._reread().get(blob)
        if key is None:
            raise Undecodable(Reason.KEY_REFUSED, f"the keys file {self._path} has no key for this blob")
        return key

    def _reread(self) -> dict[bytes, bytes]:
        with self._lock:
            try:
                if _mark(self._path) != self._seen:
                    self._seen, self._keys = self._load()
            except (ConfigurationError, OSError) as error:
                raise Held("refused", str(error), "mend the keys file") from error
            return self._keys

    def _load(self) -> tuple[tuple[int, int, int], dict[bytes, bytes]]:
        try:
            mark = _mark(self._path)
            if stat.S_IMODE(self._path.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
                raise self._wrong("others than its owner have access to the keys file", f"chmod 0600 {self._path}")
            written = msgspec.json.decode(self._path.read_bytes(), type=dict[str, str])
        except OSError as error:
            raise self._wrong(f"the keys file cannot be read: {error.strerror}", "see keys.path") from error
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise self._wrong("the keys file is not a JSON object of texts", _SHAPE) from None
        keys = {}
        for number, pair in enumerate(written.items(), 1):
            try:
                blob, key = (binascii.a2b_base64(text, strict_mode=True) for text in pair)
            except ValueError:
                raise self._wrong(f"entry {number} of the keys file is not base64", _SHAPE) from None
            if len(key) != KEY_BYTES:
                raise self._wrong(f"key {number} of the keys file has {len(key)} bytes, not {KEY_BYTES}", _SHAPE)
            keys[blob] = key
        return mark, keys

    def _wrong(self, message: str, mend: str) -> ConfigurationError:
        return ConfigurationError(Problem(message, file=str(self._path), mend=mend))


_SHAPE = 'write {"<an envelope\'s key field, base64>": "<32-byte key, base64>", …}'


def _mark(path: Path) -> tuple[int, int, int]:
    """Changes when the file does."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino
