"""`poorwill plan --tenants N`: what sharing a pool of hosts does to cost per tenant and to waiting."""

import argparse
import asyncio
from collections.abc import Callable, Sequence

import numpy as np

from poorwill.cli.parsing.verb import Streams
from poorwill.cli.plan.tiers import known_tiers, scenario_of
from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.core.format import counted
from poorwill.core.money import NUSD, dollars, rounded
from poorwill.core.words import SECOND_US
from poorwill.planner.report.figures import brief_s, length
from poorwill.planner.report.report import tier_lines, tiers_json
from poorwill.planner.simulation.pool import Pool, PoolOutcome, Tenant, misfits, share
from poorwill.planner.simulation.scenario import Scenario
from poorwill.planner.simulation.sweep import sweep
from poorwill.planner.traces.busy_blocks import new_blocks
from poorwill.planner.traces.synthetic import Draw, draw_trace
from poorwill.policies import break_even_us

GB = 10**9
DAY_US = 86_400 * SECOND_US
DEFAULT_SPAN_US = 7 * DAY_US
SPREAD = 1.2
"""Deviation of the logarithm of tenants' rates: few are busy, most are not."""
PER_HOST = (200, 100, 50, 25, 12, 6)
"""Tenants a host, for the pool sizes that are tried where none is given."""
SHOWN = 5


async def run(options: argparse.Namespace, streams: Streams) -> int:
    """Simulate every pool size and print what it costs. Cancelled: between two of them."""
    if options.tenants < 1:
        raise RequestFault(ErrorCode.INVALID_REQUEST, "--tenants must be 1 or more")
    span = options.span_s or DEFAULT_SPAN_US
    known = known_tiers(options, streams)
    scenario = scenario_of(options, known, span_us=span, origin_us=0)
    tenants = _tenants(options, span)
    sizes = options.hosts or sorted({-(-len(tenants) // each) for each in PER_HOST})
    outcomes = []
    for hosts in sizes:
        pool = Pool(
            hosts=hosts,
            bytes_per_host=round(options.host_gb * GB),
            active_nusd_h=scenario.active_nusd_h,
            wake_us=scenario.tiers[0].mean_wake_us,
            park_us=scenario.tiers[0].park_us,
            span_us=span,
        )
        large = misfits(tenants, pool)
        if large:
            raise RequestFault(
                ErrorCode.INVALID_REQUEST,
                f"{len(large)} of {len(tenants)} models fit on no host",
                hint=f"--host-gb is {options.host_gb:g}, --tenant-gb has larger ones",
            )
        await asyncio.sleep(0)
        outcomes.append(share(tenants, pool, progress=_progress(streams, hosts)))
    if streams.progress:
        streams.stderr.write("\r\x1b[K")
    alone = _alone(tenants, scenario)
    if options.json:
        tiers = tiers_json(scenario.tiers[:1])
        streams.say_json(_as_json(outcomes, alone, span) | {"tiers": tiers})
    else:
        told = [*_as_text(outcomes, alone, span), *tier_lines(scenario.tiers[:1])]
        streams.say("\n".join(told))
    return 0


def _tenants(options: argparse.Namespace, span_us: int) -> list[Tenant]:
    """Draw tenants: sizes in turn, rates lognormal around --requests-per-day, kinds as asked."""
    random = np.random.default_rng(options.seed)
    rates = options.requests_per_day * np.exp(random.normal(0.0, SPREAD, options.tenants))
    kind = options.synthetic or "bursty"
    tenants = []
    for number, rate in enumerate(rates.tolist()):
        draw = Draw(kind=kind, span_us=span_us, requests_per_day=rate, seed=options.seed * 100_003 + number)
        trace = draw_trace(draw)
        tenants.append(
            Tenant(
                name=f"tenant-{number + 1}",
                bytes=round(options.tenant_gb[number % len(options.tenant_gb)] * GB),
                arrival_us=trace.arrival_us,
                service_us=trace.service_us,
            )
        )
    return tenants


def _progress(streams: Streams, hosts: int) -> Callable[[int, int], None] | None:
    if not streams.progress:
        return None

    def tell(done: int, of: int) -> None:
        streams.stderr.write(f"\r\x1b[K{hosts} hosts: {done / of:.0%} of {of:,} requests")
        streams.stderr.flush()

    return tell


def _alone(tenants: Sequence[Tenant], scenario: Scenario) -> int:
    """Return what the tenants cost together with a host each, under the break-even rule."""
    times = scenario.tiers[0]
    idle = break_even_us(scenario.costs()[times.tier], wait_nusd_s=scenario.wait_nusd_s)
    total = 0
    for tenant in tenants:
        blocks = new_blocks(tenant.arrival_us, tenant.service_us, scenario.span_us)
        active = scenario.span_us
        if idle is not None:
            swept = sweep(blocks, [idle], wake_us=times.mean_wake_us, park_us=times.park_us)
            active = int(swept.active_us[0])
        parked = scenario.span_us - active
        total += active * scenario.active_nusd_h + parked * times.parked_nusd_h
    return rounded(total)


def _per_month(nusd: int, span_us: int) -> int:
    return round(nusd * 30 * DAY_US / span_us)


def _as_text(outcomes: Sequence[PoolOutcome], alone_nusd: int, span_us: int) -> list[str]:
    tenants = outcomes[0].tenants
    requests = counted(outcomes[0].waits.requests, "request")
    lines = [
        f"{counted(tenants, 'tenant')}, {requests} in {length(span_us)}",
        "",
        f"{'hosts':>6} {'tenants/host':>13} {'$/tenant/month':>15} {'of own':>7} {'duty':>6} {'held':>7} ",
    ]
    lines[-1] += f"{'p95 wait':>10} {'max':>9} {'wakes':>9} {'evicted':>9} {'starved':>8}"
    for one in outcomes:
        waits = one.waits
        each = dollars(_per_month(one.cost_nusd // tenants, span_us))
        lines.append(
            f"{one.pool.hosts:>6,} {tenants / one.pool.hosts:>13,.1f} {each:>15} "
            f"{one.cost_nusd / max(alone_nusd, 1):>7.0%} {one.duty_cycle:>6.1%} "
            f"{len(waits.held_us) / max(waits.requests, 1):>7.1%} "
            f"{brief_s(waits.percentile_us(95)):>8} s {brief_s(waits.max_us):>7} s "
            f"{one.wakes:>9,} {one.evictions:>9,} {one.starved:>8,}"
        )
    each = dollars(_per_month(alone_nusd // tenants, span_us))
    lines += [
        "",
        f"own: a host for each tenant, under the break-even rule: {each} a tenant and month",
    ]
    lines.append("starved: wakes that found every host full of busy models and had to wait for room")
    most = outcomes[0]
    given = ", ".join(f"{name} {count}" for name, count in most.evicted.most_common(SHOWN))
    taken = ", ".join(f"{name} {count}" for name, count in most.evicting.most_common(SHOWN))
    if most.evictions:
        lines.append(f"with {most.pool.hosts} hosts, gave way most often: {given}")
        lines.append(f"with {most.pool.hosts} hosts, made others give way: {taken}")
    return lines


def _as_json(outcomes: Sequence[PoolOutcome], alone_nusd: int, span_us: int) -> dict[str, object]:
    tenants = outcomes[0].tenants
    return {
        "tenants": tenants,
        "requests": outcomes[0].waits.requests,
        "span_s": span_us / SECOND_US,
        "alone_usd_per_tenant_month": _per_month(alone_nusd // tenants, span_us) / NUSD,
        "pools": [
            {
                "hosts": one.pool.hosts,
                "cost_usd": one.cost_nusd / NUSD,
                "usd_per_tenant_month": _per_month(one.cost_nusd // tenants, span_us) / NUSD,
                "duty_cycle": one.duty_cycle,
                "held_share": len(one.waits.held_us) / max(one.waits.requests, 1),
                "wait_s": {
                    **{f"p{p}": one.waits.percentile_us(p) / SECOND_US for p in (50, 95, 99)},
                    "max": one.waits.max_us / SECOND_US,
                },
                "wakes": one.wakes,
                "evictions": one.evictions,
                "starved": one.starved,
                "evicted_most": dict(one.evicted.most_common(SHOWN)),
                "evicting_most": dict(one.evicting.most_common(SHOWN)),
            }
            for one in outcomes
        ],
    }
