"""``shipper demo``: the whole job on this machine, complete to the last event."""

from __future__ import annotations

from pathlib import Path

from support.command import shipper, succeeded
from support.oracle import ids_in_files


def test_the_demo_is_complete_and_leaves_what_it_says(tmp_path: Path) -> None:
    done = succeeded(shipper("demo", "--events", "2000", "--keep", "out", cwd=tmp_path))
    assert "2,000 events in " in done.stdout
    assert "each exactly once" in done.stdout
    assert "The books balance." in done.stdout
    assert "6 damaged records were planted" in done.stdout
    ids = ids_in_files(*(tmp_path / "out" / "events").glob("*.jsonl"))
    assert set(ids.values()) == {1}
    assert f"{len(ids):,} different events" in done.stdout
    listed = succeeded(shipper("dead-letters", "list", "-c", "out/shipper.toml", cwd=tmp_path))
    for reason in ("tampered", "base64", "decompress", "json_malformed", "signature", "key_refused"):
        assert f"1  {reason} (no output could get them)" in listed.stdout


def test_a_folder_with_a_former_demo_is_not_touched(tmp_path: Path) -> None:
    succeeded(shipper("demo", "--events", "100", "--keep", "out", cwd=tmp_path))
    again = shipper("demo", "--events", "100", "--keep", "out", cwd=tmp_path)
    assert again.returncode == 1
    assert "holds a former demo" in again.stderr


def test_the_configuration_that_it_leaves_is_valid(tmp_path: Path) -> None:
    succeeded(shipper("demo", "--events", "100", "--keep", "out", cwd=tmp_path))
    succeeded(shipper("check", "out/shipper.toml", cwd=tmp_path))
