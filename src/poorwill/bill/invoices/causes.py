"""Why an invoice and the ledger differ: hypotheses that are tested, never assumed.

A cause is named only if it explains the whole residual to the invoice's last decimal place, if nothing else
does, and if a fit by accident is less likely than `BY_ACCIDENT`. All else is `unexplained`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from itertools import chain
from math import prod

from poorwill.bill.invoices.reading import Charge
from poorwill.core.format import duration, exact_money
from poorwill.core.money import rounded
from poorwill.core.words import HOUR_US, SECOND_US

BY_ACCIDENT = 1e-4


class Reason(StrEnum):
    """Why an invoice and the ledger differ."""

    ROUNDING = "rounding of the invoice's amounts"
    INCREMENT = "billing increment"
    MINIMUM = "minimum charge"
    UNOBSERVED = "unobserved time, not invoiced"
    PRICE = "price difference"
    TIME = "time difference"
    ORPHAN = "orphan: invoiced, not in the ledger"
    NOT_INVOICED = "in the ledger, not invoiced"
    OTHER = "a line of no replica"
    UNEXPLAINED = "unexplained"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of a residual with its likely cause."""

    reason: Reason
    nusd: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class PricedStretch:
    """A stretch that the provider meters: how long it ran, how much of it is billed, the price of an hour."""

    ran_us: int
    billed_us: int
    nusd_h: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Booked:
    """What the ledger has for a replica in a period."""

    nusd: int = 0
    billed_us: int = 0
    """At the active price, with what increments and minimums add."""
    parked_us: int = 0
    unobserved_us: int = 0
    unobserved_nusd: int = 0
    prices_nusd_h: frozenset[int] = frozenset()
    """The active prices in force."""
    stretches: tuple[PricedStretch, ...] = ()
    """Those that ended in the period."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Charges whose periods overlap, with what the ledger has for all of their time."""

    charges: Sequence[Charge]
    booked: Booked

    @property
    def residual(self) -> int:
        """Invoice minus ledger."""
        return sum(charge.nusd for charge in self.charges) - self.booked.nusd

    @property
    def tolerance(self) -> int:
        """How far the charges may be off by rounding."""
        return sum(charge.half_unit_nusd for charge in self.charges)

    @property
    def is_open(self) -> bool:
        """Whether rounding does not explain the residual."""
        return abs(self.residual) > self.tolerance

    @property
    def us(self) -> int | None:
        """The time charged for, None if not every charge says it."""
        times = [charge.us for charge in self.charges]
        return None if None in times else sum(us or 0 for us in times)

    @property
    def fees(self) -> int:
        """What is charged for no time: a residual that is not above it may be a fee."""
        return sum(abs(charge.nusd) for charge in self.charges if charge.us == 0)

    @property
    def chance(self) -> float:
        """How likely a wrong hypothesis fits: the share of what is plausible that rounding blurs."""
        money = (2 * self.tolerance + 1) / max(abs(self.booked.nusd), abs(self.residual), 1)
        time = 1.0 if self.us is None else (2 * self.slack_us + 1) / max(self.us, self.booked.billed_us, 1)
        return min(money, 1.0) * min(time, 1.0)

    @property
    def slack_us(self) -> int:
        """How far the time charged for may be off by rounding."""
        return sum(charge.half_unit_us for charge in self.charges) + 1

    def charges_for(self, us: int) -> bool:
        """Return whether the time charged for may be this; true if it is not known."""
        return self.us is None or abs(self.us - us) <= self.slack_us


@dataclass(frozen=True, slots=True)
class _Hypothesis:
    """What would have been charged beyond the ledger: money and time."""

    reason: Reason
    detail: str
    adds: Callable[[Booked], tuple[int, int]]

    def fits(self, one: Compared) -> bool:
        nusd, us = self.adds(one.booked)
        return abs(one.residual - nusd) <= one.tolerance and one.charges_for(one.booked.billed_us + us)


def explain(by_replica: Mapping[str, Sequence[Compared]]) -> Iterator[tuple[str, Compared, list[Part]]]:
    """Yield what explains each residual; the parts sum to it.

    A habit of the provider, such as an increment, should explain the whole invoice; if none does, a replica's
    periods together; if none does, one period.
    """
    everywhere = _habit(list(chain.from_iterable(by_replica.values())))
    for replica, periods in by_replica.items():
        here = everywhere or _habit(periods)
        for one in periods:
            yield replica, one, list(_parts(one, here or _habit([one])))


def _parts(one: Compared, habit: _Hypothesis | None) -> Iterator[Part]:
    left = one.residual
    if one.is_open:
        part = _named(one, habit)
        left -= part.nusd
        yield part
    if left:
        yield Part(reason=Reason.ROUNDING, nusd=left)


def _named(one: Compared, habit: _Hypothesis | None) -> Part:
    if habit is not None and habit.fits(one):
        return Part(reason=habit.reason, nusd=habit.adds(one.booked)[0], detail=habit.detail)
    booked, us = one.booked, one.us
    fitting = [each for each in _hypotheses() if each.fits(one) and each.adds(booked)[0]]
    if us is not None and not fitting:
        times = (booked.billed_us, booked.billed_us + booked.parked_us)
        if us and one.fees < abs(one.residual) - one.tolerance and any(map(one.charges_for, times)):
            return Part(reason=Reason.PRICE, nusd=one.residual, detail=_prices(one, us))
        if len(booked.prices_nusd_h) == 1:
            (price,) = booked.prices_nusd_h
            more = rounded((us - booked.billed_us) * price)
            if abs(one.residual - more) <= one.tolerance + rounded(one.slack_us * price):
                detail = f"{duration(us)} invoiced, {duration(booked.billed_us)} in the ledger"
                return Part(reason=Reason.TIME, nusd=one.residual, detail=detail)
    would = " or ".join(f"{each.reason} {each.detail}".strip() for each in fitting)
    return Part(reason=Reason.UNEXPLAINED, nusd=one.residual, detail=f"would fit: {would}" if would else "")


def _prices(one: Compared, us: int) -> str:
    invoiced = sum(charge.nusd for charge in one.charges)
    theirs, ours = (rounded(nusd * HOUR_US, us) for nusd in (invoiced, one.booked.nusd)) if us else (0, 0)
    return f"{exact_money(theirs)} an hour invoiced, {exact_money(ours)} in the ledger"


def _habit(all_of_them: Sequence[Compared]) -> _Hypothesis | None:
    """Return the one habit of the provider that fits everything, if that is no accident."""
    found = [each for each in _hypotheses() if all(each.fits(one) for one in all_of_them)]
    telling = [each for each in found if any(each.adds(one.booked)[0] for one in all_of_them)]
    if len(telling) != 1:
        return None
    [habit] = telling
    chance = prod(one.chance for one in all_of_them if habit.adds(one.booked)[0])
    return habit if chance * len(_hypotheses()) < BY_ACCIDENT else None


_STEPS_S = (1, 10, 60, 300, 600, 900, 3_600)


def _hypotheses() -> list[_Hypothesis]:
    """Return what a provider may do that the ledger's rates do not say."""
    found = [_Hypothesis(Reason.UNOBSERVED, "", lambda b: (-b.unobserved_nusd, -b.unobserved_us))]
    for seconds in _STEPS_S:
        detail = f"of {duration(seconds * SECOND_US)}"
        found.append(_Hypothesis(Reason.INCREMENT, detail, partial(_added, seconds * SECOND_US, 0)))
        found.append(_Hypothesis(Reason.MINIMUM, detail, partial(_added, 0, seconds * SECOND_US)))
    return found


def _added(increment_us: int, minimum_us: int, booked: Booked) -> tuple[int, int]:
    """Return what an increment from the ground up, or a minimum beyond what is billed, adds to a ledger."""
    more = [
        (-(-each.ran_us // increment_us) * increment_us - each.billed_us, each.nusd_h)
        if increment_us
        else (max(minimum_us - each.billed_us, 0), each.nusd_h)
        for each in booked.stretches
    ]
    return rounded(sum(us * price for us, price in more)), sum(us for us, _ in more)
