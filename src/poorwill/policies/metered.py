"""Parks just before a billing increment ends: time already paid for is used.

With hourly billing a replica that parks after two minutes has paid for sixty. `MeteredPolicy` moves a plan's
first descent that releases the host to the last instant from which the park still ends within the increment.
Of the increments that begin meanwhile it pays for as many as fit into the idle time that the plan would have
waited: if an increment is longer than the break-even that is none, and it parks at the end of the increment
that it is in.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from poorwill.core.policy import Descent, LearnsFromTimes, LearnsFromWakes, Policy, Rung
from poorwill.core.words import Tier
from poorwill.policies.costs import RECENT_PARKS, TierCosts
from poorwill.policies.pricing import paid_until_us


@dataclass(slots=True, kw_only=True)
class MeteredPolicy:
    """A policy whose parks follow the provider's meter. Implements all that a policy may learn."""

    policy: Policy
    costs: Mapping[Tier, TierCosts]
    parks_us: dict[Tier, list[int]] = field(default_factory=dict)
    """How long the last parks into each tier took: the longest of them must end in time."""
    metered_since_us: int | None = None
    """When the stretch that the provider meters began; None if nothing is known of it."""
    running: bool = False
    released_us: int | None = None
    """When the host was released last."""

    @property
    def name(self) -> str:
        """Return the policy's name."""
        return self.policy.name

    def observe(self, idle_since_us: int, demand_at_us: int, *, others: int = 0) -> None:
        """Pass on a finished stretch."""
        self.policy.observe(idle_since_us, demand_at_us, others=others)

    def woke(self, waits_us: Sequence[int]) -> None:
        """Pass on what a wake made requests wait."""
        if isinstance(self.policy, LearnsFromWakes):
            self.policy.woke(waits_us)

    def wakes_took(self, tier: Tier, recent_us: Sequence[int]) -> None:
        """Pass on how long the last wakes took."""
        if isinstance(self.policy, LearnsFromTimes):
            self.policy.wakes_took(tier, recent_us)

    def park_took(self, tier: Tier, took_us: int) -> None:
        """Remember how long a park took, and pass it on."""
        recent = self.parks_us.setdefault(tier, [])
        recent.append(took_us)
        del recent[:-RECENT_PARKS]
        if isinstance(self.policy, LearnsFromTimes):
            self.policy.park_took(tier, took_us)

    def metered(self, at_us: int, *, running: bool) -> None:
        """Learn whether the host is billed. A wake that begins as a park ends continues the billed
        stretch."""
        if running and not self.running and at_us != self.released_us:
            self.metered_since_us = at_us
        if self.running and not running:
            self.released_us = at_us
        self.running = running

    def descent(self, idle_since_us: int) -> Descent:
        """Return the policy's plan, its releases moved to the ends of increments."""
        plan = self.policy.descent(idle_since_us)
        if self.metered_since_us is None or not plan.rungs:
            return plan
        wake_at = plan.wake_at_us
        if wake_at is None:
            return Descent(self._moved(plan.rungs, idle_since_us, self.metered_since_us), None, plan.why)
        before = [rung for rung in plan.rungs if rung.at_us <= wake_at]
        after = [rung for rung in plan.rungs if rung.at_us > wake_at]
        if not before:
            return Descent(self._moved(plan.rungs, idle_since_us, self.metered_since_us), wake_at, plan.why)
        first = self._moved(before, idle_since_us, self.metered_since_us)
        if first[0].at_us > wake_at:  # it stays ready: what was paid for lasts until the demand is expected
            return Descent(self._moved(after or before[-1:], wake_at, self.metered_since_us), None, plan.why)
        ready_us = wake_at + self.costs[first[-1].tier].wake_us
        return Descent((*first, *self._moved(after, ready_us, wake_at)), wake_at, plan.why)

    def _moved(self, rungs: Sequence[Rung], idle_us: int, since_us: int) -> tuple[Rung, ...]:
        """Return rungs of an idle time, the first release of them and what follows moved to its increment."""
        release = next((rung for rung in rungs if rung.tier is not Tier.ASLEEP), None)
        if release is None:
            return tuple(rungs)
        costs = self.costs[release.tier]
        park_us = max([costs.park_us, *self.parks_us.get(release.tier, ())])
        paid_us = paid_until_us(since_us, idle_us + park_us, costs.increment_us, costs.minimum_us)
        more = max(release.at_us - idle_us, 0) // costs.increment_us
        at_us = paid_us + more * costs.increment_us - park_us
        rest = rungs[rungs.index(release) + 1 :]
        kept = [rung for rung in rungs if rung.tier is Tier.ASLEEP and rung.at_us < at_us]
        deeper = [Rung(rung.tier, max(rung.at_us, at_us)) for rung in rest]
        return (*kept, Rung(release.tier, at_us), *deeper)


def metered(policy: Policy, costs: Mapping[Tier, TierCosts]) -> Policy:
    """Return a policy that follows the meter; the same one if the provider bills by the instant."""
    if all(cost.increment_us <= 1 and not cost.minimum_us for cost in costs.values()):
        return policy
    return MeteredPolicy(policy=policy, costs=costs)
