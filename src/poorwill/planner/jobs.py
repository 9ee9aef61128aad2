"""What one report is about: a trace and the world to replay it in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from zoneinfo import ZoneInfo

from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.core.format import DAY_US, counted
from poorwill.core.policy import FloorSchedule
from poorwill.core.settings import FloorSettings, HostedSettings, ModelSettings
from poorwill.core.words import SECOND_US, Tier
from poorwill.hosts.files.traces.layouts import ColumnUse, Role
from poorwill.hosts.files.traces.readers import read_trace
from poorwill.hosts.files.traces.service import ServiceRule
from poorwill.hosts.files.traces.synthetic import Draw, draw_trace
from poorwill.hosts.files.traces.trace import Trace
from poorwill.planner.ladder import (
    CostOptions,
    KnownTiers,
    billing_of,
    cold_tier,
    new_scenario,
    override_ladder,
    override_price,
    with_images,
)
from poorwill.planner.report.advice import CurrentPolicy
from poorwill.planner.simulation.scenario import Limit, Scenario, TierTimes
from poorwill.policies import make_floor
from poorwill.policies.pricing import Price

MONTH_US = 30 * DAY_US
"""The span of a drawn trace, and how far a plan from the ledger looks back by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceOptions:
    """Which requests to replay."""

    path: str | None = None
    draw: Draw | None = None
    """Draw a trace instead of reading one."""
    span_us: int | None = None
    origin_us: int | None = None
    model: str | None = None
    one_replica: bool = False
    refuse_bad_rows: bool = False
    columns: Mapping[Role, ColumnUse] = field(default_factory=dict)
    """What the columns of the trace mean, if its layout does not tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """What the user says about the requests and the world they are replayed in."""

    trace: TraceOptions = field(default_factory=TraceOptions)
    costs: CostOptions = field(default_factory=CostOptions)
    service: ServiceRule = field(default_factory=ServiceRule)
    floor: FloorSettings | None = None
    idles_us: tuple[int, ...] = ()
    """Fixed idle times to judge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetModel:
    """A model of the fleet and what the fleet has measured of it."""

    settings: ModelSettings
    tiers: tuple[TierTimes, ...]
    price: Price


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanJob:
    """One report to make."""

    trace: Trace
    rule: ServiceRule
    scenario: Scenario
    cold: TierTimes
    replicas: Sequence[int] = ()
    """Numbers of replicas to try; empty: as many as would do."""
    limits: Sequence[Limit] = (Limit(),)
    keeps_size: bool = False
    """Whether the scenario's size is the operator's own, and other sizes are only compared with it."""
    floors: Sequence[FloorSchedule] = ()
    """Of the first levels of demand."""
    own: CurrentPolicy | None = None
    """What the operator runs now, if the job is about the fleet's own history."""
    bridge: HostedSettings | None = None
    """Where the model's own bridge leads, if it has one."""
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def idles_us(self) -> tuple[int, ...]:
        """Return the operator's own fixed idle time, judged before all others."""
        return () if self.own is None or self.own.idle_us is None else (self.own.idle_us,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """A trace, what to say of it in the report, and which of its rows were skipped."""

    trace: Trace
    notes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


def load_requests(options: TraceOptions) -> Requests:
    """Draw or read the trace. Raises as `read_trace` does."""
    if options.draw is not None:
        return Requests(trace=draw_trace(options.draw))
    assert options.path is not None
    reading = read_trace(options.path, refuse_bad=options.refuse_bad_rows, columns=options.columns)
    notes = [*reading.notes]
    if reading.bad_count:
        notes.append(f"{counted(reading.bad_count, 'bad row')} skipped (--bad-rows refuse stops instead)")
    if reading.unsorted:
        notes.append(f"{counted(reading.unsorted, 'row')} out of order, sorted")
    return Requests(
        trace=reading.trace,
        notes=tuple(notes),
        skipped=tuple(f"{options.path}: {problem}: skipped" for problem in reading.bad),
    )


def trace_job(requests: Requests, options: JobOptions, known: KnownTiers) -> PlanJob:
    """Return the job for a trace that was read or drawn. Raises RequestFault if no request is left of it."""
    trace, notes, asked = requests.trace, list(requests.notes), options.trace
    if asked.origin_us is not None:
        trace = replace(trace, origin_us=asked.origin_us)
    if asked.model is not None:
        trace = trace.only(asked.model)
    if asked.one_replica:
        trace = trace.merged()
    span_us = asked.span_us or (MONTH_US if asked.draw else _whole_span_us(trace, options.service))
    beyond = int((trace.arrival_us >= span_us).sum())
    if beyond:
        notes.append(f"{counted(beyond, 'request')} after the span's end left out")
        trace = trace.before(span_us)
    if not len(trace):
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            f"no request of {trace.source} arrives within the span",
            hint="a longer --span-s, or more --requests-per-day",
        )
    scenario = new_scenario(options.costs, known, span_us=span_us, origin_us=trace.origin_us or 0)
    return PlanJob(
        trace=trace,
        rule=options.service,
        scenario=scenario,
        cold=cold_tier(scenario.tiers),
        replicas=options.costs.replicas,
        limits=options.costs.limits or (Limit(),),
        floors=_floors(options.floor),
        notes=notes,
    )


def history_job(
    trace: Trace, own: CurrentPolicy, options: JobOptions, known: KnownTiers, *, span_us: int
) -> PlanJob:
    """Return the job for a model's history without its fleet: rates and wakes come from the options."""
    scenario = new_scenario(options.costs, known, span_us=span_us, origin_us=trace.origin_us or 0)
    stated = options.idles_us
    return PlanJob(
        trace=trace,
        rule=options.service,
        scenario=scenario,
        cold=cold_tier(scenario.tiers),
        replicas=options.costs.replicas,
        limits=options.costs.limits or (Limit(),),
        floors=_floors(options.floor),
        own=replace(own, idle_us=stated[0] if len(stated) == 1 else None),
    )


def fleet_job(
    trace: Trace,
    own: CurrentPolicy,
    options: JobOptions,
    model: FleetModel,
    predicted: Mapping[Tier, TierTimes],
    *,
    span_us: int,
) -> PlanJob:
    """Return the job for a model of the fleet: its own rates, measured times, floor and policy."""
    costs, settings = options.costs, model.settings
    tiers = with_images(override_ladder(model.tiers, costs, predicted), costs)
    price = override_price(costs, model.price) or model.price
    floors = _floors(settings.floor, settings.replicas.least_ready)
    return PlanJob(
        trace=trace,
        rule=options.service,
        scenario=Scenario(
            span_us=span_us,
            active_nusd_h=price.active_nusd_h,
            billing=billing_of(price),
            tiers=tiers,
            replicas=settings.replicas.most,
            max_concurrency=settings.replica.limit(helped=True),
            wait_nusd_s=costs.wait_nusd_s or settings.policy.wait_nusd_s,
            origin_us=trace.origin_us or 0,
        ),
        cold=cold_tier(tiers),
        replicas=costs.replicas,
        limits=costs.limits or (Limit(requests=settings.replica.limit(helped=True)),),
        keeps_size=not (costs.replicas or costs.limits),
        floors=floors or _floors(options.floor),
        own=replace(own, policy=settings.policy.name, idle_us=settings.policy.idle_us),
        bridge=settings.hosted if settings.hosted is not None and settings.hosted.bridge else None,
    )


def _floors(settings: FloorSettings | None, least_ready: int = 0) -> tuple[FloorSchedule, ...]:
    """Return the floors of the levels that have one."""
    if settings is None:
        return ()
    levels = max(least_ready, int(settings.always), *(window.floor for window in settings.windows), 0)
    made = partial(make_floor, settings, zone_of=ZoneInfo, least_ready=least_ready)
    return tuple(made(level=level) for level in range(levels))


def _whole_span_us(trace: Trace, rule: ServiceRule) -> int:
    """Return the default span: to the last request's end, in whole seconds."""
    last = int((trace.arrival_us + rule.times(trace)).max())
    return max(-(-last // SECOND_US), 1) * SECOND_US
