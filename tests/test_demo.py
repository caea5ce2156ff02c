"""The demo's own run, where something comes later than usual."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from shipper.demo import _Feeder, run_demo
from shipper.engine.pipeline import Pipeline, Result


def test_a_shipper_that_starts_after_all_was_generated_ships_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generated = threading.Event()
    generate, ship = _Feeder.run, Pipeline.run
    asked: list[None] = []

    def tell(feeder: _Feeder) -> None:
        generate(feeder)
        generated.set()

    def late(pipeline: Pipeline) -> Result:
        assert generated.wait(30)
        seen = len(asked)
        while len(asked) < seen + 2 and not pipeline.stopping:
            pause.wait(0.01)
        return ship(pipeline)

    pause = threading.Event()
    monkeypatch.setattr(_Feeder, "run", tell)
    monkeypatch.setattr(Pipeline, "run", late)
    assert run_demo(tmp_path / "out", 100, 1, lambda _: asked.append(None)).complete
