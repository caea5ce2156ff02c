"""A full disk under the state file: everything stands still, says so, ends when asked, and loses nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from shipper.configuration import load
from shipper.engine.pipeline import Pipeline
from support.site import Site, held, in_background
from support.small_disk import mounted
from support.waiting import until


@pytest.fixture
def disk(site: Site) -> Iterator[Path]:
    """The site's state stands on a disk of one megabyte."""
    with mounted(site.folder / "small", "1m") as folder:
        yield folder


def pipeline(site: Site) -> Pipeline:
    site.configure("[state]", 'path = "small/shipper.db"')
    return Pipeline(load([site.folder / "shipper.toml"]))


def fill(disk: Path) -> None:
    """Leaves no byte free."""
    with (disk / "ballast").open("wb", buffering=0) as ballast, suppress(OSError):
        while True:
            ballast.write(bytes(4096))


def test_it_is_held_goes_on_by_itself_and_loses_nothing(site: Site, disk: Path) -> None:
    running = pipeline(site)
    wait = in_background(running)
    site.put(20)
    site.receiver.wait(lambda: len(site.receiver.ids.get("siem", ())) == 20)
    fill(disk)
    site.put(2000)
    held(running, "disk_full")
    (disk / "ballast").unlink()
    site.receiver.wait(lambda: len(site.receiver.ids["siem"]) == 2020)
    running.stop()
    result = wait()
    assert (result.exit_code, result.held) == (0, [])
    assert result.books["siem"] == {"offered": {"": 2020}, "delivered": {"": 2020}}


@pytest.mark.parametrize("stopped", [True, False])
def test_a_reload_waits_for_room_and_hears_a_stop(
    site: Site, disk: Path, caplog: pytest.LogCaptureFixture, stopped: bool
) -> None:
    site.configure("[state]", 'path = "small/shipper.db"')
    caplog.set_level("INFO", "shipper.engine")
    path = site.folder / "shipper.toml"
    running = Pipeline(load([path]), load_again=lambda: load([path]))
    wait = in_background(running)
    until(lambda: running.ready()[0], str)
    fill(disk)
    site.put(2000)
    until(lambda: any(hold.component == "state" for hold in running.held()), lambda: str(running.held()))
    running.reload()
    until(lambda: "loaded again when the state file takes commits" in caplog.text, lambda: caplog.text)
    if stopped:
        running.stop()
        assert wait().exit_code == 1
        return
    (disk / "ballast").unlink()
    until(lambda: "nothing that is shipped has changed" in caplog.text, lambda: caplog.text)
    running.stop()
    assert wait().exit_code == 0


def test_a_stop_ends_and_the_next_run_ships_the_rest(site: Site, disk: Path) -> None:
    running = pipeline(site)
    wait = in_background(running)
    site.put(20)
    site.receiver.wait(lambda: len(site.receiver.ids.get("siem", ())) == 20)
    fill(disk)
    site.put(2000)
    held(running, "disk_full")
    running.stop()
    result = wait()
    assert result.exit_code == 1
    assert "took no commits at the end" in result.message
    (disk / "ballast").unlink()
    again = pipeline(site)
    wait = in_background(again)
    site.receiver.wait(lambda: len(site.receiver.ids["siem"]) == 2020)
    again.stop()
    assert wait().exit_code == 0
