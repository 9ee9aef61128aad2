"""The best fixed idle time in hindsight: which one to have chosen, and what each would have cost."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from poorwill.core.format import DAY_US
from poorwill.core.money import rounded
from poorwill.core.policy import FloorSchedule, Policy
from poorwill.core.words import SECOND_US
from poorwill.planner.simulation.evaluate import Workload, evaluate, levels_of, swept
from poorwill.planner.simulation.outcome import Outcome, added
from poorwill.planner.simulation.scenario import Scenario
from poorwill.planner.simulation.sweep import IdleSweep
from poorwill.policies import break_even_us, fixed_idle

TRIED = 300
FEWEST, MOST, SIMULATED_REQUESTS = 12, 60, 300_000
"""If the sweep does not apply, each idle time is simulated; their number keeps the requests near the last
figure."""
LONGEST_US = 7 * DAY_US


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Cost and waiting over fixed idle times, all replicas together."""

    idles_us: tuple[int, ...]
    cost_nusd: tuple[int, ...]
    objective_nusd: tuple[int, ...]
    held: tuple[int, ...]
    simulated: str = ""
    """Why the idle times were simulated one by one; empty if they were swept."""

    @property
    def best(self) -> int:
        """Return the index of the idle time with the lowest objective; the shortest of equals."""
        return min(range(len(self.idles_us)), key=lambda index: self.objective_nusd[index])

    def least_from(self, idle_us: int) -> int:
        """Return the index of the best idle time that is not shorter than the given one."""
        later = [index for index, idle in enumerate(self.idles_us) if idle >= idle_us]
        return min(later, key=lambda index: self.objective_nusd[index], default=self.best)


def idle_curve(
    loads: Sequence[Workload],
    scenario: Scenario,
    *,
    floors: Sequence[FloorSchedule] = (),
    also_us: Sequence[int] = (),
) -> Curve:
    """Price fixed idle times in the first tier: zero, the break-even, and others evenly in proportion.

    By the sweep if it applies; else fewer, by simulation.
    """
    first = scenario.with_tiers(scenario.tiers[:1])
    why = _beyond_the_sweep(first, floors)
    if why:
        requests = sum(len(load.arrival_us) for load in loads)
        count = min(max(SIMULATED_REQUESTS // max(requests, 1), FEWEST), MOST)
        idles = _idle_times(first, count, also_us)
        outcomes = [_simulated(loads, first, idle, floors) for idle in idles]
        return Curve(
            idles_us=tuple(idles),
            cost_nusd=tuple(outcome.cost_nusd for outcome in outcomes),
            objective_nusd=tuple(outcome.objective_nusd(scenario.wait_nusd_s) for outcome in outcomes),
            held=tuple(len(outcome.waits.held_us) for outcome in outcomes),
            simulated=why,
        )
    return _swept(loads, first, _idle_times(first, TRIED, also_us))


def _beyond_the_sweep(scenario: Scenario, floors: Sequence[FloorSchedule]) -> str:
    """Return what keeps the sweep from pricing a scenario; empty if nothing does."""
    reasons = []
    if scenario.max_concurrency:
        reasons.append("limit to concurrency")
    if floors:
        reasons.append("floor")
    if len(set(scenario.tiers[0].wake_us)) > 1:
        reasons.append("list of wakes")
    return f"the sweep knows no {' and no '.join(reasons)}" if reasons else ""


def _idle_times(scenario: Scenario, count: int, also_us: Sequence[int]) -> list[int]:
    first = scenario.costs()[scenario.tiers[0].tier]
    even = break_even_us(first, wait_nusd_s=scenario.wait_nusd_s)
    shortest = min(even or SECOND_US, SECOND_US)
    longest = max(min(LONGEST_US, scenario.span_us), SECOND_US)
    spread = [round(us) for us in np.geomspace(shortest, longest, count).tolist()]
    tried = [*spread, *([] if even is None else [even])]
    return sorted({0, *map(_neat_us, tried), *also_us})


def _neat_us(idle_us: int) -> int:
    """Return an idle time that one would write down, not shorter: whole seconds, or two digits."""
    unit_us = min(int(10 ** max(len(str(idle_us)) - 2, 0)), SECOND_US)
    return -(-idle_us // unit_us) * unit_us


def _simulated(
    loads: Sequence[Workload], scenario: Scenario, idle_us: int, floors: Sequence[FloorSchedule]
) -> Outcome:
    def policy() -> Policy:
        return fixed_idle(((scenario.tiers[0].tier, idle_us),))

    return added([evaluate(load, scenario, levels_of(policy, scenario, floors)) for load in loads])


def _swept(loads: Sequence[Workload], scenario: Scenario, idles_us: Sequence[int]) -> Curve:
    parts = [swept(load, scenario, idles_us) for load in loads]
    every = range(len(idles_us))
    costs = [_cost(parts, index, scenario) for index in every]
    waits = [sum(int(part.waited_us[index]) for part in parts) for index in every]
    return Curve(
        idles_us=tuple(idles_us),
        cost_nusd=tuple(costs),
        objective_nusd=tuple(
            cost + rounded(wait * scenario.wait_nusd_s, SECOND_US)
            for cost, wait in zip(costs, waits, strict=True)
        ),
        held=tuple(sum(int(part.held[index]) for part in parts) for index in every),
    )


def _cost(parts: Sequence[IdleSweep], index: int, scenario: Scenario) -> int:
    active = sum(int(part.active_us[index]) for part in parts)
    parked = scenario.span_us * len(parts) - active
    added = sum(int(part.added_us[index]) for part in parts)
    rate = scenario.rates()[scenario.tiers[0].tier]
    return rounded((active + added) * scenario.active_nusd_h + parked * rate)
