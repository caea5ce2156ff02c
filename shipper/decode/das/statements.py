"""Reads just enough of an SQL statement to say what it does: its leading words, whatever comments stand between them.

The SQL is an attacker's: every scan is linear and bounded, and nothing is decided by what stands inside a quoted string
or a comment. MySQL's ``/*! … */`` is executed by MySQL, so here it is SQL and no comment; only with
a version that no MySQL has (``/*!99999 … */``) it is one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

__all__ = ["copies_in", "leading_words", "main_verb", "mentions", "selects_into_file", "unescape"]

#: A statement is looked at no further than this (characters).
_LIMIT = 1 << 20
#: So many words tell what any statement does.
_WORDS = 24

# Each alternative is possessive: what is read is never read again. An unfinished comment or string ends the statement.
_MYSQL = re.compile(
    r"""
    [\s\x00]++ | (?: --(?=[\s\x00]|\Z) | \# ) [^\n]*+
    | /\*!(?!9\d{4}|[1-9]\d{5})\d{0,6} | \*/
    | /\* (?: [^*]++ | \*(?!/) )*+ (?:\*/)?
    | (?P<quoted> '(?:[^'\\]++|\\.|'')*+'? | "(?:[^"\\]++|\\.|"")*+"? | `(?:[^`]++|``)*+`? )
    | (?P<word> [^\W\d] [\w.$]*+ | @{1,2} [\w.$]*+ ) | (?P<number> \d[\w.]*+ )
    | (?P<mark> . )
    """,
    re.VERBOSE | re.DOTALL,
)
_POSTGRESQL = re.compile(
    r"""
    [\s\x00]++ | -- [^\n]*+
    | (?P<comment> /\* )
    | (?P<quoted> [eE]'(?:[^'\\]++|\\.|'')*+'? | '(?:[^']++|'')*+'? | "(?:[^"]++|"")*+"? )
    | (?P<dollar> \$ (?:[^\W\d]\w*+)? \$ )
    | (?P<word> [^\W\d] [\w.$]*+ ) | (?P<number> [\d$][\w.]*+ )
    | (?P<mark> . )
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")
_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", "'": "'", '"': '"'}

#: What may follow the common table expressions of a WITH.
_AFTER_EXPRESSIONS = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "REPLACE", "MERGE", "VALUES", "TABLE"})


def unescape(statement: str) -> str:
    r"""The statement as it was sent: MySQL's audit trail puts a backslash before quotes, and ``\n`` for a new line."""
    first, *rest = statement.split("\\")  # looking for one character is what Python does fastest
    plain = [first]
    literal = False  # the part stands behind two backslashes, which are one
    for part in rest:
        if literal:
            plain.append(part)
            literal = False
        elif part:
            plain.append(_ESCAPES.get(part[0]) or "\\" + part[0])
            plain.append(part[1:])
        else:
            plain.append("\\")
            literal = True
    return "".join(plain)


def leading_words(statement: str, *, mysql: bool = True) -> list[str]:
    """The first words of a statement in upper case, its numbers and marks as items of their own.

    A quoted string or name stands as ``'``; opening parentheses and semicolons before the first word are left out.
    """
    words: list[str] = []
    for kind, text in islice(_tokens(statement, mysql), 4 * _WORDS):
        if kind == "word":
            words.append(text.upper())
        elif kind == "quoted":
            words.append("'")
        elif words or text not in "(;":
            words.append(text)
        if len(words) == _WORDS:
            break
    return words


def main_verb(statement: str) -> str | None:
    """The verb after a MySQL statement's ``WITH name AS (…), …``; ``None`` where there is none."""
    depth = 0
    closed = False  # behind an expression's closing parenthesis
    for kind, text in _tokens(statement, mysql=True):
        if kind == "mark":
            if text == "(":
                if closed:
                    return "SELECT"  # only a query may stand in parentheses here
                depth += 1
            elif text == ")":
                depth -= 1
                closed = depth == 0
                continue
        elif kind == "word" and depth == 0 and closed and text.upper() in _AFTER_EXPRESSIONS:
            return text.upper()
        if depth == 0:
            closed = False
    return None


def selects_into_file(statement: str) -> bool:
    """Whether a MySQL SELECT writes a file (``INTO OUTFILE``, ``INTO DUMPFILE``; Aurora: into S3)."""
    if "file" not in statement.lower():
        return False
    before = ""
    for kind, text in _tokens(statement, mysql=True):
        word = text.upper() if kind == "word" else ""
        if before == "INTO" and word in ("OUTFILE", "DUMPFILE"):
            return True
        before = word
    return False


def copies_in(statement: str) -> bool | None:
    """Whether PostgreSQL's COPY reads into a table (``FROM``) or writes out (``TO``); ``None``: it says neither."""
    depth = 0
    for kind, text in _tokens(statement, mysql=False):
        if kind == "mark":
            depth += (text == "(") - (text == ")")
        elif kind == "word" and depth == 0:
            word = text.upper()
            if word in ("FROM", "TO"):
                return word == "FROM"
    return None


def mentions(statement: str, prefix: str, *, mysql: bool) -> bool:
    """Whether a statement names a setting that begins with ``prefix`` (lower case), quoted as a name or not."""
    word = prefix.rstrip(".")
    if word not in statement.lower():
        return False
    quote = "`" if mysql else '"'
    for kind, text in _tokens(statement, mysql):
        if kind == "word" or (kind == "quoted" and text[0] == quote):
            name = text.strip(quote).lower()
            if mysql:
                name = name.rpartition(".")[2].lstrip("@")  # @@global.NAME
            if name.startswith(prefix) or name == word:
                return True
    return False


def _tokens(statement: str, mysql: bool) -> Iterator[tuple[str, str]]:
    """``word``, ``quoted``, ``number`` and ``mark`` tokens; comments are passed over."""
    if mysql:
        for match in _MYSQL.finditer(statement, 0, _LIMIT):
            kind = match.lastgroup
            if kind is not None:
                yield kind, match[0]
        return
    at, end = 0, min(len(statement), _LIMIT)
    while at < end and (token := _POSTGRESQL.match(statement, at, end)):
        at, kind = token.end(), token.lastgroup
        if kind == "comment":
            at = _comment_end(statement, at, end)
        elif kind == "dollar":
            closing = statement.find(token[0], at, end)
            at = end if closing < 0 else closing + len(token[0])
            yield "quoted", "'"
        elif kind is not None:
            yield kind, token[0]


def _comment_end(statement: str, at: int, end: int) -> int:
    """Where a comment ends that began before ``at``: PostgreSQL's comments nest."""
    depth = 1
    for edge in _COMMENT_EDGE.finditer(statement, at, end):
        depth += 1 if edge[0] == "/*" else -1
        if depth == 0:
            return edge.end()
    return end
