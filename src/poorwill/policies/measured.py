"""Policies that follow the measured parks and wakes of their replica.

At first the costs are predicted, or come from the ledger. `Repriced` makes a policy that depends on costs
alone again with every change. `Relearning` does so with the adaptive one when the costs have changed much,
and replays its last stretches to it.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median_low
from typing import NamedTuple

from poorwill.core.policy import Descent
from poorwill.core.words import Tier
from poorwill.policies.adaptive import Adaptive
from poorwill.policies.costs import RECENT_PARKS, TierCosts, held_by_wakes
from poorwill.policies.timed import Timed

FAR = 8
"""Costs count as changed if a cycle of park and wake is longer or shorter by more than an eighth."""
RELIVED = 150
"""Stretches replayed to a new policy: 0.05 to 0.15 s of work on the event loop, but rarely."""


@dataclass(slots=True)
class MeasuredCosts:
    """What each tier costs by the parks and wakes so far."""

    costs: dict[Tier, TierCosts]
    parks: dict[Tier, list[int]] = field(default_factory=dict)

    def wakes_took(self, tier: Tier, recent_us: Sequence[int]) -> bool:
        """Use the median of the last wakes from now on; return whether that changes anything."""
        if tier not in self.costs or not recent_us:
            return False
        wake_us = median_low(recent_us)
        return wake_us != self.costs[tier].wake_us and self._set(tier, wake_us=wake_us)

    def park_took(self, tier: Tier, took_us: int) -> bool:
        """Use the median of the last parks; the earlier assumption counts as one of them."""
        if tier not in self.costs:
            return False
        parks = self.parks.setdefault(tier, [self.costs[tier].park_us])
        parks.append(took_us)
        del parks[:-RECENT_PARKS]
        park_us = median_low(parks)
        return park_us != self.costs[tier].park_us and self._set(tier, park_us=park_us)

    def _set(self, tier: Tier, **times: int) -> bool:
        self.costs[tier] = replace(self.costs[tier], **times)
        return True


@dataclass(slots=True, kw_only=True)
class Repriced:
    """Break-even or the ladder, made anew as costs move. Implements `Policy`, `LearnsFromTimes` and
    `LearnsFromWakes`: if waiting has a price, a wake costs the waits of all requests that it holds."""

    make: Callable[[Mapping[Tier, TierCosts], float], Timed]
    """Receives what tiers cost and how many requests a wake holds, in whole waits."""
    measured: MeasuredCosts
    timed: Timed
    held: float = 1.0

    @property
    def name(self) -> str:
        """Return the policy's name."""
        return self.timed.name

    def woke(self, waits_us: Sequence[int]) -> None:
        """Follow how many requests a wake holds, counted in waits as long as the first one's."""
        if waits_us and waits_us[0] > 0:
            self.held = held_by_wakes(self.held, waits_us)
            self.timed = self.make(self.measured.costs, self.held)

    def observe(self, idle_since_us: int, demand_at_us: int, *, others: int = 0) -> None:
        """Learn nothing of demand."""

    def descent(self, idle_since_us: int) -> Descent:
        """Return the idle times that the costs known now make best."""
        return self.timed.descent(idle_since_us)

    def wakes_took(self, tier: Tier, recent_us: Sequence[int]) -> None:
        """Follow the last wakes from a tier."""
        if self.measured.wakes_took(tier, recent_us):
            self.timed = self.make(self.measured.costs, self.held)

    def park_took(self, tier: Tier, took_us: int) -> None:
        """Follow a park into a tier."""
        if self.measured.park_took(tier, took_us):
            self.timed = self.make(self.measured.costs, self.held)


def repriced(
    make: Callable[[Mapping[Tier, TierCosts], float], Timed], costs: Mapping[Tier, TierCosts]
) -> Repriced:
    """Return a policy that follows its costs."""
    return Repriced(make=make, measured=MeasuredCosts(dict(costs)), timed=make(costs, 1.0))


class _Lived(NamedTuple):
    """A stretch, and the waits of the wake that ended it."""

    idle_since_us: int
    demand_at_us: int
    others: int
    waits_us: list[Sequence[int]]


@dataclass(slots=True, kw_only=True)
class Relearning:
    """The adaptive policy, made anew when costs have moved far. Implements `Policy`, `LearnsFromWakes` and
    `LearnsFromTimes`."""

    make: Callable[[Mapping[Tier, TierCosts]], Adaptive]
    measured: MeasuredCosts
    made_with: Mapping[Tier, TierCosts]
    policy: Adaptive
    lived: deque[_Lived] = field(default_factory=lambda: deque(maxlen=RELIVED))

    @property
    def name(self) -> str:
        """Return `adaptive`."""
        return self.policy.name

    def observe(self, idle_since_us: int, demand_at_us: int, *, others: int = 0) -> None:
        """Learn of a finished stretch, and remember it."""
        self.lived.append(_Lived(idle_since_us, demand_at_us, others, []))
        self.policy.observe(idle_since_us, demand_at_us, others=others)

    def descent(self, idle_since_us: int) -> Descent:
        """Return the adaptive policy's plan."""
        return self.policy.descent(idle_since_us)

    def woke(self, waits_us: Sequence[int]) -> None:
        """Learn what a wake made requests wait, and remember it."""
        if self.lived:
            self.lived[-1].waits_us.append(waits_us)
        self.policy.woke(waits_us)

    def wakes_took(self, tier: Tier, recent_us: Sequence[int]) -> None:
        """Follow the last wakes from a tier."""
        if self.measured.wakes_took(tier, recent_us):
            self._relearn(tier)

    def park_took(self, tier: Tier, took_us: int) -> None:
        """Follow a park into a tier."""
        if self.measured.park_took(tier, took_us):
            self._relearn(tier)

    def _relearn(self, tier: Tier) -> None:
        was, now = (_cycle_us(costs[tier]) for costs in (self.made_with, self.measured.costs))
        if abs(now - was) * FAR <= was:
            return
        self.made_with = dict(self.measured.costs)
        self.policy = self.make(self.made_with)
        for lived in self.lived:
            self.policy.observe(lived.idle_since_us, lived.demand_at_us, others=lived.others)
            for waits_us in lived.waits_us:
                self.policy.woke(waits_us)


def relearning(
    make: Callable[[Mapping[Tier, TierCosts]], Adaptive], costs: Mapping[Tier, TierCosts]
) -> Relearning:
    """Return an adaptive policy that follows its costs."""
    measured = MeasuredCosts(dict(costs))
    return Relearning(make=make, measured=measured, made_with=dict(costs), policy=make(costs))


def _cycle_us(costs: TierCosts) -> int:
    return costs.park_us + costs.wake_us
