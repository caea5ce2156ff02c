"""A message's structure is read without a key, within its size, and says what is wrong with it."""

from __future__ import annotations

import base64
import os
import struct

import pytest
from aws_encryption_sdk.identifiers import AlgorithmSuite
from hypothesis import given, settings
from hypothesis import strategies as st

from shipper.decode import Reason, Undecodable
from shipper.decode.das.structure import SUITES as KNOWN
from shipper.decode.das.structure import Signature, parse_structure, verify_signature
from shipper.generate.sealing import encrypt
from support.messages import SUITES, Writer, serialize_context

KEY = bytes(range(32))


def reason_of(message: bytes) -> Reason:
    with pytest.raises(Undecodable) as caught:
        parse_structure(message)
    return caught.value.reason


def test_the_suites_are_those_of_the_sdk() -> None:
    theirs = {
        suite.algorithm_id: (suite.is_signing(), suite.is_committing(), suite.message_format_version)
        for suite in AlgorithmSuite
    }
    assert {suite.id: (suite.signed, suite.committed, suite.message_version) for suite in KNOWN.values()} == theirs


def test_an_aurora_postgresql_message_has_the_sizes_of_real_ones() -> None:
    message = encrypt(os.urandom(172), KEY, 0x0178, 4096)
    structure = parse_structure(message)
    assert base64.b64encode(message)[:5] == b"AYABe"
    assert (structure.version, structure.suite.id, structure.context) == (1, 0x0178, {})
    assert (structure.header_bytes, structure.frame_length, structure.footer_bytes) == (145, 4096, 0)
    assert (structure.frames, structure.final_bytes, structure.plaintext_bytes) == (1, 172, 172)
    (key,) = structure.encrypted_data_keys
    assert (key.provider, key.info[:7], len(key.info), len(key.ciphertext)) == ("BC", b"DataKey", 27, 48)


def test_an_aurora_mysql_message_has_the_sizes_of_real_ones() -> None:
    message = encrypt(os.urandom(643), KEY, 0x0378, 262_144)
    structure = parse_structure(message)
    assert base64.b64encode(message)[:5] == b"AYADe"
    assert (structure.header_bytes, structure.frame_length, structure.footer_bytes) == (240, 262_144, 105)
    assert list(structure.context) == ["aws-crypto-public-key"]
    assert len(base64.b64decode(structure.context["aws-crypto-public-key"])) == 49
    assert (structure.frames, structure.plaintext_bytes) == (1, 643)


@pytest.mark.parametrize("suite", SUITES, ids=hex)
@pytest.mark.parametrize("frame_length", [0, 16, 4096, 262_144])
def test_every_kind_of_message_is_read(suite: int, frame_length: int) -> None:
    for size in (0, 16, 100):
        message = Writer([KEY, KEY], suite, frame_length, {"a": "b"}).write(bytes(size))
        structure = parse_structure(message)
        assert structure.suite.id == suite
        assert structure.plaintext_bytes == size
        assert structure.frames == (0 if not frame_length else size // frame_length + 1)
        assert structure.context["a"] == "b"
        assert len(structure.encrypted_data_keys) == 2
        assert len(structure.message_id) == (32 if suite in (0x0478, 0x0578) else 16)
        assert bool(structure.footer_bytes) == structure.suite.signed


@pytest.mark.parametrize("suite", SUITES, ids=hex)
def test_a_signature_is_verified_without_a_key(suite: int) -> None:
    message = Writer([KEY], suite).write(b"text")
    structure = parse_structure(message)
    if not structure.suite.signed:
        assert verify_signature(message, structure) is Signature.NONE
        return
    assert verify_signature(message, structure) is Signature.VALID
    for at in (5, structure.header_bytes + 24, len(message) - structure.footer_bytes - 1, len(message) - 1):
        changed = bytearray(message)
        changed[at] ^= 1
        assert verify_signature(bytes(changed), parse_structure(bytes(changed))) is Signature.INVALID


def test_a_public_key_that_is_not_on_the_curve_makes_the_signature_invalid() -> None:
    message = Writer([KEY], 0x0378).write(b"text")
    key = parse_structure(message).context["aws-crypto-public-key"].encode()
    verdicts = set()
    for last in range(8):  # about every other number is the x of a point
        point = b"\x02" + bytes(47) + bytes([last])
        changed = message.replace(key, base64.b64encode(point))
        verdicts.add(verify_signature(changed, parse_structure(changed)))
    assert verdicts == {Signature.INVALID}


def _header(message: bytes, begin: int, replacement: bytes) -> bytes:
    return message[:begin] + replacement + message[begin + len(replacement) :]


PLAIN = Writer([KEY]).write(b"text")


@pytest.mark.parametrize(
    ("begin", "replacement", "reason"),
    [
        (0, b"\x00", Reason.MESSAGE_MALFORMED),
        (0, b"\x03", Reason.MESSAGE_MALFORMED),
        (1, b"\x81", Reason.MESSAGE_MALFORMED),
        (2, b"\x01\x79", Reason.SUITE_UNSUPPORTED),
        (2, b"\x04\x78", Reason.MESSAGE_MALFORMED),  # a suite of format version 2
        (2, b"\x03\x78", Reason.MESSAGE_MALFORMED),  # a suite that signs, and no public key
        (22, b"\x00\x00", Reason.MESSAGE_MALFORMED),
        (24, b"\xff\xff", Reason.MESSAGE_TRUNCATED),
        (26, b"\xff\xfe", Reason.MESSAGE_MALFORMED),  # the provider's id is not UTF-8
        (107, b"\x00", Reason.MESSAGE_MALFORMED),
        (107, b"\x01", Reason.MESSAGE_MALFORMED),  # one block, and a frame length
        (108, b"\x00\x00\x00\x01", Reason.MESSAGE_MALFORMED),
        (112, b"\x0d", Reason.MESSAGE_MALFORMED),
        (113, b"\x00\x00\x00\x00", Reason.MESSAGE_MALFORMED),
        (113, b"\x80\x00\x00\x00", Reason.MESSAGE_MALFORMED),
        (113, b"\x00\x00\x00\x03", Reason.MESSAGE_MALFORMED),  # the final frame is longer
        (145, b"\x00\x00\x00\x02", Reason.MESSAGE_MALFORMED),  # not the first frame's number
        (149, b"\x00\x00\x00\x02", Reason.MESSAGE_MALFORMED),
    ],
)
def test_what_is_against_the_format_is_named(begin: int, replacement: bytes, reason: Reason) -> None:
    assert len(PLAIN) == 145 + 40 + 4
    assert reason_of(_header(PLAIN, begin, replacement)) == reason


def _with_context(aad: bytes) -> bytes:
    return PLAIN[:20] + struct.pack(">H", len(aad)) + aad + PLAIN[22:]


@pytest.mark.parametrize(
    "aad",
    [
        b"\0",
        b"\0\0",  # empty has no count
        b"\0\2" + serialize_context({"a": "b"})[2:],
        serialize_context({"a": "b"}) + b"\0",
        b"\0\2" + serialize_context({"b": ""})[2:] + serialize_context({"a": ""})[2:],
        b"\0\2" + serialize_context({"a": ""})[2:] + serialize_context({"a": ""})[2:],
        serialize_context({"a": "b"}).replace(b"b", b"\xff"),
        b"\0\1\xff\xffa\0\0",
    ],
)
def test_an_encryption_context_has_one_spelling(aad: bytes) -> None:
    assert parse_structure(_with_context(serialize_context({"a": "b", "b": "c"}))).context == {"a": "b", "b": "c"}
    assert reason_of(_with_context(aad)) == Reason.MESSAGE_MALFORMED


@pytest.mark.parametrize(
    "point",
    [
        "",
        "AA==",
        "not base64!",
        "B" + "A" * 67,
        base64.b64encode(bytes(33)).decode(),
        base64.b64encode(b"\x04" + bytes(48)).decode(),
    ],
)
def test_a_public_key_of_the_wrong_shape_is_malformed(point: str) -> None:
    message = _with_context(serialize_context({"aws-crypto-public-key": point}))
    assert reason_of(_header(message, 2, b"\x03\x78")) == Reason.MESSAGE_MALFORMED
    assert reason_of(message) == Reason.MESSAGE_MALFORMED  # does not sign, but has one


@pytest.mark.parametrize("frame_length", [0, 16])
def test_a_length_beyond_the_message_is_truncation(frame_length: int) -> None:
    message = Writer([KEY], frame_length=frame_length).write(b"x" * 10)
    at = parse_structure(message).header_bytes + (12 if not frame_length else 20)
    huge = b"\xff" * 8 if not frame_length else struct.pack(">I", 16)
    assert reason_of(_header(message, at, huge)) == Reason.MESSAGE_TRUNCATED


@pytest.mark.parametrize("suite", [0x0178, 0x0378], ids=hex)
def test_bytes_after_the_end_are_against_the_format(suite: int) -> None:
    assert reason_of(Writer([KEY], suite).write(b"text") + b"\0") == Reason.MESSAGE_MALFORMED


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_garbage_raises_nothing_else(garbage: bytes) -> None:
    for data in (garbage, PLAIN[:24] + garbage, PLAIN[:107] + garbage, PLAIN[:145] + garbage):
        try:
            parse_structure(data)
            reason = None
        except Undecodable as error:
            reason = error.reason
        assert reason in (None, Reason.MESSAGE_TRUNCATED, Reason.MESSAGE_MALFORMED, Reason.SUITE_UNSUPPORTED)
