"""Reading files: which are read, from where to where, and what holds the source."""

from __future__ import annotations

import gzip
import os
import tempfile
import threading
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from shipper.errors import Held
from shipper.settings import FileSourceSettings
from shipper.source import EARLIEST, END, Partition, Position, Read, Record, Start
from shipper.sources.file import FileSource
from support.privileges import unprivileged

VALUES = [b'{"n":%d,"pad":{"x":"%s"}}' % (n, b"y" * (n % 90)) for n in range(4000)]
LINES = b"".join(value + b"\n" for value in VALUES)


def source(path: Path | str, **settings: Any) -> FileSource:
    return FileSource("offline", FileSourceSettings(path=str(path), **settings))


def read(reader: FileSource, partition: Partition, begin: Position | Start = EARLIEST) -> list[Read]:
    return list(reader.read(partition, begin, threading.Event()))


def records(reads: list[Read]) -> list[Record]:
    return [record for read in reads for record in read.records]


def everything(reader: FileSource) -> list[bytes]:
    return [record.data for part in reader.partitions() for record in records(read(reader, part))]


def only(reader: FileSource) -> Partition:
    (partition,) = reader.partitions()
    return partition


class Follow:
    """Reads a partition step by step; a step ends at the tip."""

    def __init__(self, reader: FileSource, partition: Partition, begin: Position | Start = EARLIEST) -> None:
        self.stop = threading.Event()
        self.reads = reader.read(partition, begin, self.stop)

    def to_tip(self) -> list[bytes]:
        found: list[bytes] = []
        for one in self.reads:
            found += [record.data for record in one.records]
            if one.lag == 0:
                break
        return found

    def close(self) -> None:
        self.stop.set()
        list(self.reads)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shipper.sources.file.POLL", 0.0)


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(LINES)
    return path


def test_a_file_is_read_to_its_end_and_says_so(lines: Path) -> None:
    reader = source(lines)
    reads = read(reader, only(reader))
    assert [record.data for record in records(reads)] == VALUES
    assert [one.lag for one in reads[:-1]] == [None] * (len(reads) - 1)
    assert reads[-1].lag == 0
    assert not any(one.end for one in reads)


def test_positions_are_offsets_in_the_content(lines: Path) -> None:
    reader = source(lines)
    for record in records(read(reader, only(reader)))[::500]:
        assert LINES[record.position :].startswith(record.data)


def test_records_arrived_when_the_file_was_last_modified(lines: Path) -> None:
    os.utime(lines, ns=(1_700_000_000_000_000_000, 1_700_000_000_000_000_000))
    reader = source(lines)
    assert {record.arrived for record in records(read(reader, only(reader)))} == {1_700_000_000_000_000_000}


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("index", [0, 1, 1999, 3998, 3999])
def test_reading_goes_on_at_a_half_settled_record_and_after_a_finished_one(
    tmp_path: Path, compressed: bool, index: int
) -> None:
    path = tmp_path / "records"
    path.write_bytes(gzip.compress(LINES) if compressed else LINES)
    reader = source(path)
    found = records(read(reader, only(reader)))
    assert records(read(reader, only(reader), Position(found[index].position, 7))) == found[index:]
    assert records(read(reader, only(reader), Position(found[index].position, END))) == found[index + 1 :]


def test_gzip_is_told_by_its_bytes_and_may_have_several_members(tmp_path: Path) -> None:
    half = len(LINES) // 2
    members = gzip.compress(LINES[:half]) + gzip.compress(b"") + gzip.compress(LINES[half:]) + b"\0" * 512
    (tmp_path / "no-suffix").write_bytes(members)
    (tmp_path / "plain.gz").write_bytes(b'{"plain":true}\n')
    assert everything(source(tmp_path / "*")) == [*VALUES, b'{"plain":true}']


def test_objects_without_a_separator_are_read(tmp_path: Path) -> None:
    (tmp_path / "firehose").write_bytes(b"".join(VALUES))
    assert everything(source(tmp_path / "firehose")) == VALUES


def test_long_values_are_read_whole(tmp_path: Path) -> None:
    value = b'{"long":"' + b"x" * 11_000_000 + b'"}'
    (tmp_path / "long").write_bytes(value + b"\n" + VALUES[0])
    assert everything(source(tmp_path / "long")) == [value, VALUES[0]]


def test_a_cut_off_gzip_file_gives_what_is_whole_and_holds(tmp_path: Path) -> None:
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(LINES)[:-2000])
    reader = source(path)
    found: list[bytes] = []
    reads = (record.data for one in reader.read(only(reader), EARLIEST, threading.Event()) for record in one.records)
    with pytest.raises(Held, match=r"cut\.gz ends within a gzip member"):
        found.extend(reads)
    assert 0 < len(found) < len(VALUES)
    assert found == VALUES[: len(found)]


@pytest.mark.parametrize("at", [12, -200, -6])
def test_damaged_gzip_data_holds_and_says_where(tmp_path: Path, at: int) -> None:
    damaged = bytearray(gzip.compress(os.urandom(300_000).hex().encode() + b"\n" + LINES))
    damaged[at] ^= 0xFF
    (tmp_path / "bad.gz").write_bytes(damaged)
    reader = source(tmp_path / "bad.gz")
    with pytest.raises(Held, match=r"bad\.gz") as held:
        read(reader, only(reader))
    assert held.value.reason == "unreachable"


def test_bytes_behind_a_gzip_member_that_are_none_hold(tmp_path: Path) -> None:
    (tmp_path / "odd.gz").write_bytes(gzip.compress(LINES) + b"not gzip")
    reader = source(tmp_path / "odd.gz")
    with pytest.raises(Held, match="is damaged"):
        read(reader, only(reader))


def test_a_pattern_finds_files_at_any_depth_in_order(tmp_path: Path) -> None:
    for name in ("b.jsonl", "x/y/a.jsonl", "x/c.jsonl", "x/other.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b'"%s"\n' % name.encode())
    reader = source(tmp_path / "**" / "*.jsonl")
    assert [partition.id.split("#")[0] for partition in reader.partitions()] == ["b.jsonl", "x/c.jsonl", "x/y/a.jsonl"]
    assert everything(reader) == [b'"b.jsonl"', b'"x/c.jsonl"', b'"x/y/a.jsonl"']


def test_what_is_no_file_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "real").write_bytes(b"{}\n")
    assert everything(source(tmp_path / "*")) == [b"{}"]


def test_identity_is_the_absolute_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert source("a/../b/*.jsonl").identity() == source(tmp_path / "b" / "*.jsonl").identity()


def test_the_resource_id_comes_from_the_settings(tmp_path: Path) -> None:
    assert source(tmp_path / "x", resource_id="cluster-ABC").resource_id == "cluster-ABC"


# -- the same file, or another one ----------------------------------------------------------------------------------


def test_a_growing_file_stays_the_same_partition(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(LINES[:100])
    first = only(source(path))
    path.write_bytes(LINES)
    assert only(source(path)) == first


@pytest.mark.parametrize("follow", [False, True])
def test_a_replaced_file_is_another_partition(tmp_path: Path, follow: bool) -> None:
    path = tmp_path / "log"
    path.write_bytes(LINES)
    reader = source(path, follow=follow)
    before = only(reader)
    path.write_bytes(b'{"another":1}\n' + LINES)
    after = only(reader)
    assert after != before
    assert records(read(reader, before)) == []


def test_a_file_replaced_after_it_was_listed_is_not_taken_for_the_old_one(lines: Path) -> None:
    reader = source(lines)
    listed = only(reader)
    lines.write_bytes(b'{"another":1}\n' + LINES)
    assert records(read(reader, listed)) == []
    assert everything(reader)[0] == b'{"another":1}'


@pytest.mark.parametrize("rewritten", [LINES[:2000], LINES[:2000] + b"x" * len(LINES)])
def test_a_file_written_anew_is_read_from_its_beginning_as_a_new_partition(tmp_path: Path, rewritten: bytes) -> None:
    """The same first line, but shorter than the position, or without a value there."""
    path = tmp_path / "log"
    path.write_bytes(LINES)
    reader = source(path)
    old = only(reader)
    position = Position(records(read(reader, old))[3000].position, END)
    path.write_bytes(rewritten)
    restarted = source(path)
    assert only(restarted) == old
    assert records(read(restarted, old, position)) == []
    kept, new = restarted.partitions()
    assert (kept, new.id) == (old, f"{old.id}@{position.record}")
    assert records(read(restarted, new))[0].data == VALUES[0]
    again = source(path)
    again.partitions()
    read(again, old, position)
    assert new in again.partitions(), "after a restart the new partition has the same name"


def test_without_follow_reading_ends_where_the_file_ended_at_first(lines: Path) -> None:
    reader = source(lines)
    partition = only(reader)
    reads = reader.read(partition, EARLIEST, threading.Event())
    found = [record.data for record in next(reads).records]
    with lines.open("ab") as file:
        file.write(b'{"late":1}\n')
    found += [record.data for one in reads for record in one.records]
    assert found == VALUES


# -- follow ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compressed", [False, True])
def test_what_is_added_is_read(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "log"
    pack = gzip.compress if compressed else bytes
    path.write_bytes(pack(b'{"a":1}\n'))
    reader = source(path, follow=True)
    follow = Follow(reader, only(reader))
    assert follow.to_tip() == [b'{"a":1}']
    with path.open("ab") as file:
        file.write(pack(b'{"b":2}\n{"c":3}\n'))
    assert follow.to_tip() == [b'{"b":2}', b'{"c":3}']
    assert follow.to_tip() == []
    follow.close()


def test_following_goes_on_from_a_position_near_the_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b'{"a":1}\n{"b":2}\n')
    reader = source(path, follow=True)
    follow = Follow(reader, only(reader), Position(0, END))
    assert follow.to_tip() == [b'{"b":2}']
    follow.close()


def test_an_unfinished_line_waits_for_its_line_feed(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b'{"a":1}\n{"b":')
    reader = source(path, follow=True)
    follow = Follow(reader, only(reader))
    assert follow.to_tip() == [b'{"a":1}']
    with path.open("ab") as file:
        file.write(b"2}\n")
    assert follow.to_tip() == [b'{"b":2}']
    follow.close()


def test_new_files_are_found_once_their_first_line_is_whole(tmp_path: Path) -> None:
    reader = source(tmp_path / "*.jsonl", follow=True)
    assert reader.partitions() == []
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a":')
    assert reader.partitions() == []
    with path.open("ab") as file:
        file.write(b"1}\n")
    assert everything_followed(reader) == [b'{"a":1}']


def everything_followed(reader: FileSource) -> list[bytes]:
    found: list[bytes] = []
    for partition in reader.partitions():
        follow = Follow(reader, partition)
        found += follow.to_tip()
        follow.close()
    return found


def test_a_deleted_file_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b'{"a":1}\n')
    reader = source(path, follow=True)
    follow = Follow(reader, only(reader))
    follow.to_tip()
    with path.open("ab") as file:
        path.unlink()
        file.write(b'{"last":1}\n{"without a line feed":2}')
    assert follow.to_tip() == [b'{"last":1}', b'{"without a line feed":2}']
    assert next(follow.reads, None) is None


def test_a_renamed_file_is_read_on_while_its_writer_may_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    path.write_bytes(b'{"a":1}\n')
    reader = source(path, follow=True)
    follow = Follow(reader, only(reader))
    follow.to_tip()
    with path.open("ab", buffering=0) as file:
        path.rename(tmp_path / "old")
        assert follow.to_tip() == []
        file.write(b'{"late":1}\n')
    assert follow.to_tip() == [b'{"late":1}']
    monkeypatch.setattr("shipper.sources.file.AFTERLIFE", -1.0)
    assert records(list(islice(follow.reads, 3))) == []
    assert next(follow.reads, None) is None


def test_a_file_cut_while_it_is_followed_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(LINES[:500])
    reader = source(path, follow=True)
    old = only(reader)
    follow = Follow(reader, old)
    follow.to_tip()
    os.truncate(path, 0)
    path.write_bytes(LINES[:200])
    assert follow.to_tip() == []
    assert next(follow.reads, None) is None
    (new,) = set(reader.partitions()) - {old}
    follow = Follow(reader, new)
    assert follow.to_tip()[0] == VALUES[0]
    follow.close()


def test_following_stops_when_told(lines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shipper.sources.file.POLL", 3600.0)
    reader = source(lines, follow=True)
    stop = threading.Event()
    partition = only(reader)
    thread = threading.Thread(target=lambda: list(reader.read(partition, EARLIEST, stop)), daemon=True)
    thread.start()
    stop.set()
    thread.join(30)
    assert not thread.is_alive()


def test_every_followed_file_has_its_reader(lines: Path) -> None:
    assert source(lines).max_readers == 64
    assert source(lines, follow=True).max_readers is None


# -- start at a time ------------------------------------------------------------------------------------------------


def test_a_file_older_than_the_start_is_passed_over(lines: Path) -> None:
    reader = source(lines)
    modified = datetime.fromtimestamp(lines.stat().st_mtime, UTC)
    assert records(read(reader, only(reader), modified + timedelta(seconds=1))) == []


def test_a_file_modified_after_the_start_is_read_from_its_beginning(lines: Path) -> None:
    reader = source(lines)
    modified = datetime.fromtimestamp(lines.stat().st_mtime, UTC)
    assert [r.data for r in records(read(reader, only(reader), modified - timedelta(seconds=1)))] == VALUES


def test_following_from_now_gives_only_what_is_added(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(LINES + b'{"half":')
    reader = source(path, follow=True, start="latest")
    follow = Follow(reader, only(reader), datetime.now(UTC) + timedelta(seconds=5))
    assert follow.to_tip() == []
    with path.open("ab") as file:
        file.write(b'1}\n{"new":1}\n')
    assert follow.to_tip() == [b'{"half":1}', b'{"new":1}']
    follow.close()


# -- what holds -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["typo.jsonl", "*.typo", "typo/*.jsonl"])
def test_a_path_that_finds_nothing_holds_and_names_it(lines: Path, pattern: str) -> None:
    with pytest.raises(Held) as held:
        source(lines.parent / pattern).connect()
    assert held.value.reason == "target_not_found"
    assert str(lines.parent) in held.value.detail


@pytest.mark.parametrize(("pattern", "holds"), [("typo.jsonl", True), ("typo/*.jsonl", True), ("*.later", False)])
def test_following_waits_for_files_of_a_pattern_but_not_for_a_typo(lines: Path, pattern: str, holds: bool) -> None:
    reader = source(lines.parent / pattern, follow=True)
    if holds:
        with pytest.raises(Held, match="correct path"):
            reader.connect()
    else:
        reader.connect()


def test_files_that_are_gone_after_they_were_found_hold_nothing(lines: Path) -> None:
    reader = source(lines)
    partition = only(reader)
    lines.unlink()
    assert reader.partitions() == []
    assert records(read(reader, partition)) == []


@pytest.mark.parametrize("hidden", ["lines.jsonl", "."])
def test_what_may_not_be_read_holds_instead_of_being_left_out(hidden: str) -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to everybody else
        folder = Path(name, "in")
        folder.mkdir()
        (folder / "lines.jsonl").write_bytes(LINES)
        Path(name).chmod(0o755)
        (folder / hidden).chmod(0)
        try:
            with unprivileged():
                with pytest.raises(Held) as held:
                    source(Path(name) / "**" / "*.jsonl").partitions()
                (check,) = source(Path(name) / "**" / "*.jsonl").check()
        finally:
            (folder / hidden).chmod(0o700)
    assert held.value.reason == "access_denied"
    assert not check.ok
    assert check.mend


def test_check_counts_what_can_be_read(lines: Path) -> None:
    (check,) = source(lines.parent / "*").check()
    assert check.ok
    assert "1 file" in check.detail
