"""Files that a source may find though nobody wished for them: odd names and times, damage, and what is written anew."""

from __future__ import annotations

import gzip
import os
import tempfile
import threading
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from shipper.errors import Held
from shipper.settings import FileSourceSettings
from shipper.source import EARLIEST, END, Partition, Position, Read, Record, Start
from shipper.sources.file import FileSource
from shipper.sources.file_content import open_content
from support.privileges import unprivileged

VALUES = [b'{"n":%d,"pad":"%s"}' % (n, b"y" * (n % 90)) for n in range(1000)]
LINES = b"".join(value + b"\n" for value in VALUES)
TORN = gzip.compress(LINES)[:-9]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shipper.sources.file.POLL", 0.0)


def source(path: Path, **settings: Any) -> FileSource:
    return FileSource("offline", FileSourceSettings(path=str(path), **settings))


def read(reader: FileSource, partition: Partition, begin: Position | Start = EARLIEST) -> list[Record]:
    reads = reader.read(partition, begin, threading.Event())
    return [record for one in reads for record in one.records]


def only(reader: FileSource) -> Partition:
    (partition,) = reader.partitions()
    return partition


def to_tip(reader: FileSource, partition: Partition, begin: Position | Start = EARLIEST) -> list[Record]:
    """Reads until the tip, or until the reader ends."""
    found: list[Record] = []
    for one in reader.read(partition, begin, threading.Event()):
        found += one.records
        if one.lag == 0:
            break
    return found


# -- written anew ---------------------------------------------------------------------------------------------------


def rewrite(path: Path, content: bytes) -> None:
    """In its place: the same inode, as a rotation that copies and truncates does it."""
    os.truncate(path, 0)
    path.write_bytes(content)


def followed_to_the_rewriting(reader: FileSource, path: Path, part: Partition, content: bytes) -> list[Record]:
    """What is read of a followed file before it is written anew; the reader then ends."""
    reads = reader.read(part, EARLIEST, threading.Event())
    found: list[Record] = []
    for one in reads:
        found += one.records
        if one.lag == 0:
            break
    rewrite(path, content)
    assert [record for one in reads for record in one.records] == []
    return found


def test_a_file_cut_while_followed_has_the_name_that_it_gets_from_the_position_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(LINES[:500])
    reader = source(path, follow=True)
    (old,) = reader.partitions()
    last = followed_to_the_rewriting(reader, path, old, LINES[:100])[-1]
    (new,) = set(reader.partitions()) - {old}
    again = source(path, follow=True)
    again.partitions()
    assert to_tip(again, old, Position(last.position, END)) == []
    assert set(again.partitions()) == {old, new}


def test_a_file_cut_before_anything_was_given_stays_the_same_partition(tmp_path: Path) -> None:
    """Its reader passed over it: no position is kept from which another name could come after a restart."""
    path = tmp_path / "log"
    path.write_bytes(LINES[:500])
    reader = source(path, follow=True)
    (part,) = reader.partitions()
    begin = datetime.fromtimestamp(path.stat().st_mtime + 5, UTC)
    reads = reader.read(part, begin, threading.Event())
    assert next(reads).lag == 0
    rewrite(path, LINES[:100])
    os.utime(path, (begin.timestamp() + 9, begin.timestamp() + 9))
    assert next(reads).records[0].data == VALUES[0]
    reads.close()  # type: ignore[attr-defined]  # a generator, though only an iterator is promised
    assert reader.partitions() == [part]


def test_a_compressed_file_cut_before_it_gave_a_byte_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "log"
    whole = gzip.compress(LINES[:100])
    path.write_bytes(whole[:11])
    content = open_content(str(path))
    assert content is not None
    with content:
        assert content.read(10) == b""
        path.write_bytes(whole)
        assert content.seek(0)
        assert content.read(1000) == LINES[:100]


def test_a_file_cut_again_at_the_same_place_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(LINES[:500])
    reader = source(path, follow=True)
    names: set[str] = set()
    for _ in range(3):
        (part,) = {part.id for part in reader.partitions()} - names
        names.add(part)
        before = followed_to_the_rewriting(reader, path, Partition(part), LINES[:50])
        assert before[0].data == VALUES[0]
        path.write_bytes(LINES[:500])


# -- names and times ------------------------------------------------------------------------------------------------


def test_a_name_that_is_not_utf8_is_read_under_a_name_that_is(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.jsonl")).write_bytes(LINES)
    reader = source(tmp_path / "*.jsonl")
    (part,) = reader.partitions()
    assert part.id.startswith("bad\\xff.jsonl#")
    assert [record.data for record in read(reader, part)] == VALUES


def test_a_name_that_looks_like_an_escaped_one_is_another_partition(tmp_path: Path) -> None:
    for name in (b"/bad\xff.jsonl", b"/bad\\xff.jsonl"):
        Path(os.fsdecode(os.fsencode(tmp_path) + name)).write_bytes(LINES)
    assert len({part.id for part in source(tmp_path / "*").partitions()}) == 2


def test_an_identity_and_a_hold_are_text_whatever_the_folder_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert source(Path("*")).identity().endswith("/\\xff/*")
    with pytest.raises(Held) as held:
        source(Path("in/*")).connect()
    assert "\\xff/in" in str(held.value)
    Path("torn").write_bytes(TORN)
    reader = source(Path("torn"))
    with pytest.raises(Held) as held:
        read(reader, only(reader))
    assert "\\xff/torn" in str(held.value)


@pytest.mark.parametrize(("modified", "arrived"), [(13_000_000_000, 2**63 - 1), (-5, 0)])
def test_a_time_that_nothing_else_can_hold_becomes_the_nearest_one(tmp_path: Path, modified: int, arrived: int) -> None:
    path = tmp_path / "log"
    path.write_bytes(LINES)
    os.utime(path, (modified, modified))
    if path.stat().st_mtime != modified:
        pytest.skip("this file system does not keep such times")
    reader = source(path)
    assert {record.arrived for record in read(reader, only(reader))} == {arrived}


# -- what may not be read, or not yet -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["*.jsonl", "*/a.jsonl"])
def test_a_folder_that_may_be_listed_but_not_entered_holds(name: str) -> None:
    with tempfile.TemporaryDirectory() as root:  # pytest's own folders are closed to everybody else
        Path(root).chmod(0o755)
        folder = Path(root, "in")
        folder.mkdir()
        (folder / "a.jsonl").write_bytes(LINES)
        folder.chmod(0o744)
        try:
            with unprivileged(), pytest.raises(Held, match=r"/in/? may not be read") as held:
                source(folder / name if name.startswith("*.") else Path(root) / name).partitions()
        finally:
            folder.chmod(0o755)
    assert held.value.reason == "access_denied"


@pytest.mark.parametrize("replace", [True, False])
def test_a_complete_copy_in_the_place_of_a_torn_file_mends_it(tmp_path: Path, replace: bool) -> None:
    path = tmp_path / "a.gz"
    half = len(TORN) // 2
    path.write_bytes(TORN[:half])
    reader = source(path)
    (part,) = reader.partitions()
    found: list[bytes] = []
    with pytest.raises(Held, match="put a complete copy"):
        found.extend(r.data for one in reader.read(part, EARLIEST, threading.Event()) for r in one.records)
    copy = tmp_path / "copy" if replace else path
    copy.write_bytes(gzip.compress(LINES))
    copy.rename(path)
    assert [record.data for record in read(reader, part)] == VALUES


def test_held_files_keep_no_other_from_being_read(tmp_path: Path) -> None:
    for name in ("1", "2", "3"):
        (tmp_path / name).write_bytes(TORN)
    (tmp_path / "good").write_bytes(LINES)
    reader = source(tmp_path / "*")
    *torn, good = reader.partitions()
    assert reader.max_readers is not None
    assert reader.max_readers > len(torn), "the engine starts no more readers than this, held ones included"
    for part in torn:
        with pytest.raises(Held):
            read(reader, part)
    assert [record.data for record in read(reader, good)] == VALUES


def test_two_files_are_read_at_a_time_in_order(tmp_path: Path) -> None:
    for name in "abcd":
        (tmp_path / name).write_bytes(LINES)
    reader = source(tmp_path / "*")
    a, b, c, d = (reader.read(part, EARLIEST, threading.Event()) for part in reader.partitions())
    assert next(a).records
    assert next(b).records
    assert [(one.records, one.lag) for one in (next(c), next(d))] == [((), None)] * 2
    list(b)
    assert next(d).records == (), "it is the turn of another"
    assert next(c).records
    list(a)
    assert next(d).records


def test_who_waits_for_a_turn_and_leaves_keeps_nobody_waiting(tmp_path: Path) -> None:
    for name in "abcde":
        (tmp_path / name).write_bytes(LINES)
    reader = source(tmp_path / "*")
    stop = threading.Event()
    stops = [threading.Event(), threading.Event(), stop, threading.Event(), threading.Event()]
    a, b, c, d, e = (reader.read(part, EARLIEST, stops[index]) for index, part in enumerate(reader.partitions()))
    for one in (a, b, c, d, e):
        next(one)
    stop.set()
    assert list(c) == []
    d.close()  # type: ignore[attr-defined]  # a generator, though only an iterator is promised
    list(a)
    assert next(e).records


def test_a_held_file_tries_again_without_waiting_for_a_turn(tmp_path: Path) -> None:
    """Any read would say that it works again."""
    (tmp_path / "0").write_bytes(TORN)
    for name in "ab":
        (tmp_path / name).write_bytes(LINES)
    reader = source(tmp_path / "*")
    torn, *good = reader.partitions()
    with pytest.raises(Held):
        read(reader, torn)
    busy = [reader.read(part, EARLIEST, threading.Event()) for part in good]
    for one in busy:
        next(one)
    retried = reader.read(torn, Position(LINES.index(VALUES[-1]), END), threading.Event())
    reads: list[Read] = []
    with pytest.raises(Held):
        reads.extend(islice(retried, 5))
    assert all(one.records for one in reads)


# -- what is gone ---------------------------------------------------------------------------------------------------


def test_nothing_is_kept_of_files_that_are_gone(tmp_path: Path) -> None:
    reader = source(tmp_path / "*", follow=True)
    path = tmp_path / "log"
    path.write_bytes(LINES[:500])
    (part,) = reader.partitions()
    followed_to_the_rewriting(reader, path, part, LINES[:100])
    assert len(reader.partitions()) == 2
    away = tmp_path / ".away"
    path.rename(away)
    assert reader.partitions() == []
    away.rename(path)
    assert len(reader.partitions()) == 2, "it was only being replaced"
    path.unlink()
    for _ in range(2):
        assert reader.partitions() == []
    kept = [held for held in vars(reader).values() if isinstance(held, dict | set | list) and held]
    assert kept == []
