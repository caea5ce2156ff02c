"""Writes AWS Encryption SDK messages by hand, also those that the SDK would not write: any frame length, any fault."""

from __future__ import annotations

import base64
import os
import struct
from dataclasses import dataclass, field

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

#: Suite → bytes of the data key, hash of the key derivation, curve and hash of the signature.
SUITES: dict[int, tuple[int, hashes.HashAlgorithm | None, ec.EllipticCurve | None, hashes.HashAlgorithm | None]] = {
    0x0014: (16, None, None, None),
    0x0046: (24, None, None, None),
    0x0078: (32, None, None, None),
    0x0114: (16, hashes.SHA256(), None, None),
    0x0146: (24, hashes.SHA256(), None, None),
    0x0178: (32, hashes.SHA256(), None, None),
    0x0214: (16, hashes.SHA256(), ec.SECP256R1(), hashes.SHA256()),
    0x0346: (24, hashes.SHA384(), ec.SECP384R1(), hashes.SHA384()),
    0x0378: (32, hashes.SHA384(), ec.SECP384R1(), hashes.SHA384()),
    0x0478: (32, hashes.SHA512(), None, None),
    0x0578: (32, hashes.SHA512(), ec.SECP384R1(), hashes.SHA384()),
}

COMMITTED = (0x0478, 0x0578)


@dataclass
class Writer:
    """What to write. Lengths are bytes; ``frame_length`` 0 makes one block without frames.

    ``full_final`` lets the last frame be a full one where the plaintext is a multiple of the frame length; the SDK
    writes an empty one instead. ``wrapping_keys`` makes one encrypted data key each. ``point`` is written in place of
    the signer's public key.
    """

    wrapping_keys: list[bytes]
    suite: int = 0x0178
    frame_length: int = 4096
    context: dict[str, str] = field(default_factory=dict)
    full_final: bool = False
    key_name: bytes = b"DataKey"
    provider: bytes = b"BC"
    point: bytes | None = None

    def write(self, plaintext: bytes) -> bytes:
        key_bytes, kdf, curve, digest = SUITES[self.suite]
        committed = self.suite in COMMITTED
        message_id = os.urandom(32 if committed else 16)
        data_key = os.urandom(key_bytes)
        context = dict(self.context)
        signer = ec.generate_private_key(curve) if curve else None
        if signer:
            point = signer.public_key().public_bytes(
                serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
            )
            context["aws-crypto-public-key"] = base64.b64encode(self.point or point).decode()
        aad = serialize_context(context)
        suite = struct.pack(">H", self.suite)
        header = b"\x02" if committed else b"\x01\x80"
        header += suite + message_id + struct.pack(">H", len(aad)) + aad + self._data_keys(data_key, aad)
        header += b"\x02" if self.frame_length else b"\x01"
        header += b"" if committed else bytes(4) + b"\x0c"
        header += struct.pack(">I", self.frame_length)
        if committed:
            header += HKDF(hashes.SHA512(), 32, message_id, b"COMMITKEY").derive(data_key)
            key = HKDF(hashes.SHA512(), 32, message_id, suite + b"DERIVEKEY").derive(data_key)
        elif kdf:
            key = HKDF(kdf, key_bytes, None, suite + message_id).derive(data_key)
        else:
            key = data_key
        cipher = AESGCM(key)
        tag = cipher.encrypt(bytes(12), b"", header)
        message = header + (b"" if committed else bytes(12)) + tag + self._body(cipher, message_id, plaintext)
        if signer and digest:
            signature = signer.sign(message, ec.ECDSA(digest))
            message += struct.pack(">H", len(signature)) + signature
        return message

    def _data_keys(self, data_key: bytes, aad: bytes) -> bytes:
        parts = [struct.pack(">H", len(self.wrapping_keys))]
        for wrapping_key in self.wrapping_keys:
            iv = os.urandom(12)
            info = self.key_name + struct.pack(">II", 128, 12) + iv
            for value in (self.provider, info, AESGCM(wrapping_key).encrypt(iv, data_key, aad)):
                parts.append(struct.pack(">H", len(value)) + value)
        return b"".join(parts)

    def _body(self, cipher: AESGCM, message_id: bytes, plaintext: bytes) -> bytes:
        size = self.frame_length
        if not size:
            return _sealed(cipher, message_id, b"Single Block", 1, plaintext, struct.pack(">Q", len(plaintext)))
        full = len(plaintext) // size
        if self.full_final and full and not len(plaintext) % size:
            full -= 1
        parts = []
        for number in range(1, full + 1):
            content = plaintext[(number - 1) * size : number * size]
            parts.append(struct.pack(">I", number) + _sealed(cipher, message_id, b"Frame", number, content))
        last = plaintext[full * size :]
        parts.append(struct.pack(">II", 0xFFFFFFFF, full + 1))
        parts.append(_sealed(cipher, message_id, b"Final Frame", full + 1, last, struct.pack(">I", len(last))))
        return b"".join(parts)


def _sealed(cipher: AESGCM, message_id: bytes, label: bytes, number: int, content: bytes, size: bytes = b"") -> bytes:
    """IV, the content's length where it is written, ciphertext and tag."""
    iv = number.to_bytes(12, "big")
    aad = message_id + b"AWSKMSEncryptionClient " + label + struct.pack(">IQ", number, len(content))
    return iv + size + cipher.encrypt(iv, content, aad)


def serialize_context(context: dict[str, str]) -> bytes:
    """An encryption context as it is authenticated."""
    if not context:
        return b""
    pairs = b"".join(
        struct.pack(">H", len(part)) + part
        for key, value in sorted((key.encode(), value.encode()) for key, value in context.items())
        for part in (key, value)
    )
    return struct.pack(">H", len(context)) + pairs
