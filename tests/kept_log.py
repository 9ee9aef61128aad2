"""A log that keeps what it was told, for tests that look at it or want quiet."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class KeptLog:
    """Implements core's `Log`."""

    lines: list[tuple[str, str, dict[str, object]]] = field(default_factory=list)
    on_info: Callable[[str], object] | None = None
    """Called with each message, on whatever thread it comes from."""

    def info(self, message: str, /, **fields: object) -> None:
        if self.on_info is not None:
            self.on_info(message)
        self.lines.append(("info", message, fields))

    def warning(self, message: str, /, **fields: object) -> None:
        self.lines.append(("warning", message, fields))

    def error(self, message: str, /, **fields: object) -> None:
        self.lines.append(("error", message, fields))

    def errors(self) -> list[str]:
        return [message for level, message, _ in self.lines if level == "error"]
