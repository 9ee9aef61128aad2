"""Why one period cost more than another: the change taken apart into causes that sum to it exactly.

For each model, cause and tier the cost is a product: of wakes, seconds a wake and price; of requests, seconds
a request and price; of seconds and price. The factors are replaced one after the other, quantities first and
the price last (the method of chain substitution), so no part is counted twice and nothing is left over.
"""

import math
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType

from poorwill.core.format import exact_money, table
from poorwill.core.money import apportion
from poorwill.core.words import FAILED_WAKE, FLOOR, LINGER, PARKED_CAUSES, USEFUL_CAUSES
from poorwill.ledger.costs.items import Item, items, last_instant, one_currency
from poorwill.ledger.costs.pricing import BRIDGE
from poorwill.ledger.costs.usage import usage
from poorwill.ledger.dates import Period, timestamp
from poorwill.ledger.rates import lives
from poorwill.ledger.verifying import verify
from poorwill.policies.pricing import MINIMUM, ROUNDING, STORAGE

REQUESTS = "more or fewer requests"
PER_REQUEST = "seconds per request"
WAKES = "more or fewer wakes"
PER_WAKE = "seconds per wake"
FAILED = "failed wakes"
PARKED = "parked time"
RATES = "rates"
BILLING = "billing increments and minimums"

_NAMED: Mapping[str, str] = MappingProxyType(
    {
        LINGER: "linger",
        FLOOR: "floor",
        FAILED_WAKE: FAILED,
        ROUNDING: BILLING,
        MINIMUM: BILLING,
        STORAGE: "snapshot storage",
        BRIDGE: "hosted bridge",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """How much one driver changed the cost of one model."""

    driver: str
    model: str
    nusd: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two periods and why they differ; the effects sum to `this_nusd - last_nusd`."""

    this: Period
    last: Period
    known: Period
    """What the ledger knows of: outside of it a period is compared as if nothing had run."""
    currency: str
    this_nusd: int
    last_nusd: int
    effects: tuple[Effect, ...]

    def by_driver(self) -> dict[str, int]:
        """Return the effects of all models together, the largest first."""
        sums: dict[str, int] = defaultdict(int)
        for effect in self.effects:
            sums[effect.driver] += effect.nusd
        return dict(sorted(sums.items(), key=lambda one: (-abs(one[1]), one[0])))


@dataclass(frozen=True, slots=True)
class _Cost:
    us: int = 0
    nusd: int = 0


_Address = tuple[str, str, str]
"""(model, cause or group of causes, tier)."""


@dataclass(frozen=True, slots=True)
class _Side:
    """One period: what it cost and how often things happened."""

    costs: Mapping[_Address, _Cost]
    wakes: Mapping[tuple[str, str], int]
    requests: Mapping[str, int]


def compare(db: sqlite3.Connection, this: Period, last: Period) -> Comparison:
    """Take the change from `last` to `this` apart. Raises RequestFault for several currencies."""
    for period in (last, this):
        verify(db, period)
    old, new = items(db, last), items(db, this)
    currency = one_currency([*old, *new])
    before, after = _side(db, last, old), _side(db, this, new)
    parts: dict[tuple[str, str], Fraction] = defaultdict(Fraction)
    for address in sorted({*before.costs, *after.costs}):
        for driver, change in _changes(address, before, after):
            parts[driver, address[0]] += change
    addresses = sorted(parts)
    denominator = math.lcm(*(parts[address].denominator for address in addresses)) if parts else 1
    numerators = [int(parts[address] * denominator) for address in addresses]
    return Comparison(
        this=this,
        last=last,
        known=_known(db),
        currency=currency,
        this_nusd=sum(cost.nusd for cost in after.costs.values()),
        last_nusd=sum(cost.nusd for cost in before.costs.values()),
        effects=tuple(
            Effect(driver=driver, model=model, nusd=nusd)
            for (driver, model), nusd in zip(addresses, apportion(numerators, denominator), strict=True)
            if nusd
        ),
    )


def as_text(comparison: Comparison) -> list[str]:
    """Return a comparison for people."""
    currency = comparison.currency
    rows = [(f"{comparison.last}", "", exact_money(comparison.last_nusd, currency))]
    models = {effect.model for effect in comparison.effects}
    for driver, nusd in comparison.by_driver().items():
        rows.append((f"  {driver}", "", _signed(nusd, currency)))
        if len(models) > 1:
            rows += [
                (f"    {effect.model}", _signed(effect.nusd, currency), "")
                for effect in comparison.effects
                if effect.driver == driver
            ]
    rows.append((f"{comparison.this}", "", exact_money(comparison.this_nusd, currency)))
    change = comparison.this_nusd - comparison.last_nusd
    share = f"{change / comparison.last_nusd:+.1%}" if comparison.last_nusd else ""
    rows.append(("change", share, _signed(change, currency)))
    notes = [_part(period, comparison.known) for period in (comparison.last, comparison.this)]
    return [*table(rows, "<>"), *(note for note in notes if note)]


def _part(period: Period, known: Period) -> str:
    """Say which part of a period the ledger does not know, or nothing."""
    if known.to_us <= period.from_us or period.to_us <= known.from_us:
        return f"of {period} the ledger knows nothing"
    parts = []
    if period.from_us < known.from_us:
        parts.append(f"from {timestamp(known.from_us)}")
    if known.to_us < period.to_us:
        parts.append(f"up to {timestamp(known.to_us)}")
    return f"{period} is known {' '.join(parts)} only" if parts else ""


def _known(db: sqlite3.Connection) -> Period:
    last_us = last_instant(db)
    first_us = min((life.created_us for life in lives(db)), default=last_us)
    return Period(from_us=first_us, to_us=last_us)


def _signed(nusd: int, currency: str) -> str:
    return ("+" if nusd > 0 else "") + exact_money(nusd, currency)


def _side(db: sqlite3.Connection, period: Period, found: Iterable[Item]) -> _Side:
    costs: dict[_Address, _Cost] = defaultdict(_Cost)
    for item in found:
        address = (item.model, _group(item.cause), item.tier)
        known = costs[address]
        costs[address] = _Cost(known.us + item.us, known.nusd + item.nusd)
    wakes = {
        (model, tier): count for model, tier, count in db.execute(_WAKES, (period.from_us, period.to_us))
    }
    requests: dict[str, int] = defaultdict(int)
    for use in usage(db, period):
        requests[use.model] += use.requests
    return _Side(dict(costs), wakes, requests)


def _group(cause: str) -> str:
    """Causes that have one driver are compared together: phases of a wake, use, parked tiers."""
    if cause.startswith("wake."):
        return "wake"
    return "useful" if cause in USEFUL_CAUSES else cause


def _changes(address: _Address, before: _Side, after: _Side) -> Iterable[tuple[str, Fraction]]:
    """Yield (driver, nano-dollars) for one address; they sum to its change."""
    model, cause, tier = address
    old, new = before.costs.get(address, _Cost()), after.costs.get(address, _Cost())
    if not old.us or not new.us:
        # It only existed on one side: there is no price, and nothing per event, to compare with.
        yield _only_driver(cause), Fraction(new.nusd - old.nusd)
        return
    price = Fraction(old.nusd, old.us)
    yield RATES, new.nusd - new.us * price
    if cause == "wake":
        counts = before.wakes.get((model, tier), 0), after.wakes.get((model, tier), 0)
        yield from _per_event(WAKES, PER_WAKE, counts, old.us, new.us, price)
    elif cause == "useful":
        counts = before.requests.get(model, 0), after.requests.get(model, 0)
        yield from _per_event(REQUESTS, PER_REQUEST, counts, old.us, new.us, price)
    else:
        yield _only_driver(cause), (new.us - old.us) * price


def _per_event(
    number: str, each: str, counts: tuple[int, int], old_us: int, new_us: int, price: Fraction
) -> Iterable[tuple[str, Fraction]]:
    """(n1 - n0) s0 p0 for the number of events, n1 (s1 - s0) p0 for the seconds each takes."""
    old_count, new_count = counts
    expected_us = Fraction(old_us * new_count, old_count) if old_count else Fraction(old_us)
    yield number, (expected_us - old_us) * price
    yield each, (new_us - expected_us) * price


def _only_driver(cause: str) -> str:
    if cause == "wake":
        return WAKES
    if cause == "useful":
        return REQUESTS
    return PARKED if cause in PARKED_CAUSES else _NAMED.get(cause, cause)


_WAKES = """
SELECT l.model, w.from_tier, count(*) FROM wakes w JOIN lives l ON l.id = w.life
WHERE w.ok AND w.ended_us >= ? AND w.ended_us < ? GROUP BY 1, 2
"""
