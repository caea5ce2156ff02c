"""The site that tests of the whole pipeline stand on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shipper.testing.kinesis import FakeKinesis
from shipper.testing.kms import FakeKms
from support.receiver import RIG, Receiver
from support.site import STREAM, Site


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.syspath_prepend(str(RIG))
    with FakeKinesis() as kinesis, FakeKms() as kms, Receiver() as receiver:
        kinesis.create_stream(STREAM, shards=2)
        yield Site(tmp_path, kinesis, kms, receiver)
