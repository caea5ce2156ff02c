"""Servers that the outputs' tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from servers.opensearch import Server, opensearch


@pytest.fixture(scope="session")
def opensearch_server() -> Iterator[Server]:
    """One for all tests that stand in the xdist group ``opensearch``."""
    with opensearch() as server:
        yield server
