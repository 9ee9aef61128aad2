"""How fast the two evaluators are: `python bench/planner/evaluators.py`.

A year of a million requests, drawn; the sweep prices 1,000 fixed idle times on it, the simulation replays
it through the production step under a few policies. One core; seconds are processor time, so that other
work on the machine matters less.
"""

import argparse
import resource
import time

import numpy as np

from poorwill.core.words import SECOND_US, Tier
from poorwill.hosts.files.traces.service import ServiceRule
from poorwill.hosts.files.traces.synthetic import Draw, draw_trace
from poorwill.planner.simulation.busy_blocks import new_blocks
from poorwill.planner.simulation.clairvoyant import clairvoyant
from poorwill.planner.simulation.scenario import Scenario, TierTimes
from poorwill.planner.simulation.simulate import simulate
from poorwill.planner.simulation.sweep import sweep
from poorwill.policies import adaptive, break_even, fixed_idle

YEAR_US = 365 * 86_400 * SECOND_US
REQUESTS = 1_000_000
IDLES = 1_000
WAKE_US, PARK_US = 95 * SECOND_US, 20 * SECOND_US


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("requests", nargs="?", type=int, default=REQUESTS)
    requests = parser.parse_args().requests
    tier = TierTimes(tier=Tier.HIBERNATED, wake_us=(WAKE_US,), park_us=PARK_US, parked_nusd_h=20_000_000)
    scenario = Scenario(span_us=YEAR_US, active_nusd_h=3_800_000_000, tiers=(tier,))
    print(f"{'trace':14} {'what':26} {'seconds':>8} {'requests/s':>12}  result")
    for kind in ("poisson", "bursty", "office-hours"):
        trace = draw_trace(Draw(kind=kind, span_us=YEAR_US, requests_per_day=requests / 365))
        arrivals, services = trace.arrival_us, ServiceRule().times(trace)
        count = len(trace)

        def row(what: str, began: float, result: str, kind: str = kind, count: int = count) -> None:
            took = time.process_time() - began
            print(f"{kind:14} {what:26} {took:8.2f} {count / took:12,.0f}  {result}", flush=True)

        began = time.process_time()
        blocks = new_blocks(arrivals, services, YEAR_US)
        idles = np.unique(np.geomspace(1, 86_400, IDLES) * SECOND_US).astype(np.int64).tolist()
        swept = sweep(blocks, idles, wake_us=WAKE_US, park_us=PARK_US)
        row(f"sweep, {len(idles)} idle times", began, f"{swept.wakes.sum():,} wakes")
        policies = {
            "never parks": fixed_idle(()),
            "fixed 1 h": fixed_idle(((Tier.HIBERNATED, 3600 * SECOND_US),)),
            "break-even": break_even(ladder=(Tier.HIBERNATED,), costs=scenario.costs()),
            "fixed 0 s": fixed_idle(((Tier.HIBERNATED, 0),)),
            "adaptive": adaptive(ladder=(Tier.HIBERNATED,), costs=scenario.costs()),
        }
        for name, policy in policies.items():
            began = time.process_time()
            outcome = simulate(arrivals, services, scenario, policy)
            row(f"simulate, {name}", began, f"{outcome.wakes:,} wakes")
        began = time.process_time()
        best = clairvoyant(arrivals, services, scenario)
        row("clairvoyant", began, f"{best.wakes:,} wakes")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"peak memory {peak / 1024:,.0f} MB")


if __name__ == "__main__":
    main()
