"""Reads the values of options as people write them: `5m`, `$3.80`, `70B`, `2026-01-05`.

Each raises ValueError with a sentence.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import InvalidOperation
from types import MappingProxyType

from poorwill.config.values.addresses import parse_address
from poorwill.config.values.scalars import BadValue
from poorwill.core.format import duration_us
from poorwill.core.money import nusd
from poorwill.core.settings import Address
from poorwill.core.words import SECOND_US

MOST_US = 10**10 * SECOND_US
_SCALES: Mapping[str, float] = MappingProxyType({"K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12})


def address(text: str) -> Address:
    """Read `HOST:PORT`."""
    try:
        return parse_address(text)
    except BadValue as error:
        raise ValueError(str(error)) from error


def time_us(text: str) -> int:
    """Read a duration, in seconds unless it has a unit, as microseconds."""
    if not 0 <= (us := duration_us(text)) <= MOST_US:
        raise ValueError(f"{text!r} is not a sensible duration")
    return us


def some_time_us(text: str) -> int:
    """Read a duration of more than nothing."""
    if not (us := time_us(text)):
        raise ValueError(f"{text!r} is no time at all")
    return us


def dollars_nusd(text: str) -> int:
    """Read dollars, with or without the sign, as nano-dollars."""
    try:
        amount = nusd(text.strip().removeprefix("$").replace(",", ""))
    except (InvalidOperation, OverflowError, ValueError):
        raise ValueError(f"{text!r} is not an amount in dollars") from None
    if amount < 0:
        raise ValueError(f"{text!r} is negative")
    return amount


def number(text: str) -> float:
    """Read a number: `70e9`, `70B`, `1.5`."""
    plain = text.strip().replace(",", "")
    scale = _SCALES.get(plain[-1:].upper(), 1.0)
    try:
        value = float(plain[:-1] if scale != 1.0 else plain) * scale
    except ValueError:
        value = float("nan")
    if not abs(value) < 1e18:  # catches nan as well
        raise ValueError(f"{text!r} is not a sensible number, such as 70B or 70e9")
    return value


def more_than_zero(text: str) -> float:
    """Read a number of more than 0."""
    if not 0 < (value := number(text)) < 1e15:
        raise ValueError(f"{text!r} is not a positive number")
    return value


def natural(text: str) -> int:
    """Read a whole number of 0 or more."""
    value = number(text)
    if value != int(value) or not 0 <= value < 2**40:
        raise ValueError(f"{text!r} is not a whole number of 0 or more")
    return int(value)


def positive(text: str) -> int:
    """Read a whole number of 1 or more."""
    if not (value := natural(text)):
        raise ValueError(f"{text!r} is not a whole number of 1 or more")
    return value


def from_to(least: float, most: float) -> Callable[[str], float]:
    """Return a reader of numbers within bounds."""

    def read(text: str) -> float:
        if not least <= (value := number(text)) <= most:
            raise ValueError(f"{text!r} is out of range: from {least:g} to {most:,.10g}")
        return value

    return read


def whole_from_to(least: int, most: int) -> Callable[[str], int]:
    """Return a reader of whole numbers within bounds."""

    def read(text: str) -> int:
        if not least <= (value := natural(text)) <= most:
            raise ValueError(f"{text!r} is out of range: from {least} to {most:,}")
        return value

    return read


def date_us(text: str) -> int:
    """Read a date or an instant, in UTC unless it says otherwise, as microseconds since 1970."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a date, such as 2026-01-05") from None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
