"""Which engine an activity is of, by what the engines call themselves."""

from __future__ import annotations

__all__ = ["engine_name", "engine_of_version"]

_POSTGRESQL, _MYSQL, _ORACLE, _SQLSERVER = "aurora-postgresql", "aurora-mysql", "oracle", "sqlserver"

#: How ``serverType``, ``dbProtocol`` (``Postgres 3.0``) and ``serviceName`` (``Amazon Aurora MySQL``, ``oracle-ee``)
#: name the engine, in lower case and anywhere in the value.
_WORDS = (("postgres", _POSTGRESQL), ("mysql", _MYSQL), ("oracle", _ORACLE), ("sqlserver", _SQLSERVER))

#: The envelope's version is one number per family of engines (both user guides, "databaseActivityEventList").
_VERSIONS = {"1.0": _POSTGRESQL, "1.1": _POSTGRESQL, "1.2": _MYSQL, "1.3": _ORACLE, "1.4": _SQLSERVER}


def engine_name(value: str | None) -> str | None:
    """The engine that one of an event's values names; ``None`` where it names none."""
    if not value:
        return None
    lowered = value.lower()
    for word, engine in _WORDS:
        if word in lowered:
            return engine
    return None


def engine_of_version(version: str) -> str | None:
    """The engine whose envelopes have this version: a hint, where nothing else tells."""
    return _VERSIONS.get(version)
