"""What a provider charges for a replica's time. Pure arithmetic: the ledger bills by it, the planner and the
parking policies use it.

A charge belongs to one UTC day, cause and tier. It is an exact fraction of nano-dollars and is rounded once;
everything that is printed is a sum of rounded charges.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from poorwill.core.format import DAY_US
from poorwill.core.money import cost_numerator, rounded
from poorwill.core.settings import RateSettings
from poorwill.core.words import HOUR_US, PARKED_CAUSES, Tier, parked

GB_BYTES = 1_000_000_000
MONTH_H = 730
"""Hours in a month of storage: 8,760 / 12, so that a GB-month costs the same in every month."""

ROUNDING = "rounding"
MINIMUM = "minimum"
STORAGE = "storage"

Durations = Mapping[tuple[int, str, str, int], int]
"""(day, cause, tier, image bytes) to microseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a provider charges."""

    active_nusd_h: int
    parked_nusd_h: Mapping[str, int] = field(default_factory=dict)
    """By tier."""
    storage_nusd_gb_month: int = 0
    increment_us: int = 1
    minimum_us: int = 0

    def nusd_h(self, cause: str, tier: str | None) -> int:
        """Return the price of an hour with this cause.

        A tier without a parked rate costs nothing, but `asleep` costs the active rate: its host runs on.
        """
        if cause not in PARKED_CAUSES:
            return self.active_nusd_h
        unset = self.active_nusd_h if tier == Tier.ASLEEP else 0
        return self.parked_nusd_h.get(tier or "", unset)

    def added_us(self, ran_us: int) -> tuple[int, int]:
        """Return what the provider adds to a stretch: (by its minimum, by rounding up).

        billed = the least multiple of the increment that is not below max(duration, minimum)
        """
        charged_us = max(ran_us, self.minimum_us)
        billed_us = -(-charged_us // self.increment_us) * self.increment_us
        return charged_us - ran_us, billed_us - charged_us

    def resting_nusd_h(self, tier: Tier, image_bytes: int = 0) -> int:
        """Return what an hour in a tier costs with the storage of its image, to the nearest nano-dollar."""
        stored = rounded(image_bytes * self.storage_nusd_gb_month, GB_BYTES * MONTH_H)
        return self.nusd_h(parked(tier), tier) + stored


def price_of(rate: RateSettings) -> Price:
    """Return what a configured rate charges."""
    return Price(
        active_nusd_h=rate.active_nusd_h,
        parked_nusd_h={str(tier): nusd for tier, nusd in rate.parked_nusd_h.items()},
        storage_nusd_gb_month=rate.storage_nusd_gb_month,
        increment_us=rate.increment_us,
        minimum_us=rate.minimum_us,
    )


@dataclass(frozen=True, slots=True)
class MeteredStretch:
    """Time in which a host was paid without a break, once it is over."""

    began_us: int
    ended_us: int
    last_cause: str
    last_tier: str | None


@dataclass(frozen=True, slots=True)
class TimeCharge:
    """A part of a bill; the price is `numerator / denominator` nano-dollars."""

    day: int
    cause: str
    tier: str
    us: int
    numerator: int
    denominator: int = HOUR_US


def time_charges(price: Price | None, durations: Durations) -> Iterator[TimeCharge]:
    """Yield the charges for time by day and cause, and for the images stored meanwhile.

    Without a price time costs nothing.
    """
    for (day, cause, tier, image_bytes), us in durations.items():
        rate = 0 if price is None else price.nusd_h(cause, tier)
        yield TimeCharge(day, cause, tier, us, cost_numerator(us, rate))
        if price is not None and image_bytes and price.storage_nusd_gb_month and cause in PARKED_CAUSES:
            stored = us * image_bytes * price.storage_nusd_gb_month
            yield TimeCharge(day, STORAGE, tier, 0, stored, GB_BYTES * MONTH_H * HOUR_US)


def stretch_charges(price: Price | None, stretch: MeteredStretch) -> Iterator[TimeCharge]:
    """Yield what the provider adds to a stretch, on the day it ends and at the rate of its last cause."""
    if price is None:
        return
    rate = price.nusd_h(stretch.last_cause, stretch.last_tier)
    added = price.added_us(stretch.ended_us - stretch.began_us)
    for name, us in zip((MINIMUM, ROUNDING), added, strict=True):
        if us:
            yield TimeCharge((stretch.ended_us - 1) // DAY_US, name, "", 0, cost_numerator(us, rate))


def paid_until_us(began_us: int, at_us: int, increment_us: int, minimum_us: int) -> int:
    """Return until when a stretch that lasts at `at_us` is paid if it ends then."""
    charged_us = max(at_us - began_us, minimum_us, 1)
    return began_us + -(-charged_us // increment_us) * increment_us
