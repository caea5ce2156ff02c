"""Rendering what comes back from the spool decodes events only where something of them is asked for."""

from __future__ import annotations

from typing import Any

import pytest

from shipper.engine.rendering import Rendering
from shipper.settings import OutputSettings
from shipper.values import Target, Value

LINE = (
    b'{"schema_version":1,"id":"0199aaaaaaaa00000000000000000001","time":"2026-03-05T10:00:00.000000Z",'
    b'"engine":"aurora-mysql","user":"alice"}'
)


def settings(**keys: Any) -> OutputSettings:
    return OutputSettings.model_validate({"type": "test", **keys})


@pytest.mark.parametrize(("values", "wanted"), [([], ()), ([Target("audit")], ("audit",))], ids=["none", "constant"])
def test_values_that_are_the_same_for_all_need_no_event(values: list[Value], wanted: tuple[str, ...]) -> None:
    lines, rendered = Rendering(settings(), values)([b"no event", LINE], None)
    assert list(lines) == [b"no event", LINE]
    assert list(rendered) == [wanted, wanted]


def test_values_are_asked_of_every_event() -> None:
    lines, rendered = Rendering(settings(), [Target("audit-{engine}")])([LINE, LINE.replace(b"mysql", b"x")], None)
    assert next(iter(lines)) == LINE
    assert list(rendered) == [("audit-aurora-mysql",), ("audit-aurora-x",)]


def test_an_output_s_own_labels_are_in_what_it_sends_and_in_its_values() -> None:
    own = settings(labels={"team": "payments"})
    (line,), (rendered,) = Rendering(own, [Target("audit-{labels.team}")])([LINE], None)
    assert b'"labels":{"team":"payments"}' in line
    assert rendered == ("audit-payments",)
