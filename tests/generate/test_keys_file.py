"""A keys file gathers keys, stays secret, and is what the static key provider reads."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from shipper.decode.das.keys import KeysFile
from shipper.errors import ShipperError
from shipper.generate.keys_file import KeysFileWriter
from shipper.generate.sealer import DataKey


def key(number: int) -> DataKey:
    return DataKey(b"blob%03d" % number, bytes([number]) * 32)


def test_keys_are_added_and_read_by_the_static_provider(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    KeysFileWriter(path).add(key(1))
    KeysFileWriter(path).add(key(2))
    keys = KeysFile(path)
    assert [keys.data_key(key(one).blob, None) for one in (1, 2)] == [key(1).plain, key(2).plain]
    assert [one.name for one in tmp_path.iterdir()] == ["keys.json"]


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_only_the_owner_can_read_it_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "keys.json"
    before = os.umask(umask)
    try:
        KeysFileWriter(path).add(key(1))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text("{}")
    path.chmod(0o644)
    KeysFileWriter(path).add(key(1))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("content", ["[]", "not json", '"text"', "[" * 100_000])
def test_what_is_not_a_keys_file_is_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "precious"
    path.write_text(content)
    with pytest.raises(ShipperError, match="not a keys file"):
        KeysFileWriter(path).add(key(1))
    assert path.read_text() == content


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ShipperError, match="cannot be written"):
        KeysFileWriter(tmp_path / "none" / "keys.json").add(key(1))


def test_writers_at_the_same_time_lose_no_key(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"

    def add(first: int) -> None:
        for number in range(first, first + 20):
            KeysFileWriter(path).add(key(number))

    threads = [threading.Thread(target=add, args=(first,)) for first in (0, 50, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    keys = KeysFile(path)
    for first in (0, 50, 100):
        for one in range(20):
            assert keys.data_key(key(first + one).blob, None) == key(first + one).plain
