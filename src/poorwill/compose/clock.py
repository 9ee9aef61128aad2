"""The one clock: wall time at start plus elapsed time that counts suspends and ignores wall steps."""

import time
from dataclasses import dataclass


@dataclass(slots=True)
class SystemClock:
    """Microseconds since the Unix epoch, never backwards.

    Wall time is read once, at the start; from then on CLOCK_BOOTTIME is added, which also runs while the
    machine is suspended (clock_gettime(2)). A step of the wall clock therefore never stretches or folds a
    span; `wall_step_us` makes it visible.
    """

    wall_at_start_us: int
    boot_at_start_us: int
    seen_step_us: int = 0

    @classmethod
    def started(cls, *, not_before_us: int = 0) -> "SystemClock":
        """Start a clock now, but not before the ledger's last instant."""
        return cls(max(time.time_ns() // 1000, not_before_us), _boot_us())

    def now_us(self) -> int:
        """Return the time now."""
        boot_us = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000  # a call less: the warm path asks often
        return self.wall_at_start_us + boot_us - self.boot_at_start_us

    def wall_step_us(self) -> int:
        """Return by how much the wall clock has stepped since the last call, 0 for less than a second."""
        step = time.time_ns() // 1000 - self.now_us() - self.seen_step_us
        if abs(step) < 1_000_000:
            return 0
        self.seen_step_us += step
        return step


def _boot_us() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
