"""The options of `poorwill plan`."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from poorwill.cli.parsing.fleet import JsonOption
from poorwill.cli.parsing.ledger import LedgerOptions, PeriodOptions
from poorwill.cli.parsing.options import Group, Option, Values
from poorwill.cli.parsing.prediction_options import PredictionOptions
from poorwill.config.values.written import (
    date_us,
    dollars_nusd,
    more_than_zero,
    natural,
    positive,
    some_time_us,
    time_us,
)
from poorwill.core.words import SECOND_US, Tier
from poorwill.hosts.files.traces.synthetic import KINDS
from poorwill.planner.ladder import TierOverride
from poorwill.planner.simulation.scenario import Limit, limits_of

EPILOG = """\
Durations are in seconds unless they have a unit (5m, 2h); money is in dollars.

examples:
  poorwill plan --hours-per-day 4 --active-usd-h 3.80
  poorwill plan --trace requests.csv --active-usd-h 3.80 --wake-s 95 --park-s 20 --idle-s 300
  poorwill plan --synthetic office-hours --active-usd-h 3.80 --plot plan.html
  poorwill plan --synthetic bursty --active-usd-h 3.80 --params 8B --tier frozen --tier cold
  poorwill plan --from-ledger
  poorwill plan --tenants 1000 --hosts 4,8,16 --active-usd-h 3.80 --wake-s 12
"""


def _durations(text: str) -> tuple[int, ...]:
    return tuple(time_us(part) for part in text.split(","))


def _counts(text: str) -> tuple[int, ...]:
    return tuple(positive(part) for part in text.split(","))


def _sizes(text: str) -> tuple[float, ...]:
    return tuple(more_than_zero(part) for part in text.split(","))


def _tier(text: str) -> TierOverride:
    name, *rest = text.split(":")
    if name not in set(Tier) or len(rest) > 3:
        raise ValueError(f"{text!r} is not TIER:WAKE_S:PARK_S:USD_H; tiers: {', '.join(Tier)}")
    wake, park, parked = (*rest, "", "", "")[:3]
    return TierOverride(
        tier=Tier(name),
        wake_us=_durations(wake) if wake else (),
        park_us=time_us(park) if park else None,
        parked_nusd_h=dollars_nusd(parked) if parked else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """What to plan from."""

    trace: Annotated[
        str | None,
        Option("requests: CSV, JSON, JSON lines or a server's log", metavar="FILE", values=Values.FILES),
    ] = None
    columns: Annotated[
        str | None,
        Option(
            "what the trace's columns mean, such as arrival=ts:ms,service=took,model=name",
            metavar="ROLE=COLUMN[:UNIT],...",
        ),
    ] = None
    synthetic: Annotated[str | None, Option("draw a trace instead", choices=tuple(KINDS))] = None
    requests_per_day: Annotated[
        float, Option("of a drawn trace (default: 60)", metavar="N", read=more_than_zero)
    ] = 60.0
    seed: Annotated[int, Option("of the drawn trace (default: 1)", metavar="N", read=natural)] = 1
    from_ledger: Annotated[bool, Option("the fleet's own requests")] = False
    hours_per_day: Annotated[str | None, Option("no trace: so many hours of use a day", metavar="H")] = None
    wakes_per_day: Annotated[str, Option("with --hours-per-day", metavar="N")] = "0"
    model: Annotated[
        str | None,
        Option(
            "only this model's requests; of --fleet: whose wakes and rates",
            metavar="NAME",
            values=Values.MODELS,
        ),
    ] = None
    one_replica: Annotated[bool, Option("serve all models of the trace by one replica")] = False
    span_us: Annotated[
        int | None, Option("such as 30d (default: all)", flag="--span-s", metavar="S", read=some_time_us)
    ] = None
    origin_us: Annotated[
        int | None,
        Option("the trace's origin, for prices and hours", flag="--origin", metavar="DATE", read=date_us),
    ] = None
    bad_rows: Annotated[Literal["skip", "refuse"], Option("each is reported with its line")] = "skip"


@dataclass(frozen=True, slots=True, kw_only=True)
class CostFlags:
    """What it costs."""

    active_nusd_h: Annotated[
        int | None,
        Option("an hour of a ready replica", flag="--active-usd-h", metavar="USD", read=dollars_nusd),
    ] = None
    parked_nusd_h: Annotated[
        int, Option("an hour of a parked one", flag="--parked-usd-h", metavar="USD", read=dollars_nusd)
    ] = 0
    wake_us: Annotated[
        tuple[tuple[int, ...], ...],
        Option(
            "how long a wake takes; of several the n-th wake takes the n-th (default: as --fleet has "
            "measured or --params predict, else 95)",
            flag="--wake-s",
            metavar="S[,S...]",
            nargs="+",
            read=_durations,
        ),
    ] = ()
    park_us: Annotated[int, Option("default: 20", flag="--park-s", metavar="S", read=time_us)] = (
        20 * SECOND_US
    )
    cold_wake_us: Annotated[
        tuple[int, ...],
        Option("adds a cold tier below", flag="--cold-wake-s", metavar="S[,S...]", read=_durations),
    ] = ()
    cold_park_us: Annotated[int, Option("default: 10", flag="--cold-park-s", metavar="S", read=time_us)] = (
        10 * SECOND_US
    )
    increment_us: Annotated[
        int | None,
        Option("paid time is rounded up to this", flag="--increment-s", metavar="S", read=some_time_us),
    ] = None
    minimum_us: Annotated[
        int | None,
        Option("the provider's minimum for each stretch", flag="--minimum-s", metavar="S", read=time_us),
    ] = None
    storage_nusd_gb_month: Annotated[
        int | None,
        Option("a month of a snapshot's GB", flag="--storage-usd-gb-month", metavar="USD", read=dollars_nusd),
    ] = None
    image_gb: Annotated[float | None, Option("size of a snapshot", metavar="GB", read=more_than_zero)] = None
    tiers: Annotated[
        tuple[TierOverride, ...],
        Option(
            "a tier of the ladder, such as frozen:2.5:4:0.01; a wake left out (frozen, frozen::4) is "
            "measured or predicted, the rest is --park-s and --parked-usd-h",
            flag="--tier",
            metavar="TIER[:WAKE_S[:PARK_S[:USD_H]]]",
            repeats=True,
            read=_tier,
        ),
    ] = ()
    wait_nusd_s: Annotated[
        int, Option("what a held second is worth", flag="--wait-usd-s", metavar="USD", read=dollars_nusd)
    ] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceOptions:
    """How requests are served."""

    idle_us: Annotated[
        tuple[tuple[int, ...], ...],
        Option(
            "a fixed idle time to judge",
            flag="--idle-s",
            metavar="S[,S...]",
            nargs="+",
            repeats=True,
            read=_durations,
        ),
    ] = ()
    service_us: Annotated[int, Option("default: 30", flag="--service-s", metavar="S", read=time_us)] = (
        30 * SECOND_US
    )
    prompt_tokens_s: Annotated[
        float | None, Option("rate of reading a prompt", metavar="R", read=more_than_zero)
    ] = None
    output_tokens_s: Annotated[
        float | None, Option("rate of writing an answer", metavar="R", read=more_than_zero)
    ] = None
    replicas: Annotated[tuple[int, ...], Option("numbers to try", metavar="N[,N...]", read=_counts)] = ()
    max_concurrency: Annotated[
        tuple[Limit, ...],
        Option("of a replica (default: unlimited)", metavar="N[:SLOWDOWN][,...]", read=limits_of),
    ] = ()
    floor: Annotated[
        tuple[str, ...],
        Option(
            "keep ready: always, or such as 'mon-fri 09:00-18:00 Europe/Berlin'", metavar="WHEN", repeats=True
        ),
    ] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AlternativeOptions:
    """What to compare with, and what the work needs."""

    hosted: Annotated[str | None, Option("the hosted API to compare with", metavar="PROVIDER/MODEL")] = None
    prices: Annotated[
        str | None, Option("your own price table for --hosted", metavar="FILE", values=Values.FILES)
    ] = None
    prompt_tokens: Annotated[int, Option("if the trace has none", metavar="N", read=natural)] = 1500
    output_tokens: Annotated[int, Option("if the trace has none", metavar="N", read=natural)] = 300
    compliance: Annotated[bool, Option("a certified platform is required")] = False
    hard_real_time: Annotated[bool, Option("no request may ever wait")] = False
    horizontal: Annotated[bool, Option("work for many machines at once")] = False
    load_rps_one_box: Annotated[
        float | None, Option("what one box can serve", metavar="R", read=more_than_zero)
    ] = None
    plot: Annotated[
        str | None, Option("draw into a .png, .svg or .html", metavar="FILE", values=Values.FILES)
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolFlags:
    """Tenants that share a pool of hosts."""

    tenants: Annotated[int | None, Option("draw so many tenants", metavar="N", read=positive)] = None
    hosts: Annotated[
        tuple[int, ...],
        Option("sizes of the pool to try (default: several)", metavar="N[,N...]", read=_counts),
    ] = ()
    host_gb: Annotated[float, Option("default: 80", metavar="GB", read=more_than_zero)] = 80.0
    tenant_gb: Annotated[
        tuple[float, ...],
        Option(
            "sizes of the tenants' models, in turn (default: 16,24,40)", metavar="GB[,GB...]", read=_sizes
        ),
    ] = (16.0, 24.0, 40.0)


_PREDICTED = Group("a model to predict wakes of, if none are given or measured")
_PERIOD = Group("period (UTC; default: with --from-ledger, the last 30 days)")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """The options of `poorwill plan`."""

    source: Annotated[SourceOptions, Group("what to plan from")] = field(default_factory=SourceOptions)
    costs: Annotated[CostFlags, Group("what it costs")] = field(default_factory=CostFlags)
    predicted: Annotated[PredictionOptions, _PREDICTED] = field(default_factory=PredictionOptions)
    service: Annotated[ServiceOptions, Group("how requests are served")] = field(
        default_factory=ServiceOptions
    )
    other: Annotated[AlternativeOptions, Group("what to compare with, and what the work needs")] = field(
        default_factory=AlternativeOptions
    )
    pool: Annotated[PoolFlags, Group("a fleet on paper: tenants that share a pool of hosts")] = field(
        default_factory=PoolFlags
    )
    ledger: LedgerOptions = field(default_factory=LedgerOptions)
    when: Annotated[PeriodOptions, _PERIOD] = field(default_factory=PeriodOptions)
    json: JsonOption = False
