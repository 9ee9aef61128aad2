"""What another schedule would have cost on the idle stretches that really happened.

Any number of schedules is followed over the same demand, each with the delays its own wakes cause. Two
figures are kept: money, and waiting. `past` says what the demand was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from poorwill.core.words import Tier
from poorwill.policies.costs import TierCosts

Schedule = Sequence[tuple[Tier, int]]
"""(tier, idle time after which to be in it), shallow to deep; empty: stay ready."""


@dataclass(frozen=True, slots=True)
class Ahead:
    """A wake ahead of demand: when it begins, and how long the replica then waits before it parks again."""

    wake_at_us: int
    stay_us: int
    deeper: Schedule = ()
    """How it then goes on down the ladder, counted from readiness."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do in one idle stretch."""

    schedule: Schedule
    ahead: Ahead | None = None


@dataclass(frozen=True, slots=True)
class Prices:
    """What a schedule is priced with."""

    costs: Mapping[Tier, TierCosts]
    active_nusd_h: int
    wait_nusd_h: int = 0
    """What one request's waiting costs an hour."""


def cross(plan: Plan, idle_us: int, demand_us: int, prices: Prices) -> tuple[int, int]:
    """Return what an idle stretch costs under a plan, and when the replica is ready for the demand.

    The cost runs to readiness, or to the demand if ready before; in nano-dollars times microseconds an
    hour.
    """
    cost, at = 0, idle_us
    tier: Tier | None = None
    ahead = plan.ahead
    wake_at = ahead.wake_at_us if ahead else demand_us
    for deeper, after in plan.schedule:
        begins = max(idle_us + after, at)
        if begins >= demand_us or (begins >= wake_at and tier is not None):
            break
        if begins > wake_at:  # not parked by then: it has had its chance
            ahead, wake_at = None, demand_us
        cost += (begins - at) * _rate(tier, prices)
        at = begins + prices.costs[deeper].park_us
        cost += (at - begins) * prices.active_nusd_h
        tier = deeper
    if tier is None:
        return cost + (demand_us - at) * prices.active_nusd_h, demand_us
    woken = max(at, min(demand_us, wake_at))
    wake_us = prices.costs[tier].wake_us
    cost += (woken - at) * _rate(tier, prices) + wake_us * prices.active_nusd_h
    ready = woken + wake_us
    if ahead is None or ready >= demand_us:
        return cost, ready
    again = Plan(((plan.schedule[-1][0], ahead.stay_us), *ahead.deeper))
    more, ready = cross(again, ready, demand_us, prices)
    return cost + more, ready


def _rate(tier: Tier | None, prices: Prices) -> int:
    return prices.active_nusd_h if tier is None else prices.costs[tier].parked_nusd_h


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """The work between two idle stretches."""

    demand_us: int
    """When its first request came."""
    ended_us: int
    """When it ended, or would have without the delay of the wake that it began with."""
    longest_us: int
    """How much of it a delayed wake shifts."""
    joined_us: Sequence[int] = ()
    """When requests came that were held beside the first."""
    others: int = 0
    """How many more came between `from_us` and `to_us`, nobody knows when: evenly, it is assumed."""
    from_us: int = 0
    to_us: int = 0

    def waits_us(self, ready_us: int) -> int:
        """Return how long the requests after the first wait in all if the replica is ready only then."""
        if ready_us <= self.demand_us:
            return 0
        waits = sum(ready_us - joined for joined in self.joined_us if joined < ready_us)
        if self.others and ready_us > self.from_us:
            length = max(self.to_us - self.from_us, 1)
            until = min(ready_us, self.to_us)
            mean_us = ready_us - (self.from_us + until) // 2
            waits += self.others * mean_us * (until - self.from_us) // length
        return waits


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """An idle stretch that is over."""

    block: Block | None
    """The work before it; None before the first."""
    idle_us: int
    """When the replica fell idle."""
    ended_us: int
    """When it would have without the delay of the wake before."""
    demand_us: int
    """When demand came back."""


@dataclass(slots=True)
class Follower:
    """One schedule on its way along the demand."""

    at_us: int = 0
    """Up to when its account is settled: idle since then, or busy from then on."""
    ready_us: int = 0
    """When it was ready for the last demand."""
    spent: int = 0
    waited_us: int = 0

    def follow(self, stretch: Stretch, plan: Plan, prices: Prices) -> int:
        """Go through a stretch and the work before it; return what both cost, waits included."""
        block, demand_us, schedule = stretch.block, stretch.demand_us, plan.schedule
        spent, waited_us, at_us = self.spent, self.waited_us, self.at_us
        if block is not None and self.ready_us <= block.demand_us:  # most often: it was ready, and stays so
            gap_us = demand_us - (stretch.ended_us if stretch.ended_us > at_us else at_us)
            if gap_us > 0 and (not schedule or schedule[0][1] >= gap_us):
                self.at_us = self.ready_us = demand_us
                cost = (demand_us - at_us) * prices.active_nusd_h
                self.spent = spent + cost
                return cost
        self.served(block, stretch.ended_us, prices.active_nusd_h)
        self.demanded(plan, demand_us, prices)
        return self.spent - spent + (self.waited_us - waited_us) * prices.wait_nusd_h

    def served(self, block: Block | None, ended_us: int, active_nusd_h: int) -> None:
        """The work before a stretch is over, or has ended at `ended_us` if none is known."""
        if block is None:
            self.at_us = ended_us
            return
        end = block.ended_us if block.ended_us > self.at_us else self.at_us
        if self.ready_us > block.demand_us:
            end = max(end, self.ready_us + block.longest_us)
            if block.joined_us or block.others:
                self.waited_us += block.waits_us(self.ready_us)
        self.spent += (end - self.at_us) * active_nusd_h
        self.at_us = end

    def demanded(self, plan: Plan, demand_us: int, prices: Prices) -> None:
        """Demand came after an idle stretch, or while it was still busy with what a wake had delayed."""
        gap_us = demand_us - self.at_us
        if gap_us > 0:
            if not plan.schedule or plan.schedule[0][1] >= gap_us:  # it stayed ready
                self.spent += gap_us * prices.active_nusd_h
                self.at_us = self.ready_us = demand_us
                return
            cost, self.ready_us = cross(plan, self.at_us, demand_us, prices)
            self.spent += cost
            self.at_us = self.ready_us
        if self.ready_us > demand_us:
            self.waited_us += self.ready_us - demand_us
