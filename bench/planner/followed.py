"""Whether the past could have told the best fixed idle time: `python bench/planner/followed.py TRACE_DIR`.

Dense tenants of ServeGen with a price on waiting: one wake holds many requests, and the best fixed time in
hindsight rests on ten to sixty wakes. Beside `adaptive` stands `followed`: every six hours it takes the idle
time that is best on all demand so far, which is all that a fixed time can learn. Each is given as its
objective over that of the best fixed time in hindsight.
"""

import argparse
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from poorwill.core.policy import Descent, NoFloor, Rung
from poorwill.core.settings import PolicySettings
from poorwill.core.words import HOUR_US, SECOND_US, Tier
from poorwill.hosts.files.traces.readers import read_trace
from poorwill.hosts.files.traces.service import ServiceRule
from poorwill.hosts.files.traces.synthetic import MONDAY_US
from poorwill.planner.simulation.evaluate import Workload, evaluate, new_policy
from poorwill.planner.simulation.hindsight import idle_curve
from poorwill.planner.simulation.scenario import Scenario, TierTimes

S, DAY_US, TIER = SECOND_US, 24 * HOUR_US, Tier.HIBERNATED
WORLDS = ((180, 20, 0.0005), (95, 20, 0.0005), (20, 20, 0.002), (480, 120, 0.0005), (180, 20, 0.002))
SPAN_US, STEP_US = 14 * DAY_US, 6 * HOUR_US


@dataclass(frozen=True)
class Followed:
    """Idle times that change at given instants."""

    since_us: list[int]
    idles_us: list[int]
    name: str = "followed"

    def observe(self, idle_since_us: int, demand_at_us: int, *, others: int = 0) -> None:
        """Learn nothing: it is known already."""

    def descent(self, idle_since_us: int) -> Descent:
        idle = self.idles_us[bisect_right(self.since_us, idle_since_us) - 1]
        return Descent((Rung(TIER, idle_since_us + idle),))


def scenario(world: tuple[int, int, float], span_us: int) -> Scenario:
    wake, park, wait = world
    tier = TierTimes(tier=TIER, wake_us=(wake * S,), park_us=park * S, parked_nusd_h=20_000_000)
    price = round(wait * 1e9)
    return Scenario(
        span_us=span_us,
        active_nusd_h=3_800_000_000,
        tiers=(tier,),
        wait_nusd_s=price,
        origin_us=MONDAY_US,
    )


def best_idle(load: Workload, world: tuple[int, int, float], until_us: int) -> tuple[int, int]:
    """Return the best fixed idle time up to an instant, and its objective."""
    count = int(np.searchsorted(load.arrival_us, until_us))
    past = Workload(model="", arrival_us=load.arrival_us[:count], service_us=load.service_us[:count])
    curve = idle_curve([past], scenario(world, until_us))
    return curve.idles_us[curve.best], curve.objective_nusd[curve.best]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traces", type=Path)
    trace = read_trace(str(parser.parse_args().traces / "servegen_mid_dev_14d.csv.gz")).trace
    rows = []
    print(f"{'tenant':12} {'wake':>5} {'$/s':>7} {'best s':>7} {'adaptive':>9} {'followed':>9} {'wakes':>6}")
    for name, part in trace.by_model():
        load = Workload(model=name, arrival_us=part.arrival_us, service_us=ServiceRule().times(part))
        for world in WORLDS:
            whole, price = scenario(world, SPAN_US), round(world[2] * 1e9)
            idle, least = best_idle(load, world, SPAN_US)
            steps = range(STEP_US, SPAN_US, STEP_US)
            rule = PolicySettings(name="adaptive", wait_nusd_s=price)
            first = best_idle(load, world, STEP_US)[0]
            past = [first, *(best_idle(load, world, until)[0] for until in steps)]
            followed = Followed([MONDAY_US + at for at in range(0, SPAN_US, STEP_US)], past)
            policies = (new_policy(rule, whole), followed)
            runs = [evaluate(load, whole, [(policy, NoFloor())]) for policy in policies]
            ratios = [run.objective_nusd(price) / least for run in runs]
            rows.append(ratios)
            figures = " ".join(f"{ratio:9.3f}" for ratio in ratios)
            print(
                f"{name:12} {world[0]:5} {world[2]:7} {idle / S:7.0f} {figures} {runs[0].wakes:6}", flush=True
            )
    table = np.array(rows)
    for word, line in (("mean", table.mean(0)), ("worst", table.max(0))):
        print(f"{word:33} " + " ".join(f"{value:9.3f}" for value in line))


if __name__ == "__main__":
    main()
