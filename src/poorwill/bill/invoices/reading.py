"""A provider's invoice read from a table: FOCUS, or a simple one with resource, from, to and amount."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from types import MappingProxyType

from poorwill.core.errors import PoorwillError
from poorwill.core.format import DAY_US
from poorwill.core.money import NUSD
from poorwill.core.problems import ConfigFault, Problem
from poorwill.core.words import HOUR_US, SECOND_US
from poorwill.hosts.files.records import read_rows
from poorwill.ledger.dates import instant


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """One row of an invoice."""

    resource: str
    from_us: int
    to_us: int
    nusd: int
    half_unit_nusd: int
    """Half of the last decimal place given: how far the amount may be off by rounding."""
    us: int | None
    """The time charged for, if the invoice says it in a unit of time."""
    currency: str
    half_unit_us: int = 0
    """Half of the last decimal place of that time."""
    name: str = ""
    """What a line of no resource is: a tax, a credit, support, a hosted API."""


_COLUMNS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "resource": ("resourceid", "resource", "replica"),
        "from": ("chargeperiodstart", "from", "start", "day", "date"),
        "to": ("chargeperiodend", "to", "end"),
        "amount": ("billedcost", "amount", "cost", "total"),
        "currency": ("billingcurrency", "currency"),
        "quantity": ("consumedquantity", "pricingquantity", "quantity"),
        "unit": ("consumedunit", "pricingunit", "unit"),
        "name": ("chargedescription", "description", "chargecategory", "servicename", "category"),
    }
)
"""What a column may be called, FOCUS names first; without regard to case."""

_UNITS: Mapping[str, int] = MappingProxyType(
    {
        "seconds": SECOND_US,
        "second": SECOND_US,
        "s": SECOND_US,
        "minutes": 60 * SECOND_US,
        "minute": 60 * SECOND_US,
        "hours": HOUR_US,
        "hour": HOUR_US,
        "h": HOUR_US,
    }
)


def read_invoice(text: str, *, source: str) -> list[Charge]:
    """Read an invoice. Raises ConfigFault with every row that cannot be read, by line."""
    try:
        table = read_rows(io.StringIO(text, newline=""))
        rows = list(table.rows)
    except OSError as error:
        raise ConfigFault([Problem(where="file", what=f"{error.strerror}")], source=source) from error
    heads = {head.lower(): head for head in table.columns}
    named = {
        what: next((heads[name] for name in names if name in heads), "") for what, names in _COLUMNS.items()
    }
    problems = [
        Problem(
            where=f"column {what}",
            what="is missing",
            hint=f"one of {', '.join(_COLUMNS[what])}",
            line=1,
        )
        for what in ("resource", "from", "amount")
        if not named[what]
    ]
    if problems:
        raise ConfigFault(problems, source=source)
    charges: list[Charge] = []
    for line, row in rows:
        try:
            if isinstance(row, str):
                raise ValueError(row)
            fields = {what: row.get(name, "").strip() for what, name in named.items()}
            charges.append(_charge(fields, decimal_comma=table.separator == ";"))
        except (ValueError, ArithmeticError, PoorwillError) as error:
            problems.append(Problem(where="row", what=str(error), line=line))
    currencies = sorted({charge.currency for charge in charges})
    if len(currencies) > 1:
        problems.append(
            Problem(
                where="column currency",
                what=f"several currencies: {', '.join(currencies)}",
                hint="reconcile one at a time",
            )
        )
    if not charges and not problems:
        problems.append(Problem(where="file", what="has no rows"))
    if problems:
        raise ConfigFault(problems, source=source)
    return charges


def _charge(row: Mapping[str, str], *, decimal_comma: bool) -> Charge:
    amount = _decimal(row["amount"], "amount", decimal_comma=decimal_comma)
    from_us = instant(row["from"])
    to_us = instant(row["to"]) if row["to"] else from_us + DAY_US
    if to_us <= from_us:
        raise ValueError(f"its period ends ({row['to']}) before it begins ({row['from']})")
    us, half_unit_us = _time(row, decimal_comma=decimal_comma)
    return Charge(
        resource=row["resource"],
        from_us=from_us,
        to_us=to_us,
        nusd=_whole(amount * NUSD),
        # An amount without decimals is still one in cents: 12 means 12.00.
        half_unit_nusd=_whole(Decimal(NUSD) / 2 / Decimal(10) ** max(_places(amount), 2)),
        us=us,
        half_unit_us=half_unit_us,
        currency=row["currency"] or "USD",
        name=row["name"] or "no resource named",
    )


def _time(row: Mapping[str, str], *, decimal_comma: bool) -> tuple[int | None, int]:
    """Return the time charged for, None if it is not said, and half of its last decimal place."""
    unit = _UNITS.get(row["unit"].lower())
    if unit is None or not row["quantity"]:
        return None, 0
    quantity = _decimal(row["quantity"], "quantity", decimal_comma=decimal_comma)
    return _whole(quantity * unit), _whole(Decimal(unit) / 2 / Decimal(10) ** _places(quantity))


def _places(number: Decimal) -> int:
    exponent = number.as_tuple().exponent
    return max(-exponent, 0) if isinstance(exponent, int) else 0


MOST_DIGITS = 12
"""More before the decimal point is no amount and no quantity of any invoice."""
MOST_PLACES = 30


def _decimal(text: str, what: str, *, decimal_comma: bool) -> Decimal:
    if decimal_comma and "," in text:
        text = text.replace(".", "").replace(",", ".")
    try:
        number = Decimal(text.replace(",", "").strip("$€£ "))
    except InvalidOperation as error:
        raise ValueError(f"{what} {text!r} is no number") from error
    # Compared by its digits' places: abs(1e999999999) overflows the context of decimal.
    if not number.is_finite() or _places(number) > MOST_PLACES or number.adjusted() >= MOST_DIGITS:
        raise ValueError(f"{what} {text!r} is no number")
    return number


def _whole(number: Decimal) -> int:
    return int(number.to_integral_value(rounding=ROUND_HALF_UP))
