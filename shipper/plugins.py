"""Finds output plugins by entry point and imports only those that the configuration names."""

from __future__ import annotations

import difflib
import importlib.util
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy

from shipper.errors import ConfigurationError, Problem
from shipper.hookspecs import PROJECT, OutputHooks
from shipper.output import Output

OUTPUTS = "shipper.outputs"


@dataclass(frozen=True, slots=True)
class Installed:
    """An installed plugin: the name that users write, the package that brings it, the module that implements it."""

    name: str
    package: str
    module: str


def installed() -> list[Installed]:
    """Every output plugin of this environment, by name; nothing is imported."""
    found = {
        Installed(point.name, point.dist.name if point.dist else "?", point.value)
        for point in entry_points(group=OUTPUTS)
    }
    return sorted(found, key=lambda plugin: (plugin.name, plugin.package))


def output_class(name: str) -> type[Output[Any]]:
    """The class behind ``type = "name"``.

    Raises ``ConfigurationError`` for an unknown name (with those that are installed and the nearest one), for a name
    that two packages claim, and for a plugin that cannot be imported.
    """
    points = {point.value: point for point in entry_points(group=OUTPUTS) if point.name == name}
    if not points:
        raise ConfigurationError(_unknown(name))
    if len(points) > 1:
        owners = " and ".join(sorted(f"{_package(point)} ({point.value})" for point in points.values()))
        raise ConfigurationError(
            Problem(f'two packages bring an output called "{name}": {owners}', mend="uninstall one of them")
        )
    (point,) = points.values()
    plugin_manager = pluggy.PluginManager(PROJECT)
    plugin_manager.add_hookspecs(OutputHooks)
    try:
        plugin_manager.register(point.load())
        found = plugin_manager.hook.shipper_output()
    except Exception as error:
        message = f'the output plugin "{name}" of {_package(point)} cannot be imported: {error!r}'
        raise ConfigurationError(Problem(message, mend=f"mend or reinstall {_package(point)}")) from error
    if not (isinstance(found, type) and issubclass(found, Output)):
        message = f"{point.value} of {_package(point)} has no hook shipper_output that returns an Output class"
        raise ConfigurationError(Problem(message, mend="see docs/writing-an-output.md"))
    return found


def missing_modules(name: str, plugin: type[Output[Any]]) -> Problem | None:
    """What has to be installed before this output can connect; ``None`` where all is there."""
    missing = [module for module in plugin.requires if not _importable(module)]
    if not missing:
        return None
    (point,) = {point.value: point for point in entry_points(group=OUTPUTS) if point.name == name}.values()
    return Problem(
        f'the output type "{name}" needs {", ".join(missing)}, which this environment lacks',
        mend=f"pip install '{_package(point)}[{name}]'",
    )


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it is missing
        return False


def _unknown(name: str) -> Problem:
    names = sorted({plugin.name for plugin in installed()})
    near = difflib.get_close_matches(name, names, 1)
    hint = f'did you mean "{near[0]}"? ' if near else ""
    return Problem(f'no output plugin is called "{name}"', mend=f"{hint}installed: {', '.join(names) or 'none'}")


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "an unknown package"
