"""The structured log, as every room sees it."""

from typing import Protocol


class Log(Protocol):
    """Structured logging: a constant message and fields. Never raises."""

    def info(self, message: str, /, **fields: object) -> None:
        """Record something that went as it should."""
        ...

    def warning(self, message: str, /, **fields: object) -> None:
        """Record something an operator should know."""
        ...

    def error(self, message: str, /, **fields: object) -> None:
        """Record something that failed."""
        ...
