"""A policy in shadow: it decides nothing, and its account says what it would have cost.

`Shadowed` takes the place of the running policy and passes everything on to it, so the replica does what that
policy says. It follows the other one over the same demand with `replay`. What the replica really cost
is in the ledger; the two figures here are both replayed, so that they compare like with like.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from poorwill.core.money import rounded
from poorwill.core.policy import Descent, LearnsFromMeter, LearnsFromTimes, LearnsFromWakes, Policy
from poorwill.core.words import SECOND_US, Tier
from poorwill.policies.past import Past
from poorwill.policies.replay import Ahead, Follower, Plan, Prices, Stretch, cross


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowAccount:
    """What two policies would have cost over the same demand."""

    since_us: int
    until_us: int
    stretches: int
    running: str
    running_nusd: int
    running_waited_s: float
    """Waits of all requests; for a wake that was only computed, those that came while the replica was
    really ready and busy are taken as evenly spread."""
    running_wakes: int
    shadow: str
    shadow_nusd: int
    shadow_waited_s: float
    shadow_wakes: int


@dataclass(slots=True)
class _Account:
    """One policy's account."""

    policy: Policy
    follower: Follower = field(default_factory=Follower)
    wakes: int = 0

    def demanded(self, demand_us: int, prices: Prices) -> None:
        """Demand came: ask the policy what it would have done, then let it learn."""
        idle_us = self.follower.position[0]
        if demand_us <= idle_us:  # still busy with what its last wake delayed
            self.follower.demanded(Plan(()), demand_us, prices)
            return
        plan = plan_of(self.policy, idle_us, prices)
        self.wakes += bool(plan.schedule) and demand_us > idle_us + plan.schedule[0][1]
        self.follower.demanded(plan, demand_us, prices)


class Shadowed:
    """Implements `Policy` with one policy while another is followed in shadow."""

    def __init__(self, *, running: Policy, shadow: Policy, prices: Prices) -> None:
        self.running = running
        self._prices = prices
        self._accounts = (_Account(running), _Account(shadow))
        self._past = Past()
        self._since_us = 0
        self._stretches = 0

    @property
    def name(self) -> str:
        """Return the running policy's name."""
        return self.running.name

    def descent(self, idle_since_us: int) -> Descent:
        """Return the running policy's plan."""
        return self.running.descent(idle_since_us)

    def woke(self, waits_us: Sequence[int]) -> None:
        """Tell both policies what a wake made requests wait: the shadow, what its own would have."""
        if isinstance(self.running, LearnsFromWakes):
            self.running.woke(waits_us)
        begun = self._past.begun
        if begun is None or not waits_us or waits_us[0] <= 0:
            return
        shadow = self._accounts[1]
        behind = shadow.follower.position[1] - (begun.demand_us + waits_us[0])
        its_own = [wait + behind for wait in waits_us if wait + behind > 0]
        if its_own and isinstance(shadow.policy, LearnsFromWakes):
            shadow.policy.woke(its_own)
        self._past.woke(waits_us)

    def wakes_took(self, tier: Tier, recent_us: Sequence[int]) -> None:
        """Tell both policies how long wakes take; the account goes on with the prices it began with."""
        for account in self._accounts:
            if isinstance(account.policy, LearnsFromTimes):
                account.policy.wakes_took(tier, recent_us)

    def park_took(self, tier: Tier, took_us: int) -> None:
        """Tell both policies how long a park took."""
        for account in self._accounts:
            if isinstance(account.policy, LearnsFromTimes):
                account.policy.park_took(tier, took_us)

    def metered(self, at_us: int, *, running: bool) -> None:
        """Tell both policies what the provider meters; the account ignores increments."""
        for account in self._accounts:
            if isinstance(account.policy, LearnsFromMeter):
                account.policy.metered(at_us, running=running)

    def observe(self, idle_since_us: int, demand_at_us: int, *, others: int = 0) -> None:
        """Settle both accounts up to this demand, then let both policies learn."""
        past = self._past
        if past.follows(idle_since_us, demand_at_us):
            if past.begun is None:
                self._since_us = idle_since_us
            for hidden in past.hidden():
                self._settle(hidden, others=0)
            plan = plan_of(self.running, idle_since_us, self._prices)
            self._settle(past.stretch(idle_since_us, demand_at_us, others=others), others=others)
            _, ready = cross(plan, idle_since_us, demand_at_us, self._prices)
            past.began(demand_at_us, ready)
            self._stretches += 1
        self.running.observe(idle_since_us, demand_at_us, others=others)

    def account(self) -> ShadowAccount:
        """Return both accounts as of the last demand."""
        running, shadow = self._accounts
        return ShadowAccount(
            since_us=self._since_us,
            until_us=self._past.begun.demand_us if self._past.begun else self._since_us,
            stretches=self._stretches,
            running=running.policy.name,
            running_nusd=rounded(running.follower.spent),
            running_waited_s=running.follower.waited_us / SECOND_US,
            running_wakes=running.wakes,
            shadow=shadow.policy.name,
            shadow_nusd=rounded(shadow.follower.spent),
            shadow_waited_s=shadow.follower.waited_us / SECOND_US,
            shadow_wakes=shadow.wakes,
        )

    def _settle(self, stretch: Stretch, *, others: int) -> None:
        """Take both accounts on to the demand after a stretch."""
        for account in self._accounts:
            follower = account.follower
            follower.served(stretch.block, stretch.ended_us, self._prices.active_nusd_h)
        shadow = self._accounts[1]
        quiet_us = shadow.follower.position[0]
        for account in self._accounts:
            account.demanded(stretch.demand_us, self._prices)
        if stretch.demand_us > quiet_us:
            shadow.policy.observe(quiet_us, stretch.demand_us, others=others)


def plan_of(policy: Policy, idle_since_us: int, prices: Prices) -> Plan:
    """Return a policy's plan for a stretch, in idle times."""
    descent = policy.descent(idle_since_us)
    wake_at = descent.wake_at_us
    before = [rung for rung in descent.rungs if wake_at is None or rung.at_us <= wake_at]
    schedule = tuple((rung.tier, rung.at_us - idle_since_us) for rung in before)
    if wake_at is None or not before:
        return Plan(schedule)
    ready = wake_at + prices.costs[before[-1].tier].wake_us
    again = [(rung.tier, rung.at_us - ready) for rung in descent.rungs if rung.at_us > wake_at]
    stay = max(again[0][1], 0) if again else 0
    return Plan(schedule, Ahead(wake_at, stay, tuple(again[1:])))
