"""Turns the lines of an engine's log into phase marks with times on poorwill's clock."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from poorwill.core.launch import PhaseMark
from poorwill.core.ports.clock import Clock
from poorwill.engines.dialects.log_facts import Dialect, LogFact
from poorwill.hosts.files.growing_log import MOST_BACKLOG, MOST_LOOK, LogFile


def boot_us() -> int:
    """Return the time since boot, as poorwill's own engine programs print it."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


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
