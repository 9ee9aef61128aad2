"""Where `poorwill plan` takes wakes from: a flag, else the fleet's ledger, else a prediction, else a guess.

Every tier says which of them it was.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from poorwill.cli.parsing.model_options import (
    described_machine,
    described_start,
    fleet_host,
    given_figures,
)
from poorwill.cli.parsing.target import DEFAULT_FILE, fleet_path
from poorwill.cli.parsing.verb import Streams
from poorwill.cli.plan.options import TierGiven, flat
from poorwill.coldstart.loaders import GB
from poorwill.coldstart.prediction import predict_start, total, wakes_by_tier
from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.core.words import SECOND_US, TIER_DEPTH, Tier
from poorwill.planner.simulation.scenario import Scenario, TierTimes

ASSUMED_WAKE_US = 95 * SECOND_US
MEASURED = "measured"
"""How the source of a tier's wakes ends where the fleet's ledger has them."""
ASSUMED = "assumed; --wake-s, --params or a fleet tell better"


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of a model's tiers besides the flags that say it outright."""

    tiers: Mapping[Tier, TierTimes] = field(default_factory=dict)
    ladder: tuple[Tier, ...] = ()
    """What to plan with where no --tier says."""
    active_nusd_h: int | None = None


def known_tiers(options: argparse.Namespace, streams: Streams) -> Known:
    """Return what the figures on the command line predict, or what a fleet knows of the model named.

    A fleet is asked where --fleet names one, or where --model is a model of ./fleet.toml. Raises
    OperatorFault for impossible figures, ConfigFault for a fleet that cannot be read.
    """
    if options.params is not None:
        return _described(options, streams)
    given = given_figures(options)
    if given:
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            f"--params is missing, for which {given[0]} is given",
            hint="how many parameters the model has, such as --params 70e9",
        )
    named = options.fleet != DEFAULT_FILE
    if options.ledger or not (named or (options.model and os.path.exists(fleet_path(options)))):
        return Known()
    from poorwill.cli.plan.fleet import (
        fleet_tiers,  # needs the whole fleet; other plans do without
    )

    return fleet_tiers(options, streams, named=named)


def _described(options: argparse.Namespace, streams: Streams) -> Known:
    start = described_start(options)
    machine = described_machine(options, fleet_host(options, streams))
    phases = predict_start(start, machine)
    size = start.weight_bytes
    wakes = wakes_by_tier(
        phases,
        image_bytes=size,
        machine=machine,
        device_bytes=start.device_bytes,
        ranks=start.ranks,
    )
    wholes = {tier: total(each) for tier, each in wakes.items()}
    what = f"{start.engine}, {start.parameters / 1e9:g}B, {size / GB:.3g} GB"
    tiers = {
        tier: TierTimes(
            tier=tier,
            wake_us=(whole.expected_us,),
            park_us=options.park_s,
            parked_nusd_h=options.parked_usd_h,
            source=predicted(what, whole.low_us, whole.high_us),
        )
        for tier, whole in wholes.items()
    }
    return Known(tiers=tiers, ladder=(Tier.COLD,))


def predicted(what: str, low_us: int, high_us: int) -> str:
    """Say that a wake's length is a prediction, of what, and how far it may be off."""
    return f"predicted, {low_us / SECOND_US:.3g} to {high_us / SECOND_US:.3g} s: {what}"


def tiers_of(options: argparse.Namespace, known: Known) -> tuple[TierTimes, ...]:
    """Return the ladder, shallow to deep. Raises RequestFault for a tier of which nobody knows the wake."""
    if options.tier:
        tiers = [given_tier(given, options, known.tiers) for given in options.tier]
    elif options.wake_s is not None or not known.ladder:
        tiers = [_one_tier(options)]
    else:
        tiers = [known.tiers[tier] for tier in known.ladder]
    if options.cold_wake_s and all(times.tier is not Tier.COLD for times in tiers):
        tiers.append(
            TierTimes(
                tier=Tier.COLD,
                wake_us=options.cold_wake_s,
                park_us=options.cold_park_s,
                parked_nusd_h=0,
                source="--cold-wake-s",
            )
        )
    names = [times.tier for times in tiers]
    if len(set(names)) < len(names):
        raise RequestFault(ErrorCode.INVALID_REQUEST, "a tier is given twice", hint="once each")
    return tuple(sorted(tiers, key=lambda times: TIER_DEPTH[times.tier]))


def _one_tier(options: argparse.Namespace) -> TierTimes:
    given = options.wake_s is not None
    return TierTimes(
        tier=Tier.HIBERNATED,
        wake_us=flat(options.wake_s) if given else (ASSUMED_WAKE_US,),
        park_us=options.park_s,
        parked_nusd_h=options.parked_usd_h,
        source="--wake-s" if given else ASSUMED,
    )


def given_tier(given: TierGiven, options: argparse.Namespace, known: Mapping[Tier, TierTimes]) -> TierTimes:
    """Return a tier of --tier, what it leaves out filled in. Raises RequestFault where nothing can."""
    base = known.get(given.tier)
    if not given.wake_us and base is None:
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            f"how long does a wake from {given.tier} take?",
            hint=f"--tier {given.tier}:2.5, or figures to predict it from, such as --params 8e9",
        )
    base = base or TierTimes(
        tier=given.tier,
        wake_us=given.wake_us,
        park_us=options.park_s,
        parked_nusd_h=options.parked_usd_h,
    )
    if given.wake_us:
        base = replace(base, wake_us=given.wake_us, source="--tier")
    return replace(
        base,
        park_us=base.park_us if given.park_us is None else given.park_us,
        parked_nusd_h=base.parked_nusd_h if given.parked_nusd_h is None else given.parked_nusd_h,
    )


def flagged(
    tiers: Sequence[TierTimes], options: argparse.Namespace, told: Mapping[Tier, TierTimes]
) -> tuple[TierTimes, ...]:
    """Return a fleet's ladder with what flags say of it in place of what the fleet knows.

    --wake-s is about the first tier, --cold-wake-s about `cold`, --tier about its own; a tier the ladder
    lacks is an error. `told` is what figures such as --params predict: they go before what the fleet predicts
    or assumes, not before what it measured. Raises RequestFault.
    """
    known = {
        times.tier: times if times.source.endswith(MEASURED) else _predicted_as(times, told)
        for times in tiers
    }
    if options.wake_s is not None:
        first = tiers[0]
        known[first.tier] = replace(first, wake_us=flat(options.wake_s), source="--wake-s")
    if options.cold_wake_s and Tier.COLD in known:
        cold = known[Tier.COLD]
        known[Tier.COLD] = replace(cold, wake_us=options.cold_wake_s, source="--cold-wake-s")
    for given in options.tier:
        if given.tier not in known:
            raise RequestFault(
                ErrorCode.INVALID_REQUEST,
                f"the model's ladder has no {given.tier}",
                hint="it is " + ", ".join(known),
            )
        known[given.tier] = given_tier(given, options, known)
    return tuple(known.values())


def _predicted_as(times: TierTimes, told: Mapping[Tier, TierTimes]) -> TierTimes:
    better = told.get(times.tier)
    return times if better is None else replace(times, wake_us=better.wake_us, source=better.source)


def cold_of(tiers: Sequence[TierTimes]) -> TierTimes:
    """Return what the policy `cold` uses: the cold tier, or the first where there is none."""
    return tiers[-1] if tiers[-1].tier is Tier.COLD else tiers[0]


def scenario_of(options: argparse.Namespace, known: Known, *, span_us: int, origin_us: int) -> Scenario:
    """Return the world to replay in. Raises RequestFault where the active rate is missing."""
    active = known.active_nusd_h if options.active_usd_h is None else options.active_usd_h
    if active is None:
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            "--active-usd-h is missing",
            hint="what an hour of a ready replica costs, such as --active-usd-h 3.80",
        )
    if options.max_concurrency < 0:
        raise RequestFault(ErrorCode.INVALID_REQUEST, "--max-concurrency is negative", hint="0: unlimited")
    return Scenario(
        span_us=span_us,
        active_nusd_h=active,
        tiers=tiers_of(options, known),
        max_concurrency=options.max_concurrency,
        wait_nusd_s=options.wait_usd_s,
        origin_us=origin_us,
    )
