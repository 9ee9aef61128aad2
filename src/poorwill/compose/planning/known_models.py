"""What a fleet knows of its models, for the planner: measured wakes, predictions, rates."""

import os
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, replace

from poorwill.compose.host import HOST_WAKES, KnownHost, known_host
from poorwill.compose.plans import image_bytes, measured_wakes_us, price_in_force, tier_costs
from poorwill.core.settings import FleetSettings, ModelSettings
from poorwill.core.words import parked
from poorwill.engines.measured.expectation import expected_wakes
from poorwill.ledger.history.recovery import Recovered, recovered
from poorwill.ledger.history.wakes import finished_wakes
from poorwill.ledger.schema import reading
from poorwill.planner.jobs import FleetModel
from poorwill.planner.ladder import MEASURED, KnownTiers, prediction_source
from poorwill.planner.simulation.scenario import TierTimes
from poorwill.policies.coldstart.prediction import total
from poorwill.policies.pricing import Price

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
        fleet, ladder, price = self.fleet, model.replica.park.ladder, self.price(model)
        costs = tier_costs(model, ladder, fleet.rates, self.known, now_us=self.now_us)
        host = self.host.pace(model.engine.kind)
        expected = expected_wakes(model, directory=fleet.directory, env=self.env, host=host)
        tiers = []
        for tier in ladder:
            wakes, phases = measured_wakes_us(model, tier, self.known), expected.get(tier, ())
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
                    parked_nusd_h=price.nusd_h(parked(tier), tier),
                    source=source,
                    image_bytes=image_bytes(model, tier, self.known),
                )
            )
        return tuple(tiers)

    def planned(self, model: ModelSettings) -> FleetModel:
        """Return the model with everything the planner needs to know of it."""
        return FleetModel(settings=model, tiers=self.tiers(model), price=self.price(model))

    def price(self, model: ModelSettings) -> Price:
        """Return what the model's time costs now."""
        return price_in_force(model, self.fleet.rates, self.now_us)


def measured(db: sqlite3.Connection, fleet: FleetSettings, env: Mapping[str, str]) -> FleetKnown:
    """Return what the fleet's ledger says. Blocks for the model files' headers."""
    known = recovered(db, remembered=MEASURED_WAKES)
    wakes = finished_wakes(db, last=HOST_WAKES)
    host = known_host(fleet, wakes, env=env)
    return FleetKnown(fleet=fleet, known=known, host=host, env=env, now_us=known.last_us)


def model_tiers(
    fleet: FleetSettings, model: ModelSettings, path: str, *, env: Mapping[str, str], now_us: int
) -> KnownTiers:
    """Return what a fleet and its ledger, if it has one, know of a model."""
    if os.path.exists(path):
        with reading(path) as db:
            found = replace(measured(db, fleet, env), now_us=now_us)
    else:
        host = known_host(fleet, (), env=env)
        found = FleetKnown(fleet=fleet, known=NOTHING, host=host, env=env, now_us=now_us)
    return KnownTiers(
        tiers={times.tier: times for times in found.tiers(model)},
        ladder=model.replica.park.ladder,
        price=found.price(model) if fleet.rates else None,
    )
