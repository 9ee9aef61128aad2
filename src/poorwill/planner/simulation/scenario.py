"""What is assumed about the world a trace is replayed in: rates, tiers, wake and park times, the span.

All durations are integer microseconds and all rates integer nano-dollars an hour, so that a cost is exact.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import median_low

from poorwill.core.words import SECOND_US, Tier
from poorwill.policies import TierCosts


@dataclass(frozen=True, slots=True, kw_only=True)
class TierTimes:
    """One tier a replica may be parked in."""

    tier: Tier
    wake_us: tuple[int, ...]
    """The n-th wake from this tier takes the n-th value; after the last one it begins again."""
    park_us: int
    parked_nusd_h: int
    source: str = ""

    @property
    def median_wake_us(self) -> int:
        """Return the median wake: what policies reckon with, in `serve` as well."""
        return median_low(self.wake_us)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Everything that prices a trace, save the policy."""

    span_us: int
    active_nusd_h: int
    tiers: tuple[TierTimes, ...]
    """Shallow to deep."""
    max_concurrency: int = 0
    """0 is unlimited."""
    wait_nusd_s: int = 0
    """What one held second of one request costs, in the objective."""
    origin_us: int = 0
    """The trace's origin since the Unix epoch, for what depends on the hour of the week."""
    start_tier: Tier | None = None
    """Parked in at the start; the deepest tier where None."""
    starts_ready: bool = False
    """For `continuous`: paid from the span's first instant."""

    @property
    def ladder(self) -> tuple[Tier, ...]:
        """The tiers from shallow to deep."""
        return tuple(times.tier for times in self.tiers)

    def costs(self) -> Mapping[Tier, TierCosts]:
        """Return what policies are told of the tiers."""
        return {
            times.tier: TierCosts(
                wake_us=times.median_wake_us,
                park_us=times.park_us,
                active_nusd_h=self.active_nusd_h,
                parked_nusd_h=times.parked_nusd_h,
            )
            for times in self.tiers
        }

    def with_tiers(self, tiers: tuple[TierTimes, ...]) -> "Scenario":
        """Return the same scenario with these tiers."""
        return replace(self, tiers=tiers)

    def rates(self) -> Mapping[Tier, int]:
        """Return the parked rate of every tier."""
        return {times.tier: times.parked_nusd_h for times in self.tiers}

    def times(self, tier: Tier) -> TierTimes:
        """Return one tier's times; StopIteration where the scenario lacks it is a programming error."""
        return next(times for times in self.tiers if times.tier is tier)


def seconds(us: int) -> float:
    """Return microseconds as seconds, for people and JSON."""
    return us / SECOND_US
