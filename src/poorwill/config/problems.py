"""Collects what is wrong with a document, each problem with its line, and knows which keys are bad.

A rule about several keys is silent if one of them has been reported already, so that one mistake is one
problem.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from poorwill.config.key_lines import NO_LINES, KeyLines, KeyPath
from poorwill.core.problems import Problem


@dataclass(frozen=True, slots=True)
class Bad:
    """Stands for a value that could not be read and has been reported."""


BAD = Bad()

MOST_PROBLEMS = 500
"""Problems that are kept; the rest of a file that is no configuration at all is only counted."""


@dataclass(slots=True, kw_only=True)
class FileProblems:
    """The problems of one document."""

    lines: KeyLines = NO_LINES
    base: str = "/"
    """The directory that relative paths count from."""
    home: str = ""
    """What `~` stands for; empty if it stands for nothing."""
    partial: bool = False
    """Whether parts of the file could not be parsed, so that nothing may be called missing."""
    tables_of: Mapping[str, str] = field(default_factory=dict)
    """The table that each key belongs to, for hints about keys found elsewhere."""
    problems: list[Problem] = field(default_factory=list)
    bad: set[KeyPath] = field(default_factory=set)
    more: int = 0
    """Problems beyond `MOST_PROBLEMS`."""

    def wrong(self, path: KeyPath, what: str, hint: str = "", *, shown: str = "") -> None:
        """Report a problem at a path."""
        if len(self.problems) >= MOST_PROBLEMS:
            self.more += 1
            return
        self.bad.add(path)
        line = self.lines.of(path)
        where = _shortened(shown or spell(path))
        self.problems.append(Problem(where=where, what=_shortened(what), hint=_shortened(hint), line=line))

    def is_bad(self, path: KeyPath) -> bool:
        """Return whether the path, or something in it or around it, has been reported."""
        return any(bad[: len(path)] == path or path[: len(bad)] == bad for bad in self.bad)

    def belongs(self, key: str) -> str:
        """Return a hint that names a known key's table, or nothing."""
        table = self.tables_of.get(key)
        return f"it belongs under {table}" if table else ""

    def in_order(self) -> Sequence[Problem]:
        """Return the problems from the first line to the last."""
        found = sorted(self.problems, key=lambda problem: problem.line or 0)
        if self.more:
            found.append(Problem(where="the file", what=f"has {self.more:,} more problems"))
        return found


@dataclass(frozen=True, slots=True)
class Location:
    """One key of the document, to which a reader reports."""

    path: KeyPath
    found: FileProblems

    def __truediv__(self, key: str | int) -> "Location":
        """Return the location one step further down."""
        return Location((*self.path, key), self.found)

    def wrong(self, what: str, hint: str = "") -> Bad:
        """Report a problem here and return the value that stands for it."""
        self.found.wrong(self.path, what, hint)
        return BAD


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelProblems:
    """The problems as the rules of one model report them: a key may stand in the model or in `[defaults]`."""

    name: str
    found: FileProblems

    def wrong(self, keys: Sequence[str], what: str, hint: str = "") -> None:
        """Report a problem about `keys` (dotted) at the first of them, unless one is bad already."""
        paths = [self._path(key) for key in keys]
        if not any(self.found.is_bad(path) for path in paths):
            own = ("models", self.name, *keys[0].split("."))
            self.found.wrong(paths[0], what, hint, shown=spell(own))

    def missing(self, keys: Sequence[str], hint: str, what: str = "is missing") -> None:
        """Report that the first of `keys` is missing, unless the file could only be parsed in part."""
        if not self.found.partial:
            self.wrong(keys, what, hint)

    def _path(self, key: str) -> tuple[str, ...]:
        own = ("models", self.name, *key.split("."))
        shared = ("defaults", *key.split("."))
        inherited = not self.found.lines.has(own) and self.found.lines.has(shared)
        return shared if inherited else own


def _shortened(text: str) -> str:
    return text if len(text) <= 600 else f"{text[:500]} ... ({len(text):,} characters)"


def spell(path: KeyPath) -> str:
    """Return a path as people write it: `models.llama.floor[0].from`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            plain = step.replace("-", "").replace("_", "").isalnum()
            text += ("." if text else "") + (step if plain else f'"{step}"')
    return text or "the file"
