"""Policies whose plan depends on costs alone, not on past demand: break-even and the ladder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median_low

from poorwill.core.policies.costs import (
    TierCosts,
    break_even_us,
    envelope_after_us,
    rungs_at,
)
from poorwill.core.policy import Descent
from poorwill.core.words import SECOND_US, Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """The same idle times for every stretch."""

    name: str
    after_us: tuple[tuple[Tier, int], ...]
    """(tier, idle time) in order of depth; empty: never parks."""
    why: str

    def observe(self, idle_since_us: int, demand_at_us: int, *, others: int = 0) -> None:
        """Learn nothing."""

    def descent(self, idle_since_us: int) -> Descent:
        """Return the same idle times, counted from this stretch's begin."""
        return Descent(rungs_at(self.after_us, idle_since_us), why=self.why)


def break_even(
    *, ladder: Sequence[Tier], costs: Mapping[Tier, TierCosts], wait_nusd_s: int = 0
) -> Timed:
    """Park into the ladder's first tier once staying ready has cost what the park would have (ski rental)."""
    tier = ladder[0]
    even = break_even_us(costs[tier], wait_nusd_s=wait_nusd_s)
    if even is None:
        return Timed(name="break-even", after_us=(), why="parking saves nothing")
    return Timed(
        name="break-even", after_us=((tier, even),), why=f"break-even {even / SECOND_US:g} s"
    )


def descend(
    *, ladder: Sequence[Tier], costs: Mapping[Tier, TierCosts], wait_nusd_s: int = 0
) -> Timed:
    """Go down the tiers along the lower envelope of their cost lines (Irani, Shukla, Gupta 2003)."""
    schedule = envelope_after_us(costs, ladder, wait_nusd_s=wait_nusd_s)
    times = ", ".join(f"{tier} {after / SECOND_US:g} s" for tier, after in schedule)
    return Timed(name="ladder", after_us=schedule, why=times or "parking saves nothing")


RECENT_PARKS = 20


@dataclass(slots=True, kw_only=True)
class Repriced:
    """One of the two above, made anew as measured parks and wakes move the costs it follows from.

    Implements `Policy` and `LearnsFromTimes`. At first the costs are predicted, or what the ledger remembers.
    """

    make: Callable[[Mapping[Tier, TierCosts]], Timed]
    costs: dict[Tier, TierCosts]
    timed: Timed
    parks: dict[Tier, list[int]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return the policy's name."""
        return self.timed.name

    def observe(self, idle_since_us: int, demand_at_us: int, *, others: int = 0) -> None:
        """Learn nothing of demand."""

    def descent(self, idle_since_us: int) -> Descent:
        """Return the idle times that the costs known now make best."""
        return self.timed.descent(idle_since_us)

    def wakes_took(self, tier: Tier, recent_us: Sequence[int]) -> None:
        """Reckon with the median of the last wakes from now on."""
        if tier in self.costs and recent_us:
            self._reprice(tier, replace(self.costs[tier], wake_us=median_low(recent_us)))

    def park_took(self, tier: Tier, took_us: int) -> None:
        """Reckon with the median of the last parks; what was assumed before counts as one of them."""
        if tier not in self.costs:
            return
        parks = self.parks.setdefault(tier, [self.costs[tier].park_us])
        parks.append(took_us)
        del parks[:-RECENT_PARKS]
        self._reprice(tier, replace(self.costs[tier], park_us=median_low(parks)))

    def _reprice(self, tier: Tier, costs: TierCosts) -> None:
        if costs != self.costs[tier]:
            self.costs[tier] = costs
            self.timed = self.make(self.costs)


def repriced(
    make: Callable[[Mapping[Tier, TierCosts]], Timed], costs: Mapping[Tier, TierCosts]
) -> Repriced:
    """Return a policy that follows its costs."""
    return Repriced(make=make, costs=dict(costs), timed=make(costs))
