"""An output that writes events to files: each batch is on disk before it counts, and no crash doubles an event."""

from __future__ import annotations

import errno
import logging
import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path

from shipper.clock import Clock, SystemClock
from shipper.errors import Held
from shipper.hookspecs import hookimpl
from shipper.output import Batch, Check, Failure, NotTried, Outcome, Output, Report, Target
from shipper_file.bookmark import Bookmark, decode
from shipper_file.compression import encoder
from shipper_file.settings import FileSettings, take_apart
from shipper_file.storage import Changed, Folder, OutputFile

log = logging.getLogger("shipper.output.file")

#: Files that stay open between batches.
MAX_OPEN = 64
#: Files that the bookmark tells of, at least: twice as many as ``max_targets`` admits a day, where that is more.
MAX_KNOWN = 256
#: Bytes of a name, with room for a number (Linux allows 255).
MAX_NAME = 240

_FULL = (errno.ENOSPC, errno.EDQUOT)


class FileOutput(Output[FileSettings]):
    """Appends batches to files, one JSON document per line, in the order in which they come.

    A batch is stored wholly or not at all: on any error every file is cut back to where it was. The bookmark tells how
    long each file is; it is committed with the positions of the batches that it covers, so that after a crash
    ``connect`` cuts off exactly what will be sent again. What ``prepare`` returns must not be committed before the
    positions of the batches sent earlier: it tells of their bytes too.

    A file that the bookmark does not know, or that is not as the bookmark says, belongs to somebody else: it is
    neither cut nor appended to, and a numbered file is begun beside it.
    """

    Settings = FileSettings
    ordered = True

    def __init__(self, name: str, settings: FileSettings, clock: Clock | None = None) -> None:
        super().__init__(name, settings)
        self._template = os.path.abspath(settings.path)  # noqa: PTH100 - resolve() would follow links
        self._parts = take_apart(self._template)
        self._folder = Folder(self._parts.folder)
        self._clock = clock or SystemClock()
        self._known_at_most = max(MAX_KNOWN, 2 * settings.max_targets)
        #: By target, the one used last at the end.
        self._files: OrderedDict[str, OutputFile] = OrderedDict()
        self._prepared: tuple[Batch, dict[str, Sequence[bytes]], dict[int, Failure]] | None = None

    def values(self) -> Sequence[Target]:
        return (Target(self._template),)

    def connect(self, bookmark: bytes | None) -> None:
        self.close()
        self._encode = encoder(self._template)
        if bookmark is None:
            return
        try:
            found = decode(bookmark)
        except ValueError as error:
            log.warning("output %s: its bookmark cannot be read (%s); it begins new files", self.name, error)
            return
        for mark in found.files:
            folder = self._folder if found.folder == self._folder.path else Folder(found.folder)
            file = OutputFile(folder, mark.target, mark.path, mark.number, mark.born)
            try:
                fault = file.recover(mark)
            except OSError as error:
                raise _held(folder.full(mark.path), error) from error
            finally:
                file.close()
            if fault:
                log.warning(
                    "output %s: %s %s since it was written; it is left alone and a new file is begun",
                    self.name,
                    folder.full(mark.path),
                    fault,
                )
            if folder is not self._folder or self._parts.number_of(mark.target, mark.path) != mark.number:
                continue  # the configured path has changed: this file is whole, and finished
            if fault:
                number = mark.number + 1
                path = self._parts.numbered(mark.target, number)
                file = OutputFile(folder, mark.target, path, number, self._clock.now())
            self._files[mark.target] = file

    def check(self) -> Iterator[Check]:
        """Makes a nameless file in the folder, or in the nearest one above it that exists."""
        folder = Path(self._folder.path)
        while not os.path.lexists(folder) and folder != folder.parent:
            folder = folder.parent
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            held = _held(str(folder), error)
            yield Check(self._folder.path, ok=False, detail=held.detail, mend=held.mend)
        else:
            yield Check(self._folder.path, ok=True, detail=f"{folder} can be written to")

    def prepare(self, batch: Batch) -> bytes | None:
        """Decides which file each event goes to. A file that does not exist yet needs its bookmark first."""
        self._repair()
        groups, refused = self._group(batch)
        unborn = False
        try:
            for target in groups:
                unborn = not self._current(target).begun or unborn
        except OSError as error:
            raise _held(str(error.filename or self._folder.path), error) from error
        self._prepared = batch, groups, refused
        self._forget(groups)
        return self._bookmark() if unborn else None

    def send(self, batch: Batch) -> Report:
        if self._prepared is None or self._prepared[0] is not batch:
            self.prepare(batch)
        assert self._prepared is not None
        _, groups, refused = self._prepared
        self._prepared = None
        self._repair()
        contents = {target: self._encode(b"\n".join((*events, b""))) for target, events in groups.items()}
        try:
            for target, content in contents.items():
                path = self._folder.full(self._files[target].path)
                self._files[target].append(content)
            for target in contents:
                path = self._folder.full(self._files[target].path)
                self._files[target].sync()
        except Changed as error:
            self._cut(groups)
            raise NotTried(f"{path} was changed by somebody else just now", reason="changed") from error
        except OSError as error:
            self._cut(groups)
            raise _held(path, error) from error
        for target, content in contents.items():
            self._files[target].accept(content)
            self._files.move_to_end(target)
        self._close_idle()
        return Report(failed=refused, bookmark=self._bookmark())

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()
        self._prepared = None

    # -- which file -----------------------------------------------------------------------------------------------

    def _group(self, batch: Batch) -> tuple[dict[str, Sequence[bytes]], dict[int, Failure]]:
        """Events by target, below the folder; and those whose values make a name that no file can have."""
        beginning = self._folder.full("")
        paths = [path or "" for (path,) in batch.values]
        different = set(paths)
        if len(different) == 1:
            by_path: dict[str, list[int]] = {paths[0]: list(range(len(paths)))}
        else:
            by_path = {}
            for index, path in enumerate(paths):
                by_path.setdefault(path, []).append(index)
        groups: dict[str, Sequence[bytes]] = {}
        refused: dict[int, Failure] = {}
        for path, indices in by_path.items():
            target = path.removeprefix(beginning)
            if target == path or not _is_possible(target):
                failure = Failure(Outcome.REJECTED, "target_refused", "the values of this event make no name of a file")
                refused |= dict.fromkeys(indices, failure)
            else:
                whole = len(indices) == len(batch)
                groups[target] = batch.events if whole else [batch.events[index] for index in indices]
        return groups, refused

    def _current(self, target: str) -> OutputFile:
        """The file that a target's next events go to; a new one where there is none, or a reason to leave it."""
        file = self._files.get(target)
        number = 0
        if file is not None:
            if file.begun and not file.is_intact():
                log.warning(
                    "output %s: %s was renamed, deleted, cut or written to by somebody else; a new file is begun",
                    self.name,
                    self._folder.full(file.path),
                )
            elif not self._is_due(file) if file.begun else not self._folder.exists(file.path):
                return file
            number = file.number + 1
            file.close()
        number = self._free_number(target, number)
        path = self._parts.numbered(target, number)
        file = self._files[target] = OutputFile(self._folder, target, path, number, self._clock.now())
        return file

    def _is_due(self, file: OutputFile) -> bool:
        rotate = self.settings.rotate
        if file.length == 0:
            return False
        too_large = rotate.max_bytes is not None and file.length >= rotate.max_bytes
        return too_large or (rotate.max_age is not None and self._clock.now() - file.born >= rotate.max_age)

    def _free_number(self, target: str, number: int) -> int:
        """``number``, or one beyond every number that the target's folder holds where that is taken."""
        known = {file.path for file in self._files.values()}

        def is_taken(number: int) -> bool:
            path = self._parts.numbered(target, number)
            return path in known or self._folder.exists(path)

        if not is_taken(number):
            return number
        if number == 0:
            log.warning(
                "output %s: %s exists and was not written by this output as it is now; a numbered file is begun",
                self.name,
                self._folder.full(target),
            )
        inside = target[: target.rfind("/") + 1]
        numbers = (self._parts.number_of(target, inside + name) for name in self._folder.siblings(target))
        number = max([number, *(found for found in numbers if found is not None)])
        while is_taken(number):
            number += 1
        return number

    def _forget(self, needed: dict[str, Sequence[bytes]]) -> None:
        """Leaves the targets out of the bookmark that were not written to for longest: their bytes are settled."""
        surplus = len(self._files) - self._known_at_most
        for target in [target for target in self._files if target not in needed][: max(0, surplus)]:
            self._files.pop(target).close()

    def _bookmark(self) -> bytes:
        return Bookmark(self._folder.path, [file.mark() for file in self._files.values()]).encode()

    # -- keeping it whole -----------------------------------------------------------------------------------------

    def _cut(self, targets: dict[str, Sequence[bytes]]) -> None:
        for target in targets:
            file = self._files[target]
            try:
                file.cut()
            except OSError as error:
                log.warning(
                    "output %s: %s cannot be cut back to %d bytes (%s); nothing is written until it can",
                    self.name,
                    self._folder.full(file.path),
                    file.length,
                    error.strerror,
                )

    def _repair(self) -> None:
        """Cuts off what could not be cut off when it failed. Raises ``Held`` while that is still so."""
        for file in self._files.values():
            if file.frayed:
                try:
                    file.cut()
                except OSError as error:
                    raise _held(self._folder.full(file.path), error) from error

    def _close_idle(self) -> None:
        opened = [file for file in self._files.values() if file.is_open]
        for file in opened[: max(0, len(opened) - MAX_OPEN)]:
            file.close()


def _is_possible(target: str) -> bool:
    names = target.split("/")
    return all(0 < len(os.fsencode(name)) <= MAX_NAME and name not in (".", "..") for name in names)


def _held(path: str, error: OSError) -> Held:
    detail = f"{path} cannot be written ({error.strerror})"
    if error.errno in _FULL:
        return Held("disk_full", detail, "free some space; it goes on by itself")
    return Held("unwritable", detail, "see to permissions, the mount and the disk; it goes on by itself")


@hookimpl
def shipper_output() -> type[FileOutput]:
    return FileOutput
