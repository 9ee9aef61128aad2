"""What is assumed about the world a trace is replayed in: rates, tiers, wake and park times, the span.

All durations are integer microseconds and all rates integer nano-dollars an hour, so that a cost is exact.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import median_low

from poorwill.core.words import Tier
from poorwill.policies import TierCosts
from poorwill.policies.pricing import Price


@dataclass(frozen=True, slots=True, kw_only=True)
class TierTimes:
    """One tier a replica may be parked in."""

    tier: Tier
    wake_us: tuple[int, ...]
    """The n-th wake from this tier takes the n-th value; after the last one it begins again."""
    park_us: int
    parked_nusd_h: int
    source: str = ""
    image_bytes: int = 0
    """Size of the snapshot, which is stored while the replica is parked here."""

    @property
    def median_wake_us(self) -> int:
        """Return the median wake, as production's policies use it."""
        return median_low(self.wake_us)


@dataclass(frozen=True, slots=True, kw_only=True)
class Billing:
    """How the provider charges for time, besides its rates."""

    increment_us: int = 1
    minimum_us: int = 0
    storage_nusd_gb_month: int = 0

    @property
    def rounds(self) -> bool:
        """Whether a stretch of paid time may cost more than it lasted."""
        return self.increment_us > 1 or self.minimum_us > 0


MOST_SLOWDOWN = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """How many requests a replica takes at once, and how many times as long each takes with so many."""

    requests: int = 0
    """0 is unlimited."""
    slowdown: float = 1.0


def limits_of(text: str) -> tuple[Limit, ...]:
    """Read limits such as 4,16:1.4. Raises ValueError."""
    limits = []
    for part in text.split(","):
        count, _, slowdown = part.partition(":")
        limits.append(Limit(requests=int(count), slowdown=float(slowdown or 1)))
    if any(limit.requests < 0 or not 0 < limit.slowdown < MOST_SLOWDOWN for limit in limits):
        raise ValueError(f"{text!r} is not N[:SLOWDOWN][,...], such as 4,16:1.4")
    return tuple(limits)


PLAIN_BILLING = Billing()
"""By the instant, without a minimum, storage free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Everything that prices a trace, except the policy."""

    span_us: int
    active_nusd_h: int
    tiers: tuple[TierTimes, ...]
    """Shallow to deep."""
    billing: Billing = PLAIN_BILLING
    replicas: int = 1
    max_concurrency: int = 0
    """Of each replica; 0 is unlimited."""
    wait_nusd_s: int = 0
    """What one held second of one request costs, in the objective."""
    origin_us: int = 0
    """The trace's origin since the Unix epoch, for whatever depends on the hour of the week."""
    start_tier: Tier | None = None
    """Parked in at the start; None: the deepest tier."""
    starts_ready: bool = False
    """For `continuous`: paid from the span's first instant."""

    @property
    def ladder(self) -> tuple[Tier, ...]:
        """The tiers from shallow to deep."""
        return tuple(times.tier for times in self.tiers)

    @property
    def price(self) -> Price:
        """Return what the provider charges."""
        return Price(
            active_nusd_h=self.active_nusd_h,
            parked_nusd_h={str(times.tier): times.parked_nusd_h for times in self.tiers},
            storage_nusd_gb_month=self.billing.storage_nusd_gb_month,
            increment_us=self.billing.increment_us,
            minimum_us=self.billing.minimum_us,
        )

    def costs(self) -> Mapping[Tier, TierCosts]:
        """Return what policies know of the tiers."""
        rates = self.rates()
        return {
            times.tier: TierCosts(
                wake_us=times.median_wake_us,
                park_us=times.park_us,
                active_nusd_h=self.active_nusd_h,
                parked_nusd_h=rates[times.tier],
                increment_us=self.billing.increment_us,
                minimum_us=self.billing.minimum_us,
            )
            for times in self.tiers
        }

    def with_tiers(self, tiers: tuple[TierTimes, ...]) -> "Scenario":
        """Return the same scenario with these tiers."""
        return replace(self, tiers=tiers)

    def rates(self) -> Mapping[Tier, int]:
        """Return what an hour in every tier costs, storage included."""
        price = self.price
        return {times.tier: price.resting_nusd_h(times.tier, times.image_bytes) for times in self.tiers}

    def times(self, tier: Tier) -> TierTimes:
        """Return one tier's times; StopIteration if the scenario lacks it: a programming error."""
        return next(times for times in self.tiers if times.tier is tier)

    def added_us(self, began_us: int, ended_us: int) -> int:
        """Return what the provider adds to a stretch of paid time."""
        return sum(self.price.added_us(ended_us - began_us)) if self.billing.rounds else 0
