"""What people read: durations, sizes, counts, shares, money, times and tables, each spelled one way.

Three digits, no zeros that say nothing, always a unit, rounded to the nearest in integers. Machines get
integers or exact decimals instead (`--json`, CSV, FOCUS); so does a sum that must add up on the page
(`exact_money`).
"""

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

from poorwill.core.words import HOUR_US, SECOND_US

MINUTE_US = 60 * SECOND_US
DAY_US = 24 * HOUR_US

_SIGNS: Mapping[str, str] = MappingProxyType({"USD": "$", "EUR": "€", "GBP": "£"})
_SIZES = (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3))
_NUSD = 10**9
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNIT_US: Mapping[str, int] = MappingProxyType(
    {"us": 1, "ms": 1000, "s": SECOND_US, "m": MINUTE_US, "min": MINUTE_US, "h": HOUR_US, "d": DAY_US}
)
_PART = r"(\d+\.?\d*|\.\d+)\s*(us|ms|s|min|m|h|d)\s*"


def duration(us: int | None) -> str:
    """Return a length of time: `412 us`, `24.1 ms`, `0.43 s`, `12.3 s`, `5m 12s`, `2h 05m`, `3d 04h`.

    `-` for None. Milliseconds end at 0.1 s, hours at two days. From a minute on there are two units; the
    second is left out when it is zero (`5m`). A longer duration never reads as a shorter one, and
    `duration_us` reads it back.
    """
    if us is None:
        return "-"
    if us < 0:
        return f"-{duration(-us)}"
    if 0 < us < 1000:
        return f"{us} us"
    if 0 < us < 99_950:
        return f"{_figure(us, 1000)} ms"
    if us < 59_950_000:
        return f"{_figure(us, SECOND_US)} s"
    if (seconds := _nearest(us, SECOND_US)) < 3600:
        return _two_units(seconds, 60, "m", "s")
    if (minutes := _nearest(us, MINUTE_US)) < 48 * 60:
        return _two_units(minutes, 60, "h", "m")
    return _two_units(_nearest(us, HOUR_US), 24, "d", "h")


def duration_us(text: str) -> int:
    """Return the microseconds of a duration: `5m`, `1h 30m`, `0.43 s`, `2d`; a number alone is seconds.

    Raises ValueError if it is none.
    """
    written = text.strip().lower().replace(",", "")
    sign, written = (-1, written[1:]) if written.startswith("-") else (1, written)
    if re.fullmatch(r"\d+\.?\d*|\.\d+", written):
        written += "s"
    if not re.fullmatch(f"({_PART})+", written):
        raise ValueError(f"{text!r} is not a duration")
    from decimal import Decimal

    parts = (Decimal(number) * _UNIT_US[unit] for number, unit in re.findall(_PART, written))
    return sign * int(sum(parts, Decimal(0)).to_integral_value())


def size(count: float) -> str:
    """Return a count of bytes in decimal units: `812 B`, `1.9 GB`."""
    for unit, factor in _SIZES:
        if count >= 0.9995 * factor:
            return f"{_figure(round(count), factor)} {unit}"
    return f"{count:.0f} B"


def byte_rate(count: int | None, us: int) -> str:
    """Return bytes read in a time as a rate, `1.9 GB/s`; empty if unknown."""
    return f"{size(count / us * SECOND_US)}/s" if count is not None and us > 0 else ""


def counted(count: int, what: str) -> str:
    """Return how many there are of something with a regular plural: `1 wake`, `2 wakes`, `1,204 wakes`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def meant(word: str, words: Iterable[str]) -> str:
    """Return a question for the nearest of `words`, nothing if none is near."""
    near = difflib.get_close_matches(word, list(words), n=1, cutoff=0.75)
    return f"; did you mean {near[0]!r}?" if near else ""


def percent(share: float | None) -> str:
    """Return a share as `43.1%`; `-` for None. Only all reads as all, and only nothing as nothing."""
    if share is None:
        return "-"
    if 0.9995 <= share < 1:
        return ">99.9%"
    return "<0.1%" if 0 < share < 0.0005 else f"{share:,.1%}"


def money(nusd: int | None, currency: str = "USD") -> str:
    """Return an amount with the digits that matter: `$1,204.50`, `$0.431`, `$0.00031`; `-` for None."""
    if nusd is None:
        return "-"
    sign, amount = "-" if nusd < 0 else "", abs(nusd)
    if amount >= _NUSD or not amount:
        cents = _nearest(amount, _NUSD // 100)
        return f"{sign}{symbol(currency)}{cents // 100:,}.{cents % 100:02d}"
    whole, _, decimals = _figure(amount, _NUSD).partition(".")
    return f"{sign}{symbol(currency)}{whole}.{decimals:0<2}"


def exact_money(nusd: int, currency: str = "USD") -> str:
    """Return an amount with all nine decimals, for a bill: lines add up to the total as printed."""
    sign = "-" if nusd < 0 else ""
    return f"{sign}{symbol(currency)}{abs(nusd) // _NUSD:,}.{abs(nusd) % _NUSD:09d}"


def decimal(nusd: int) -> str:
    """Return an amount as a plain decimal number, exact, for machines."""
    return f"{'-' if nusd < 0 else ''}{abs(nusd) // _NUSD}.{abs(nusd) % _NUSD:09d}"


def csv_cell(text: str) -> str:
    """Return a name for a CSV file that a spreadsheet takes for text, whatever it begins with.

    OWASP, CSV injection: a cell that begins so is run as a formula; an apostrophe before it makes it text.
    """
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text


def symbol(currency: str) -> str:
    """Return what stands before an amount: `$`, or a code and a space."""
    return _SIGNS.get(currency, f"{currency} ")


def moment(at_us: int) -> str:
    """Return an instant: `2026-11-30 02:07:32 UTC`."""
    return f"{_EPOCH + timedelta(microseconds=at_us):%Y-%m-%d %H:%M:%S} UTC"


def table(rows: Iterable[Sequence[str]], align: str = "<", *, indent: str = "") -> list[str]:
    """Return rows as lines of aligned columns.

    `align` has a `<` (left) or `>` (right) for each column; its last one goes for all further columns.
    """
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = align + align[-1] * len(widths)
    return [
        indent + "  ".join(map("{:{}{}}".format, row, sides, widths)).rstrip() if any(row) else ""
        for row in rows
    ]


def printable(text: str, *, keep: str = "\n\t") -> str:
    """Return text that cannot steer a terminal: each character that is not printable becomes `\\u001b`.

    Text of engines, clients and files may hold escape sequences, and marks that turn the direction of writing
    (CVE-2021-42574). The notation is that of JSON, which reads the same afterwards.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else json.dumps(c)[1:-1] for c in text)


def _nearest(number: int, unit: int) -> int:
    return (2 * number + unit) // (2 * unit)


def _two_units(count: int, factor: int, large: str, small: str) -> str:
    whole, rest = divmod(count, factor)
    return f"{whole:,}{large} {rest:02d}{small}" if rest else f"{whole:,}{large}"


def _figure(number: int, unit: int) -> str:
    """Return number / unit with three digits that matter, or all of its whole part; at most nine decimals."""
    places = next((places for places in range(9) if number * 10**places >= 100 * unit), 9)
    scaled = _nearest(number * 10**places, unit)
    whole, rest = divmod(scaled, 10**places)
    decimals = f"{rest:0{places}d}".rstrip("0") if places else ""
    return f"{whole:,}.{decimals}" if decimals else f"{whole:,}"
