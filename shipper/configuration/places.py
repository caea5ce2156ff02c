"""Which line of a TOML file each key stands on; ``tomllib`` does not tell. For text that it accepted."""

from __future__ import annotations

import contextlib
import re
import tomllib
from bisect import bisect_right

#: Where a value stands in the tables: names, and numbers inside lists.
KeyPath = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY_PART = re.compile(r"[ \t]*(?:(?P<bare>[A-Za-z0-9_-]+)|(?P<quoted>\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*'))[ \t]*")
_TEXT = re.compile(
    r'"""(?:[^"\\]|\\[\s\S]|"(?!""))*"{3,5}'  # up to two quotes may stand before the closing three
    r"|'''(?:[^']|'(?!''))*'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
)
_PLAIN = re.compile(r"[^,\]}\n#]+")


def places(text: str) -> dict[KeyPath, int]:
    """The line (from 1) of every table and key, and of every value inside a list.

    A line is a help in messages and no more: should something here not be understood, the rest has none.
    """
    scanner = _Scanner(text)
    with contextlib.suppress(ValueError, IndexError):
        scanner.scan()
    return scanner.found


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line_ends = [found.start() for found in re.finditer("\n", text)]
        self.found: dict[KeyPath, int] = {}
        self._counts: dict[KeyPath, int] = {}

    def scan(self) -> None:
        table: KeyPath = ()
        while self._skip_blank():
            if self._text.startswith("[", self._at):
                table = self._header()
            else:
                self._pair(table)

    def _skip_blank(self) -> bool:
        self._at = _match(_BLANK, self._text, self._at).end()
        return self._at < len(self._text)

    def _header(self) -> KeyPath:
        brackets = 2 if self._text.startswith("[[", self._at) else 1
        line = self._line()
        self._at += brackets
        names = self._dotted_key()
        self._at += brackets
        path: KeyPath = ()
        for position, name in enumerate(names, 1):
            path = (*path, name)
            last = position == len(names)
            if last and brackets == 2:
                self._counts[path] = self._counts.get(path, -1) + 1
            self._note(path, line)
            if path in self._counts:
                path = (*path, self._counts[path])
                self._note(path, line)
        return path

    def _pair(self, table: KeyPath) -> None:
        line = self._line()
        path = table
        for name in self._dotted_key():
            path = (*path, name)
            self._note(path, line)
        self._at += 1  # the equals sign
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        self._skip_blank()
        first = self._text[self._at]
        if first in "\"'":
            self._at = _match(_TEXT, self._text, self._at).end()
        elif first == "[":
            self._at += 1
            index = 0
            while self._skip_blank() and self._text[self._at] != "]":
                self._note((*path, index), self._line())
                self._value((*path, index))
                index += 1
                self._comma()
            self._at += 1
        elif first == "{":
            self._at += 1
            while self._skip_blank() and self._text[self._at] != "}":
                self._pair(path)
                self._comma()
            self._at += 1
        else:
            self._at = _match(_PLAIN, self._text, self._at).end()

    def _comma(self) -> None:
        self._skip_blank()
        if self._text.startswith(",", self._at):
            self._at += 1

    def _dotted_key(self) -> list[str]:
        names: list[str] = []
        while True:
            part = _match(_KEY_PART, self._text, self._at)
            self._at = part.end()
            names.append(part["bare"] or tomllib.loads(f"key = {part['quoted']}")["key"])
            if not self._text.startswith(".", self._at):
                return names
            self._at += 1

    def _note(self, path: KeyPath, line: int) -> None:
        self.found.setdefault(path, line)

    def _line(self) -> int:
        return bisect_right(self._line_ends, self._at - 1) + 1


def _match(pattern: re.Pattern[str], text: str, at: int) -> re.Match[str]:
    found = pattern.match(text, at)
    if found is None:
        raise ValueError("not TOML")
    return found
