"""Policies whose plan does not depend on past demand: fixed idle times, break-even and the ladder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from poorwill.core.format import duration
from poorwill.core.policy import Descent
from poorwill.core.words import Tier
from poorwill.policies.costs import TierCosts, break_even_us, envelope_after_us, rungs_at


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


def fixed_idle(after_us: tuple[tuple[Tier, int], ...]) -> Timed:
    """Park after configured idle times: into the first tier, then deeper; never if there are none."""
    why = f"fixed {duration(after_us[0][1])}" if after_us else "never parks"
    return Timed(name="fixed", after_us=after_us, why=why)


def break_even(*, ladder: Sequence[Tier], costs: Mapping[Tier, TierCosts], wait_nusd_s: int = 0) -> Timed:
    """Park into the ladder's first tier once staying ready has cost what the park would have (ski rental)."""
    tier = ladder[0]
    even = break_even_us(costs[tier], wait_nusd_s=wait_nusd_s)
    if even is None:
        return Timed(name="break-even", after_us=(), why="parking saves nothing")
    return Timed(name="break-even", after_us=((tier, even),), why=f"break-even {duration(even)}")


def descend(*, ladder: Sequence[Tier], costs: Mapping[Tier, TierCosts], wait_nusd_s: int = 0) -> Timed:
    """Go down the tiers along the lower envelope of their cost lines (Irani, Shukla, Gupta 2003)."""
    schedule = envelope_after_us(costs, ladder, wait_nusd_s=wait_nusd_s)
    times = ", ".join(f"{tier} {duration(after)}" for tier, after in schedule)
    return Timed(name="ladder", after_us=schedule, why=times or "parking saves nothing")
