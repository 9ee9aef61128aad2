"""What is wrong with a configuration: every mistake with its key, its line and how to fix it."""

from collections.abc import Sequence
from dataclasses import dataclass

from poorwill.core.errors import ErrorCode, OperatorFault


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One mistake in a configuration: the key, what is wrong with it and how to fix it.

    `where` is empty if the line says enough."""

    where: str
    what: str
    hint: str = ""
    line: int | None = None

    def __str__(self) -> str:
        line = f"line {self.line}: " if self.line is not None else ""
        hint = f" ({self.hint})" if self.hint else ""
        where = f"{self.where}: " if self.where else ""
        return f"{line}{where}{self.what}{hint}"


class ConfigFault(OperatorFault):
    """A configuration with problems: all of them at once."""

    def __init__(self, problems: Sequence[Problem], *, source: str = "fleet.toml") -> None:
        count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
        super().__init__(ErrorCode.CONFIG_INVALID, f"{source}: {count}")
        self.problems = tuple(problems)
