"""Transforms: what decides, before any output sees it, whether an event goes on."""

from __future__ import annotations

from collections.abc import Callable

from shipper.event import Event
from shipper.settings import TransformSettings
from shipper.transforms.match import compile_match


def compile_transform(settings: TransformSettings) -> Callable[[Event], bool]:
    """A function that says whether an event goes on: ``keep`` if it matches, ``drop`` if it does not.

    ``drop`` compares exactly: a quoted role ``"RDSAdmin"`` must not hide behind a rule that drops ``rdsadmin``.
    Raises ``shipper.transforms.match.MatchError``.
    """
    if settings.type == "keep":
        return compile_match(settings.match)
    matches = compile_match(settings.match, cased=True)
    return lambda event: not matches(event)
