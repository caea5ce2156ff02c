"""The sources of this version, by the ``type`` that users write. Imported only when one is made: boto3 takes time."""

from __future__ import annotations

import importlib
from typing import Any

from shipper.source import Source

#: ``type`` → module and class; their settings are ``shipper.settings.SOURCE_SETTINGS``.
SOURCES = {"kinesis": "shipper.sources.kinesis:KinesisSource", "file": "shipper.sources.file:FileSource"}


def source_class(type_: str) -> type[Source[Any]]:
    """The class that reads sources of this type. Raises ``KeyError`` for a type that a valid configuration cannot
    name."""
    module, _, name = SOURCES[type_].partition(":")
    found: type[Source[Any]] = getattr(importlib.import_module(module), name)
    return found
