"""Collects what is wrong with a document, each problem with its line, and says which places are bad.

A rule about several keys is silent where one of them has been reported already, so that one mistake is
told once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from poorwill.config.lines import Lines, Path
from poorwill.core.errors import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Bad:
    """Stands for a value that could not be read and has been reported."""


BAD = Bad()


@dataclass(slots=True, kw_only=True)
class Sheet:
    """The problems of one document."""

    lines: Lines
    base: str = "/"
    """The directory that relative paths count from."""
    home: str = ""
    """What `~` stands for; empty where it stands for nothing."""
    partial: bool = False
    """Whether parts of the file could not be parsed, so that nothing may be called missing."""
    written_in: Mapping[str, str] = field(default_factory=dict)
    """Where each key belongs, to say so where it is found elsewhere."""
    problems: list[Problem] = field(default_factory=list)
    bad: set[Path] = field(default_factory=set)

    def wrong(self, path: Path, what: str, hint: str = "", *, shown: str = "") -> None:
        """Report a problem at a path."""
        self.bad.add(path)
        self.problems.append(
            Problem(where=shown or spell(path), what=what, hint=hint, line=self.lines.of(path))
        )

    def is_bad(self, path: Path) -> bool:
        """Return whether the place, or something in it or around it, has been reported."""
        return any(bad[: len(path)] == path or path[: len(bad)] == bad for bad in self.bad)

    def belongs(self, key: str) -> str:
        """Return a hint where a known key belongs, or nothing."""
        where = self.written_in.get(key)
        return f"it belongs under {where}" if where else ""

    def in_order(self) -> Sequence[Problem]:
        """Return the problems from the first line to the last."""
        return sorted(self.problems, key=lambda problem: problem.line or 0)


@dataclass(frozen=True, slots=True)
class Place:
    """One place of the document, to which a reader reports."""

    path: Path
    sheet: Sheet

    def __truediv__(self, key: str | int) -> "Place":
        """Return the place one step further down."""
        return Place((*self.path, key), self.sheet)

    def wrong(self, what: str, hint: str = "") -> Bad:
        """Report a problem here and return the value that stands for it."""
        self.sheet.wrong(self.path, what, hint)
        return BAD


def spell(path: Path) -> str:
    """Return a path as people write it: `models.llama.floor[0].from`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            plain = step.replace("-", "").replace("_", "").isalnum()
            text += ("." if text else "") + (step if plain else f'"{step}"')
    return text or "the file"
