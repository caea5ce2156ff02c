"""Which engine an activity is of: by what it says itself, else by the configuration, else by the envelope's version."""

from __future__ import annotations

from shipper.decode.das.activity import Activity

__all__ = ["EngineNames"]

_POSTGRESQL, _MYSQL, _ORACLE, _SQLSERVER = "aurora-postgresql", "aurora-mysql", "oracle", "sqlserver"

#: How ``serverType``, ``dbProtocol`` (``Postgres 3.0``) and ``serviceName`` (``Amazon Aurora MySQL``, ``oracle-ee``)
#: name the engine, in lower case and anywhere in the value.
_WORDS = (("postgres", _POSTGRESQL), ("mysql", _MYSQL), ("oracle", _ORACLE), ("sqlserver", _SQLSERVER))

#: The envelope's version is one number per family of engines ("databaseActivityEventList" tables of both user guides).
_VERSIONS = {"1.0": _POSTGRESQL, "1.1": _POSTGRESQL, "1.2": _MYSQL, "1.3": _ORACLE, "1.4": _SQLSERVER}

_KEEP = 256


class EngineNames:
    """The engine's name by the event's own values; ``configured`` stands where they do not say."""

    def __init__(self, configured: str | None) -> None:
        self._configured = configured or None
        self._by_server_type: dict[str | None, str] = {}

    def of(self, activity: Activity, version: str) -> str | None:
        """One of the engine names of the event's schema; ``None`` where nothing tells."""
        known = self._by_server_type.get(activity.server_type)
        if known is not None:
            return known
        engine = _named(activity.server_type)
        if engine is not None:
            if len(self._by_server_type) >= _KEEP:
                self._by_server_type.clear()
            self._by_server_type[activity.server_type] = engine
            return engine
        return (
            _named(activity.db_protocol) or _named(activity.service_name) or self._configured or _VERSIONS.get(version)
        )


def _named(value: str | None) -> str | None:
    if not value:
        return None
    lowered = value.lower()
    for word, engine in _WORDS:
        if word in lowered:
            return engine
    return None
