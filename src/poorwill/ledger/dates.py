"""Days, weeks, months and other periods, between microseconds and the text that people write."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.core.format import DAY_US, duration_us
from poorwill.core.words import SECOND_US

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """A half-open stretch of time: from an instant until, and without, another."""

    from_us: int
    to_us: int
    zone: tzinfo = field(default=UTC, compare=False)
    """Whose days and months it is counted in, and whose time it is shown in."""

    def __str__(self) -> str:
        begin, end = (iso(at_us, self.zone) for at_us in (self.from_us, self.to_us))
        return f"{begin} until {end}" + ("" if self.zone is UTC else f", {self.zone}")

    @property
    def us(self) -> int:
        """Its length."""
        return self.to_us - self.from_us


def iso(at_us: int, zone: tzinfo = UTC) -> str:
    """Return an instant in ISO 8601, in a zone's time; without a time of day if it is midnight there."""
    at = _EPOCH + timedelta(microseconds=at_us)
    if zone is not UTC:
        at = at.astimezone(zone)
    if at.time() == time.min:
        return at.strftime("%Y-%m-%d")
    if zone is not UTC:
        return at.isoformat()
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


def month(text: str, zone: tzinfo = UTC) -> Period:
    """Return the month written as `2026-11`. Raises RequestFault."""
    if not re.fullmatch(r"\d{4}-\d\d", text):
        raise _no_period(text)
    return period(text, zone)


def month_of(at_us: int, zone: tzinfo = UTC) -> Period:
    """Return the month of a zone that an instant lies in."""
    return month(f"{(_EPOCH + timedelta(microseconds=at_us)).astimezone(zone):%Y-%m}", zone)


def day_of(at_us: int) -> Period:
    """Return the UTC day an instant lies in."""
    day = at_us // DAY_US
    return Period(from_us=day * DAY_US, to_us=(day + 1) * DAY_US)


def spelled_out(text: str, zone: tzinfo, *, now_us: int) -> str:
    """Return a period or time with `today`, `yesterday`, `this week`, `last month` ... as dates."""
    today = (_EPOCH + timedelta(microseconds=now_us)).astimezone(zone).date()
    week_ago, month_ago = today - timedelta(days=7), today.replace(day=1) - timedelta(days=1)
    words = {
        "today": f"{today}",
        "yesterday": f"{today - timedelta(days=1)}",
        "this week": f"{today:%G-W%V}",
        "last week": f"{week_ago:%G-W%V}",
        "this month": f"{today:%Y-%m}",
        "last month": f"{month_ago:%Y-%m}",
    }
    return "..".join(words.get(part.strip().lower().replace("-", " "), part) for part in text.split(".."))


def instant(text: str, zone: tzinfo = UTC) -> int:
    """Return an ISO 8601 date or time in microseconds; `zone` is for one without. Raises RequestFault."""
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
    return _us(at if at.tzinfo else at.replace(tzinfo=zone))


def deadline(text: str, now_us: int) -> int:
    """Return a time to come: a date or time, or how long from now: `90d`. Raises RequestFault."""
    try:
        ahead_us = duration_us(text) if text[-1:].isalpha() and text[:1].isdigit() else 0
    except ValueError:
        ahead_us = 0
    at_us = now_us + ahead_us if ahead_us > 0 else instant(text)
    if at_us <= now_us:
        raise RequestFault(ErrorCode.INVALID_REQUEST, f"{text} is over", hint="90d is 90 days from now")
    return at_us


def zone_of(name: str) -> tzinfo:
    """Return a time zone of the IANA database, such as `Europe/Berlin`. Raises RequestFault."""
    try:
        return UTC if name == "UTC" else ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        hint = "name it as the IANA database does: Europe/Berlin, America/New_York"
        raise RequestFault(ErrorCode.INVALID_REQUEST, f"there is no time zone {name!r}", hint=hint) from error


def period(text: str, zone: tzinfo = UTC) -> Period:
    """Return a period of local time: a month, week, quarter or day, or `FROM..TO`. Raises RequestFault."""
    if ".." in text:
        begin, _, end = text.partition("..")
        return between(instant(begin, zone), instant(end, zone), zone)
    try:
        if found := re.fullmatch(r"(\d{4})-W(\d\d)", text):
            first = date.fromisocalendar(int(found[1]), int(found[2]), 1)
            return _days(first, first + timedelta(days=7), zone)
        if found := re.fullmatch(r"(\d{4})-Q([1-4])", text):
            return _months(int(found[1]), 3 * int(found[2]) - 2, 3, zone)
        if found := re.fullmatch(r"(\d{4})-(\d\d)", text):
            return _months(int(found[1]), int(found[2]), 1, zone)
        first = date.fromisoformat(text)
        return _days(first, first + timedelta(days=1), zone)
    except (ValueError, OverflowError) as error:
        raise _no_period(text) from error


def names_period(text: str) -> bool:
    """Return whether a word is written as a period: `today`, `2026-11`."""
    try:
        return bool(period(spelled_out(text, UTC, now_us=0)))
    except RequestFault:
        return False


def local_days(whole: Period) -> Iterator[tuple[int, Period]]:
    """Yield each day of a period in its zone, counted from 1970-01-01, with its part of the period."""
    at_us, zone = whole.from_us, whole.zone
    while at_us < whole.to_us:
        day = (_EPOCH + timedelta(microseconds=at_us)).astimezone(zone).date()
        until_us = min(_days(day, day + timedelta(days=1), zone).to_us, whole.to_us)
        yield (day - _EPOCH.date()).days, replace(whole, from_us=at_us, to_us=until_us)
        at_us = until_us


def _months(year: int, first: int, count: int, zone: tzinfo) -> Period:
    after = first + count
    return _days(date(year, first, 1), date(year + after // 13, (after - 1) % 12 + 1, 1), zone)


def _days(first: date, after: date, zone: tzinfo) -> Period:
    if not 1970 <= first.year < 9999:
        raise ValueError("no year of this ledger")
    begin, end = (_us(datetime.combine(day, time.min, zone)) for day in (first, after))
    return Period(from_us=max(begin, 0), to_us=end, zone=zone)


def _no_period(text: str) -> RequestFault:
    return RequestFault(
        ErrorCode.INVALID_REQUEST,
        f"{text!r} is not a period",
        hint="write it as 2026-11, 2026-W48, 2026-Q4, 2026-11-24 or FROM..TO",
    )


def between(from_us: int, to_us: int, zone: tzinfo = UTC) -> Period:
    """Return the period between two instants. Raises RequestFault if it is empty."""
    if from_us >= to_us:
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            f"the period ends ({iso(to_us, zone)}) before it begins ({iso(from_us, zone)})",
        )
    return Period(from_us=from_us, to_us=to_us, zone=zone)


def _us(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)
