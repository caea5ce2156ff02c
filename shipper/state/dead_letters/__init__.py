"""Dead letters: what could not be decoded, as it was read, and what an output refused, with the reason.

Every function takes an open connection and runs inside the caller's transaction.
"""

from shipper.state.dead_letters.kept import counts, data_of, keep, listing, raw_of, stored_bytes
from shipper.state.dead_letters.letter import EVERY_OUTPUT, DeadLetter, Filter, Kept

__all__ = [
    "EVERY_OUTPUT",
    "DeadLetter",
    "Filter",
    "Kept",
    "counts",
    "data_of",
    "keep",
    "listing",
    "raw_of",
    "stored_bytes",
]
