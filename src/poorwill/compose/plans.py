"""From configured models and what the ledger remembers to plans for their replicas, policies taught."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, tzinfo
from functools import partial
from statistics import median_low
from types import MappingProxyType
from zoneinfo import ZoneInfo

from poorwill.compose.drivers.fleet_drivers import Fallback, FleetDrivers
from poorwill.compose.host import HOST_WAKES, KnownHost, known_host, storage_speed
from poorwill.compose.hub.fetch import fetch_first
from poorwill.compose.hub.on_disk import located, on_disk
from poorwill.config.rules.break_even import short_idles
from poorwill.core.launch import Parked, Running
from poorwill.core.machine.levels import REMEMBERED_GAPS
from poorwill.core.money import rounded
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.log import Log
from poorwill.core.settings import FleetSettings, ModelSettings, RateSettings
from poorwill.core.words import SECOND_US, ReplicaId, Tier, parked
from poorwill.engines.kinds import make_engine
from poorwill.engines.measured.expectation import expected_wakes
from poorwill.fleet.recovery import LevelPlan, ModelPlan, Remembered
from poorwill.fleet.room.residents import Claim
from poorwill.fleet.unit import Equipment
from poorwill.ledger.history.recovery import KnownReplica, ParkTime, Recovered, level_gaps
from poorwill.ledger.history.wakes import finished_wakes
from poorwill.ledger.ledger import Ledger
from poorwill.policies import TierCosts, make_floor, make_policy
from poorwill.policies.coldstart.prediction import total
from poorwill.policies.pricing import Price, price_of

ASSUMED_WAKE_US: Mapping[Tier, int] = {
    Tier.ASLEEP: 2 * SECOND_US,
    Tier.FROZEN: 10 * SECOND_US,
    Tier.SUSPENDED: 10 * SECOND_US,
    Tier.HIBERNATED: 240 * SECOND_US,
    Tier.COLD: 120 * SECOND_US,
}
"""How long a wake is assumed to take if none was measured and nothing is known of the model's size: rough
figures for some 8B parameters on one accelerator."""

ASSUMED_PARK_US = 5 * SECOND_US

HISTORY_US = 8 * 7 * 24 * 3600 * SECOND_US
"""How much of its own past a learning policy is taught at start: eight weeks, so that every hour of the week
has come up eight times."""


def learns(model: ModelSettings) -> bool:
    """Return whether the model's policy, or the one in its shadow, learns from history."""
    return model.policy.name == "adaptive" or bool(model.policy.shadow)


def plan_model(
    model: ModelSettings,
    *,
    fleet: FleetSettings,
    fleet_drivers: FleetDrivers,
    recovered: Recovered,
    env: Mapping[str, str],
    clock: Clock,
    host: KnownHost,
) -> tuple[ModelPlan, Sequence[Fallback]]:
    """Return the plan for a model's replicas, and which tiers of its ladder this machine cannot do.

    Blocks for a model file's header. Raises ConfigFault or OperatorFault if the engine cannot be made as
    configured.
    """
    ladder, fallbacks = fleet_drivers.ladder(model)
    drivers, away = fleet_drivers.drivers_of(model.name), fleet_drivers.elsewhere.get(model.name)
    predicted = expected_wakes(
        located(model, env), directory=fleet.directory, env=env, host=host.pace(model.engine.kind)
    )
    expected = {tier: total(phases).expected_us for tier, phases in predicted.items()}
    settings = replace(
        model.replica,
        park=replace(model.replica.park, ladder=ladder),
        wake=replace(model.replica.wake, expected_us=expected),
    )
    costs = tier_costs(model, ladder, fleet.rates, recovered, now_us=clock.now_us(), expected=expected)
    plan = ModelPlan(
        settings=settings,
        levels=[
            LevelPlan(
                policy=make_policy(model.policy, ladder=ladder, costs=costs),
                floor=make_floor(
                    model.floor, zone_of=zone_of, level=level, least_ready=model.replicas.least_ready
                ),
            )
            for level in range(model.replicas.most)
        ],
        equipment=Equipment(
            engine=away.engine
            if away and away.engine
            else make_engine(
                model, directory=fleet.directory, clock=clock, env=env, located=partial(on_disk, env=env)
            ),
            drivers={tier: drivers[tier] for tier in ladder},
            processes=fleet_drivers.processes_of(model.name),
            fetch=None if model.hosts else fetch_first(model, env=env, clock=clock),
            machine=model.cloud.named if model.cloud else "",
        ),
        driver=drivers[Tier.COLD].name,
        claim=Claim(priority=model.priority)
        if model.hosts
        else Claim(memory_bytes=model.memory_bytes, devices=model.devices, priority=model.priority),
    )
    return plan, fallbacks


async def plan_models(
    settings: FleetSettings,
    fleet_drivers: FleetDrivers,
    ledger: Ledger,
    *,
    env: Mapping[str, str],
    log: Log,
) -> tuple[Sequence[ModelPlan], Sequence[Fallback]]:
    """Return a plan for every model, its policy taught by its own history, and what does not work here.

    What does not work is a warning in the log, and so is an idle time that is too short. Raises as
    `plan_model` does.
    """
    clock = ledger.clock
    recovered = await asyncio.to_thread(ledger.recovered)
    host = await _host(settings, ledger, env, at_us=clock.now_us())
    plans: list[ModelPlan] = []
    fallbacks: list[Fallback] = []
    for model in settings.models:
        plan, found = plan_model(
            model,
            fleet=settings,
            fleet_drivers=fleet_drivers,
            recovered=recovered,
            env=env,
            clock=clock,
            host=host,
        )
        evicts = bool(settings.memory_bytes) or settings.gives_devices
        plans.append(await _taught(plan, model, ledger, now_us=clock.now_us(), evicts=evicts))
        fallbacks += found
    for fallback in fallbacks:
        log.warning("a tier does not work here", model=fallback.model, why=str(fallback))
    # An error of `check`. Here the replica is served all the same: what is measured drifts, and a restart
    # must not become an outage over the cost of a few wakes.
    costs = partial(measured_costs, rates=settings.rates, recovered=recovered, now_us=clock.now_us())
    for problem in short_idles(settings, costs):
        log.warning("an idle time is too short", where=problem.where, why=problem.what, hint=problem.hint)
    return plans, fallbacks


async def _taught(
    plan: ModelPlan, model: ModelSettings, ledger: Ledger, *, now_us: int, evicts: bool
) -> ModelPlan:
    """Return the plan with each level's policy taught by its own past, and its gaps for eviction."""
    if not (learns(model) or evicts):
        return plan
    since_us = now_us - HISTORY_US
    known = await ledger.read(partial(level_gaps, replicas=model.replica_ids, since_us=since_us))
    levels = []
    for level, gaps in zip(plan.levels, known, strict=True):
        for idle_us, demand_us in gaps if learns(model) else ():
            level.policy.observe(idle_us, demand_us)
        lasted = tuple(demand_us - idle_us for idle_us, demand_us in gaps[-REMEMBERED_GAPS:])
        levels.append(replace(level, gaps_us=lasted))
    return replace(plan, levels=levels)


async def _host(settings: FleetSettings, ledger: Ledger, env: Mapping[str, str], *, at_us: int) -> KnownHost:
    """Return what is known of this machine; a fleet's first start measures its storage, in under a second."""
    await asyncio.to_thread(storage_speed, settings, env=env, at_us=at_us)
    wakes = await ledger.read(partial(finished_wakes, last=HOST_WAKES))
    return await asyncio.to_thread(known_host, settings, wakes, env=env)


def zone_of(name: str) -> tzinfo:
    """Return a time zone; UTC needs no database, which a minimal machine may lack."""
    return UTC if name == "UTC" else ZoneInfo(name)


def tier_costs(
    model: ModelSettings,
    ladder: Sequence[Tier],
    rates: Sequence[RateSettings],
    recovered: Recovered,
    *,
    now_us: int,
    expected: Mapping[Tier, int] = MappingProxyType({}),
) -> dict[Tier, TierCosts]:
    """Return what each tier costs the model: measured, else predicted from its files, else assumed."""
    price = price_in_force(model, rates, now_us)
    costs = {}
    for tier in ladder:
        wakes = measured_wakes_us(model, tier, recovered)
        parks = [park.lasted_us for park in _parks(model, tier, recovered)]
        costs[tier] = TierCosts(
            wake_us=median_low(wakes) if wakes else expected.get(tier, ASSUMED_WAKE_US[tier]),
            park_us=median_low(parks) if parks else ASSUMED_PARK_US,
            active_nusd_h=price.active_nusd_h,
            parked_nusd_h=price.resting_nusd_h(tier, image_bytes(model, tier, recovered)),
            increment_us=price.increment_us,
            minimum_us=price.minimum_us,
        )
    return costs


def measured_wakes_us(model: ModelSettings, tier: Tier, known: Recovered) -> tuple[int, ...]:
    """Return how long the model's last measured wakes from a tier took, oldest first."""
    wakes = [wake for wake in known.wake_times if wake.replica in model.replica_ids]
    return tuple(wake.lasted_us for wake in wakes if wake.from_tier is tier)


def _parks(model: ModelSettings, tier: Tier, known: Recovered) -> list[ParkTime]:
    own = model.replica_ids
    return [park for park in known.park_times if park.to_tier is tier and park.replica in own]


def measured_costs(
    model: ModelSettings,
    tier: Tier,
    rates: Sequence[RateSettings],
    recovered: Recovered,
    *,
    now_us: int,
) -> TierCosts | None:
    """Return what a tier costs the model if that is known: measured, at a rate in force; else None."""
    woken = bool(measured_wakes_us(model, tier, recovered))
    rated = any(_rates_in_force(model, replica, rates, now_us) for replica in model.replica_ids)
    if not (woken and rated and _parks(model, tier, recovered)):
        return None
    return tier_costs(model, [tier], rates, recovered, now_us=now_us)[tier]


def image_bytes(model: ModelSettings, tier: Tier, recovered: Recovered) -> int:
    """Return how much the model's last park into a tier left on disk, 0 if it has not parked there."""
    parks = _parks(model, tier, recovered)
    return max(parks, key=lambda park: park.ended_us).image_bytes if parks else 0


def price_in_force(model: ModelSettings, rates: Sequence[RateSettings], now_us: int) -> Price:
    """Return the price in force, the most specific first; a dollar an hour if none is given.

    For the policies only: the ledger prices by its own book. A policy is a level's, and replicas change their
    levels: if their rates differ, it reckons with the mean, and with the longest increment and minimum.
    """
    default = RateSettings(effective_us=0, active_nusd_h=10**9)
    prices = [
        price_of(
            max(
                _rates_in_force(model, replica, rates, now_us),
                key=lambda r: (r.replica is not None, r.model is not None, r.effective_us),
                default=default,
            )
        )
        for replica in model.replica_ids
    ]
    return Price(
        active_nusd_h=_mean(price.active_nusd_h for price in prices),
        parked_nusd_h={
            tier: _mean(price.nusd_h(parked(tier), tier) for price in prices)
            for tier in Tier
            if any(tier in price.parked_nusd_h for price in prices)
        },
        storage_nusd_gb_month=_mean(price.storage_nusd_gb_month for price in prices),
        increment_us=max(price.increment_us for price in prices),
        minimum_us=max(price.minimum_us for price in prices),
    )


def _mean(amounts: Iterable[int]) -> int:
    known = list(amounts)
    return rounded(sum(known), len(known))


def _rates_in_force(
    model: ModelSettings, replica: ReplicaId, rates: Sequence[RateSettings], now_us: int
) -> list[RateSettings]:
    return [
        rate
        for rate in rates
        if rate.effective_us <= now_us
        and rate.model in (None, model.name)
        and rate.replica in (None, replica)
    ]


def remembered_replicas(recovered: Recovered) -> dict[ReplicaId, Remembered]:
    """Return what the ledger knows of replicas that have not ended, as the fleet's recovery wants it."""
    wakes: dict[ReplicaId, dict[Tier, tuple[int, ...]]] = defaultdict(dict)
    for wake in recovered.wake_times:
        known = wakes[wake.replica].get(wake.from_tier, ())
        wakes[wake.replica][wake.from_tier] = (*known, wake.lasted_us)
    unfinished = {wake.replica: wake for wake in recovered.wakes}
    remembered = {}
    for replica in recovered.replicas:
        wake_begun = unfinished.get(replica.replica)
        running, parked, generation = _place(replica)
        remembered[replica.replica] = Remembered(
            replica=replica.replica,
            model=replica.model,
            generation=max(generation, wake_begun.generation if wake_begun else 0),
            cause=replica.cause,
            since_us=replica.span_began_us,
            open_wake=wake_begun.wake if wake_begun else None,
            running=running,
            parked=parked,
            wakes_us=wakes[replica.replica],
        )
    return remembered


def _place(replica: KnownReplica) -> tuple[Running | None, Parked | None, int]:
    placed = replica.placed
    if placed is None:
        return None, None, 0
    running = Running.from_json(placed.running_json) if placed.running_json else None
    parked = Parked.from_json(placed.parked_json) if placed.parked_json else None
    return running, parked, placed.generation
