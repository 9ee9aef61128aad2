"""How near `ladder` and `adaptive` come on several tiers: `python bench/planner/ladders.py [TRACE_DIR]`.

Beside them the best of twenty descents in hindsight: the ladder's lower envelope, its first rung and the
others each sooner or later. Ratios to the clairvoyant policy, as in `ratios.py`, on the same traces but the
longest.
"""

import argparse
from itertools import pairwise, product
from pathlib import Path

import numpy as np
from ratios import S, traces

from poorwill.core.words import Tier
from poorwill.hosts.files.traces.service import ServiceRule
from poorwill.planner.simulation.clairvoyant import clairvoyant
from poorwill.planner.simulation.scenario import Scenario, TierTimes
from poorwill.planner.simulation.simulate import simulate
from poorwill.policies import adaptive, descend, fixed_idle

LADDERS = {
    "asleep 2 s $3, hibernated 95 s $0.02": (
        (Tier.ASLEEP, 2, 1, 3),
        (Tier.HIBERNATED, 95, 20, 0.02),
    ),
    "frozen 2.5 s $0.5, hibernated 60 s $0.05, cold 240 s": (
        (Tier.FROZEN, 2.5, 4, 0.5),
        (Tier.HIBERNATED, 60, 60, 0.05),
        (Tier.COLD, 240, 10, 0),
    ),
}
PRICES = (0, 0.0005, 0.002)
"""Dollars a held second."""
FIRST, DEEPER = (0, 1 / 4, 1, 4), (1 / 16, 1 / 4, 1, 4, 16)


def tiers(ladder):
    return tuple(
        TierTimes(
            tier=tier,
            wake_us=(round(wake * S),),
            park_us=round(park * S),
            parked_nusd_h=round(usd_h * 1e9),
        )
        for tier, wake, park, usd_h in ladder
    )


def descents(envelope):
    """The envelope's descent with its first rung and the others sooner or later."""
    for first, deeper in product(FIRST, DEEPER):
        times = [first, *[deeper] * (len(envelope) - 1)]
        found = [(tier, int(after * part)) for (tier, after), part in zip(envelope, times, strict=True)]
        if all(here[1] <= below[1] for here, below in pairwise(found)):
            yield fixed_idle(tuple(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traces", nargs="?", type=Path)
    parser.add_argument("--habits", action="store_true")
    given = parser.parse_args()
    for (name, ladder), price in product(LADDERS.items(), PRICES):
        print(
            f"\n{name}, ${price} a held second\n{'trace':24} best fixed  ladder  adaptive",
            flush=True,
        )
        rows = []
        for trace_name, trace, span_us, origin_us in traces(given.traces, with_habits=given.habits):
            scenario = Scenario(
                span_us=span_us,
                active_nusd_h=3_800_000_000,
                tiers=tiers(ladder),
                wait_nusd_s=round(price * 1e9),
                origin_us=origin_us,
            )
            if len(trace.arrival_us) > 15_000:  # twenty simulations of each
                continue
            services, wait = ServiceRule().times(trace), scenario.wait_nusd_s
            arguments = {
                "ladder": tuple(times.tier for times in scenario.tiers),
                "costs": scenario.costs(),
                "wait_nusd_s": wait,
            }
            envelope = descend(**arguments)
            policies = [envelope, adaptive(**arguments), *descents(envelope.after_us)]
            found = [simulate(trace.arrival_us, services, scenario, p) for p in policies]
            down, own, *fixed = (one.objective_nusd(wait) for one in found)
            least = clairvoyant(trace.arrival_us, services, scenario).objective_nusd(wait)
            rows.append([min(fixed) / least, down / least, own / least])
            print(f"{trace_name:24} " + " ".join(f"{value:9.3f}" for value in rows[-1]), flush=True)
        table = np.array(rows)
        for word, line in (("mean", table.mean(0)), ("worst", table.max(0))):
            print(f"{word:24} " + " ".join(f"{value:9.3f}" for value in line), flush=True)


if __name__ == "__main__":
    main()
