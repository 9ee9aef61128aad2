"""Warnings of `check`: what is allowed but probably not meant."""

from collections.abc import Iterator, Sequence

from poorwill.config.rules.cloud import cloud_advice
from poorwill.config.rules.outside import leaves_something, outside_advice
from poorwill.config.values.scalars import in_seconds
from poorwill.core.problems import Problem
from poorwill.core.settings import FleetSettings
from poorwill.core.words import SECOND_US, Tier

EDGE_CUT_US = 60 * SECOND_US
"""The shortest limit on silence that is common at the edge (nginx's `proxy_read_timeout`)."""


def advice(fleet: FleetSettings) -> Sequence[Problem]:
    """Return the warnings about a fleet."""
    found = [*_long_silences(fleet), *_expensive_parking(fleet), *cloud_advice(fleet)]
    if not fleet.rates:
        hint = "write [[rates]] with active_usd_h"
        found.append(Problem(where="rates", what="without rates the bill has no prices", hint=hint))
    for model in fleet.models:
        where = f"models.{model.name}"
        cold = model.replica.park.ladder == (Tier.COLD,) and model.away is None
        if cold and not (model.floor.always or leaves_something(model)):
            what = "every wake is a cold start"
            hint = 'ladder = ["frozen", "cold"] keeps a snapshot; poorwill doctor says what works here'
            found.append(Problem(where=f"{where}.ladder", what=what, hint=hint))
        found += outside_advice(model)
        if fleet.memory_bytes and not model.memory_bytes and model.away is None:
            what = "unknown, so the fleet's memory cannot be kept to"
            found.append(Problem(where=f"{where}.memory", what=what, hint="set it"))
        age_us, budget_us = model.replica.hold.age_us, model.replica.wake.budget_us
        if age_us < budget_us:
            what = f"{in_seconds(age_us)} is shorter than wake_budget_s, {in_seconds(budget_us)}"
            hint = "requests are failed before their budget has elapsed"
            found.append(Problem(where=f"{where}.hold.age_s", what=what, hint=hint))
    return found


def _expensive_parking(fleet: FleetSettings) -> Iterator[Problem]:
    """Warn of a parked replica that costs more than an active one: probably dollars and cents mixed up."""
    for index, rate in enumerate(fleet.rates):
        for tier, parked in rate.parked_nusd_h.items():
            if parked > rate.active_nusd_h:
                yield Problem(
                    where=f"rates[{index}].parked_usd_h.{tier}",
                    what="an hour parked costs more than an active one, so nothing should ever park",
                    hint="parked_usd_h is the disk's price for one hour",
                )


def _long_silences(fleet: FleetSettings) -> Iterator[Problem]:
    for key, silent_us in (
        ("heartbeat_s", fleet.gateway.heartbeat_us),
        ("commit_after_s", fleet.gateway.commit_after_us),
    ):
        if silent_us >= EDGE_CUT_US:
            what = f"a held client hears nothing for {in_seconds(silent_us)}"
            hint = "proxies and load balancers begin to cut silent connections at 60 s"
            yield Problem(where=f"gateway.{key}", what=what, hint=hint)
