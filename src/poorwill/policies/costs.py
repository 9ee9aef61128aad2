"""What a tier costs, and the break-even times that follow from it. Integers throughout."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from poorwill.core.format import duration
from poorwill.core.policy import Rung
from poorwill.core.problems import Problem
from poorwill.core.words import SECOND_US, Tier

RECENT_PARKS = 20
"""How many of the last parks into a tier count."""
LEARNING = 0.1
"""How much the last wake counts in the number of requests that a wake holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TierCosts:
    """What a policy knows of one tier: how long transitions take and what time costs in it."""

    wake_us: int
    park_us: int
    active_nusd_h: int
    parked_nusd_h: int
    """With what its image costs on disk."""
    increment_us: int = 1
    """The provider rounds a stretch of paid time up to a multiple of this."""
    minimum_us: int = 0
    """The provider charges at least so much for each stretch of paid time."""


def park_cost(costs: TierCosts, *, wait_nusd_s: int = 0) -> int:
    """Return what one park and the wake after it cost beyond the parked rate, in nano-dollars times an hour.

    Both are paid at the active rate; the wake makes one request wait. In microseconds times nano-dollars
    an hour, so that it compares exactly with time at a rate.
    """
    in_transit = costs.active_nusd_h * (costs.park_us + costs.wake_us)
    waiting = wait_nusd_s * 3600 * costs.wake_us
    return in_transit + waiting - costs.parked_nusd_h * costs.park_us


def break_even_us(costs: TierCosts, *, wait_nusd_s: int = 0) -> int | None:
    """Return the idle time at which staying ready has cost as much as a park and a wake would have.

    idle = (active x (park + wake) + wait price x wake - parked x park) / (active - parked). None if
    being parked saves nothing. Parking after exactly this time never costs more than twice the best
    decision in hindsight (the ski-rental argument; Karlin et al. 1988), if a wake's waiting costs just so
    much and nobody waits for a park's end.
    """
    saved = costs.active_nusd_h - costs.parked_nusd_h
    if saved <= 0:
        return None
    return -(-park_cost(costs, wait_nusd_s=wait_nusd_s) // saved)


def envelope_after_us(
    costs: Mapping[Tier, TierCosts], ladder: Sequence[Tier], *, wait_nusd_s: int = 0
) -> tuple[tuple[Tier, int], ...]:
    """Return after how much idle time to be in which tier: the lower envelope of the tiers' cost lines.

    A gap of length t costs active x t when ready, and park_cost + parked x t in a tier; the schedule is
    always in the state whose line is lowest (Irani, Shukla, Gupta 2003). Tiers that no gap length favours
    are left out.
    """
    here_cost, here_rate = 0, max((costs[tier].active_nusd_h for tier in ladder), default=0)
    rest = list(ladder)
    schedule: list[tuple[Tier, int]] = []
    while True:
        best: tuple[int, int, Tier] | None = None
        for tier in rest:
            saved = here_rate - costs[tier].parked_nusd_h
            if saved <= 0:
                continue
            more = park_cost(costs[tier], wait_nusd_s=wait_nusd_s) - here_cost
            after = max(-(-more // saved), 0)
            # Of lines that cross here at the same instant the flattest stays lowest.
            if best is None or (after, costs[tier].parked_nusd_h) < (best[0], best[1]):
                best = (after, costs[tier].parked_nusd_h, tier)
        if best is None:
            return tuple(schedule)
        after, here_rate, tier = best
        here_cost = park_cost(costs[tier], wait_nusd_s=wait_nusd_s)
        if schedule and schedule[-1][1] >= after:
            schedule.pop()
        schedule.append((tier, after))
        rest = rest[rest.index(tier) + 1 :]


def rungs_at(schedule: Sequence[tuple[Tier, int]], idle_since_us: int) -> tuple[Rung, ...]:
    """Return a schedule of idle times as rungs of one idle stretch."""
    return tuple(Rung(tier, idle_since_us + after) for tier, after in schedule)


def held_by_wakes(held: float, waits_us: Sequence[int]) -> float:
    """Return how many requests a wake holds after one more wake, counted in waits as long as its first."""
    return held + (sum(waits_us) / waits_us[0] - held) * LEARNING


def idle_problem(idle_us: int, costs: TierCosts, *, wait_nusd_s: int = 0) -> Problem | None:
    """Return what is wrong with a fixed idle time, if it is shorter than the break-even; else None."""
    even = break_even_us(costs, wait_nusd_s=wait_nusd_s)
    if even is None or idle_us >= even:
        return None
    return Problem(
        where="",
        what=(
            f"an idle time of {duration(idle_us)} is shorter than the break-even of {duration(even)}: a park "
            f"({duration(costs.park_us)}) and the wake after it ({duration(costs.wake_us)}) are paid at the "
            f"active rate and cost more than staying ready for gaps shorter than that"
        ),
        hint=(
            f"set idle_s to {-(-even // SECOND_US)} or more, use the break-even or adaptive policy, or write "
            "allow_short_idle = true beside it if this is meant"
        ),
    )
