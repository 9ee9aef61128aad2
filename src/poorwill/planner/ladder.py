"""Where wakes come from: a flag, else the fleet's measurements, else a prediction, else an assumption.

Every tier carries the source of its figures, and the report prints it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.core.words import SECOND_US, TIER_DEPTH, Tier
from poorwill.planner.simulation.scenario import Billing, Limit, Scenario, TierTimes
from poorwill.policies.coldstart.loaders import GB
from poorwill.policies.coldstart.prediction import Machine, Start, predict_start, total, wakes_by_tier
from poorwill.policies.pricing import Price

ASSUMED_WAKE_US = 95 * SECOND_US
MEASURED = "measured"
"""How the source of a tier's wakes ends when the fleet's ledger has them."""
ASSUMED = "assumed; --wake-s, --params or a fleet tell better"


@dataclass(frozen=True, slots=True, kw_only=True)
class TierOverride:
    """What one --tier says; None or empty for what it leaves out."""

    tier: Tier
    wake_us: tuple[int, ...] = ()
    park_us: int | None = None
    parked_nusd_h: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CostOptions:
    """What the user says about rates, wakes and parks."""

    active_nusd_h: int | None = None
    parked_nusd_h: int = 0
    wake_us: tuple[int, ...] | None = None
    """--wake-s; None when it was not given."""
    park_us: int = 20 * SECOND_US
    cold_wake_us: tuple[int, ...] = ()
    cold_park_us: int = 10 * SECOND_US
    increment_us: int | None = None
    minimum_us: int | None = None
    storage_nusd_gb_month: int | None = None
    image_bytes: int | None = None
    """Size of a snapshot; None: as the fleet has measured."""
    tiers: tuple[TierOverride, ...] = ()
    replicas: tuple[int, ...] = ()
    limits: tuple[Limit, ...] = ()
    """Of a replica's requests at once; empty: none, or the model's own."""
    wait_nusd_s: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownTiers:
    """What is known of a model's tiers besides the flags."""

    tiers: Mapping[Tier, TierTimes] = field(default_factory=dict)
    ladder: tuple[Tier, ...] = ()
    """The tiers to plan with when no --tier names any."""
    price: Price | None = None
    """What the fleet's rates charge, if it has any."""


def predict_tiers(start: Start, machine: Machine, options: CostOptions) -> KnownTiers:
    """Return what the figures of a model and a machine predict."""
    size = start.weight_bytes
    wakes = wakes_by_tier(
        predict_start(start, machine),
        image_bytes=size,
        machine=machine,
        device_bytes=start.device_bytes,
        ranks=start.ranks,
    )
    what = f"{start.engine}, {start.parameters / 1e9:g}B, {size / GB:.3g} GB"
    tiers = {}
    for tier, phases in wakes.items():
        whole = total(phases)
        tiers[tier] = TierTimes(
            tier=tier,
            wake_us=(whole.expected_us,),
            park_us=options.park_us,
            parked_nusd_h=options.parked_nusd_h,
            source=prediction_source(what, whole.low_us, whole.high_us),
        )
    return KnownTiers(tiers=tiers, ladder=(Tier.COLD,))


def prediction_source(what: str, low_us: int, high_us: int) -> str:
    """Return the source of a predicted wake: what it was predicted from, and the interval."""
    return f"predicted, {low_us / SECOND_US:.3g} to {high_us / SECOND_US:.3g} s: {what}"


def resolve_tiers(options: CostOptions, known: KnownTiers) -> tuple[TierTimes, ...]:
    """Return the ladder, shallow to deep. Raises RequestFault for a tier whose wake nothing tells."""
    if options.tiers:
        tiers = [_overridden(given, options, known.tiers) for given in options.tiers]
    elif options.wake_us is not None or not known.ladder:
        tiers = [_only_tier(options)]
    else:
        tiers = [known.tiers[tier] for tier in known.ladder]
    if options.cold_wake_us and all(times.tier is not Tier.COLD for times in tiers):
        tiers.append(
            TierTimes(
                tier=Tier.COLD,
                wake_us=options.cold_wake_us,
                park_us=options.cold_park_us,
                parked_nusd_h=0,
                source="--cold-wake-s",
            )
        )
    names = [times.tier for times in tiers]
    if len(set(names)) < len(names):
        raise RequestFault(ErrorCode.INVALID_REQUEST, "a tier is given twice", hint="once each")
    return tuple(sorted(tiers, key=lambda times: TIER_DEPTH[times.tier]))


def _only_tier(options: CostOptions) -> TierTimes:
    return TierTimes(
        tier=Tier.HIBERNATED,
        wake_us=(ASSUMED_WAKE_US,) if options.wake_us is None else options.wake_us,
        park_us=options.park_us,
        parked_nusd_h=options.parked_nusd_h,
        source=ASSUMED if options.wake_us is None else "--wake-s",
    )


def _overridden(given: TierOverride, options: CostOptions, known: Mapping[Tier, TierTimes]) -> TierTimes:
    """Return the tier of one --tier, completed from what is known. Raises RequestFault without a wake."""
    base = known.get(given.tier)
    if not given.wake_us and base is None:
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            f"how long does a wake from {given.tier} take?",
            hint=f"--tier {given.tier}:2.5, or figures to predict it from, such as --params 8e9",
        )
    base = base or TierTimes(
        tier=given.tier, wake_us=given.wake_us, park_us=options.park_us, parked_nusd_h=options.parked_nusd_h
    )
    if given.wake_us:
        base = replace(base, wake_us=given.wake_us, source="--tier")
    return replace(
        base,
        park_us=base.park_us if given.park_us is None else given.park_us,
        parked_nusd_h=base.parked_nusd_h if given.parked_nusd_h is None else given.parked_nusd_h,
    )


def override_ladder(
    tiers: Sequence[TierTimes], options: CostOptions, predicted: Mapping[Tier, TierTimes]
) -> tuple[TierTimes, ...]:
    """Return a fleet's ladder with the flags' figures in place of the fleet's.

    --wake-s is about the first tier, --cold-wake-s about `cold`, --tier about its own; a tier that the ladder
    lacks is an error. `predicted` comes from flags such as --params: it replaces what the fleet predicts or
    assumes, not what it measured. Raises RequestFault.
    """
    known = {
        times.tier: times if times.source.endswith(MEASURED) else _with_prediction(times, predicted)
        for times in tiers
    }
    if options.wake_us is not None:
        first = tiers[0]
        known[first.tier] = replace(first, wake_us=options.wake_us, source="--wake-s")
    if options.cold_wake_us and Tier.COLD in known:
        cold = known[Tier.COLD]
        known[Tier.COLD] = replace(cold, wake_us=options.cold_wake_us, source="--cold-wake-s")
    for given in options.tiers:
        if given.tier not in known:
            raise RequestFault(
                ErrorCode.INVALID_REQUEST,
                f"the model's ladder has no {given.tier}",
                hint="it is " + ", ".join(known),
            )
        known[given.tier] = _overridden(given, options, known)
    return tuple(known.values())


def _with_prediction(times: TierTimes, predicted: Mapping[Tier, TierTimes]) -> TierTimes:
    better = predicted.get(times.tier)
    return times if better is None else replace(times, wake_us=better.wake_us, source=better.source)


def cold_tier(tiers: Sequence[TierTimes]) -> TierTimes:
    """Return the tier that the policy `cold` uses: the cold one, or the first if there is none."""
    return tiers[-1] if tiers[-1].tier is Tier.COLD else tiers[0]


def override_price(options: CostOptions, known: Price | None) -> Price | None:
    """Return the fleet's price with the flags' figures in place of its own; None if neither has a rate."""
    if known is None and options.active_nusd_h is None:
        return None
    base = known or Price(active_nusd_h=0)

    def stated(flag: int | None, fleets: int) -> int:
        return fleets if flag is None else flag

    return replace(
        base,
        active_nusd_h=stated(options.active_nusd_h, base.active_nusd_h),
        increment_us=stated(options.increment_us, base.increment_us),
        minimum_us=stated(options.minimum_us, base.minimum_us),
        storage_nusd_gb_month=stated(options.storage_nusd_gb_month, base.storage_nusd_gb_month),
    )


def billing_of(price: Price) -> Billing:
    """Return how a price charges besides its rates."""
    return Billing(
        increment_us=price.increment_us,
        minimum_us=price.minimum_us,
        storage_nusd_gb_month=price.storage_nusd_gb_month,
    )


def with_images(tiers: Sequence[TierTimes], options: CostOptions) -> tuple[TierTimes, ...]:
    """Return the tiers with the snapshot size that the user states; `asleep` and `cold` have none."""
    size = options.image_bytes
    if size is None:
        return tuple(tiers)
    return tuple(
        times if times.tier in (Tier.ASLEEP, Tier.COLD) else replace(times, image_bytes=size)
        for times in tiers
    )


def new_scenario(options: CostOptions, known: KnownTiers, *, span_us: int, origin_us: int) -> Scenario:
    """Return the world to replay in. Raises RequestFault if the active rate is missing."""
    price = override_price(options, known.price)
    if price is None:
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            "--active-usd-h is missing",
            hint="what an hour of a ready replica costs, such as --active-usd-h 3.80",
        )
    return Scenario(
        span_us=span_us,
        active_nusd_h=price.active_nusd_h,
        billing=billing_of(price),
        tiers=with_images(resolve_tiers(options, known), options),
        wait_nusd_s=options.wait_nusd_s,
        origin_us=origin_us,
    )
