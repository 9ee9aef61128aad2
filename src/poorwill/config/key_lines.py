"""Finds the line of each key of a TOML document, which `tomllib` does not report.

The text must already have been accepted by `tomllib`: this scanner checks nothing, it only follows the same
grammar (https://toml.io/en/v1.0.0) and notes positions.
"""

import re
import tomllib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

KeyPath = tuple[str | int, ...]
"""A key in a document: the tables on the way to it, and indices into arrays and arrays of tables."""

_TOKEN = re.compile(
    r"""
      (?P<gap> [ \t\r\n]+ | \#[^\n]* )
    | \"{3} (?: [^"\\] | \\. | "{1,2}(?!") )* "{3,5}  # up to two quotes may belong to the text itself
    | '{3} (?: [^'] | '{1,2}(?!') )* '{3,5}
    | "(?: [^"\\\n] | \\. )*" | '[^'\n]*'
    | [\[\]{}=,.]
    | [^\s\[\]{}=,.#"']+
    """,
    re.DOTALL | re.VERBOSE,
)


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


class _Token(NamedTuple):
    text: str
    line: int


def _tokens(text: str) -> Iterator[_Token]:
    line = 1
    for match in _TOKEN.finditer(text):
        if match.lastgroup != "gap":
            yield _Token(match[0], line)
        line += match[0].count("\n")


class _Scan:
    def __init__(self, text: str) -> None:
        self.known: dict[KeyPath, int] = {}
        self._tokens = [*_tokens(text), _Token("", 0)]
        self._at = 0
        self._sizes: dict[KeyPath, int] = {}  # arrays of tables: how many entries so far

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self) -> _Token:
        self._at += 1
        return self._tokens[self._at - 1]

    def document(self) -> None:
        prefix: KeyPath = ()
        while self._next.text:
            if self._next.text == "[":
                prefix = self._header()
            else:
                self._pair(prefix)

    def _header(self) -> KeyPath:
        line = self._take().line
        many = self._next.text == "["
        self._at += many
        keys = self._keys()
        self._at += 2 if many else 1
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
        line = self._next.line
        path = self._enter(prefix, self._keys(), line)
        self.known[path] = line
        self._take()  # the sign between key and value
        self._value(path)

    def _keys(self) -> list[str]:
        keys = [self._key()]
        while self._next.text == ".":
            self._take()
            keys.append(self._key())
        return keys

    def _key(self) -> str:
        text = self._take().text
        if text[0] == '"':
            return next(iter(tomllib.loads(f"{text}=0")))
        return text[1:-1] if text[0] == "'" else text

    def _value(self, path: KeyPath) -> None:
        first = self._take()
        if first.text == "[":
            self._array(path)
        elif first.text == "{":
            self._inline(path)
        elif first.text[0] not in "\"'":  # a date has a blank, a number a point
            while self._next.line == first.line and self._next.text not in (",", "]", "}"):
                self._take()

    def _array(self, path: KeyPath) -> None:
        index = 0
        while self._next.text != "]":
            self.known[*path, index] = self._next.line
            self._value((*path, index))
            if self._next.text == ",":
                self._take()
            index += 1
        self._take()

    def _inline(self, path: KeyPath) -> None:
        while self._next.text != "}":
            self._pair(path)
            if self._next.text == ",":
                self._take()
        self._take()
