"""How near each policy comes to the clairvoyant one: `python bench/planner/ratios.py [TRACE_DIR]`.

Traces: those of TRACE_DIR where given (../shared/data/traces), and drawn ones with seeds of their own; with
`--habits` drawn ones with habits instead. The
constants of the adaptive policy were chosen on TRACE_DIR and on drawn traces of other seeds. Each ratio is
cost plus the price of waiting over the clairvoyant's. `later` is the last third of the trace alone (account
of the whole less account of the first two thirds): what a policy does once it has learnt, beside a fixed
idle time that was chosen on the first two thirds.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from habits import habits

from poorwill.core.words import SECOND_US, Tier
from poorwill.hosts.files.traces.readers import read_trace
from poorwill.hosts.files.traces.service import ServiceRule
from poorwill.hosts.files.traces.synthetic import MONDAY_US, Draw, draw_trace
from poorwill.planner.simulation.busy_blocks import new_blocks
from poorwill.planner.simulation.clairvoyant import clairvoyant
from poorwill.planner.simulation.scenario import Scenario, TierTimes
from poorwill.planner.simulation.simulate import simulate
from poorwill.planner.simulation.sweep import sweep
from poorwill.policies import adaptive, break_even, fixed_idle

S, DAY_US = SECOND_US, 86_400 * SECOND_US
TIER = Tier.HIBERNATED
WORLDS = {
    "wake 95 s, park 20 s": (95, 20, 0.0),
    "wake 480 s, park 120 s": (480, 120, 0.0),
    "wake 8 s, park 8 s": (8, 8, 0.0),
    "wake 60 s, park 600 s": (60, 600, 0.0),
    "wake 95 s, park 20 s, $0.0005 a held second": (95, 20, 0.0005),
    "wake 20 s, park 20 s, $0.002 a held second": (20, 20, 0.002),
}
IDLES = sorted({0, *np.rint(np.geomspace(1, 86_400, 200)).astype(int).tolist()})


def traces(directory, *, with_habits=False):
    if with_habits:
        for name, trace in habits(28 * DAY_US, seed=4321):
            yield name, trace, 28 * DAY_US, MONDAY_US
        return
    if directory is not None:
        aider = read_trace(str(directory / "aider_dev_2024-12_2025-02.csv.gz")).trace
        yield "aider, all models", aider.merged(), 90 * DAY_US, 1_733_011_200 * S
        sonnet = aider.only("claude-3-5-sonnet-20241022")
        yield "aider, one model", sonnet, 90 * DAY_US, 1_733_011_200 * S
        served = read_trace(str(directory / "servegen_mid_dev_14d.csv.gz")).trace
        for name, part in served.by_model():
            yield name, part, 14 * DAY_US, 0
    for kind in ("poisson", "bursty", "office-hours"):
        for rate in (12, 60, 300):
            draw = Draw(kind=kind, span_us=42 * DAY_US, requests_per_day=rate, seed=90_000 + rate)
            yield f"{kind}, {rate} a day", draw_trace(draw), 42 * DAY_US, MONDAY_US


def accounts(arrivals, services, scenario):
    """Objectives in nano-dollars: fixed idle times, break-even, adaptive, clairvoyant."""
    wait, tier = scenario.wait_nusd_s, scenario.tiers[0]
    swept = sweep(
        new_blocks(arrivals, services, scenario.span_us),
        [idle * S for idle in IDLES],
        wake_us=tier.wake_us[0],
        park_us=tier.park_us,
    )
    parked = scenario.span_us - swept.active_us
    cost = swept.active_us * float(scenario.active_nusd_h) + parked * float(tier.parked_nusd_h)
    fixed = cost / 3.6e9 + swept.waited_us / S * wait
    costs = scenario.costs()
    runs = [
        fixed_idle(((TIER, 90 * S),)),
        fixed_idle(((TIER, 300 * S),)),
        break_even(ladder=(TIER,), costs=costs, wait_nusd_s=wait),
        adaptive(ladder=(TIER,), costs=costs, wait_nusd_s=wait),
    ]
    found = [simulate(arrivals, services, scenario, p).objective_nusd(wait) for p in runs]
    return fixed, found, clairvoyant(arrivals, services, scenario).objective_nusd(wait)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traces", nargs="?", type=Path)
    parser.add_argument("--habits", action="store_true")
    given = parser.parse_args()
    heads = (
        "best fixed",
        "90 s",
        "300 s",
        "break-even",
        "adaptive",
        "| later: past's fixed",
        "adaptive",
    )
    for world, (wake, park, wait) in WORLDS.items():
        print(f"\n{world}\n{'trace':22} " + " ".join(f"{head:>10}" for head in heads), flush=True)
        rows = []
        for name, trace, span, origin in traces(given.traces, with_habits=given.habits):
            tier = TierTimes(tier=TIER, wake_us=(wake * S,), park_us=park * S, parked_nusd_h=20_000_000)
            scenario = Scenario(
                span_us=span,
                active_nusd_h=3_800_000_000,
                tiers=(tier,),
                wait_nusd_s=round(wait * 1e9),
                origin_us=origin,
            )
            services = ServiceRule().times(trace)
            whole, found, least = accounts(trace.arrival_us, services, scenario)
            cut = span * 2 // 3
            early = trace.arrival_us < cut
            part, before, least_before = accounts(
                trace.arrival_us[early], services[early], replace(scenario, span_us=cut)
            )
            chosen = int(part.argmin())
            later = max(least - least_before, 1)
            row = [whole.min() / least, *(one / least for one in found)]
            row += [(whole[chosen] - part[chosen]) / later, (found[3] - before[3]) / later]
            rows.append(row)
            print(f"{name:22} " + " ".join(f"{value:10.3f}" for value in row), flush=True)
        table = np.array(rows)
        for word, line in (("mean", table.mean(0)), ("worst", table.max(0))):
            print(f"{word:22} " + " ".join(f"{value:10.3f}" for value in line), flush=True)


if __name__ == "__main__":
    main()
