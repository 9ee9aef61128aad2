"""poorwill's one clock, as every room sees it."""

from typing import Protocol


class Clock(Protocol):
    """poorwill's one clock: microseconds since the Unix epoch, never backwards, wall steps smoothed out."""

    def now_us(self) -> int:
        """Return the time now."""
        ...
