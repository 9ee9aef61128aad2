"""Plans a pool of hosts that tenants share: draws the tenants and tries several sizes of the pool."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.core.format import DAY_US
from poorwill.core.money import rounded
from poorwill.hosts.files.traces.synthetic import Draw, draw_trace
from poorwill.planner.simulation.busy_blocks import new_blocks
from poorwill.planner.simulation.pool import Pool, PoolOutcome, Tenant, misfits, share
from poorwill.planner.simulation.scenario import Scenario
from poorwill.planner.simulation.sweep import sweep
from poorwill.policies import break_even_us

GB = 10**9
DEFAULT_SPAN_US = 7 * DAY_US
SPREAD = 1.2
"""Deviation of the logarithm of tenants' rates: few are busy, most are not."""
PER_HOST = (200, 100, 50, 25, 12, 6)
"""Tenants a host, for the pool sizes that are tried by default."""

PoolProgress = Callable[[str, int, int], None]
"""Receives which pool is simulated, its requests done and requests in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """Tenants to draw and the pool they share."""

    tenants: int
    hosts: tuple[int, ...] = ()
    """Sizes of the pool to try; empty: several."""
    host_gb: float = 80.0
    tenant_gb: tuple[float, ...] = (16.0, 24.0, 40.0)
    requests_per_day: float = 60.0
    seed: int = 1
    kind: str = "bursty"


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPlan:
    """What each size of the pool costs, and what hosts of the tenants' own would."""

    outcomes: tuple[PoolOutcome, ...]
    alone_nusd: int


async def plan_pool(
    options: PoolOptions, scenario: Scenario, *, progress: PoolProgress | None = None
) -> PoolPlan:
    """Simulate every size of the pool. Cancelled: between two of them. Raises RequestFault."""
    if options.tenants < 1:
        raise RequestFault(ErrorCode.INVALID_REQUEST, "--tenants must be 1 or more")
    tenants = _tenants(options, scenario.span_us)
    sizes = options.hosts or sorted({-(-len(tenants) // each) for each in PER_HOST})
    outcomes = []
    for hosts in sizes:
        pool = Pool(
            hosts=hosts,
            bytes_per_host=round(options.host_gb * GB),
            active_nusd_h=scenario.active_nusd_h,
            wake_us=scenario.tiers[0].median_wake_us,
            park_us=scenario.tiers[0].park_us,
            span_us=scenario.span_us,
        )
        large = misfits(tenants, pool)
        if large:
            raise RequestFault(
                ErrorCode.INVALID_REQUEST,
                f"{len(large)} of {len(tenants)} models fit on no host",
                hint=f"--host-gb is {options.host_gb:g}, --tenant-gb has larger ones",
            )
        await asyncio.sleep(0)
        outcomes.append(share(tenants, pool, progress=_telling(progress, hosts)))
    return PoolPlan(outcomes=tuple(outcomes), alone_nusd=_alone(tenants, scenario))


def _telling(progress: PoolProgress | None, hosts: int) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, of: progress(f"{hosts} hosts", done, of)


def _tenants(options: PoolOptions, span_us: int) -> list[Tenant]:
    """Draw tenants: sizes in turn, rates lognormal around the requested one."""
    random = np.random.default_rng(options.seed)
    rates = options.requests_per_day * np.exp(random.normal(0.0, SPREAD, options.tenants))
    tenants = []
    for number, rate in enumerate(rates.tolist()):
        seed = options.seed * 100_003 + number
        draw = Draw(kind=options.kind, span_us=span_us, requests_per_day=rate, seed=seed)
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


def _alone(tenants: Sequence[Tenant], scenario: Scenario) -> int:
    """Return what the tenants cost together with a host each, under the break-even rule."""
    times = scenario.tiers[0]
    idle = break_even_us(scenario.costs()[times.tier], wait_nusd_s=scenario.wait_nusd_s)
    total = 0
    for tenant in tenants:
        blocks = new_blocks(tenant.arrival_us, tenant.service_us, scenario.span_us)
        active = scenario.span_us
        if idle is not None:
            swept = sweep(blocks, [idle], wake_us=times.median_wake_us, park_us=times.park_us)
            active = int(swept.active_us[0])
        parked = scenario.span_us - active
        total += active * scenario.active_nusd_h + parked * times.parked_nusd_h
    return rounded(total)
