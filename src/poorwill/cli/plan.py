"""`poorwill plan`: what each way of serving a trace would cost, and how long users would wait."""

import argparse

from poorwill.cli.verb import Streams, Verb
from poorwill.core.money import nusd
from poorwill.core.words import SECOND_US, Tier
from poorwill.planner.evaluate import entrants, loads_of
from poorwill.planner.readers import read_trace
from poorwill.planner.report import as_json, frontier
from poorwill.planner.scenario import Scenario, TierTimes
from poorwill.planner.service import ServiceRule


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--trace", metavar="FILE")
    parser.add_argument("--span-s", type=float, metavar="S")
    parser.add_argument("--active-usd-h", required=True, metavar="USD")
    parser.add_argument("--parked-usd-h", default="0", metavar="USD")
    parser.add_argument("--wake-s", type=float, default=95.0)
    parser.add_argument("--park-s", type=float, default=20.0)
    parser.add_argument("--idle-s", type=float, action="append", default=[])
    parser.add_argument("--service-s", type=float, default=30.0)
    parser.add_argument("--model")
    parser.add_argument("--json", action="store_true")


async def _run(options: argparse.Namespace, streams: Streams) -> int:
    trace = read_trace(options.trace).trace
    if options.model is not None:
        trace = trace.only(options.model)
    rule = ServiceRule(constant_us=round(options.service_s * SECOND_US))
    span = round((options.span_s or 0) * SECOND_US) or int(
        (trace.arrival_us + rule.times(trace)).max()
    )
    trace = trace.before(span)
    times = TierTimes(
        tier=Tier.HIBERNATED,
        wake_us=(round(options.wake_s * SECOND_US),),
        park_us=round(options.park_s * SECOND_US),
        parked_nusd_h=nusd(options.parked_usd_h),
    )
    scenario = Scenario(span_us=span, active_nusd_h=nusd(options.active_usd_h), tiers=(times,))
    loads = loads_of(trace, rule)
    idles = [round(idle * SECOND_US) for idle in options.idle_s]
    outcomes = [entrant.run(loads) for entrant in entrants(scenario, idles, times)]
    best = min(outcomes, key=lambda outcome: outcome.cost_nusd)
    streams.say_json(
        {
            "requests": len(trace),
            "span_s": span / SECOND_US,
            "policies": [as_json(outcome) for outcome in outcomes],
            "pareto": [outcome.policy for outcome in frontier(outcomes)],
            "recommended": best.policy,
            "verdict": "",
        }
    )
    return 0


VERB = Verb(
    name="plan",
    help="what each way of serving would cost, how long users would wait, and which idle time to choose",
    options=_options,
    run=_run,
)
