"""When kept records whose key stays refused are passed over, so that what stands behind them does not wait.

Whoever may write to a stream can plant a record under a key that nobody here may use. It must not stop the trail; but
neither may a key that is just being enabled let later records overtake earlier ones.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from shipper.decode.das.keys import REFUSAL_TTL
from shipper.errors import Held

#: How often in a row the first record is refused, while others behind it decode, before it is passed over.
TRIES = 3
#: Seconds that this has to take: a fault of one key, and any other (KMS is busy), which mostly ends by itself.
PATIENCE = 30.0
LONG_PATIENCE = 600.0
_OF_ONE_KEY = frozenset({"access_denied", "key_disabled", "key_not_found"})


class _Try(NamedTuple):
    """The first record was refused. ``newest``: the id of the line's last one then; ``time``: in monotonic seconds."""

    newest: int
    time: float


class Passing:
    """The line of one stream's kept records. What was passed over stays where it is, before ``mark``."""

    def __init__(self) -> None:
        #: The records up to this id that are still there were passed over: the line begins behind them.
        self.mark = 0
        #: Where the record was seen that decodes although the first one does not, or up to where none was found.
        self.looked = 0
        #: Of those that were passed over: up to where they were tried again, and whether that is to go on at once.
        self.retried = 0
        self.flowing = False
        self._first = 0
        self._past = 0
        self._asked = float("-inf")
        self._tries: deque[_Try] = deque()

    @property
    def patient(self) -> bool:
        """Whether something behind the first record decodes, and only its time is not up yet."""
        return bool(self._tries)

    def refused(self, record: int, newest: int, now: float, *, proven: bool) -> bool:
        """The record at the beginning of the line was refused; ``proven``: another one behind it decodes. Says whether
        this counts as one more try: what KMS said a moment ago is remembered, and no new answer."""
        self._first = record
        if not proven:
            self._tries.clear()
            self._asked = float("-inf")
            return False
        if now - self._asked < REFUSAL_TTL:
            return False
        self._asked = now
        self._tries.append(_Try(newest, now))
        while len(self._tries) > TRIES and now - self._tries[1].time >= LONG_PATIENCE:
            self._tries.popleft()
        return True

    def passes(self, record: int, held: Held, now: float) -> bool:
        """Whether a refused record is to be passed over. None is before the one that was refused all the time."""
        if not self.due(record, held, now) or (record != self._first and self._past < self._first):
            return False
        self._past = max(self._past, record)
        return True

    def due(self, record: int, held: Held, now: float) -> bool:
        """Whether a record, refused or behind a refused one, has stood there for long enough."""
        patience = PATIENCE if held.reason in _OF_ONE_KEY else LONG_PATIENCE
        return any(
            record <= one.newest and now - one.time >= patience and len(self._tries) - number >= TRIES
            for number, one in enumerate(self._tries)
        )

    def began(self, first: int) -> bool:
        """``first`` is the first record that is taken from the line now; says whether it was the refused one: the count
        begins anew, because its key is back."""
        if first != self._first:
            return False
        self.free()
        return True

    def free(self) -> None:
        """Nothing in the line is refused."""
        self._first = self.looked = 0
        self._tries.clear()
        self._asked = float("-inf")
