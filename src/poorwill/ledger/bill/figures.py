"""Figures as people read them: always with a unit, money to the nano-dollar where it must add up."""

from collections.abc import Mapping, Sequence

from poorwill.core.words import HOUR_US, SECOND_US

_SIGNS: Mapping[str, str] = {"USD": "$", "EUR": "€", "GBP": "£"}


def exact(nusd: int, currency: str = "USD") -> str:
    """Return an amount with all its nine places."""
    sign = "-" if nusd < 0 else ""
    whole, rest = divmod(abs(nusd), 1_000_000_000)
    return f"{sign}{symbol(currency)}{whole:,}.{rest:09d}"


def short(nusd: int | None, currency: str = "USD") -> str:
    """Return an amount for reading: cents, or as many places as show three digits that matter."""
    if nusd is None:
        return "-"
    sign, amount = "-" if nusd < 0 else "", abs(nusd) / 1e9
    if amount == 0 or amount >= 1:
        return f"{sign}{symbol(currency)}{amount:,.2f}"
    places = 2
    while places < 9 and amount < 10 ** (2 - places):
        places += 1
    return f"{sign}{symbol(currency)}{amount:.{places}f}"


def symbol(currency: str) -> str:
    """Return what stands before an amount."""
    return _SIGNS.get(currency, f"{currency} ")


def decimal(nusd: int) -> str:
    """Return an amount as a plain decimal number, exact, for machines."""
    sign = "-" if nusd < 0 else ""
    whole, rest = divmod(abs(nusd), 1_000_000_000)
    return f"{sign}{whole}.{rest:09d}"


def duration(us: int) -> str:
    """Return a length of time: `950 ms`, `12.345 s`, `5 min 12 s`, `31 h 02 min`."""
    sign, us = "-" if us < 0 else "", abs(us)
    if us < SECOND_US:
        return f"{sign}{us / 1000:.3g} ms" if us else "0 s"
    if us < 60 * SECOND_US:
        return f"{sign}{us / SECOND_US:.3f} s"
    if us < HOUR_US:
        minutes, rest = divmod(us // SECOND_US, 60)
        return f"{sign}{minutes} min {rest:02d} s"
    hours, rest = divmod(us // (60 * SECOND_US), 60)
    return f"{sign}{hours:,} h {rest:02d} min"


def columns(rows: Sequence[Sequence[str]], *, right: Sequence[int], indent: str = "") -> list[str]:
    """Return rows as aligned lines; the columns in `right` are set flush right."""
    if not rows:
        return []
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        indent
        + "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
