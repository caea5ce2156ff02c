"""Which components are held, why, and how long until they are tried again."""

from __future__ import annotations

import logging
import random
import threading
from dataclasses import dataclass

from shipper.errors import Held

log = logging.getLogger("shipper.engine")

#: Seconds between two tries of a held component: slow, because a person has to mend something.
FIRST_TRY = 1.0
LAST_TRY = 30.0


@dataclass(frozen=True, slots=True)
class Hold:
    """Why a component (``source orders``, ``output siem``) is held."""

    component: str
    reason: str
    detail: str


class Holds:
    """The held components of a process. A component may be held in several parts (a source's partitions): it goes on
    when none of them is. Thread-safe."""

    def __init__(self, randomness: random.Random) -> None:
        self._randomness = randomness
        self._lock = threading.Lock()
        self._held: dict[tuple[str, str], Hold] = {}
        self._tries: dict[tuple[str, str], int] = {}

    def hold(self, component: str, held: Held, part: str = "") -> float:
        """Notes that a component is held, says so once per reason, and returns the seconds until it is tried again."""
        key = (component, part)
        with self._lock:
            said = {hold.reason for (name, _), hold in self._held.items() if name == component}
            self._held[key] = Hold(component, held.reason, str(held))
            self._tries[key] = tries = self._tries.get(key, 0) + 1
            pause: float = min(LAST_TRY, FIRST_TRY * 2.0 ** min(tries - 1, 10)) * self._randomness.uniform(0.5, 1.0)
        if held.reason not in said:
            log.warning("%s is held (%s): %s; nothing is lost, it is tried again", component, held.reason, held)
        return pause

    def release(self, component: str, part: str = "") -> None:
        """The component, or this part of it, works again."""
        if (component, part) not in self._held:
            return
        with self._lock:
            known = self._held.pop((component, part), None)
            self._tries.pop((component, part), None)
            still = any(name == component for name, _ in self._held)
        if known is not None and not still:
            log.info("%s goes on; it was held (%s)", component, known.reason)

    def release_all(self, component: str) -> None:
        """The component begins anew: none of its parts is held any more."""
        for part in [part for name, part in list(self._held) if name == component]:
            self.release(component, part)

    def current(self) -> list[Hold]:
        """What is held now, one line per component and reason."""
        with self._lock:
            found = {(hold.component, hold.reason): hold for hold in self._held.values()}
        return [found[key] for key in sorted(found)]
