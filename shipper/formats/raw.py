"""The format ``raw``: the decrypted record with this one event in its list, in the engine's own bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shipper.formats import Encode


def compile_raw() -> Encode:
    """Puts an event's own JSON back into its record's frame; without a frame (a bare event) it stands alone."""

    def encode(raw: bytes, frame: bytes) -> bytes:
        line = b"".join((frame, raw, b"]}")) if frame else raw
        # Inside a JSON text a line feed can only stand between tokens, where a space means the same.
        return line.replace(b"\n", b" ") if b"\n" in line else line

    return lambda events, raws, frames: list(map(encode, raws, frames))
