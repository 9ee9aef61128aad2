"""Money as integers: nano-dollars, and exact products of time and rate.

A product of microseconds and nano-dollars per hour is kept as an integer numerator over `HOUR_US`; it is
divided once, where a figure is printed or where the provider rounds. Sums of numerators are exact.
"""

from collections.abc import Sequence

from poorwill.core.words import HOUR_US

NUSD = 1_000_000_000
"""Nano-dollars in a dollar."""


def nusd(dollars: float | str) -> int:
    """Return dollars as nano-dollars, rounded to the nearest (half away from zero).

    Strings are read as decimals without passing through binary floating point.
    """
    from decimal import ROUND_HALF_UP, Decimal

    scaled = Decimal(str(dollars)) * NUSD
    return int(scaled.to_integral_value(rounding=ROUND_HALF_UP))


def cost_numerator(duration_us: int, rate_nusd_h: int) -> int:
    """Return the exact cost of a duration at an hourly rate, times `HOUR_US`."""
    return duration_us * rate_nusd_h


def rounded(numerator: int, denominator: int = HOUR_US) -> int:
    """Return numerator / denominator rounded half away from zero, in integers."""
    sign = -1 if numerator < 0 else 1
    return sign * ((2 * abs(numerator) + denominator) // (2 * denominator))


def apportion(numerators: Sequence[int], denominator: int = HOUR_US) -> list[int]:
    """Round each share so that the shares add up to the rounded total.

    Each share is floored; what is missing goes, one each, to the largest remainders (Hamilton's method),
    the earlier first among equals.
    """
    total = rounded(sum(numerators), denominator)
    shares = [n // denominator for n in numerators]
    missing = total - sum(shares)
    order = sorted(range(len(numerators)), key=lambda i: (-(numerators[i] % denominator), i))
    for i in order[:missing]:
        shares[i] += 1
    return shares
