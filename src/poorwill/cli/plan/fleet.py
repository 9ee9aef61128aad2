"""What is known of a model's tiers besides the flags: measured by its fleet, or predicted."""

import os
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, replace

from poorwill.cli.parsing.fleet import DEFAULT_FILE, fleet_path
from poorwill.cli.parsing.prediction_options import fleet_host
from poorwill.cli.parsing.settings import model_of, read_fleet
from poorwill.cli.parsing.streams import Streams
from poorwill.cli.plan.options import PlanOptions
from poorwill.cli.plan.planner_options import cost_options
from poorwill.coldstart.prediction import total
from poorwill.compose.clock import SystemClock
from poorwill.compose.host import HOST_WAKES, KnownHost, known_host
from poorwill.compose.plans import tier_costs
from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.core.settings import FleetSettings, ModelSettings
from poorwill.core.words import Tier
from poorwill.engines.measured.expectation import expected_wakes
from poorwill.fleet.recovery import replica_id
from poorwill.ledger.history.recovery import Recovered, recovered
from poorwill.ledger.history.wakes import finished_wakes
from poorwill.ledger.schema import reading
from poorwill.planner.jobs import FleetModel
from poorwill.planner.ladder import MEASURED, KnownTiers, predict_tiers, prediction_source
from poorwill.planner.simulation.scenario import TierTimes

MEASURED_WAKES = 16
"""As many of the last measured wakes of a tier are replayed, in their order."""

NOTHING = Recovered(last_us=0, alive_us=0, replicas=(), wakes=(), wake_times=(), park_times=())
"""What a fleet without a ledger remembers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetKnown:
    """A fleet, and what it has measured of its replicas and of its machine."""

    fleet: FleetSettings
    known: Recovered
    host: KnownHost
    env: Mapping[str, str]
    now_us: int
    """Whose rates count."""

    def tiers(self, model: ModelSettings) -> tuple[TierTimes, ...]:
        """Return the model's ladder: measured, else predicted from its files, else assumed."""
        fleet, ladder = self.fleet, model.replica.park.ladder
        costs = tier_costs(model, ladder, fleet.rates, self.known, now_us=self.now_us)
        host = self.host.factor(model.engine.kind)
        expected = expected_wakes(model, directory=fleet.directory, env=self.env, host=host)
        tiers = []
        for tier in ladder:
            wakes, phases = _wakes_us(model, tier, self.known), expected.get(tier, ())
            source = f"{len(wakes)} {MEASURED}" if wakes else "assumed"
            if phases and not wakes:
                guess = total(phases)
                wakes = (guess.expected_us,)
                source = prediction_source(f"from {model.name}'s files", guess.low_us, guess.high_us)
            tiers.append(
                TierTimes(
                    tier=tier,
                    wake_us=wakes or (costs[tier].wake_us,),
                    park_us=costs[tier].park_us,
                    parked_nusd_h=costs[tier].parked_nusd_h,
                    source=source,
                )
            )
        return tuple(tiers)

    def planned(self, model: ModelSettings) -> FleetModel:
        """Return the model with everything the planner needs to know of it."""
        return FleetModel(settings=model, tiers=self.tiers(model), active_nusd_h=self.active_nusd_h(model))

    def active_nusd_h(self, model: ModelSettings) -> int:
        """Return what an hour of the ready model costs."""
        tiers = [Tier.COLD]
        costs = tier_costs(model, tiers, self.fleet.rates, self.known, now_us=self.now_us)
        return costs[Tier.COLD].active_nusd_h


def known_tiers(options: PlanOptions, streams: Streams) -> KnownTiers:
    """Return what the figures on the command line predict, or what a fleet knows of the model named.

    A fleet is asked if --fleet names one, or if --model is a model of ./fleet.toml. Raises OperatorFault for
    impossible figures, ConfigFault for a fleet that cannot be read.
    """
    predicted, chosen = options.predicted, options.ledger
    if predicted.params is not None:
        machine = predicted.machine(fleet_host(chosen.fleet, streams.env))
        return predict_tiers(predicted.start(), machine, cost_options(options))
    given = predicted.given
    if given:
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            f"{given[0]} needs --params",
            hint="how many parameters the model has, such as --params 70e9",
        )
    named = chosen.fleet != DEFAULT_FILE
    if chosen.ledger or not (named or (options.source.model and os.path.exists(fleet_path(chosen.fleet)))):
        return KnownTiers()
    return fleet_tiers(options, streams, named=named)


def measured(db: sqlite3.Connection, fleet: FleetSettings, env: Mapping[str, str]) -> FleetKnown:
    """Return what the fleet's ledger tells. Blocks for the model files' headers."""
    known = recovered(db, remembered=MEASURED_WAKES)
    wakes = finished_wakes(db, last=HOST_WAKES)
    host = known_host(fleet, wakes, env=env)
    return FleetKnown(fleet=fleet, known=known, host=host, env=env, now_us=known.last_us)


def fleet_tiers(options: PlanOptions, streams: Streams, *, named: bool) -> KnownTiers:
    """Return what a fleet knows of the model that --model names, or of its only one.

    `named`: the fleet was named on the command line; one that merely lies here need not have the model.
    Raises OperatorFault where it does not, ConfigFault where the fleet cannot be read.
    """
    fleet, wanted = read_fleet(options.ledger.fleet, streams.env), options.source.model
    if not named and wanted not in [model.name for model in fleet.models]:
        return KnownTiers()
    model = model_of(fleet, wanted)
    now_us = SystemClock.started().now_us()
    path = options.ledger.path(streams.env)
    if os.path.exists(path):
        with reading(path) as db:
            found = replace(measured(db, fleet, streams.env), now_us=now_us)
    else:
        host = known_host(fleet, (), env=streams.env)
        found = FleetKnown(fleet=fleet, known=NOTHING, host=host, env=streams.env, now_us=now_us)
    return KnownTiers(
        tiers={times.tier: times for times in found.tiers(model)},
        ladder=model.replica.park.ladder,
        active_nusd_h=found.active_nusd_h(model) if fleet.rates else None,
    )


def _wakes_us(model: ModelSettings, tier: Tier, known: Recovered) -> tuple[int, ...]:
    """Return the tier's last measured wakes, oldest first."""
    replica = replica_id(model.name)
    return tuple(
        wake.lasted_us for wake in known.wake_times if wake.replica == replica and wake.from_tier is tier
    )
