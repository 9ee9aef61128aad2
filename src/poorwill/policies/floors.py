"""The floor: how many replicas must be ready whatever the policy says, always or within windows of the week.

Each level of demand has a floor of its own: that of the n-th holds while at least n replicas must be ready.

Windows are in a zone's own wall time. If daylight saving skips a window's begin or end, the instant is
taken by the offset before the change; if it repeats an hour, a window begins with the first and ends
with the second, so that the floor never falls short of what is written.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, tzinfo

from poorwill.core.policy import Floor, FloorSchedule, NoFloor
from poorwill.core.settings import FloorSettings, FloorWindow

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
US = timedelta(microseconds=1)
LOOK_AHEAD_DAYS = 8
"""A weekly window recurs within this many days."""


@dataclass(frozen=True, slots=True)
class AlwaysFloor:
    """The replica must be ready always."""

    def at(self, now_us: int) -> Floor:
        """Return that it is required, for ever."""
        return Floor(required=True, until_us=None, name="always")


@dataclass(slots=True)
class WindowFloor:
    """The replica must be ready within windows of the week."""

    windows: tuple[tuple[FloorWindow, tzinfo], ...]
    _known_from_us: int = field(default=0, repr=False)
    _known: Floor | None = field(default=None, repr=False)
    """The last answer, which holds from `_known_from_us` until its own end: asked again and again."""

    def at(self, now_us: int) -> Floor:
        """Return the floor at an instant and until when that answer holds."""
        known = self._known
        if known is None or not self._known_from_us <= now_us < (known.until_us or 0):
            known = self._answer(now_us)
            self._known, self._known_from_us = known, now_us
        return known

    def _answer(self, now_us: int) -> Floor:
        stretches = sorted(
            (begin, end, window.name or "window")
            for window, zone in self.windows
            for begin, end in _stretches(window, zone, now_us)
        )
        until: int | None = None
        name = ""
        for begin, end, label in stretches:
            if begin <= (until if until is not None else now_us) and end > now_us:
                name = name or label
                until = max(until or end, end)
        if until is not None:
            return Floor(required=True, until_us=until, name=name)
        coming = [begin for begin, _, _ in stretches if begin > now_us]
        return Floor(required=False, until_us=min(coming, default=None))


def make_floor(
    settings: FloorSettings, *, zone_of: Callable[[str], tzinfo], level: int = 0, least_ready: int = 0
) -> FloorSchedule:
    """Return the floor that is configured for a level. `zone_of` is `zoneinfo.ZoneInfo` outside of tests."""
    if level < max(least_ready, settings.always):
        return AlwaysFloor()
    windows = [(window, zone_of(window.zone)) for window in settings.windows if window.floor > level]
    return WindowFloor(tuple(windows)) if windows else NoFloor()


def _stretches(window: FloorWindow, zone: tzinfo, now_us: int) -> list[tuple[int, int]]:
    """Return the window's stretches of time from the day before `now_us` on."""
    today = (EPOCH + now_us * US).astimezone(zone).date()
    found: list[tuple[int, int]] = []
    for offset in range(-1, LOOK_AHEAD_DAYS + 1):
        day = today + timedelta(days=offset)
        if day.weekday() not in window.days:
            continue
        overnight = window.end_minute <= window.start_minute
        begin = _instant(day, window.start_minute, zone, fold=0)
        last = day + timedelta(days=1) if overnight else day
        end = _instant(last, window.end_minute, zone, fold=1)
        if end > begin:
            found.append((begin, end))
    return found


def _instant(day: date, minute: int, zone: tzinfo, *, fold: int) -> int:
    """Return a wall time as microseconds since the epoch; a skipped one by the offset before the change."""
    midnight = datetime(day.year, day.month, day.day)  # noqa: DTZ001
    wall = midnight + timedelta(minutes=minute)
    aware = wall.replace(tzinfo=zone, fold=fold)
    back = aware.astimezone(UTC).astimezone(zone).replace(tzinfo=None)
    if back != wall:  # skipped by daylight saving: both ends by the offset before it
        aware = aware.replace(fold=0)
    return (aware - EPOCH) // US
