"""Finds the line of each key of a TOML document, which `tomllib` does not report.

The text must already have been accepted by `tomllib`: this scanner checks nothing, it only follows the same
grammar (https://toml.io/en/v1.0.0) and notes positions.
"""

import re
import tomllib
from bisect import bisect_left
from collections.abc import Sequence

KeyPath = tuple[str | int, ...]
"""A key in a document: the tables on the way to it, and indices into arrays and arrays of tables."""

_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BARE_VALUE = re.compile(r"[^,\]}\n#]*")
_BASIC = re.compile(r'"(?:[^"\\]|\\.)*"')
_LITERAL = re.compile(r"'[^']*'")


class KeyLines:
    """The line of every key path of one document."""

    def __init__(self, known: dict[KeyPath, int]) -> None:
        self._known = known

    def of(self, path: KeyPath) -> int | None:
        """Return the line (from 1) of the path, or of its nearest enclosing place."""
        while path:
            if path in self._known:
                return self._known[path]
            path = path[:-1]
        return None

    def has(self, path: KeyPath) -> bool:
        """Return whether the document sets exactly this path."""
        return path in self._known


NO_LINES = KeyLines({})
"""Of no document."""


def locate(text: str) -> KeyLines:
    """Return the lines of all key paths of a document that `tomllib` accepts."""
    scan = _Scan(text)
    scan.document()
    return KeyLines(scan.known)


class _Scan:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.known: dict[KeyPath, int] = {}
        self._newlines = [m.start() for m in re.finditer("\n", text)]
        self._sizes: dict[KeyPath, int] = {}  # arrays of tables: how many entries so far

    def document(self) -> None:
        prefix: KeyPath = ()
        while self._skip(_BLANK) < len(self.text):
            if self.text[self.at] == "[":
                prefix = self._header()
            else:
                self._pair(prefix)

    def _header(self) -> KeyPath:
        line = self._line()
        many = self.text.startswith("[[", self.at)
        self.at += 2 if many else 1
        keys = self._keys()
        self.at = self.text.index("]", self.at) + (2 if many else 1)
        path = self._enter(self._enter((), keys[:-1], line), keys[-1:], line, into=not many)
        if many:
            index = self._sizes.get(path, 0)
            self._sizes[path] = index + 1
            path = (*path, index)
        self.known[path] = line
        return path

    def _enter(self, path: KeyPath, keys: Sequence[str], line: int, *, into: bool = True) -> KeyPath:
        """Go down from `path` by `keys`: into the last entry of each array of tables on the way."""
        for key in keys:
            path = (*path, key)
            self.known.setdefault(path, line)
            if into and path in self._sizes:
                path = (*path, self._sizes[path] - 1)
        return path

    def _pair(self, prefix: KeyPath) -> None:
        line = self._line()
        path = self._enter(prefix, self._keys(), line)
        self.known[path] = line
        self.at = self.text.index("=", self.at) + 1
        self._skip(_SPACE)
        self._value(path)

    def _keys(self) -> list[str]:
        keys: list[str] = []
        while True:
            self._skip(_SPACE)
            keys.append(self._key())
            self._skip(_SPACE)
            if not self.text.startswith(".", self.at):
                return keys
            self.at += 1

    def _key(self) -> str:
        start = self.at
        if self.text[start] == "'":
            self._skip(_LITERAL)
            return self.text[start + 1 : self.at - 1]
        if self.text[start] == '"':
            self._skip(_BASIC)
            return next(iter(tomllib.loads(self.text[start : self.at] + "=0")))
        self._skip(_BARE_KEY)
        return self.text[start : self.at]

    def _value(self, path: KeyPath) -> None:
        text, at = self.text, self.at
        if text.startswith('"""', at):
            self._long('"')
        elif text.startswith("'''", at):
            self._long("'")
        elif text[at] == '"':
            self._skip(_BASIC)
        elif text[at] == "'":
            self._skip(_LITERAL)
        elif text[at] == "[":
            self._array(path)
        elif text[at] == "{":
            self._inline(path)
        else:
            self._skip(_BARE_VALUE)

    def _long(self, quote: str) -> None:
        at = self.at + 3
        while not self.text.startswith(quote * 3, at):
            at += 2 if quote == '"' and self.text[at] == "\\" else 1
        at += 3
        while self.text.startswith(quote, at):  # up to two quotes may belong to the text itself
            at += 1
        self.at = at

    def _array(self, path: KeyPath) -> None:
        self.at += 1
        index = 0
        while self.text[self._skip(_BLANK)] != "]":
            here = (*path, index)
            self.known[here] = self._line()
            self._value(here)
            if self.text[self._skip(_BLANK)] == ",":
                self.at += 1
            index += 1
        self.at += 1

    def _inline(self, path: KeyPath) -> None:
        self.at += 1
        while self.text[self._skip(_BLANK)] != "}":
            self._pair(path)
            if self.text[self._skip(_BLANK)] == ",":
                self.at += 1
        self.at += 1

    def _skip(self, pattern: re.Pattern[str]) -> int:
        match = pattern.match(self.text, self.at)
        if match is not None:
            self.at = match.end()
        return self.at

    def _line(self) -> int:
        return bisect_left(self._newlines, self.at) + 1
