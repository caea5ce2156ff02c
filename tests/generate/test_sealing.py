"""Sealing makes the messages that real activity streams carry, readable by the AWS Encryption SDK itself."""

from __future__ import annotations

import base64
import gzip
import json
import struct
from typing import Any

import pytest
from aws_encryption_sdk import CommitmentPolicy, EncryptionSDKClient
from aws_encryption_sdk.identifiers import EncryptionKeyType, WrappingAlgorithm
from aws_encryption_sdk.internal.crypto.wrapping_keys import WrappingKey
from aws_encryption_sdk.key_providers.raw import RawMasterKeyProvider
from cryptography.exceptions import InvalidTag

from shipper.generate.sealing import encrypt, seal, squeeze

WRAPPING_KEY = bytes(range(32))
KEY_BLOB = b"\x01\x02\x02\x00x" + bytes(179)
PLAINTEXT = b'{"type":"DatabaseActivityMonitoringRecord","databaseActivityEventList":[]}'

FRAME_OVERHEAD = 4 + 12 + 16  # sequence number, IV, tag
FINAL_FRAME_OVERHEAD = 4 + 4 + 12 + 4 + 16  # end mark, sequence number, IV, length, tag


class _Key(RawMasterKeyProvider):  # type: ignore[misc]  # the SDK has no types
    """A reader of its own, made as AWS's sample code makes it."""

    provider_id = "BC"
    plain = WRAPPING_KEY

    def _get_raw_key(self, key_id: bytes) -> WrappingKey:
        return WrappingKey(
            wrapping_algorithm=WrappingAlgorithm.AES_256_GCM_IV12_TAG16_NO_PADDING,
            wrapping_key=self.plain,
            wrapping_key_type=EncryptionKeyType.SYMMETRIC,
        )


class _OtherKey(_Key):
    plain = bytes(32)


def decrypt(message: bytes, provider: type[_Key] = _Key) -> tuple[bytes, Any]:
    key = provider()
    key.add_master_key(b"DataKey")
    client = EncryptionSDKClient(commitment_policy=CommitmentPolicy.FORBID_ENCRYPT_ALLOW_DECRYPT)
    body, header = client.decrypt(source=message, key_provider=key)
    return bytes(body), header


def message_of(envelope: bytes) -> bytes:
    return base64.b64decode(json.loads(envelope)["databaseActivityEvents"], validate=True)


def test_the_envelope_has_the_four_fields_and_is_compact() -> None:
    record = seal(PLAINTEXT, wrapping_key=WRAPPING_KEY, key_blob=KEY_BLOB, version="1.3")
    fields = json.loads(record)
    assert list(fields) == ["type", "version", "databaseActivityEvents", "key"]
    assert fields["type"] == "DatabaseActivityMonitoringRecords"
    assert fields["version"] == "1.3"
    assert base64.b64decode(fields["key"], validate=True) == KEY_BLOB
    assert b" " not in record
    assert not record.endswith(b"\n")


def test_a_spaced_envelope_is_the_same_json_with_irregular_white_space() -> None:
    record = seal(PLAINTEXT, wrapping_key=WRAPPING_KEY, key_blob=KEY_BLOB, spaced=True)
    assert record.startswith(b'{"type": "')
    assert b'"key" : "' in record
    assert gzip.decompress(decrypt(message_of(record))[0]) == PLAINTEXT


@pytest.mark.parametrize(
    "suite", [0x0014, 0x0046, 0x0078, 0x0114, 0x0146, 0x0178, 0x0214, 0x0346, 0x0378, 0x0478, 0x0578]
)
@pytest.mark.parametrize("frame_length", [0, 128, 4096])
def test_the_sdk_reads_every_suite_framed_and_not(suite: int, frame_length: int) -> None:
    body, header = decrypt(encrypt(PLAINTEXT * 10, WRAPPING_KEY, suite, frame_length))
    assert body == PLAINTEXT * 10
    assert header.algorithm.algorithm_id == suite
    assert header.frame_length == frame_length


@pytest.mark.parametrize(
    ("suite", "frame_length", "prefix", "header_size"),
    [(0x0178, 4096, "AYABe", 145), (0x0378, 262144, "AYADe", 240)],
)
def test_prefix_and_header_size_equal_the_published_samples(
    suite: int, frame_length: int, prefix: str, header_size: int
) -> None:
    body = squeeze(PLAINTEXT)
    message = encrypt(body, WRAPPING_KEY, suite, frame_length)
    assert base64.b64encode(message).decode().startswith(prefix)
    final_frame = message.index(b"\xff\xff\xff\xff\x00\x00\x00\x01", 100)
    assert final_frame == header_size
    footer = message[header_size + FINAL_FRAME_OVERHEAD + len(body) :]
    if suite == 0x0178:
        assert footer == b""
    else:
        # A DER signature on P-384 has 102 to 104 bytes, as the random numbers fall; the SDK makes it 103.
        assert len(footer) == 105
        assert struct.unpack(">H", footer[:2]) == (103,)


def test_the_wrapped_key_is_described_as_the_engines_do() -> None:
    _, header = decrypt(encrypt(b"x", WRAPPING_KEY))
    (wrapped,) = header.encrypted_data_keys
    assert wrapped.key_provider.provider_id == "BC"
    info = wrapped.key_provider.key_info
    assert info[:15] == b"DataKey" + struct.pack(">II", 128, 12)
    assert len(info) == 27
    assert len(wrapped.encrypted_data_key) == 48
    assert header.encryption_context == {}


def test_only_the_public_key_stands_in_the_context_of_a_signed_message() -> None:
    _, header = decrypt(encrypt(b"x", WRAPPING_KEY, 0x0378, 262144))
    assert list(header.encryption_context) == ["aws-crypto-public-key"]
    assert len(header.encryption_context["aws-crypto-public-key"]) == 68


def test_a_body_over_one_frame_length_has_several_frames() -> None:
    body = bytes(4096 * 2 + 10)
    message = encrypt(body, WRAPPING_KEY, 0x0178, 4096)
    assert len(message) == 145 + len(body) + 2 * FRAME_OVERHEAD + FINAL_FRAME_OVERHEAD
    assert decrypt(message)[0] == body


def test_compression_can_be_left_out() -> None:
    record = seal(PLAINTEXT, wrapping_key=WRAPPING_KEY, key_blob=KEY_BLOB, compress=False)
    assert decrypt(message_of(record))[0] == PLAINTEXT


def test_another_wrapping_key_does_not_open_it() -> None:
    message = encrypt(b"x", WRAPPING_KEY)
    with pytest.raises(InvalidTag):
        decrypt(message, _OtherKey)


def test_an_unknown_suite_and_a_short_key_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="0x0999"):
        encrypt(b"x", WRAPPING_KEY, 0x0999)
    with pytest.raises(ValueError, match="32 bytes"):
        encrypt(b"x", WRAPPING_KEY[:16])


def test_the_same_plaintext_is_squeezed_to_the_same_bytes_at_any_time() -> None:
    squeezed = squeeze(PLAINTEXT)
    assert squeezed[4:8] == bytes(4)
    assert gzip.decompress(squeezed) == PLAINTEXT
