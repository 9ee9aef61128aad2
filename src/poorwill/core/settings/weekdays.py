"""Days of the week and times of day as people write them: `mon-fri`, `sat, sun`, `08:30`."""

import re

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES = 24 * 60

_TIME = re.compile(r"([01]?\d|2[0-4]):([0-5]\d)")


def weekdays_in(text: str) -> frozenset[int]:
    """Return the days that a name or a range such as `fri-mon` means; 0 is Monday.

    Raises KeyError with the part that names no day.
    """
    ends = [end.strip().lower()[:3] for end in text.split("-")]
    unknown = next((end for end in ends if end not in WEEKDAYS), None)
    if unknown is not None or len(ends) > 2:
        raise KeyError(unknown or text)
    first, last = WEEKDAYS.index(ends[0]), WEEKDAYS.index(ends[-1])
    return frozenset((first + step) % 7 for step in range((last - first) % 7 + 1))


def minute_of_day(text: str) -> int:
    """Return the minutes from midnight to a time of day, at most 24:00. Raises ValueError for other text."""
    match = _TIME.fullmatch(text)
    minutes = int(match[1]) * 60 + int(match[2]) if match else DAY_MINUTES + 1
    if minutes > DAY_MINUTES:
        raise ValueError(f"{text!r} is not a time of day")
    return minutes
