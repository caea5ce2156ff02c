"""What several commands are tried on: captured records, and a receiver."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.operations import EVENTS, Site
from support.receiver import Receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as found:
        yield found


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Records and keys."""
    found = Site(tmp_path_factory.mktemp("captured"))
    found.generate(EVENTS)
    return found
