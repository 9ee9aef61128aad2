"""The parsed options of `poorwill plan` as the planner's own values."""

from itertools import chain
from zoneinfo import ZoneInfo

from poorwill.cli.plan.options import PlanOptions
from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.core.settings import FloorSettings, FloorWindow
from poorwill.core.settings.weekdays import minute_of_day, weekdays_in
from poorwill.hosts.files.traces.layouts import read_mapping
from poorwill.hosts.files.traces.service import ServiceRule
from poorwill.hosts.files.traces.synthetic import Draw
from poorwill.planner.hosted import TokenGuess
from poorwill.planner.jobs import MONTH_US, JobOptions, TraceOptions
from poorwill.planner.ladder import CostOptions
from poorwill.planner.plan import HostedOptions, JudgeOptions
from poorwill.planner.report.verdict import WorkNeeds
from poorwill.planner.shared_pool import PoolOptions
from poorwill.policies.pricing import GB_BYTES


def cost_options(options: PlanOptions) -> CostOptions:
    """Return what the user says about rates, wakes and parks."""
    costs = options.costs
    return CostOptions(
        active_nusd_h=costs.active_nusd_h,
        parked_nusd_h=costs.parked_nusd_h,
        wake_us=tuple(chain.from_iterable(costs.wake_us)) or None,
        park_us=costs.park_us,
        cold_wake_us=costs.cold_wake_us,
        cold_park_us=costs.cold_park_us,
        increment_us=costs.increment_us,
        minimum_us=costs.minimum_us,
        storage_nusd_gb_month=costs.storage_nusd_gb_month,
        image_bytes=None if costs.image_gb is None else round(costs.image_gb * GB_BYTES),
        tiers=costs.tiers,
        replicas=options.service.replicas,
        limits=options.service.max_concurrency,
        wait_nusd_s=costs.wait_nusd_s,
    )


def job_options(options: PlanOptions) -> JobOptions:
    """Return what the user says about the requests and the world they are replayed in."""
    source, service = options.source, options.service
    draw = None
    if source.synthetic is not None:
        draw = Draw(
            kind=source.synthetic,
            span_us=source.span_us or MONTH_US,
            requests_per_day=source.requests_per_day,
            seed=source.seed,
        )
    return JobOptions(
        trace=TraceOptions(
            path=source.trace,
            draw=draw,
            span_us=source.span_us,
            origin_us=source.origin_us,
            model=source.model,
            one_replica=source.one_replica,
            columns=read_mapping(source.columns) if source.columns else {},
            refuse_bad_rows=source.bad_rows == "refuse",
        ),
        costs=cost_options(options),
        service=ServiceRule(
            constant_us=service.service_us,
            prompt_tokens_s=service.prompt_tokens_s,
            output_tokens_s=service.output_tokens_s,
        ),
        floor=_floor(service.floor),
        idles_us=_idles_us(options),
    )


def judge_options(options: PlanOptions, *, today_us: int) -> JudgeOptions:
    """Return which ways to serve are judged, and what the user says about the work."""
    other = options.other
    return JudgeOptions(
        hosted=hosted_options(options),
        work_needs=WorkNeeds(
            compliance=other.compliance,
            hard_real_time=other.hard_real_time,
            horizontal=other.horizontal,
            rps_one_box=other.load_rps_one_box,
            hosted_named=other.hosted is not None,
        ),
        idles_us=_idles_us(options),
        today_us=today_us,
    )


def hosted_options(options: PlanOptions) -> HostedOptions:
    """Return the hosted API to compare with."""
    other = options.other
    tokens = TokenGuess(prompt=other.prompt_tokens, output=other.output_tokens)
    return HostedOptions(name=other.hosted, table=other.prices, tokens=tokens)


def pool_options(options: PlanOptions) -> PoolOptions:
    """Return the tenants to draw and the pool they share."""
    pool, source = options.pool, options.source
    return PoolOptions(
        tenants=pool.tenants or 0,
        hosts=pool.hosts,
        host_gb=pool.host_gb,
        tenant_gb=pool.tenant_gb,
        requests_per_day=source.requests_per_day,
        seed=source.seed,
        kind=source.synthetic or "bursty",
    )


def _idles_us(options: PlanOptions) -> tuple[int, ...]:
    return tuple(chain.from_iterable(options.service.idle_us))


def _floor(asked: tuple[str, ...]) -> FloorSettings | None:
    """Return the floor that --floor asks for, None if it does not."""
    if not asked:
        return None
    if "always" in asked:
        return FloorSettings(always=True)
    return FloorSettings(windows=tuple(map(_window, asked)))


def _window(text: str) -> FloorWindow:
    """Read 'mon-fri 09:00-18:00 Europe/Berlin'. Raises RequestFault with an example."""
    try:
        days, hours, zone = text.split()
        start, stop = (minute_of_day(part) for part in hours.split("-"))
        on = tuple(sorted(weekdays_in(days)))
        ZoneInfo(zone)
    except (ValueError, KeyError):
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            f"--floor {text!r} is no window of the week",
            hint="such as 'mon-fri 09:00-18:00 Europe/Berlin', or always",
        ) from None
    return FloorWindow(days=on, start_minute=start, end_minute=stop, zone=zone, name=text)
