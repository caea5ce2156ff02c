"""What goes on through keep and drop."""

from shipper.event import Event
from shipper.settings import TransformSettings
from shipper.transforms import compile_transform


def goes_on(kind: str, user: str | None) -> bool:
    transform = compile_transform(TransformSettings.model_validate({"type": kind, "match": {"user": "rdsadmin"}}))
    return transform(Event(schema_version=1, id="0", time="2026-03-01T10:00:00.000000Z", user=user))


def test_keep_lets_on_what_matches_in_any_case() -> None:
    assert goes_on("keep", "RdsAdmin")
    assert not goes_on("keep", "alice")
    assert not goes_on("keep", None)


def test_drop_lets_on_what_does_not_match() -> None:
    assert not goes_on("drop", "rdsadmin")
    assert goes_on("drop", "alice")
    assert goes_on("drop", None)


def test_a_role_that_only_looks_like_a_dropped_one_is_not_dropped() -> None:
    assert goes_on("drop", "RDSAdmin")
