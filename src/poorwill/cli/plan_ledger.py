"""`poorwill plan --from-ledger`: the fleet's own requests, measured wakes, rates, floor and policy."""

import argparse
import os
from collections.abc import Iterator
from zoneinfo import ZoneInfo

from poorwill.cli.ledger import fleet_of, ledger_path
from poorwill.cli.plan_job import MONTH_US, Job, rule_of
from poorwill.cli.plan_options import cold_of, floor_of, scenario_of
from poorwill.cli.verb import Streams
from poorwill.compose.plans import tier_costs
from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.core.policies import make_floor
from poorwill.core.settings import FleetSettings, ModelSettings
from poorwill.core.words import SECOND_US, ModelName, Tier
from poorwill.fleet.recovery import replica_id
from poorwill.ledger.history import demanded_models, past_requests
from poorwill.ledger.items import last_instant
from poorwill.ledger.recovery import Recovered, recovered
from poorwill.ledger.schema import reading
from poorwill.planner.scenario import Scenario, TierTimes
from poorwill.planner.trace import UNKNOWN, Trace, new_trace

DAY_US = 86_400 * SECOND_US
MEASURED_WAKES = 16
"""As many of the last measured wakes of a tier are replayed, in their order."""


def own_jobs(options: argparse.Namespace, streams: Streams) -> Iterator[Job]:
    """Return one job per model that has requests in the period. Raises OperatorFault where none has."""
    path = ledger_path(options, streams)
    fleet = fleet_of(options, streams)
    with reading(path) as db:
        to_us = last_instant(db)
        from_us = to_us - (options.span_s or MONTH_US)
        known = recovered(db, remembered=MEASURED_WAKES)
        names = [options.model] if options.model else demanded_models(db)
        pasts = {
            name: past_requests(db, ModelName(name), from_us=from_us, to_us=to_us) for name in names
        }
    if not any(pasts.values()):
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            f"{os.path.basename(path)} has no request"
            + (f" for {options.model}" if options.model else "")
            + " in this period",
            hint="--span-s looks further back; --trace and --synthetic plan without a ledger",
        )
    for name, past in pasts.items():
        if past:
            begins = from_us if options.span_s else max(from_us, _midnight(past[0].arrived_us))
            trace = new_trace(
                arrival_us=[one.arrived_us - begins for one in past],
                service_us=[UNKNOWN if one.served_us is None else one.served_us for one in past],
                prompt_tokens=[_tokens(one.tokens_in) for one in past],
                output_tokens=[_tokens(one.tokens_out) for one in past],
                models=[name] * len(past),
                origin_us=begins,
                source=f"the ledger, {name}",
            )
            yield _own_job(options, trace, name, fleet, known, span_us=to_us - begins)


def _midnight(at_us: int) -> int:
    return at_us - at_us % DAY_US


def _tokens(count: int | None) -> int:
    return UNKNOWN if count is None else count


def _own_job(
    options: argparse.Namespace,
    trace: Trace,
    name: str,
    fleet: FleetSettings | None,
    known: Recovered,
    *,
    span_us: int,
) -> Job:
    """Return the job for one model of the fleet, with its own rates, measured times, floor and policy."""
    model = next((m for m in fleet.models if m.name == name), None) if fleet else None
    if fleet is None or model is None:
        scenario = scenario_of(options, span_us=span_us, origin_us=trace.origin_us or 0)
        return Job(trace=trace, rule=rule_of(options), scenario=scenario, cold=cold_of(options))
    ladder = model.replica.park.ladder
    costs = tier_costs(model, ladder, fleet.rates, known, now_us=known.last_us)
    active = options.active_usd_h
    tiers = tuple(
        TierTimes(
            tier=tier,
            wake_us=_wakes_us(model, tier, known) or (costs[tier].wake_us,),
            park_us=costs[tier].park_us,
            parked_nusd_h=costs[tier].parked_nusd_h,
        )
        for tier in ladder
    )
    scenario = Scenario(
        span_us=span_us,
        active_nusd_h=costs[ladder[0]].active_nusd_h if active is None else active,
        tiers=tiers,
        max_concurrency=model.replica.max_concurrency,
        wait_nusd_s=options.wait_usd_s or model.policy.wait_nusd_s,
        origin_us=trace.origin_us or 0,
    )
    floored = bool(model.floor.always or model.floor.windows)
    return Job(
        trace=trace,
        rule=rule_of(options),
        scenario=scenario,
        cold=tiers[-1] if tiers[-1].tier is Tier.COLD else tiers[0],
        floor=make_floor(model.floor, zone_of=ZoneInfo) if floored else floor_of(options),
        idle_us=model.policy.idle_us,
        policy=model.policy.name,
    )


def _wakes_us(model: ModelSettings, tier: Tier, known: Recovered) -> tuple[int, ...]:
    """Return the tier's last measured wakes, oldest first."""
    replica = replica_id(model.name)
    return tuple(
        wake.lasted_us
        for wake in known.wake_times
        if wake.replica == replica and wake.from_tier is tier
    )
