"""The best fixed idle time in hindsight: which one to have chosen, by the vectorised sweep."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from poorwill.core.money import rounded
from poorwill.core.policies import break_even_us
from poorwill.core.words import SECOND_US
from poorwill.planner.blocks import new_blocks
from poorwill.planner.evaluate import Load
from poorwill.planner.scenario import Scenario
from poorwill.planner.sweep import Sweep, sweep

TRIED = 300
LONGEST_US = 7 * 86_400 * SECOND_US


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Cost and waiting over fixed idle times, all replicas together."""

    idles_us: tuple[int, ...]
    cost_nusd: tuple[int, ...]
    objective_nusd: tuple[int, ...]
    held: tuple[int, ...]

    @property
    def best(self) -> int:
        """Return the index of the idle time with the lowest objective; the shortest of equals."""
        return min(range(len(self.idles_us)), key=lambda index: self.objective_nusd[index])


def idle_times(scenario: Scenario) -> list[int]:
    """Return the idle times worth trying: zero, the break-even, and whole seconds evenly in proportion."""
    spread = np.geomspace(SECOND_US, min(LONGEST_US, scenario.span_us), TRIED)
    whole = {round(us / SECOND_US) * SECOND_US for us in spread.tolist()}
    first = scenario.costs()[scenario.tiers[0].tier]
    even = break_even_us(first, wait_nusd_s=scenario.wait_nusd_s)
    return sorted({0, *whole, *([] if even is None else [even])})


def sweepable(scenario: Scenario) -> bool:
    """Return whether the sweep may stand in for the simulation: no limit, constant wakes."""
    return scenario.max_concurrency == 0 and len(scenario.tiers[0].wake_us) == 1


def curve(loads: Sequence[Load], scenario: Scenario, idles_us: Sequence[int]) -> Curve:
    """Price these idle times in the first tier. The scenario must be `sweepable`."""
    first = scenario.tiers[0]
    parts = [
        sweep(
            new_blocks(load.arrival_us, load.service_us, scenario.span_us),
            idles_us,
            wake_us=first.wake_us[0],
            park_us=first.park_us,
        )
        for load in loads
    ]
    costs = [_cost(parts, index, scenario) for index in range(len(idles_us))]
    waits = [sum(int(part.waited_us[index]) for part in parts) for index in range(len(idles_us))]
    return Curve(
        idles_us=tuple(idles_us),
        cost_nusd=tuple(costs),
        objective_nusd=tuple(
            cost + rounded(wait * scenario.wait_nusd_s, SECOND_US)
            for cost, wait in zip(costs, waits, strict=True)
        ),
        held=tuple(sum(int(part.held[index]) for part in parts) for index in range(len(idles_us))),
    )


def _cost(parts: Sequence[Sweep], index: int, scenario: Scenario) -> int:
    active = sum(int(part.active_us[index]) for part in parts)
    parked = scenario.span_us * len(parts) - active
    return rounded(active * scenario.active_nusd_h + parked * scenario.tiers[0].parked_nusd_h)
