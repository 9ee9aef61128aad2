"""Spans that open, many at once: a fleet of small replicas opens one for every other request.

Of the spans that open within one transaction only the last of a life stays open. The others are written once,
with their end; only the one that was open before is changed.
"""

import sqlite3
from collections import defaultdict

from poorwill.core.entries import SpanOpened

_OPEN = "SELECT began_us FROM spans WHERE life = ? AND next_us IS NULL"
_CLOSE = "UPDATE spans SET ended_us = ?1, next_us = ?1 WHERE life = ?2 AND began_us = ?3"
_INSERT = (
    "INSERT INTO spans (life, began_us, cause, phase, tier, wake, why, image_bytes, ended_us, next_us)"
    " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?9)"
)
_REPLACE = (
    "UPDATE spans SET cause = ?3, phase = ?4, tier = ?5, wake = ?6, why = ?7, image_bytes = ?8"
    " WHERE life = ?1 AND began_us = ?2"
)


class SpanRows:
    """Collects spans that open and writes them in one go."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._open: dict[int, int] = {}
        """When the open span of each life began, of those that were asked for since the last `flush`."""
        self._opened: dict[int, list[tuple[object, ...]]] = defaultdict(list)
        self._ends: list[tuple[int, int, int]] = []

    def open_since_us(self, life: int) -> int | None:
        """Return when a life's open span began, None if it has none."""
        if life not in self._open:
            row = self._db.execute(_OPEN, (life,)).fetchone()
            if row is None:
                return None
            self._open[life] = int(row[0])
        return self._open[life]

    def add(self, entry: SpanOpened, life: int, since_us: int, wake: int | None, image_bytes: int) -> None:
        """Take a span that opens, and that the one open `since_us` ends with; `flush` writes it."""
        cause = entry.cause
        phase = cause.removeprefix("wake.") if cause.startswith("wake.") else None
        row = (life, entry.at_us, cause, phase, entry.tier, wake, entry.why, image_bytes)
        opened = self._opened[life]
        if entry.at_us > since_us:
            self._open[life] = entry.at_us
            if opened:
                opened[-1] = (*opened[-1], entry.at_us)
            else:
                self._ends.append((entry.at_us, life, since_us))
            opened.append(row)
        elif opened:
            opened[-1] = row
        else:
            self._db.execute(_REPLACE, row)

    def flush(self) -> None:
        """Write what was collected, and ask the file anew from now on."""
        if self._ends:
            self._db.executemany(_CLOSE, self._ends)
            for opened in self._opened.values():
                if opened:
                    opened[-1] = (*opened[-1], None)
                    self._db.executemany(_INSERT, opened)
        self.forget()

    def forget(self) -> None:
        """Drop what was collected."""
        self._open.clear()
        self._opened.clear()
        self._ends.clear()
