"""Durations and amounts as people read them: no more digits than they can use."""

from poorwill.core.format import counted
from poorwill.core.money import NUSD, dollars
from poorwill.core.words import HOUR_US, SECOND_US

DAY_US = 24 * HOUR_US
_UNITS = ((DAY_US, "day"), (HOUR_US, "hour"), (60 * SECOND_US, "minute"), (SECOND_US, "second"))


def length(us: int) -> str:
    """Return a stretch of time in the largest unit of which there are at least two: `23 minutes`."""
    unit_us, name = next((unit for unit in _UNITS if us >= 2 * unit[0]), _UNITS[-1])
    return counted(round(us / unit_us), name)


def brief_s(us: int) -> str:
    """Return seconds: whole ones from 100 on, else three digits; `95`, `2.34`, `0.139`."""
    return _brief(us / SECOND_US)


def brief_h(us: int) -> str:
    """Return a stretch of time in hours, or in seconds where it is a few minutes."""
    return f"{_brief(us / HOUR_US)} h" if us >= HOUR_US // 10 else f"{brief_s(us)} s"


def _brief(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 0.001 or not value else f"{value:.6f}"


def money(nusd: int) -> str:
    """Return an amount in cents, a small one as finely as it takes to see it: `$10.52`, `$0.0031`."""
    if abs(nusd) >= NUSD // 10 or nusd == 0:
        return dollars(nusd)
    return dollars(nusd, places=4 if abs(nusd) >= NUSD // 1000 else 6)
