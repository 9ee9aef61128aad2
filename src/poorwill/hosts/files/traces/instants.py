"""What a column of times means: units and zones are told apart by plausibility, and said; never assumed.

A number may count from 1970 or from the trace's start, in seconds, milliseconds, microseconds or nanoseconds.
From 1970 the unit shows: no two units put the same number between 2001 and 2100. From the start it does not.
"""

import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.core.format import duration
from poorwill.core.words import SECOND_US

UNITS: Mapping[str, tuple[str, float]] = MappingProxyType(
    {
        "s": ("seconds", float(SECOND_US)),
        "ms": ("milliseconds", 1e3),
        "us": ("microseconds", 1.0),
        "ns": ("nanoseconds", 1e-3),
    }
)
"""Name for people, and microseconds in one."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EARLIEST_US, LATEST_US = 1e9 * SECOND_US, 4.2e9 * SECOND_US
"""2001 to 2103: plausible times since 1970."""
PLAUSIBLE = 0.9
"""Share of a column that must be plausible; the rest are mistakes such as a 0 for an unknown time."""
LONGEST_US = 1e9 * SECOND_US
"""31 years from the trace's start: anything beyond is a mistake in units."""
NUMBER, ZONED, ZONELESS = 0, 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeMeaning:
    """How a column of times is read."""

    unit: str
    """A key of UNITS; empty for dates."""
    dated: bool
    """Whether times count from 1970."""
    words: str
    """What to say of it."""


@dataclass(slots=True, kw_only=True)
class TimeColumn:
    """A column of times, collected first and understood as a whole afterwards."""

    name: str
    unit: str = ""
    """The unit as the layout or the user states it."""
    zone: ZoneInfo | None = None
    """The zone of dates without one, if the user stated it."""
    stated: bool = False
    """Whether the user stated the unit: then it is beyond doubt."""
    decimal_comma: bool = False
    values: "array[float]" = field(default_factory=lambda: array("d"))
    kinds: bytearray = field(default_factory=bytearray)
    """NUMBER, ZONED or ZONELESS for each value."""

    def add(self, text: str) -> str:
        """Take one time; return what is wrong with it, empty if nothing is."""
        text = text.strip()
        try:
            value = float(text.replace(",", ".") if self.decimal_comma else text)
        except ValueError:
            return self._add_date(text)
        if not math.isfinite(value):
            return f"{self.name} is {text!r}, out of range"
        self.values.append(value)
        self.kinds.append(NUMBER)
        return ""

    def _add_date(self, text: str) -> str:
        try:
            at = datetime.fromisoformat(text.replace(",", ".").removesuffix(" UTC"))
        except ValueError:
            found = f"is {text!r}, not a number and not a date" if text else "is empty"
            return f"{self.name} {found}"
        self.kinds.append(ZONELESS if at.tzinfo is None else ZONED)
        if at.tzinfo is None:
            at = at.replace(tzinfo=self.zone or UTC)
        self.values.append(float((at - EPOCH) // timedelta(microseconds=1)))
        return ""

    def meaning(self) -> TimeMeaning:
        """Return how the column is read. Raises OperatorFault with the question if it is ambiguous."""
        kinds = np.frombuffer(self.kinds, np.uint8)
        dates = int((kinds != NUMBER).sum())
        if dates * 2 > len(kinds):
            return self._date_meaning(kinds)
        numbers = np.asarray(self.values)[kinds == NUMBER]
        since_1970 = self._epoch_unit(numbers)
        if since_1970 and (not self.stated or since_1970 == self.unit):
            words = f"{self.name} counts {UNITS[since_1970][0]} since 1970"
            return TimeMeaning(unit=since_1970, dated=True, words=words)
        if self.unit:
            words = f"{self.name} counts {UNITS[self.unit][0]} from the trace's start"
            return TimeMeaning(unit=self.unit, dated=False, words=words)
        raise self._question(numbers)

    def microseconds(self, meaning: TimeMeaning) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the instants, and which of them make sense."""
        values, kinds = np.asarray(self.values), np.frombuffer(self.kinds, np.uint8)
        if not meaning.unit:
            return values.astype(np.int64), kinds != NUMBER
        us = values * UNITS[meaning.unit][1]
        low, high = (EARLIEST_US, LATEST_US) if meaning.dated else (0.0, LONGEST_US)
        good = (kinds == NUMBER) & (us >= low) & (us <= high)
        return np.rint(np.where(good, us, 0.0)).astype(np.int64), good

    def _date_meaning(self, kinds: NDArray[np.uint8]) -> TimeMeaning:
        zoned, zoneless = int((kinds == ZONED).sum()), int((kinds == ZONELESS).sum())
        if zoned and zoneless and self.zone is None:
            raise OperatorFault(
                ErrorCode.CONFIG_INVALID,
                f"{self.name}: {zoned:,} times have a zone and {zoneless:,} have none; which zone is theirs?",
                hint=f"--columns arrival={self.name}:UTC, or :Europe/Berlin",
            )
        words = f"{self.name} has dates with their zone"
        if zoneless:
            words = f"{self.name} has dates without a zone, read as {self.zone.key if self.zone else 'UTC'}"
        return TimeMeaning(unit="", dated=True, words=words)

    def _epoch_unit(self, numbers: NDArray[np.float64]) -> str:
        """Return the unit in which most numbers are a time between 2001 and 2103; empty if in none."""
        for unit, (_, us) in UNITS.items():
            inside = (numbers * us >= EARLIEST_US) & (numbers * us <= LATEST_US)
            if inside.mean() >= PLAUSIBLE:
                return unit
        return ""

    def _question(self, numbers: NDArray[np.float64]) -> OperatorFault:
        low, high = float(numbers.min()), float(numbers.max())
        spans = ", ".join(
            f"{duration(round((high - low) * us))} in {name}" for name, us in list(UNITS.values())[:3]
        )
        return OperatorFault(
            ErrorCode.CONFIG_INVALID,
            f"{self.name} runs from {low:,.10g} to {high:,.10g}: in which unit? That would be {spans}",
            hint=f"--columns arrival={self.name}:s, or :ms, or :us",
        )


def duration_us(text: str, unit: str, *, decimal_comma: bool = False) -> int | None:
    """Return a length of time in microseconds, None if it is empty. Raises ValueError if it is none."""
    text = text.strip()
    if not text:
        return None
    value = float(text.replace(",", ".") if decimal_comma else text) * UNITS[unit][1]
    if not 0 <= value <= LONGEST_US:
        raise ValueError(text)
    return round(value)
