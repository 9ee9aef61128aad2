"""What another schedule would have cost on the idle stretches that really happened.

Any number of schedules is followed over the same demand, each with the delays its own wakes cause. Two
figures are kept: money, and waiting. `past` says what the demand was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import add
from typing import NamedTuple

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


class Plan(NamedTuple):
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
    schedule, ahead = plan
    active = prices.active_nusd_h
    if ahead is None and len(schedule) == 1:  # as most are; the loop below comes to the same
        tier, after = schedule[0]
        at = idle_us + after if after > 0 else idle_us
        if at >= demand_us:
            return (demand_us - idle_us) * active, demand_us
        costs = prices.costs[tier]
        parked = at + costs.park_us
        woken = parked if parked > demand_us else demand_us
        awake_us = parked - idle_us + costs.wake_us
        return awake_us * active + (woken - parked) * costs.parked_nusd_h, woken + costs.wake_us
    return _descend(plan, idle_us, demand_us, prices)


def _descend(plan: Plan, idle_us: int, demand_us: int, prices: Prices) -> tuple[int, int]:
    """Return what `cross` does, for any plan."""
    cost, at, rate, active = 0, idle_us, prices.active_nusd_h, prices.active_nusd_h
    costs: TierCosts | None = None
    ahead = plan.ahead
    wake_at = ahead.wake_at_us if ahead else demand_us
    for deeper, after in plan.schedule:
        begins = idle_us + after if idle_us + after > at else at
        if begins >= demand_us or (begins >= wake_at and costs is not None):
            break
        if begins > wake_at:  # not parked by then: it has had its chance
            ahead, wake_at = None, demand_us
        costs = prices.costs[deeper]
        cost += (begins - at) * rate + costs.park_us * active
        at, rate = begins + costs.park_us, costs.parked_nusd_h
    if costs is None:
        return cost + (demand_us - at) * active, demand_us
    woken = max(at, min(demand_us, wake_at))
    cost += (woken - at) * rate + costs.wake_us * active
    ready = woken + costs.wake_us
    if ahead is None or ready >= demand_us:
        return cost, ready
    again = Plan(((plan.schedule[-1][0], ahead.stay_us), *ahead.deeper))
    more, ready = cross(again, ready, demand_us, prices)
    return cost + more, ready


class Block(NamedTuple):
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
        if ready_us <= self.demand_us or not (self.joined_us or self.others):
            return 0
        waits = sum(ready_us - joined for joined in self.joined_us if joined < ready_us)
        if self.others and ready_us > self.from_us:
            length = max(self.to_us - self.from_us, 1)
            until = min(ready_us, self.to_us)
            mean_us = ready_us - (self.from_us + until) // 2
            waits += self.others * mean_us * (until - self.from_us) // length
        return waits


class Stretch(NamedTuple):
    """An idle stretch that is over."""

    block: Block | None
    """The work before it; None before the first."""
    idle_us: int
    """When the replica fell idle."""
    ended_us: int
    """When it would have without the delay of the wake before."""
    demand_us: int
    """When demand came back."""


Position = tuple[int, int]
"""Up to when an account is settled (idle since then, or busy from then on), and when the replica was ready
for the last demand."""


def worked(before: Position, block: Block | None, ended_us: int) -> int:
    """Return when the work before a stretch is over, by `ended_us` if none is known."""
    if block is None:
        return ended_us
    at_us, ready_us = before
    # Who was ready for the block's first request is not late: the block is no shorter than what is shifted.
    _, end_us, longest_us = block[:3]
    late_us = ready_us + longest_us
    if late_us > end_us:
        end_us = late_us
    return at_us if at_us > end_us else end_us


@dataclass(slots=True)
class Follower:
    """One schedule on its way along the demand."""

    position: Position = (0, 0)
    spent: int = 0
    waited_us: int = 0

    def served(self, block: Block | None, ended_us: int, active_nusd_h: int) -> None:
        """The work before a stretch is over."""
        at_us, ready_us = self.position
        end_us = worked(self.position, block, ended_us)
        if block is not None:
            self.spent += (end_us - at_us) * active_nusd_h
            self.waited_us += block.waits_us(ready_us)
        self.position = end_us, ready_us

    def demanded(self, plan: Plan, demand_us: int, prices: Prices) -> None:
        """Demand came after an idle stretch, or while it was still busy with what a wake had delayed."""
        at_us, ready_us = self.position
        if demand_us > at_us:
            cost, ready_us = cross(plan, at_us, demand_us, prices)
            self.spent += cost
            self.position = ready_us, ready_us
        self.waited_us += max(ready_us - demand_us, 0)


@dataclass(slots=True)
class Followers:
    """Many schedules on their way along the same demand. Most are at two or three positions: what follows
    from a position alone is reckoned once."""

    positions: list[Position]
    spent: list[int]
    """With what their waits were worth."""

    def follow(self, stretch: Stretch, plans: Sequence[Plan], prices: Prices) -> list[int]:
        """Go through a stretch and the work before it; return what both cost each, waits included."""
        demand_us, wait = stretch.demand_us, prices.wait_nusd_h
        ready = demand_us, demand_us
        known: dict[Position, tuple[int, int, int, Position]] = {}
        last, crossed, crossing, woken = None, None, 0, ready
        costs, after = list[int](), list[Position]()
        for before, plan in zip(self.positions, plans, strict=True):
            if before is not last:  # those that stayed ready share one
                last, crossed, found = before, None, known.get(before)
                if found is None:
                    found = known[before] = _unless_parked(before, stretch, prices, ready)
                gap_us, served, stayed, position = found
            schedule = plan[0]
            if gap_us > 0 and schedule and schedule[0][1] < gap_us:  # it parks
                if plan is not crossed:  # leaders mostly do the same
                    crossed = plan
                    cost, ready_us = cross(plan, demand_us - gap_us, demand_us, prices)
                    if wait and ready_us > demand_us:
                        cost += (ready_us - demand_us) * wait
                    crossing, woken = served + cost, (ready_us, ready_us)
                costs.append(crossing)
                after.append(woken)
            else:
                costs.append(stayed)
                after.append(position)
        self.positions = after
        self.spent = list(map(add, self.spent, costs))
        return costs


def _unless_parked(
    before: Position, stretch: Stretch, prices: Prices, ready: Position
) -> tuple[int, int, int, Position]:
    """Return the gap before the demand that ended a stretch (none if delayed work lasts longer) and what the
    work before it cost; then what both cost if the gap is spent ready, and the position after that."""
    at_us, ready_us = before
    block, _, ended_us, demand_us = stretch
    end_us = worked(before, block, ended_us)
    gap_us, wait, cost = demand_us - end_us, prices.wait_nusd_h, 0
    if block is not None:
        cost = (end_us - at_us) * prices.active_nusd_h
        if wait:
            cost += block.waits_us(ready_us) * wait
    if gap_us > 0:
        return gap_us, cost, cost + gap_us * prices.active_nusd_h, ready
    late_us = ready_us - demand_us if ready_us > demand_us else 0
    return gap_us, cost, cost + late_us * wait, (end_us, ready_us)
