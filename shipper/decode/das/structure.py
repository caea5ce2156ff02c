"""What an AWS Encryption SDK message shows without any key: header, frames, footer, and whether its signature is right.

Source: "AWS Encryption SDK message format reference" and "algorithms reference" in the AWS Encryption SDK developer
guide, and the data-format part of the AWS Encryption SDK specification. Everything in a message is an attacker's to
choose, so every length is checked against what is there, and nothing is copied or counted beyond the message's size.
"""

from __future__ import annotations

import binascii
import struct
from dataclasses import dataclass
from enum import StrEnum
from typing import NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from shipper.decode import Reason, Undecodable

#: The entry of the encryption context that holds a signed message's public key.
PUBLIC_KEY = "aws-crypto-public-key"

#: What the engines call the key that wraps data keys: the raw AES keyring's name space and name.
PROVIDER = "BC"
KEY_NAME = b"DataKey"

#: Every suite's, in bytes.
IV_BYTES = 12
TAG_BYTES = 16

#: How a raw AES key's info goes on after the name: bits of the tag, bytes of the IV (which follows).
_RAW_AES = struct.pack(">II", TAG_BYTES * 8, IV_BYTES)

_TYPE = 0x80
_NOT_FRAMED = 1
_FRAMED = 2
_FINAL_FRAME = 0xFFFFFFFF
_COMMITMENT_BYTES = 32
_MAX_FRAME_LENGTH = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Suite:
    """An algorithm suite; ``message_version`` is the only message format that may name it."""

    id: int
    name: str
    message_version: int
    curve: ec.EllipticCurve | None = None
    digest: hashes.HashAlgorithm | None = None

    @property
    def signed(self) -> bool:
        return self.curve is not None

    @property
    def committed(self) -> bool:
        """Whether the message is bound to one data key (key commitment)."""
        return self.message_version == 2


_P256, _P384 = ec.SECP256R1(), ec.SECP384R1()
_SHA256, _SHA384 = hashes.SHA256(), hashes.SHA384()

#: By id. Aurora PostgreSQL uses 0x0178 and Aurora MySQL 0x0378.
SUITES = {
    suite.id: suite
    for suite in (
        Suite(0x0014, "AES_128_GCM_IV12_TAG16_NO_KDF", 1),
        Suite(0x0046, "AES_192_GCM_IV12_TAG16_NO_KDF", 1),
        Suite(0x0078, "AES_256_GCM_IV12_TAG16_NO_KDF", 1),
        Suite(0x0114, "AES_128_GCM_IV12_TAG16_HKDF_SHA256", 1),
        Suite(0x0146, "AES_192_GCM_IV12_TAG16_HKDF_SHA256", 1),
        Suite(0x0178, "AES_256_GCM_IV12_TAG16_HKDF_SHA256", 1),
        Suite(0x0214, "AES_128_GCM_IV12_TAG16_HKDF_SHA256_ECDSA_P256", 1, _P256, _SHA256),
        Suite(0x0346, "AES_192_GCM_IV12_TAG16_HKDF_SHA384_ECDSA_P384", 1, _P384, _SHA384),
        Suite(0x0378, "AES_256_GCM_IV12_TAG16_HKDF_SHA384_ECDSA_P384", 1, _P384, _SHA384),
        Suite(0x0478, "AES_256_GCM_HKDF_SHA512_COMMIT_KEY", 2),
        Suite(0x0578, "AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384", 2, _P384, _SHA384),
    )
}


@dataclass(frozen=True, slots=True)
class EncryptedDataKey:
    """The message's data key, encrypted by one wrapping key, which ``info`` names."""

    provider: str
    info: bytes
    ciphertext: bytes

    @property
    def name(self) -> bytes:
        """The wrapping key's name: all of ``info``, but for a raw AES key without the IV and the lengths before it."""
        raw_aes = self.info[-IV_BYTES - 8 : -IV_BYTES] == _RAW_AES
        return self.info[: -IV_BYTES - 8] if raw_aes else self.info


@dataclass(frozen=True, slots=True)
class Structure:
    """A message's parts. Sizes and offsets are bytes.

    ``header_bytes`` counts the header with its authentication tag; ``frames`` is 0 for a body without frames;
    ``final_bytes`` is the content of the last frame (or of the body without frames), ``frame_length`` of every other
    one; ``footer_bytes`` is 0 where the suite does not sign.
    """

    version: int
    suite: Suite
    message_id: bytes
    context: dict[str, str]
    encrypted_data_keys: tuple[EncryptedDataKey, ...]
    frame_length: int
    header_bytes: int
    frames: int
    final_bytes: int
    plaintext_bytes: int
    footer_bytes: int

    @property
    def for_activity_streams(self) -> bool:
        """Whether an encrypted data key is named as the engines name theirs; no other can be unwrapped."""
        return any(key.provider == PROVIDER and key.name == KEY_NAME for key in self.encrypted_data_keys)


class Signature(StrEnum):
    """What a message's signature is worth. Its public key is in the message itself: ``VALID`` means that nothing was
    altered since somebody signed it, not who did; only the data key tells that."""

    NONE = "unsigned"
    VALID = "valid"
    INVALID = "invalid"


def parse_structure(message: bytes) -> Structure:
    """Takes a whole message apart.

    Raises ``Undecodable``: ``message_truncated``, ``message_malformed`` (against the format, or with bytes after its
    end), ``suite_unsupported``.
    """
    reader = _Reader(message)
    version = reader.integer(1)
    if version not in (1, 2):
        _malformed(f"format version {version} instead of 1 or 2")
    if version == 1 and reader.integer(1) != _TYPE:
        _malformed("not of the type customer authenticated encrypted data")
    suite_id = reader.integer(2)
    suite = SUITES.get(suite_id)
    if suite is None:
        raise Undecodable(Reason.SUITE_UNSUPPORTED, f"algorithm suite 0x{suite_id:04x} is unknown")
    if suite.message_version != version:
        _malformed(f"algorithm suite 0x{suite_id:04x} in a message of format version {version}")
    message_id = reader.take(16 if version == 1 else 32)
    context = _context(reader.take(reader.integer(2)))
    _check_public_key(suite, context)
    keys = tuple(_encrypted_data_key(reader) for _ in range(reader.integer(2)))
    if not keys:
        _malformed("no encrypted data key")
    content_type = reader.integer(1)
    if content_type not in (_NOT_FRAMED, _FRAMED):
        _malformed(f"content type {content_type}")
    if version == 1 and (reader.integer(4) != 0 or reader.integer(1) != IV_BYTES):
        _malformed("reserved bytes or the IV's length are not as the format has them")
    frame_length = reader.integer(4)
    framed = content_type == _FRAMED
    if framed != (0 < frame_length <= _MAX_FRAME_LENGTH):
        _malformed(f"frame length {frame_length} in a body {'with' if framed else 'without'} frames")
    reader.skip(IV_BYTES + TAG_BYTES if version == 1 else _COMMITMENT_BYTES + TAG_BYTES)
    header_bytes = reader.at
    frames, final_bytes = _frames(reader, frame_length) if framed else (0, _single_block(reader))
    body_end = reader.at
    if suite.signed:
        reader.skip(reader.integer(2))
    if reader.at != len(message):
        _malformed(f"{len(message) - reader.at} bytes after the end")
    return Structure(
        version=version,
        suite=suite,
        message_id=message_id,
        context=context,
        encrypted_data_keys=keys,
        frame_length=frame_length,
        header_bytes=header_bytes,
        frames=frames,
        final_bytes=final_bytes,
        plaintext_bytes=max(0, frames - 1) * frame_length + final_bytes,
        footer_bytes=len(message) - body_end,
    )


def verify_signature(message: bytes, structure: Structure) -> Signature:
    """Whether the footer's ECDSA signature over header and body is that of the public key in the header."""
    suite = structure.suite
    if suite.curve is None or suite.digest is None:
        return Signature.NONE
    view = memoryview(message)
    body_end = len(message) - structure.footer_bytes
    try:
        point = binascii.a2b_base64(structure.context[PUBLIC_KEY], strict_mode=True)
        key = ec.EllipticCurvePublicKey.from_encoded_point(suite.curve, point)
        key.verify(bytes(view[body_end + 2 :]), view[:body_end], ec.ECDSA(suite.digest))
    except (InvalidSignature, ValueError):  # ValueError: the point is not on the curve
        return Signature.INVALID
    return Signature.VALID


class _Reader:
    """Reads a message from its beginning; what is not there raises ``message_truncated``."""

    __slots__ = ("_message", "at")

    def __init__(self, message: bytes) -> None:
        self._message = message
        self.at = 0

    def take(self, size: int) -> bytes:
        begin = self.at
        self.skip(size)
        return self._message[begin : self.at]

    def skip(self, size: int) -> None:
        if size > len(self._message) - self.at:
            detail = f"ends at byte {len(self._message)}, needs {self.at + size} or more"
            raise Undecodable(Reason.MESSAGE_TRUNCATED, detail)
        self.at += size

    def integer(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")


def _encrypted_data_key(reader: _Reader) -> EncryptedDataKey:
    provider, info, ciphertext = (reader.take(reader.integer(2)) for _ in range(3))
    return EncryptedDataKey(_utf8(provider, "a key provider's id"), info, ciphertext)


def _context(aad: bytes) -> dict[str, str]:
    """The encryption context. The format has one spelling for each: sorted, without duplicates, nothing if empty; any
    other could not be authenticated, as what is authenticated is that spelling."""
    if not aad:
        return {}
    context: dict[str, str] = {}
    last = None
    at = 2
    try:
        (count,) = struct.unpack_from(">H", aad)
        for _ in range(count):
            pair = []
            for _ in range(2):
                (size,) = struct.unpack_from(">H", aad, at)
                pair.append(aad[at + 2 : at + 2 + size])
                at += 2 + size
            if last is not None and pair[0] <= last:
                _malformed("the encryption context is not sorted, or has a key twice")
            last = pair[0]
            context[_utf8(pair[0], "the encryption context")] = _utf8(pair[1], "the encryption context")
    except struct.error:
        _malformed("the encryption context is longer than its length")
    if not count or at != len(aad):
        _malformed("the encryption context's length is wrong")
    return context


def _check_public_key(suite: Suite, context: dict[str, str]) -> None:
    encoded = context.get(PUBLIC_KEY)
    if suite.curve is None:
        if encoded is not None:
            _malformed(f"a public key, and algorithm suite 0x{suite.id:04x}, which does not sign")
        return
    if encoded is None:
        _malformed(f"no public key, and algorithm suite 0x{suite.id:04x}, which signs")
    try:
        point = binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError:
        _malformed("the public key is not base64")
    if len(point) != 1 + (suite.curve.key_size + 7) // 8 or point[0] not in (2, 3):
        _malformed("the public key is not a compressed point of the suite's curve")


def _frames(reader: _Reader, frame_length: int) -> tuple[int, int]:
    """How many frames, and how many bytes the last one holds."""
    number = 0
    while True:
        number += 1
        found = reader.integer(4)
        final = found == _FINAL_FRAME
        if final:
            found = reader.integer(4)
        if found != number:
            _malformed(f"frame {found} where frame {number} should be")
        reader.skip(IV_BYTES)
        size = reader.integer(4) if final else frame_length
        if size > frame_length:
            _malformed(f"a final frame of {size} bytes, where frames have {frame_length}")
        reader.skip(size + TAG_BYTES)
        if final:
            return number, size


def _single_block(reader: _Reader) -> int:
    reader.skip(IV_BYTES)
    size = reader.integer(8)
    reader.skip(size + TAG_BYTES)
    return size


def _utf8(value: bytes, what: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        _malformed(f"{what} is not UTF-8")


def _malformed(detail: str) -> NoReturn:
    raise Undecodable(Reason.MESSAGE_MALFORMED, detail)
