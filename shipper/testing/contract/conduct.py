"""The part of the contract about conduct: secrets, client libraries, settings, checks, and being a plugin at all."""

from __future__ import annotations

import importlib
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from shipper.output import Check, Limits, Output, OutputSettings
from shipper.secrets import Secret
from shipper.templates import compile_values
from shipper.testing.contract.ground import Ground, Make, ordinary
from shipper.values import Field, Target, Text

_SECRET_NAME = re.compile(r"(^|_)(token|password|passwd|secret|api_?key|credentials?|passphrase)$")

#: Imports a module in an interpreter of its own and says which of some others came with it.
_PROBE = """
import importlib, json, sys
importlib.import_module(sys.argv[1])
print(json.dumps([name for name in sys.argv[2:] if name in sys.modules]))
"""


class Conduct(Ground):
    """Tests of how the output behaves beside its work."""

    # -- secrets ---------------------------------------------------------------------------------------------------

    def test_every_secret_of_the_settings_is_watched(self, make: Make) -> None:
        """Otherwise the tests that look for them look for nothing."""
        for path, secret in _secrets(make(connected=False).settings):
            if secret.reveal() not in self.secrets:
                pytest.fail(f"`secrets` lacks what the key {path} holds")

    def test_no_secret_shows_in_what_the_output_looks_like(self, make: Make) -> None:
        output = make()
        for what in (output, output.settings):
            self.show_nothing(f"{what!r} {what} {what:}", f"the text of {type(what).__name__}")

    def test_no_secret_shows_in_what_check_says(self, make: Make) -> None:
        for check in make().check():
            self.show_nothing(f"{check!r}", "check")

    def test_keys_with_the_name_of_a_secret_hold_one(self, make: Make) -> None:
        for path, field in _fields(type(make(connected=False).settings)):
            if _SECRET_NAME.search(path.rpartition(".")[2]):
                kinds = {field.annotation, *get_args(field.annotation)}
                assert Secret in kinds, f"the key {path} is a secret by its name: its type is shipper.secrets.Secret"

    def test_deliveries_are_not_logged(self, logged: list[logging.LogRecord], make: Make) -> None:
        """The engine counts and logs; an output that is well has nothing to say."""
        output = make()
        names = ("shipper", type(output).__module__.partition(".")[0])
        for first in (1, 3, 5):
            self.deliver(output, ordinary(2, first))
        said = [one for one in logged if one.levelno >= logging.INFO and one.name.partition(".")[0] in names]
        assert not said, f"the output logged {said[0].getMessage()!r}"

    # -- client libraries ------------------------------------------------------------------------------------------

    def test_importing_the_plugin_imports_nothing_that_it_requires(self, make: Make) -> None:
        """``check``, ``schema`` and ``plugins`` work where the extra is not installed."""
        plugin = type(make(connected=False))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-c", _PROBE, plugin.__module__, *plugin.requires]
        done = subprocess.run(  # noqa: S603 - this interpreter
            command, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{plugin.__module__} cannot be imported alone: {done.stderr}"
        assert done.stdout.count("\n") == 1, f"importing {plugin.__module__} prints"
        imported = json.loads(done.stdout)
        assert not imported, f"{plugin.__module__} imports {', '.join(imported)}: that belongs into connect"

    def test_it_can_be_configured_without_what_it_requires(
        self, destination: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        missing = self.output(destination).requires
        for module in missing:
            monkeypatch.setitem(sys.modules, module, None)
        output = self.output(destination)
        output.values()
        output.close()

    # -- settings --------------------------------------------------------------------------------------------------

    def test_the_settings_are_an_outputs(self, make: Make) -> None:
        output = make(connected=False)
        assert issubclass(output.Settings, OutputSettings)
        assert isinstance(output.settings, output.Settings), "the class attribute `Settings` names another class"

    def test_every_key_is_described(self, make: Make) -> None:
        for path, field in _fields(type(make(connected=False).settings)):
            assert (field.description or "").strip(), f"the key {path} has no description"

    def test_a_key_that_does_not_exist_is_refused(self, make: Make) -> None:
        settings = type(make(connected=False).settings)
        assert settings.model_config.get("extra") == "forbid", "a misspelt key would be ignored"

    # -- what the engine asks --------------------------------------------------------------------------------------

    def test_its_values_are_the_same_whenever_they_are_asked_for(self, make: Make) -> None:
        output = make(connected=False)
        before = list(output.values())
        output.connect(None)
        self.deliver(output, ordinary(1))
        assert list(output.values()) == before
        assert all(isinstance(value, Field | Text | Target) for value in before)
        compile_values(before)

    def test_its_limits_are_positive(self, make: Make) -> None:
        limits = make(connected=False).limits
        assert isinstance(limits, Limits)
        bounds = (limits.max_events, limits.max_bytes, limits.max_event_bytes)
        assert all(bound is None or bound > 0 for bound in bounds)
        assert limits.overhead >= 0

    def test_its_module_has_the_hook(self, make: Make) -> None:
        plugin = type(make(connected=False))
        name = plugin.__module__
        found = []
        while name:
            hook = getattr(importlib.import_module(name), "shipper_output", None)
            found.append(hook and hook())
            name = name.rpartition(".")[0]
        assert plugin in found, f"{plugin.__module__} has no hook shipper_output that returns {plugin.__name__}"

    # -- check -----------------------------------------------------------------------------------------------------

    def test_check_finds_no_fault_in_a_good_destination(self, make: Make) -> None:
        for check in _checks(make()):
            assert check.ok, f"check finds a fault with {check.subject}: {check.detail}"

    def test_check_writes_no_event_and_disturbs_nothing(self, destination: Any, make: Make) -> None:
        output = make()
        _checks(output)
        self.has(destination, [])
        self.deliver(output, ordinary(2))
        _checks(output)
        self.deliver(output, ordinary(2, 3))
        self.has(destination, ordinary(4))

    def test_check_says_what_is_wrong_while_the_destination_is_away(self, destination: Any, make: Make) -> None:
        self.need("outage")
        output = make()
        self.go_away(destination)
        try:
            checks = _checks(output)
        finally:
            self.come_back(destination)
        faults = [check for check in checks if not check.ok]
        assert faults or not checks, "the destination is away, and check finds no fault"
        for check in faults:
            assert check.mend.strip(), f"check says in `mend` what to do about {check.subject}"
            self.show_nothing(f"{check!r}", "check")


def _checks(output: Output[Any]) -> list[Check]:
    checks = list(output.check())
    for check in checks:
        assert isinstance(check, Check), f"check yields {type(check).__name__}, not a Check"
        assert check.subject.strip(), "a check says what it is about"
    return checks


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key of the settings with its dotted path, those of tables inside too."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        yield path, field
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _fields(kind, f"{path}.")


def _secrets(settings: Any, path: str = "") -> Iterator[tuple[str, Secret]]:
    """Every secret that the settings hold, with its dotted path."""
    if isinstance(settings, Secret):
        yield path, settings
        return
    inside: list[tuple[str, Any]] = []
    if isinstance(settings, BaseModel):
        inside = [(name, getattr(settings, name)) for name in type(settings).model_fields]
    elif isinstance(settings, Mapping):
        inside = [(str(name), value) for name, value in settings.items()]
    elif isinstance(settings, list | tuple):
        inside = [(str(number), value) for number, value in enumerate(settings)]
    for name, value in inside:
        yield from _secrets(value, f"{path}.{name}" if path else name)
