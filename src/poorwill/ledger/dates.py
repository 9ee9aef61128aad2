"""UTC days, months and periods, between microseconds and the text that people write."""

import calendar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.core.format import DAY_US
from poorwill.core.words import SECOND_US

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """A half-open stretch of time."""

    from_us: int
    to_us: int

    def __str__(self) -> str:
        return f"{iso(self.from_us)} to {iso(self.to_us)}"

    @property
    def us(self) -> int:
        """Its length."""
        return self.to_us - self.from_us


def iso(at_us: int) -> str:
    """Return an instant in ISO 8601, UTC; without a time of day where it is midnight."""
    at = _EPOCH + timedelta(microseconds=at_us)
    if at_us % DAY_US == 0:
        return at.strftime("%Y-%m-%d")
    text = at.strftime("%Y-%m-%dT%H:%M:%S")
    return text + (f".{at_us % SECOND_US:06d}" if at_us % SECOND_US else "") + "Z"


def timestamp(at_us: int) -> str:
    """Return an instant in ISO 8601, UTC, always with the time of day, in whole seconds."""
    return (_EPOCH + timedelta(microseconds=at_us)).strftime("%Y-%m-%dT%H:%M:%SZ")


def day_name(day: int) -> str:
    """Return a day, counted from the epoch, as `2026-11-24`."""
    return iso(day * DAY_US)


def month_name(day: int) -> str:
    """Return the month of a day as `2026-11`."""
    return day_name(day)[:7]


def month(text: str) -> Period:
    """Return the month written as `2026-11`. Raises RequestFault."""
    try:
        first = datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC)
    except ValueError as error:
        raise RequestFault(
            ErrorCode.INVALID_REQUEST, f"{text!r} is not a month", hint="write it as 2026-11"
        ) from error
    days = calendar.monthrange(first.year, first.month)[1]
    if not 1970 <= first.year < 9999:
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            f"{text!r} is no month of this ledger",
            hint="write it as 2026-11",
        )
    return Period(from_us=_us(first), to_us=_us(first + timedelta(days=days)))


def month_of(at_us: int) -> Period:
    """Return the month an instant lies in."""
    return month(month_name(at_us // DAY_US))


def day_of(at_us: int) -> Period:
    """Return the UTC day an instant lies in."""
    day = at_us // DAY_US
    return Period(from_us=day * DAY_US, to_us=(day + 1) * DAY_US)


def instant(text: str) -> int:
    """Return an ISO 8601 date or time in microseconds; without an offset it is UTC. Raises RequestFault."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            f"{text!r} is not a time",
            hint="write it as 2026-11-24 or 2026-11-24T10:30:00Z",
        ) from error
    if not 1970 <= at.year < 9999:
        raise RequestFault(ErrorCode.INVALID_REQUEST, f"{text!r} is no time of this ledger")
    return _us(at if at.tzinfo else at.replace(tzinfo=UTC))


def period(text: str) -> Period:
    """Return a period: a month `2026-11`, a day `2026-11-24`, or `FROM..TO`. Raises RequestFault."""
    if ".." in text:
        begin, _, end = text.partition("..")
        return between(instant(begin), instant(end))
    if len(text) == 7:
        return month(text)
    try:
        start_us = instant(text)
    except RequestFault as fault:
        raise RequestFault(
            fault.code,
            f"{text!r} is not a period",
            hint="write it as 2026-11, 2026-11-24 or FROM..TO",
        ) from fault
    if start_us % DAY_US:
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            f"{text!r} is an instant, not a period",
            hint="write 2026-11, 2026-11-24 or FROM..TO",
        )
    return day_of(start_us)


def between(from_us: int, to_us: int) -> Period:
    """Return the period between two instants. Raises RequestFault where it is empty."""
    if from_us >= to_us:
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            f"the period ends ({iso(to_us)}) before it begins ({iso(from_us)})",
        )
    return Period(from_us=from_us, to_us=to_us)


def _us(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)
