"""Secrets: what a secret key of the configuration holds, and reading it at run time. Never printed, never logged.

A secret is the text itself or a reference: ``file:/path``, ``aws-sm:ID`` or ``aws-sm:ID#key`` (Secrets Manager; a key
of its JSON), ``aws-ssm:/name`` (Parameter Store). ``shipper.configuration`` binds every secret to one ``SecretReader``;
a component then only calls ``reveal``.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from shipper.clock import Clock, SystemClock
from shipper.errors import Held

if TYPE_CHECKING:
    from shipper.settings import AwsSettings

log = logging.getLogger(__name__)

#: A secret's file is read up to here (bytes): a token, a key or a password, never /dev/zero.
MAX_FILE_BYTES = 65_536
#: After a failed renewal the old value is kept, and reading is tried again after this (seconds).
RETRY_AFTER = 30.0

#: Makes a boto3 client of a service.
ClientFactory = Callable[[str, "AwsSettings"], Any]


class Secret:
    """A secret key's value: the text itself, or a reference that is read by ``reveal``. Its ``repr`` and ``str`` never
    show either."""

    __slots__ = ("_key", "_reader", "_reference")

    def __init__(self, reference: str) -> None:
        self._reference = reference
        self._reader: SecretReader | None = None
        self._key = "a secret"

    def bind(self, reader: SecretReader, key: str) -> None:
        """Says who reads it, and the key path (``event.id_key``) that errors name."""
        self._reader = reader
        self._key = key

    @property
    def key(self) -> str:
        """The key path of the configuration that holds it."""
        return self._key

    @property
    def kind(self) -> str:
        """How it is given: ``text``, ``file``, ``aws-sm`` or ``aws-ssm``."""
        return _split(self._reference)[0]

    def reveal(self) -> str:
        """The secret text. A reference is read at the first call, and again after ``secrets.refresh``.

        Raises ``Held``, which names the key and the kind of reference but not its content, when it cannot be read.
        """
        kind, content = _split(self._reference)
        if kind == "text":
            return content
        return (self._reader or _default_reader()).read(self._reference, self._key)

    def refresh(self) -> None:
        """The next ``reveal`` reads the reference again: after the destination refused the present value."""
        if self._reader is not None:
            self._reader.refresh(self._reference)

    def __repr__(self) -> str:
        return "Secret(…)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._reference == other._reference

    def __hash__(self) -> int:
        return hash(self._reference)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._validate,
            json_schema_input_schema=core_schema.str_schema(min_length=1),
            serialization=core_schema.plain_serializer_function_ser_schema(repr),
        )

    @classmethod
    def _validate(cls, given: object) -> Secret:
        if isinstance(given, Secret):
            return given
        if not isinstance(given, str):
            raise PydanticCustomError("secret", "text in quotes is needed")
        kind, content = _split(given)
        name, mark, key = content.partition("#") if kind == "aws-sm" else (content, "", "")
        if not name or (mark and not key):
            raise PydanticCustomError("secret", _FORMS[kind])
        return cls(given)


_FORMS = {
    "text": "it must not be empty",
    "file": "after file: the path of a file is needed",
    "aws-sm": "after aws-sm: a secret's name or ARN is needed, and after # a key of its JSON",
    "aws-ssm": "after aws-ssm: a parameter's name is needed",
}


def _split(reference: str) -> tuple[str, str]:
    kind, mark, content = reference.partition(":")
    return (kind, content) if mark and kind in ("file", "aws-sm", "aws-ssm") else ("text", reference)


def secrets_in(table: BaseModel, prefix: str = "") -> Iterator[tuple[str, Secret]]:
    """Every secret of a settings table and of the tables in it, with its key path."""
    for name, field in type(table).model_fields.items():
        yield from _secrets_of(getattr(table, name), f"{prefix}.{field.alias or name}" if prefix else name)


def _secrets_of(value: object, path: str) -> Iterator[tuple[str, Secret]]:
    if isinstance(value, Secret):
        yield path, value
    elif isinstance(value, BaseModel):
        yield from secrets_in(value, path)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _secrets_of(inner, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            yield from _secrets_of(inner, f"{path}[{index}]")


class SecretReader:
    """Reads references and remembers them. Thread-safe; one reference is read by one thread at a time.

    ``folder`` is what a relative ``file:`` is relative to; ``every`` is ``secrets.refresh`` in seconds. When a value
    that is merely due for renewal cannot be read, the old one stays in use and the log says so: a short outage of the
    place where secrets are kept must not stop what works.
    """

    def __init__(
        self,
        folder: Path,
        every: float,
        aws: AwsSettings,
        *,
        client: ClientFactory | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._folder = folder
        self._every = every
        self._aws = aws
        self._client = client or _aws_client
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}

    def read(self, reference: str, key: str) -> str:
        """The secret behind a reference; ``key`` names it in errors. Raises ``Held``."""
        with self._lock:
            entry = self._entries.setdefault(reference, _Entry())
        with entry.lock:
            now = self._clock.monotonic()
            if entry.value is not None and now < entry.due:
                return entry.value
            try:
                entry.value = self._fetch(reference, key)
            except Held as error:
                if entry.value is None:
                    raise
                entry.due = now + RETRY_AFTER
                log.warning("%s; the value read before stays in use", error)
                return entry.value
            entry.due = now + self._every
            return entry.value

    def refresh(self, reference: str | None = None) -> None:
        """Forgets one reference, or all of them."""
        with self._lock:
            if reference is None:
                self._entries.clear()
            else:
                self._entries.pop(reference, None)

    def _fetch(self, reference: str, key: str) -> str:
        kind, content = _split(reference)
        value = self._from_file(content, key) if kind == "file" else self._from_aws(kind, content, key)
        if not value:
            raise Held("credentials", f"{key}: its {_NAMES[kind]} is empty", "store the secret there")
        return value

    def _from_file(self, content: str, key: str) -> str:
        try:
            with (self._folder / content).open("rb") as file:
                content_bytes = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise Held(
                "credentials",
                f"{key}: its file cannot be read: {error.strerror or type(error).__name__}",
                "mend the path after file:, or the file's permissions",
            ) from None
        if len(content_bytes) > MAX_FILE_BYTES:
            raise Held("credentials", f"{key}: its file is larger than {MAX_FILE_BYTES} bytes", "name the right file")
        try:
            return re.sub(r"\r?\n\Z", "", content_bytes.decode())
        except UnicodeDecodeError:
            raise Held("credentials", f"{key}: its file is not UTF-8 text", "name the right file") from None

    def _from_aws(self, kind: str, content: str, key: str) -> str:
        try:
            if kind == "aws-ssm":
                client = self._client("ssm", self._aws)
                return str(client.get_parameter(Name=content, WithDecryption=True)["Parameter"]["Value"])
            name, _, json_key = content.partition("#")
            answer = self._client("secretsmanager", self._aws).get_secret_value(SecretId=name)
        except Held as error:
            raise Held(error.reason, f"{key}: {error.detail}", error.mend) from None
        except Exception as error:  # noqa: BLE001  # botocore's errors, without importing it; all become one kind
            raise _held(error, kind, key) from None
        text = answer.get("SecretString")
        if text is None:
            text = answer["SecretBinary"].decode("utf-8", "replace")
        return _member(text, json_key, key) if json_key else str(text)


class _Entry:
    __slots__ = ("due", "lock", "value")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.value: str | None = None
        self.due = 0.0


_NAMES = {"file": "file", "aws-sm": "secret in Secrets Manager", "aws-ssm": "parameter in the Parameter Store"}


def _member(text: str, json_key: str, key: str) -> str:
    try:
        found = json.loads(text)[json_key]
    except (ValueError, RecursionError):
        detail = "is not JSON, so that it has no key after #"
    except (KeyError, TypeError, IndexError):
        detail = "has no such key as the one after #"
    else:
        if isinstance(found, str):
            return found
        if isinstance(found, int | float) and not isinstance(found, bool):
            return str(found)
        detail = "has something else than text under the key after #"
    raise Held("credentials", f"{key}: its {_NAMES['aws-sm']} {detail}", "mend the part after #, or the secret")


def _held(error: Exception, kind: str, key: str) -> Held:
    """AWS's answer without its message, which repeats the name of what was asked for."""
    from shipper import aws  # noqa: PLC0415  # as in _aws_client

    service = "ssm" if kind == "aws-ssm" else "secretsmanager"
    told = aws.held(error, key, service)
    missing = aws.code(error) == "ParameterNotFound"
    return Held(
        "target_not_found" if missing else told.reason,
        f"{key}: its {_NAMES[kind]} cannot be read: {aws.code(error)}",
        "check the reference, and the region and account of [secrets]" if missing else told.mend,
    )


def _aws_client(service: str, settings: AwsSettings) -> Any:
    from shipper.aws import client  # noqa: PLC0415  # boto3 takes 200 ms; most configurations need none for secrets

    return client(service, settings)


def _default_reader() -> SecretReader:
    from shipper.settings import AwsSettings  # noqa: PLC0415  # settings.py imports this module

    return SecretReader(Path(), 300.0, AwsSettings())
