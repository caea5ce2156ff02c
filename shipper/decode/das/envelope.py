"""Reads the JSON that a Kinesis record of an activity stream is: an encrypted message and the blob of its key.

Source: "Monitoring database activity streams" in the Amazon Aurora and Amazon RDS user guides. Real envelopes differ in
white space and order of keys, and AWS reserves the right to add keys, so nothing here depends on either.
"""

from __future__ import annotations

import binascii

import msgspec

from shipper.decode import Reason, Undecodable

#: What ``type`` says in every envelope (plural; the decrypted record's is singular).
ENVELOPE_TYPE = "DatabaseActivityMonitoringRecords"

_KNOWN = frozenset({"type", "version", "databaseActivityEvents", "key"})


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """One envelope. Exactly one of ``message`` and ``plain`` is there.

    ``message`` is the binary AWS Encryption SDK message; ``plain`` the JSON bytes of ``databaseActivityEvents`` where
    that is an object already (records that were decrypted before, examples of the documentation), unchecked.
    ``key_blob`` is the KMS ciphertext, ``key_text`` its base64 as written; both are empty where ``plain`` came without
    one. ``version`` is ``""`` where it is absent. ``unknown`` names the keys that no documentation names.
    """

    version: str
    message: bytes | None
    key_blob: bytes
    key_text: str
    plain: bytes | None = None
    unknown: tuple[str, ...] = ()


class _Known(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The envelope as documented: the fast way, with msgspec's own base64 decoder for the long value."""

    databaseActivityEvents: bytes
    key: str = ""
    version: str = ""
    type: str = ENVELOPE_TYPE


_known = msgspec.json.Decoder(_Known)
_any = msgspec.json.Decoder(dict[str, msgspec.Raw])


def parse_envelope(data: bytes) -> Envelope:
    """Reads one envelope; of a key that is written twice the last one counts.

    Raises ``Undecodable``: ``json_encoding`` (not UTF-8), ``json_depth``, ``envelope_malformed`` (not JSON, no such
    object, a value of the wrong type), ``base64``.
    """
    try:
        known = _known.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _tolerant(data)
    return _envelope(known.type, known.version, known.databaseActivityEvents, None, known.key)


def _tolerant(data: bytes) -> Envelope:
    """The slow way: unknown keys are named, a version may be a number, the events may be an object; says what is wrong
    where nothing helps."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise Undecodable(Reason.JSON_ENCODING, f"not UTF-8 at byte {error.start}") from None
    try:
        raw = _any.decode(data)
    except RecursionError:
        raise Undecodable(Reason.JSON_DEPTH, "nested too deeply") from None
    except msgspec.MsgspecError as error:
        raise Undecodable(Reason.ENVELOPE_MALFORMED, f"not a JSON object: {error}") from None
    if "databaseActivityEvents" not in raw:
        raise Undecodable(Reason.ENVELOPE_MALFORMED, "it has no databaseActivityEvents")
    version = bytes(raw.get("version", b""))
    events = bytes(raw["databaseActivityEvents"])
    plain = events if events.startswith(b"{") else None
    return _envelope(
        _string("type", raw, ENVELOPE_TYPE),
        version.decode() if version[:1].isdigit() else _string("version", raw),
        None if plain else _base64("databaseActivityEvents", _string("databaseActivityEvents", raw)),
        plain,
        _string("key", raw),
        tuple(sorted(raw.keys() - _KNOWN)),
    )


def _envelope(
    kind: str, version: str, message: bytes | None, plain: bytes | None, key: str, unknown: tuple[str, ...] = ()
) -> Envelope:
    if kind != ENVELOPE_TYPE:
        raise Undecodable(Reason.ENVELOPE_MALFORMED, f"type is not {ENVELOPE_TYPE}")
    if plain is None and not key:
        raise Undecodable(Reason.ENVELOPE_MALFORMED, "it has no key")
    return Envelope(version, message, _base64("key", key), key, plain, unknown)


def _base64(name: str, text: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:  # binascii.Error, or a str that is not ASCII
        raise Undecodable(Reason.BASE64, f"{name}: {error}") from None


def _string(name: str, raw: dict[str, msgspec.Raw], default: str = "") -> str:
    if name not in raw:
        return default
    try:
        return msgspec.json.decode(raw[name], type=str)
    except msgspec.MsgspecError:
        raise Undecodable(Reason.ENVELOPE_MALFORMED, f"{name} is not a string") from None
