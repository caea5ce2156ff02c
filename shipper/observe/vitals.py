"""What the HTTP server asks a running shipper about itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol


class HeldComponent(Protocol):
    """A source or an output that waits until a person mends something. ``component`` is ``source NAME`` or
    ``output NAME``, ``reason`` one of ``shipper.errors.HELD_REASONS``."""

    @property
    def component(self) -> str: ...

    @property
    def reason(self) -> str: ...


class Vitals(Protocol):
    """Implemented by the engine; called by the threads of the HTTP server, so it has to be quick and thread-safe.

    The mappings become JSON for whoever may reach the port: no secrets, no event contents, no destination's words.
    """

    def healthy(self) -> tuple[bool, Mapping[str, Any]]:
        """Whether all threads make progress, and what to say about it."""

    def ready(self) -> tuple[bool, Mapping[str, Any]]:
        """Whether everything has started and nothing drains yet, and what to say about it."""

    def held(self) -> Iterable[HeldComponent]:
        """What waits for a person at present."""

    def status(self) -> Mapping[str, Any]:
        """Where everything stands (``shipper.observe.status``)."""
