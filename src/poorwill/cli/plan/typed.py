"""The parsed options of `poorwill plan` as the planner's own values."""

import argparse

from poorwill.cli.plan.options import flat, floor_of, work_needs
from poorwill.planner.alternatives.hosted import TokenGuess
from poorwill.planner.jobs import MONTH_US, JobOptions, TraceOptions
from poorwill.planner.ladder import CostOptions
from poorwill.planner.plan import HostedOptions, JudgeOptions
from poorwill.planner.shared_pool import PoolOptions
from poorwill.planner.traces.layouts import read_mapping
from poorwill.planner.traces.service import ServiceRule
from poorwill.planner.traces.synthetic import Draw


def cost_options(options: argparse.Namespace) -> CostOptions:
    """Return what the user says about rates, wakes and parks."""
    return CostOptions(
        active_nusd_h=options.active_usd_h,
        parked_nusd_h=options.parked_usd_h,
        wake_us=None if options.wake_s is None else flat(options.wake_s),
        park_us=options.park_s,
        cold_wake_us=options.cold_wake_s or (),
        cold_park_us=options.cold_park_s,
        tiers=tuple(options.tier),
        max_concurrency=options.max_concurrency,
        wait_nusd_s=options.wait_usd_s,
    )


def job_options(options: argparse.Namespace) -> JobOptions:
    """Return what the user says about the requests and the world they are replayed in."""
    draw = None
    if options.synthetic is not None:
        draw = Draw(
            kind=options.synthetic,
            span_us=options.span_s or MONTH_US,
            requests_per_day=options.requests_per_day,
            seed=options.seed,
        )
    return JobOptions(
        trace=TraceOptions(
            path=options.trace,
            draw=draw,
            span_us=options.span_s,
            origin_us=options.origin,
            model=options.model,
            one_replica=options.one_replica,
            columns=read_mapping(options.columns) if options.columns else {},
            refuse_bad_rows=options.bad_rows == "refuse",
        ),
        costs=cost_options(options),
        service=ServiceRule(
            constant_us=options.service_s,
            prompt_tokens_s=options.prompt_tokens_s,
            output_tokens_s=options.output_tokens_s,
        ),
        floor=floor_of(options),
        idles_us=flat(options.idle_s),
    )


def judge_options(options: argparse.Namespace, *, today_us: int) -> JudgeOptions:
    """Return which ways to serve are judged, and what the user says about the work."""
    return JudgeOptions(
        hosted=hosted_options(options),
        work_needs=work_needs(options),
        idles_us=flat(options.idle_s),
        today_us=today_us,
    )


def hosted_options(options: argparse.Namespace) -> HostedOptions:
    """Return the hosted API to compare with."""
    return HostedOptions(
        name=options.hosted,
        table=options.prices,
        tokens=TokenGuess(prompt=options.prompt_tokens, output=options.output_tokens),
    )


def pool_options(options: argparse.Namespace) -> PoolOptions:
    """Return the tenants to draw and the pool they share."""
    return PoolOptions(
        tenants=options.tenants,
        hosts=options.hosts or (),
        host_gb=options.host_gb,
        tenant_gb=options.tenant_gb,
        requests_per_day=options.requests_per_day,
        seed=options.seed,
        kind=options.synthetic or "bursty",
    )
