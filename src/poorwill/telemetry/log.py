"""The log: one line for each event, a constant message and fields, on a given stream.

JSON lines for machines, text for a terminal. It never raises: if the stream is closed or full, the line is
lost and serving goes on.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Protocol

from poorwill.core.format import printable
from poorwill.core.ports.clock import Clock
from poorwill.core.words import SECOND_US

LEVELS: Mapping[str, int] = MappingProxyType({"info": 0, "warning": 1, "error": 2})
"""The severity of an event, by name."""


class LogStream(Protocol):
    """What a log needs of a stream."""

    def write(self, text: str, /) -> object:
        """Write text."""
        ...

    def flush(self) -> object:
        """Write what is buffered."""
        ...

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        ...


class StreamLog:
    """A `Log` that writes lines to a stream. Implements core's `Log`.

    Events below `level` are dropped. `human` is text instead of JSON; by default a terminal gets text.
    Without a clock lines have no time: whoever collects them adds it.
    """

    def __init__(
        self,
        *,
        stream: LogStream,
        level: str = "info",
        human: bool | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._stream = stream
        self._level = level
        self._human = human
        self._clock = clock

    def __repr__(self) -> str:
        return f"<StreamLog from {self._level} on {getattr(self._stream, 'name', 'a stream')}>"

    def info(self, message: str, /, **fields: object) -> None:
        """Record a normal event."""
        self._write("info", message, fields)

    def warning(self, message: str, /, **fields: object) -> None:
        """Record an event that an operator should know of."""
        self._write("warning", message, fields)

    def error(self, message: str, /, **fields: object) -> None:
        """Record a failure."""
        self._write("error", message, fields)

    def _write(self, level: str, message: str, fields: Mapping[str, object]) -> None:
        if LEVELS[level] < LEVELS[self._level]:
            return
        try:
            human = self._stream.isatty() if self._human is None else self._human
            line = (_text if human else _record)(self._now(), level, message, fields)
            self._stream.write(printable(line, keep="") + "\n")
            self._stream.flush()
        except Exception:  # a log that cannot be written must not stop what is logged
            return

    def _now(self) -> datetime | None:
        if self._clock is None:
            return None
        return datetime.fromtimestamp(self._clock.now_us() / SECOND_US, UTC)


def _record(now: datetime | None, level: str, message: str, fields: Mapping[str, object]) -> str:
    record: dict[str, object] = {}
    if now is not None:
        record["time"] = now.isoformat(timespec="milliseconds")
    record |= {"level": level, "message": message}
    for key, value in fields.items():
        record[f"{key}_" if key in record else key] = value
    return json.dumps(record, ensure_ascii=False, default=_plain, separators=(",", ":"))


def _text(now: datetime | None, level: str, message: str, fields: Mapping[str, object]) -> str:
    time = f"{now:%H:%M:%S} " if now is not None else ""
    mark = "" if level == "info" else f"{level}: "
    pairs = "".join(f" {key}={_word(value)}" for key, value in fields.items())
    return f"{time}{mark}{message}{pairs}"


def _word(value: object) -> str:
    text = _plain(value)
    safe = text and text.isprintable() and not any(character in ' "=' for character in text)
    return text if safe else json.dumps(text, ensure_ascii=False)


def _plain(value: object) -> str:
    """Return any object as text, even if its own `str` fails."""
    try:
        return str(value)
    except Exception as error:
        return f"<{type(value).__name__}: {type(error).__name__}>"
