"""Dead letters: what could not be decoded, as it was read, and what an output refused, with the reason.

Every function takes an open connection and runs inside the caller's transaction.
"""

from shipper.state.dead_letters.exchange import export_lines, import_line
from shipper.state.dead_letters.kept import counts, data_of, keep, listing, raw_of, stored_bytes
from shipper.state.dead_letters.letter import EVERY_OUTPUT, DeadLetter, Filter, Kept
from shipper.state.dead_letters.removal import Replayed, expire, purge, replay
from shipper.state.dead_letters.tombstones import forget_tombstones

__all__ = [
    "EVERY_OUTPUT",
    "DeadLetter",
    "Filter",
    "Kept",
    "Replayed",
    "counts",
    "data_of",
    "expire",
    "export_lines",
    "forget_tombstones",
    "import_line",
    "keep",
    "listing",
    "purge",
    "raw_of",
    "replay",
    "stored_bytes",
]
