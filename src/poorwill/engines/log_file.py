"""Reads an engine's log as it grows and turns lines into phase marks with times on poorwill's clock.

Bounded whatever the engine writes: so many bytes a look, so many characters a line, and if the engine
writes faster than that, the middle is skipped. A log that was cut short or replaced is read from
its new beginning. It opens the file for each look, so that it never keeps a deleted one alive.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from poorwill.core.launch import PhaseMark
from poorwill.core.ports.clock import Clock
from poorwill.engines.dialects.log_facts import Dialect, LogFact
from poorwill.hosts.files.opening import open_to_read

MOST_LOOK = 256 * 1024
MOST_BACKLOG = 4 * 1024 * 1024
MOST_LINE = 16 * 1024
CUT_MARK = b"[poorwill cut "
"""How a log begins that poorwill cut to its last part: what stands there now was read before."""


def boot_us() -> int:
    """Return the time since boot, as poorwill's own engine programs print it."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


@dataclass(slots=True, kw_only=True)
class LogFile:
    """One log file and how far it was read. Opened at its present end: what was there is another wake's."""

    path: str
    offset: int = 0
    inode: int = 0
    rest: bytes = b""

    @classmethod
    def at_end(cls, path: str) -> "LogFile":
        """Return a log file read up to now. Never raises."""
        try:
            status = os.stat(path)
        except OSError:
            return cls(path=path)
        return cls(path=path, offset=status.st_size, inode=status.st_ino)

    def lines(self, most: int = MOST_LOOK) -> list[str]:
        """Return the complete lines written since the last call, of at most `most` bytes. Never raises."""
        try:
            with open(open_to_read(self.path), "rb", buffering=0) as file:
                status = os.fstat(file.fileno())
                self._find(status.st_ino, status.st_size, file.read(len(CUT_MARK)))
                file.seek(self.offset)
                data = file.read(most)
        except OSError:
            return []
        self.offset += len(data)
        *whole, self.rest = (self.rest + data).split(b"\n")
        if len(self.rest) > MOST_LINE:
            self.rest = self.rest[:MOST_LINE]
        return [line[:MOST_LINE].decode("utf-8", "replace") for line in whole if line]

    def _find(self, inode: int, size: int, beginning: bytes) -> None:
        if size < self.offset or (self.inode and inode != self.inode):
            self.offset, self.rest = (size if beginning == CUT_MARK else 0), b""
        self.inode = inode
        if size - self.offset > MOST_BACKLOG:
            self.offset, self.rest = size - MOST_LOOK, b""


@dataclass(slots=True, kw_only=True)
class Timeline:
    """Gives each fact of the log its time on poorwill's clock.

    Some writers stamp their lines: with the time since boot (our own programs), or since
    the engine's start, which is anchored at the last stamp of the first kind or else at the earliest the
    lines allow. Any other line gets the time it was read, at most one look late. A stamp outside of
    [began, now] is wrong (a guest's own boot, a restored process) and ignored.
    """

    clock: Clock
    began_us: int
    boot: Callable[[], int] = boot_us
    start_us: int | None = None
    """When the engine's own counting began, on poorwill's clock."""
    anchored: bool = False

    def marks(self, facts: Sequence[LogFact]) -> list[PhaseMark]:
        """Return the marks for what was read in one look, now."""
        now_us, now_boot_us = self.clock.now_us(), self.boot()
        for item in facts:
            if item.since_us is not None and not self.anchored:
                latest = now_us - item.since_us
                self.start_us = latest if self.start_us is None else min(self.start_us, latest)
        return [self._mark(item, now_us, now_boot_us) for item in facts]

    def _mark(self, fact: LogFact, now_us: int, now_boot_us: int) -> PhaseMark:
        at_us: int | None = None
        if fact.boot_us is not None:
            at_us = self._checked(now_us - (now_boot_us - fact.boot_us), now_us)
            if at_us is not None:
                self.start_us, self.anchored = at_us, True
        elif fact.since_us is not None and self.start_us is not None:
            at_us = self._checked(self.start_us + fact.since_us, now_us)
        if at_us is None:
            at_us = now_us
        if fact.took_us is None:
            return PhaseMark(phase=fact.phase, at_us=at_us, detail=fact.detail)
        return PhaseMark(phase=fact.phase, at_us=at_us - fact.took_us, ended_us=at_us, detail=fact.detail)

    def _checked(self, at_us: int, now_us: int) -> int | None:
        return at_us if self.began_us <= at_us <= now_us else None


@dataclass(slots=True, kw_only=True)
class LogReader:
    """The log of one wake, from the wake's beginning."""

    file: LogFile
    dialect: Dialect
    timeline: Timeline
    marks: list[PhaseMark] = field(default_factory=list)
    most_marks: int = 1_000

    def look(self) -> list[PhaseMark]:
        """Read what is new and return its marks; bounded work, never raises."""
        facts = [item for line in self.file.lines() for item in self.dialect(line)]
        found = self.timeline.marks(facts) if facts else []
        self.marks.extend(found[: self.most_marks - len(self.marks)])
        return found

    def finish(self) -> None:
        """Read what is left, up to the bound on the backlog."""
        for _ in range(MOST_BACKLOG // MOST_LOOK + 1):
            before = self.file.offset
            self.look()
            if self.file.offset == before:
                return
