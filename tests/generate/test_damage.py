"""Every kind of damage is refused by the decoder's parts for the reason that it is labelled with."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import msgspec
import pytest

from shipper.decode import Reason, Undecodable
from shipper.decode.das.compression import inflate
from shipper.decode.das.envelope import parse_envelope
from shipper.decode.das.message import decrypt_message
from shipper.generate.activity import Generator
from shipper.generate.damage import BOMB_BYTES, DAMAGES, damage
from shipper.generate.sealer import LocalDataKeys, Sealer

START = datetime(2024, 3, 5, 11, 22, 33, tzinfo=UTC)
#: What a record may inflate to: anything below the bomb.
MAX_BYTES = BOMB_BYTES - 1
#: Damage that shows only when the JSON inside is read.
INSIDE = {Reason.JSON_MALFORMED, Reason.JSON_ENCODING, Reason.JSON_DEPTH, Reason.SHAPE}


def open_record(record: bytes, keys: dict[bytes, bytes]) -> bytes:
    envelope = parse_envelope(record)
    if envelope.key_blob not in keys:
        raise Undecodable(Reason.KEY_REFUSED, "no such key")
    assert envelope.message is not None
    return inflate(decrypt_message(envelope.message, keys[envelope.key_blob], max_bytes=MAX_BYTES), max_bytes=MAX_BYTES)


def broken(kind: str, engine: str, seed: int) -> tuple[bytes, dict[bytes, bytes]]:
    keys: dict[bytes, bytes] = {}
    sealer = Sealer(LocalDataKeys(lambda key: keys.update({key.blob: key.plain})))
    plain = next(one for one in Generator(engine, seed=seed, start=START).records(50) if not one.heartbeat)
    return damage(sealer, plain, kind, random.Random(seed)), keys


OUTSIDE = [kind for kind, reason in DAMAGES.items() if not kind.endswith("_inside") and reason is not Reason.SHAPE]


@pytest.mark.parametrize("kind", OUTSIDE)
def test_damage_to_the_record_is_refused_for_its_reason(kind: str) -> None:
    # The bomb costs a second of inflating; the places of the others are random, so several are tried.
    for seed in range(1 if kind == "gzip_bomb" else 12):
        record, keys = broken(kind, "aurora-postgresql" if seed % 2 else "aurora-mysql", seed)
        with pytest.raises(Undecodable) as caught:
            open_record(record, keys)
        assert caught.value.reason is DAMAGES[kind], seed


@pytest.mark.parametrize("kind", ["not_json_inside", "not_utf8_inside", "deep_inside"])
def test_damage_inside_opens_to_json_that_cannot_be_read(kind: str) -> None:
    opened = open_record(*broken(kind, "oracle", 1))
    if DAMAGES[kind] is Reason.JSON_ENCODING:
        with pytest.raises(UnicodeDecodeError):
            opened.decode()
    else:
        expected = RecursionError if DAMAGES[kind] is Reason.JSON_DEPTH else msgspec.DecodeError
        with pytest.raises(expected):
            msgspec.json.decode(opened)


@pytest.mark.parametrize("kind", ["no_list", "list_is_text"])
def test_damage_to_the_shape_opens_to_good_json_without_a_list(kind: str) -> None:
    record = msgspec.json.decode(open_record(*broken(kind, "oracle", 1)))
    assert not isinstance(record.get("databaseActivityEventList"), list)


def test_the_bomb_is_small_and_the_labels_cover_every_reason_but_a_crash() -> None:
    record, _keys = broken("gzip_bomb", "oracle", 1)
    assert len(record) < 1_000_000
    assert set(DAMAGES.values()) == set(Reason) - {Reason.DECODER_DIED}
