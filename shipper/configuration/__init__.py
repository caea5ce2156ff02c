"""From TOML files to a validated ``Configuration``: found, merged, variables replaced, ``[aws]`` inherited, explained.

Everything that is wrong is told at once, with file, line, key, what was found and what to write instead.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from shipper import paths as local
from shipper import plugins
from shipper.configuration import files, not_yet, rules, variables
from shipper.configuration.explain import Finding, explain, key_text, misread, nearest, one_of, quote, secret_texts
from shipper.configuration.places import KeyPath
from shipper.errors import ConfigurationError, Problem
from shipper.output import Output
from shipper.secrets import ClientFactory, SecretReader, secrets_in
from shipper.settings import (
    NAME,
    SOURCE_SETTINGS,
    AwsSettings,
    Configuration,
    Table,
    TransformSettings,
)

__all__ = ["load"]

T = TypeVar("T", bound=Table)

#: Tables in which the user names tables.
_NAMED = ("sources", "transforms", "outputs")
_PLAIN = tuple(key for key in Configuration.model_fields if key not in _NAMED)
_SEE_OUTPUTS = 'write the name of an output plugin: "file", for example'
#: Shorter texts are not blotted out of messages: they are no secrets, and the message would become unreadable.
_SHORTEST_BLOT = 4
#: The image sets it, so that a container is reachable without a key in the file.
LISTEN_VARIABLE = "SHIPPER_LISTEN"


def load(
    paths: Sequence[Path | str] = (),
    *,
    environ: Mapping[str, str] | None = None,
    client: ClientFactory | None = None,
) -> Configuration:
    """The configuration that the files make together, later ones over earlier ones.

    Without paths: ``$SHIPPER_CONFIG`` (a path, or inline TOML), else ``/etc/shipper/shipper.toml``. Relative paths in
    it are relative to the first file's folder. ``environ`` defaults to the process's environment; ``client`` makes
    the boto3 clients with which secrets are read, later. Secrets are not read here.

    Raises ``ConfigurationError`` with every problem, in the order of the files.
    """
    environ = os.environ if environ is None else environ
    return _Loader(files.read(paths, environ), environ).configuration(client)


class _Loader:
    """The files as one table on its way to a ``Configuration``, and what was found wrong with it so far."""

    def __init__(self, merged: files.Merged, environ: Mapping[str, str]) -> None:
        self._merged = merged
        self._replaced = variables.replace(merged.table, environ)
        self._table = self._replaced.table
        self._findings = [Finding(*problem) for problem in self._replaced.problems]
        self._findings += [Finding(*lack) for lack in not_yet.take_out(self._table)]
        # What is wrong here may make a table look wrong in other ways, which are not told.
        self._causes = [finding.path for finding in self._findings]
        self._secrets: list[str] = []
        self._context = {local.FOLDER: merged.folder}
        for key in _PLAIN:
            self._table.setdefault(key, {})
        server = self._table["server"]
        if LISTEN_VARIABLE in environ and isinstance(server, dict) and "listen" not in server:
            server["listen"] = environ[LISTEN_VARIABLE]
            merged.where["server", "listen"] = files.Place(f"${LISTEN_VARIABLE}", 0, len(merged.files) + 1)

    def configuration(self, client: ClientFactory | None) -> Configuration:
        plain = self._plain_tables()
        draft = self._named_tables()
        self._findings += rules.check(draft)
        if problems := self._problems():
            raise ConfigurationError(*problems)
        outputs = {name: settings for name, (_, settings) in draft.outputs.items()}
        configuration = Configuration(**plain, sources=draft.sources, transforms=draft.transforms, outputs=outputs)
        settings = configuration.secrets
        reader = SecretReader(self._merged.folder, settings.refresh, settings, client=client)
        for key, secret in secrets_in(configuration):
            secret.bind(reader, key)
        return configuration

    # The tables

    def _plain_tables(self) -> dict[str, Any]:
        """Every key but those in which the user names tables; empty where something is wrong."""
        for key in set(self._table) - set(Configuration.model_fields):
            near = nearest(key, Configuration.model_fields)
            mend = f"did you mean {near}?" if near else f"allowed: {', '.join(Configuration.model_fields)}"
            self._findings.append(Finding((key,), "unknown key", mend))
        # [aws] first and by itself, so that one mistake in it is one problem, however many inherit it.
        if self._validate(AwsSettings, self._table["aws"], ("aws",)) is None:
            self._table["aws"] = {}
        self._inherit(("aws",), ("secrets",))
        plain = {key: value for key, value in self._table.items() if key in _PLAIN}
        top = self._validate(Configuration, plain, ())
        return {key: getattr(top, key) for key in _PLAIN} if top else {}

    def _named_tables(self) -> rules.Draft:
        draft = rules.Draft(names={kind: self._names(kind) for kind in _NAMED})
        draft.aws = AwsSettings.model_validate(self._table["aws"])
        # Not from its settings: what else is wrong in a plain table must not hide that this name is.
        letters = self._table["dead_letters"]
        given = letters.get("output") if isinstance(letters, dict) else None
        draft.dead_letters_to = given if isinstance(given, str) else None
        for path in self._tables("sources"):
            model = SOURCE_SETTINGS.get(self._type(path, SOURCE_SETTINGS))
            if model is None:
                continue
            if issubclass(model, AwsSettings):
                self._inherit(("aws",), path)
            if "keys" in model.model_fields:
                self._at(path).setdefault("keys", {})
                self._inherit(path if issubclass(model, AwsSettings) else ("aws",), (*path, "keys"))
            if source := self._validate(model, self._at(path), path):
                draft.sources[path[-1]] = source
        for path in self._tables("transforms"):
            if transform := self._validate(TransformSettings, self._at(path), path):
                draft.transforms[path[-1]] = transform
        for path in self._tables("outputs"):
            plugin = self._plugin(path)
            if plugin is None:
                continue
            if issubclass(plugin.Settings, AwsSettings):
                self._inherit(("aws",), path)
            if output := self._validate(plugin.Settings, self._at(path), path):
                draft.outputs[path[-1]] = (plugin, output)
        return draft

    def _names(self, kind: str) -> list[str]:
        tables = self._table.get(kind, {})
        return list(tables) if isinstance(tables, dict) else []

    def _tables(self, kind: str) -> Iterator[tuple[str, str]]:
        """The paths of the tables that can be looked at; says what is wrong with the others."""
        tables = self._table.get(kind, {})
        if not isinstance(tables, dict):
            self._findings.append(Finding((kind,), "a table is needed", f"write [{kind}.NAME]"))
            return
        refused = {finding.path[:2] for finding in self._findings if finding.path[2:] == ("type",)}
        for name, table in tables.items():
            if not isinstance(table, dict):
                mend = f"give the table a name of your choice: [{kind}.NAME]"
                self._findings.append(Finding((kind, name), "a table is needed", mend))
            elif not NAME.fullmatch(name):
                mend = "names have letters, digits, _ and -, at most 64"
                self._findings.append(Finding((kind, name), "cannot be a name", mend))
            elif (kind, name) not in refused:
                yield kind, name

    def _at(self, path: tuple[str, ...]) -> Any:
        value: Any = self._table
        for part in path:
            value = value[part]
        return value

    def _type(self, path: tuple[str, str], known: Collection[str]) -> str:
        """The table's ``type``; empty, and explained, where it has none that exists."""
        given = self._at(path).get("type")
        if isinstance(given, str) and (given in known or not known):
            return given
        here = (*path, "type")
        if given is None:
            self._findings.append(Finding(here, "is missing", f"allowed: {one_of(known)}" if known else _SEE_OUTPUTS))
        elif not isinstance(given, str):
            self._findings.append(Finding(here, "text in quotes is needed"))
        else:
            found = f"found {quote(given)}" if here not in self._replaced.used else "found another value"
            near = nearest(given, known)
            mend = f'did you mean "{near}"?' if near else ""
            self._findings.append(Finding(here, f"{found}, allowed: {one_of(known)}", mend))
        return ""

    def _plugin(self, path: tuple[str, str]) -> type[Output[Any]] | None:
        name = self._type(path, ())
        try:
            return plugins.output_class(name) if name else None
        except ConfigurationError as error:
            self._findings += [Finding((*path, "type"), problem.message, problem.mend) for problem in error.problems]
            return None

    def _inherit(self, above: tuple[str, ...], below: tuple[str, ...]) -> None:
        """AWS keys, one by one, where the lower table has none; tables of endpoints service by service."""
        from_, to = self._at(above), self._at(below)
        if not isinstance(to, dict):
            return
        for key in AwsSettings.model_fields:
            if key not in from_:
                continue
            if key not in to:
                to[key] = from_[key]
                self._inherit_place((*above, key), (*below, key))
            elif isinstance(to[key], dict) and isinstance(from_[key], dict):
                to[key] = from_[key] | to[key]

    def _inherit_place(self, above: KeyPath, below: KeyPath) -> None:
        if place := self._merged.place(above):
            self._merged.where[below] = place
        for path, names in list(self._replaced.used.items()):
            if path[: len(above)] == above:
                self._replaced.used[(*below, *path[len(above) :])] = names

    def _validate(self, model: type[T], given: Any, path: KeyPath) -> T | None:
        if not isinstance(given, dict):
            self._findings.append(Finding(path, "a table is needed"))
            return None
        self._secrets += secret_texts(model, given)
        try:
            table = model.model_validate(given, context=self._context, by_alias=True, by_name=False)
        except ValidationError as error:
            depth = len(path)
            used = {place[depth:]: names for place, names in self._replaced.used.items() if place[:depth] == path}
            found = list(explain(error, model, given, used))
        else:
            whole = {place[len(path) :] for place in self._replaced.whole if place[: len(path)] == path}
            found = list(misread(table, given, whole))
            if not found:
                return table
        self._findings += [Finding((*path, *inner), message, mend) for inner, message, mend in found]
        return None

    # The problems

    def _problems(self) -> list[Problem]:
        ordered: list[tuple[int, int, Problem]] = []
        for index, finding in enumerate(dict.fromkeys(self._findings)):
            path = finding.path
            if index >= len(self._causes) and any(_follows(path, cause) for cause in self._causes):
                continue
            place = self._merged.place(path)
            file, line, order = (place.file, place.line, place.order) if place else (self._file(), 0, 0)
            problem = Problem(
                self._blot(finding.message, path), key_text(path), file, self._blot(finding.mend, path), line
            )
            ordered.append((order, line, problem))
        return [problem for _, _, problem in sorted(ordered, key=lambda entry: entry[:2])]

    def _file(self) -> str:
        return str(self._merged.files[0]) if self._merged.files else f"${files.VARIABLE}"

    def _blot(self, text: str, path: KeyPath) -> str:
        """The text without secrets and without values of variables, which may be secrets: a plugin's own words, or
        those of a rule, may quote them."""
        blots = dict.fromkeys(self._secrets, "…")
        for place, names in self._replaced.used.items():
            if place[: len(path)] == path[: len(place)]:
                blots |= {self._replaced.values.get(name, ""): f"${{{name}}}" for name in names}
        for value in sorted(blots, key=len, reverse=True):
            if len(value) >= _SHORTEST_BLOT:
                text = text.replace(value, blots[value])
        return text


def _follows(path: KeyPath, cause: KeyPath) -> bool:
    """May what is wrong at ``path`` only follow from what is wrong at ``cause``, in or below it?"""
    return path == cause[: len(path)] and len(path) >= 2
