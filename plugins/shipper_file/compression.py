"""How a file's events are compressed, by the suffix of its path: one gzip member or one zstd frame per batch.

Members and frames may be concatenated (RFC 1952, 2.2; RFC 8878, 3), so a file is whole after every batch.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

from isal import igzip

GZIP, ZSTD = ".gz", ".zst"
#: isal's levels 0 to 3; 1 costs a fifth of a microsecond per event.
GZIP_LEVEL = 1
ZSTD_LEVEL = 3

Encode = Callable[[bytes], bytes]


def suffix_of(path: str) -> str:
    """The suffix that chooses a compression, or nothing."""
    return next((suffix for suffix in (GZIP, ZSTD) if path.endswith(suffix)), "")


def missing(path: str) -> str | None:
    """The module that this path needs and this environment lacks."""
    return "zstandard" if suffix_of(path) == ZSTD and importlib.util.find_spec("zstandard") is None else None


def encoder(path: str) -> Encode:
    """The compression that a path asks for. Raises ``ImportError`` where its library is missing."""
    match suffix_of(path):
        case ".gz":
            return lambda content: igzip.compress(content, GZIP_LEVEL, mtime=0)
        case ".zst":
            import zstandard  # noqa: PLC0415 - in an extra; only this suffix needs it

            return zstandard.ZstdCompressor(ZSTD_LEVEL, write_checksum=True).compress
        case _:
            return lambda content: content
