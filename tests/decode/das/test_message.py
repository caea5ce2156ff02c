"""A message gives its whole plaintext, or one reason and nothing of it."""

from __future__ import annotations

import logging
import os
import struct
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shipper.decode import Reason, Undecodable
from shipper.decode.das.message import decrypt_message
from shipper.decode.das.structure import parse_structure
from shipper.generate.sealing import encrypt
from support.messages import SUITES, Writer

KEY = bytes(range(32))
OTHER_KEY = bytes(32)
MAX_BYTES = 64 * 1024 * 1024
TEXT = b"The quick brown fox jumps over the lazy dog" * 3


def reason_of(message: bytes, key: bytes = KEY, max_bytes: int = MAX_BYTES) -> Reason:
    with pytest.raises(Undecodable) as caught:
        decrypt_message(message, key, max_bytes=max_bytes)
    return caught.value.reason


def flipped(message: bytes, at: int) -> bytes:
    changed = bytearray(message)
    changed[at] ^= 1
    return bytes(changed)


@pytest.mark.parametrize("suite", SUITES, ids=hex)
@pytest.mark.parametrize("frame_length", [0, 4096])
def test_messages_of_the_sdk_decrypt_in_every_suite(suite: int, frame_length: int) -> None:
    for size in (0, 1, 4096, 10_000):
        plaintext = os.urandom(size)
        assert decrypt_message(encrypt(plaintext, KEY, suite, frame_length), KEY, max_bytes=MAX_BYTES) == plaintext


@pytest.mark.parametrize("suite", SUITES, ids=hex)
@pytest.mark.parametrize("frame_length", [0, 16, 17, 4096, 262_144])
def test_messages_of_another_writer_decrypt_in_every_suite(suite: int, frame_length: int) -> None:
    for size in (0, 1, 16, 17, 340):
        plaintext = os.urandom(size)
        for full_final in (False, True):
            message = Writer([KEY], suite, frame_length, full_final=full_final).write(plaintext)
            assert decrypt_message(message, KEY, max_bytes=MAX_BYTES) == plaintext


@pytest.mark.parametrize("suite", [0x0178, 0x0378])
def test_an_empty_final_frame_after_full_ones_is_read(suite: int) -> None:
    plaintext = os.urandom(3 * 4096)
    message = encrypt(plaintext, KEY, suite, 4096)
    structure = parse_structure(message)
    assert (structure.frames, structure.final_bytes) == (4, 0)
    assert decrypt_message(message, KEY, max_bytes=MAX_BYTES) == plaintext


@pytest.mark.parametrize("frame_length", [0, 4096, 262_144])
def test_ten_mebibytes_decrypt(frame_length: int) -> None:
    plaintext = os.urandom(1024) * 10 * 1024
    message = Writer([KEY], 0x0378, frame_length).write(plaintext)
    assert decrypt_message(message, KEY, max_bytes=len(plaintext)) == plaintext


def test_a_hundred_thousand_tiny_frames_decrypt() -> None:
    plaintext = os.urandom(1_600_000)
    message = Writer([KEY], frame_length=16).write(plaintext)
    assert decrypt_message(message, KEY, max_bytes=MAX_BYTES) == plaintext


def test_an_encryption_context_is_part_of_what_is_authenticated() -> None:
    context = {"aws:rds:dbc-id": "cluster-X", "\u00fcber": "\u4e2d", "a": ""}
    message = Writer([KEY], context=context).write(TEXT)
    assert decrypt_message(message, KEY, max_bytes=MAX_BYTES) == TEXT
    assert parse_structure(message).context == context
    changed = message.replace(b"cluster-X", b"cluster-Y")
    assert reason_of(changed) == Reason.WRONG_KEY  # it authenticates the data key first


def test_the_right_one_of_several_data_keys_is_found_in_any_place() -> None:
    for keys in ([KEY, OTHER_KEY, b"x" * 32], [OTHER_KEY, KEY, b"x" * 32], [OTHER_KEY, b"x" * 32, KEY]):
        for _ in range(4):  # the SDK tries them in the order of a set
            assert decrypt_message(Writer(keys).write(TEXT), KEY, max_bytes=MAX_BYTES) == TEXT


@pytest.mark.parametrize("suite", [0x0178, 0x0378, 0x0478, 0x0578], ids=hex)
def test_a_wrong_key_is_told_from_everything_else(suite: int) -> None:
    message = Writer([KEY], suite).write(TEXT)
    assert reason_of(message, OTHER_KEY) == Reason.WRONG_KEY
    assert reason_of(message, b"short") == Reason.WRONG_KEY
    assert reason_of(Writer([KEY], suite, key_name=b"DataKex").write(TEXT)) == Reason.WRONG_KEY
    assert reason_of(Writer([KEY], suite, provider=b"BD").write(TEXT)) == Reason.WRONG_KEY


@pytest.mark.parametrize("suite", SUITES, ids=hex)
@pytest.mark.parametrize("frame_length", [0, 16])
def test_a_changed_byte_of_the_body_is_tampering(suite: int, frame_length: int) -> None:
    message = Writer([KEY], suite, frame_length).write(TEXT)
    structure = parse_structure(message)
    first = structure.header_bytes + (4 if frame_length else 0) + 12 + (0 if frame_length else 8)
    last = len(message) - structure.footer_bytes - 1
    for at in (structure.header_bytes - 1, first, last - 16, last):
        assert reason_of(flipped(message, at)) == Reason.TAMPERED


def test_a_changed_message_id_is_tampering() -> None:
    assert reason_of(flipped(Writer([KEY]).write(TEXT), 5)) == Reason.TAMPERED


def test_a_changed_key_commitment_is_tampering() -> None:
    message = Writer([KEY], 0x0478).write(TEXT)
    assert reason_of(flipped(message, parse_structure(message).header_bytes - 20)) == Reason.TAMPERED


def test_exchanged_frames_are_tampering() -> None:
    message = Writer([KEY], frame_length=16).write(TEXT)
    begin = parse_structure(message).header_bytes
    one, two = (message[begin + at : begin + at + 48] for at in (0, 48))
    exchanged = message[:begin] + one[:4] + two[4:] + two[:4] + one[4:] + message[begin + 96 :]
    assert reason_of(exchanged) == Reason.TAMPERED


def test_a_wrong_signature_is_told_from_tampering() -> None:
    message = Writer([KEY], 0x0378).write(TEXT)
    assert reason_of(flipped(message, len(message) - 1)) == Reason.SIGNATURE
    other = Writer([KEY], 0x0378).write(TEXT)
    body_end = len(message) - parse_structure(message).footer_bytes
    foreign = message[:body_end] + other[len(other) - parse_structure(other).footer_bytes :]
    assert reason_of(foreign) == Reason.SIGNATURE
    empty = message[:body_end] + struct.pack(">H", 0)
    assert reason_of(empty) == Reason.SIGNATURE


def test_a_public_key_that_is_no_point_of_the_curve_is_a_signature_fault() -> None:
    # Only who has the wrapping key can write this: the public key is authenticated with the data key.
    for last in range(8):  # about every other number is the x of a point
        message = Writer([KEY], 0x0378, point=b"\x02" + bytes(47) + bytes([last])).write(TEXT)
        assert reason_of(message) == Reason.SIGNATURE


@pytest.mark.parametrize("suite", [0x0378, 0x0578], ids=hex)
def test_an_altered_data_key_of_a_signed_message_is_tampering(suite: int) -> None:
    message = Writer([KEY], suite).write(TEXT)
    wrapped = message.index(b"DataKey") + len(b"DataKey") + 8 + 12 + 2
    assert reason_of(flipped(message, wrapped)) == Reason.TAMPERED
    unsigned = Writer([KEY]).write(TEXT)
    wrapped = unsigned.index(b"DataKey") + len(b"DataKey") + 8 + 12 + 2
    assert reason_of(flipped(unsigned, wrapped)) == Reason.WRONG_KEY  # nothing can tell these apart


def test_a_signature_cannot_be_stripped_by_naming_another_suite() -> None:
    message = Writer([KEY], 0x0378).write(TEXT)
    footer = parse_structure(message).footer_bytes
    stripped = message[:2] + b"\x01\x78" + message[4:-footer]
    assert reason_of(stripped) == Reason.MESSAGE_MALFORMED


def test_a_message_is_refused_before_it_is_decrypted_where_it_is_too_large() -> None:
    for frame_length in (0, 16, 4096):
        message = Writer([KEY], frame_length=frame_length).write(TEXT)
        assert decrypt_message(message, KEY, max_bytes=len(TEXT)) == TEXT
        assert reason_of(message, OTHER_KEY, max_bytes=len(TEXT) - 1) == Reason.TOO_LARGE


@pytest.mark.parametrize("suite", [0x0178, 0x0378, 0x0578], ids=hex)
@pytest.mark.parametrize("frame_length", [0, 16])
def test_a_message_cut_at_any_byte_is_truncated(suite: int, frame_length: int) -> None:
    message = Writer([KEY], suite, frame_length).write(b"twenty bytes of text")
    for size in range(len(message)):
        assert reason_of(message[:size]) == Reason.MESSAGE_TRUNCATED


def test_what_follows_a_message_is_refused() -> None:
    for suite in (0x0178, 0x0378):
        assert reason_of(Writer([KEY], suite).write(TEXT) + b"\0") == Reason.MESSAGE_MALFORMED


_VICTIMS = [
    Writer([KEY], suite, frame_length).write(TEXT)
    for suite in (0x0178, 0x0378, 0x0578)
    for frame_length in (0, 16, 4096)
]


@given(
    st.sampled_from(_VICTIMS),
    st.lists(st.tuples(st.integers(0, 2000), st.binary(min_size=1, max_size=4)), min_size=1, max_size=4),
    st.integers(0, 2000),
)
@settings(max_examples=400, deadline=None)
def test_no_mutation_gives_other_plaintext_or_another_error(
    message: bytes, edits: list[tuple[int, bytes]], size: int
) -> None:
    changed = bytearray(message)
    for at, replacement in edits:
        changed[at % len(changed) : at % len(changed) + len(replacement)] = replacement
    mutant = bytes(changed)[: size if size < len(changed) else None]
    try:
        plaintext = decrypt_message(mutant, KEY, max_bytes=MAX_BYTES)
    except Undecodable:
        return
    assert plaintext == TEXT
    assert mutant == message


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_no_garbage_decrypts(garbage: bytes) -> None:
    for data in (garbage, b"\x01\x80\x01\x78" + garbage, b"\x02\x04\x78" + garbage):
        with pytest.raises(Undecodable):
            decrypt_message(data, KEY, max_bytes=MAX_BYTES)


@given(st.binary(max_size=400), st.sampled_from(sorted(SUITES)), st.sampled_from([0, 1, 16, 100, 4096]), st.booleans())
@settings(max_examples=200, deadline=None)
def test_any_plaintext_comes_back(plaintext: bytes, suite: int, frame_length: int, full_final: bool) -> None:
    message = Writer([KEY], suite, frame_length, full_final=full_final).write(plaintext)
    assert decrypt_message(message, KEY, max_bytes=MAX_BYTES) == plaintext


def test_threads_decrypt_with_different_keys_at_the_same_time() -> None:
    keys = [os.urandom(32) for _ in range(40)]
    messages = [Writer([key], suite).write(key) for key in keys for suite in (0x0178, 0x0378)]
    with ThreadPoolExecutor(8) as threads:
        found = list(
            threads.map(
                lambda pair: decrypt_message(pair[0], pair[1], max_bytes=MAX_BYTES),
                zip(messages, [key for key in keys for _ in range(2)], strict=True),
            )
        )
    assert found == [key for key in keys for _ in range(2)]


def test_failures_neither_log_nor_quote_data(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    message = Writer([KEY], 0x0378, 16).write(b"audit secret " * 20)
    for mutant, key in ((flipped(message, len(message) - 200), KEY), (message, OTHER_KEY), (message[:-7], KEY)):
        with pytest.raises(Undecodable) as caught:
            decrypt_message(mutant, key, max_bytes=MAX_BYTES)
        assert "secret" not in str(caught.value)
    assert not caplog.records
