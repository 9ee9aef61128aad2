"""The report of a pool that tenants share, as text and as JSON."""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from poorwill.core.format import DAY_US, counted, duration, money, percent, table
from poorwill.planner.report.documents import TierDocument
from poorwill.planner.simulation.pool import PoolOutcome

SHOWN = 5
"""Tenants named of those that gave way, or made others give way, most often."""

HEADS = (
    *("hosts", "tenants/host", "$/tenant/month", "of own", "duty", "held"),
    *("p95 wait", "max", "wakes", "evicted", "starved"),
)


def _per_month(nusd: int, span_us: int) -> int:
    return round(nusd * 30 * DAY_US / span_us)


def pool_text(outcomes: Sequence[PoolOutcome], alone_nusd: int, span_us: int) -> list[str]:
    """Return the table of pool sizes for a terminal."""
    tenants = outcomes[0].tenants
    requests = counted(outcomes[0].waits.requests, "request")
    rows = [HEADS]
    for one in outcomes:
        waits = one.waits
        rows.append(
            (
                f"{one.pool.hosts:,}",
                f"{tenants / one.pool.hosts:,.1f}",
                money(_per_month(one.cost_nusd // tenants, span_us)),
                percent(one.cost_nusd / max(alone_nusd, 1)),
                percent(one.duty_cycle),
                percent(len(waits.held_us) / max(waits.requests, 1)),
                duration(waits.percentile_us(95)),
                duration(waits.max_us),
                f"{one.wakes:,}",
                f"{one.evictions:,}",
                f"{one.starved:,}",
            )
        )
    head = f"{counted(tenants, 'tenant')}, {requests} in {duration(span_us)}"
    lines = [head, "", *table(rows, ">")]
    each = money(_per_month(alone_nusd // tenants, span_us))
    lines += ["", f"own: a host for each tenant, under the break-even rule: {each} a tenant and month"]
    lines.append("starved: wakes that found every host full of busy models and had to wait for room")
    most = outcomes[0]
    given = ", ".join(f"{name} {count}" for name, count in most.evicted.most_common(SHOWN))
    taken = ", ".join(f"{name} {count}" for name, count in most.evicting.most_common(SHOWN))
    if most.evictions:
        lines.append(f"with {most.pool.hosts} hosts, gave way most often: {given}")
        lines.append(f"with {most.pool.hosts} hosts, made others give way: {taken}")
    return lines


class PooledDocument(Struct, frozen=True, kw_only=True):
    """One size of the pool. `starved` wakes found every host full of busy models."""

    hosts: int
    cost_nusd: int
    tenant_month_nusd: int
    duty_cycle: float
    held_share: float
    p50_us: int
    p95_us: int
    p99_us: int
    max_us: int
    wakes: int
    evictions: int
    starved: int
    evicted_most: Mapping[str, int]
    evicting_most: Mapping[str, int]


class PoolDocument(Struct, frozen=True, kw_only=True):
    """Tenants that share a pool of hosts, against a host for each."""

    tenants: int
    requests: int
    span_us: int
    alone_tenant_month_nusd: int
    pools: tuple[PooledDocument, ...]
    tiers: tuple[TierDocument, ...]


def pool_document(
    outcomes: Sequence[PoolOutcome], alone_nusd: int, span_us: int, tiers: tuple[TierDocument, ...]
) -> PoolDocument:
    """Return the same figures for JSON."""
    tenants = outcomes[0].tenants
    return PoolDocument(
        tenants=tenants,
        requests=outcomes[0].waits.requests,
        span_us=span_us,
        alone_tenant_month_nusd=_per_month(alone_nusd // tenants, span_us),
        pools=tuple(
            PooledDocument(
                hosts=one.pool.hosts,
                cost_nusd=one.cost_nusd,
                tenant_month_nusd=_per_month(one.cost_nusd // tenants, span_us),
                duty_cycle=one.duty_cycle,
                held_share=len(one.waits.held_us) / max(one.waits.requests, 1),
                p50_us=one.waits.percentile_us(50),
                p95_us=one.waits.percentile_us(95),
                p99_us=one.waits.percentile_us(99),
                max_us=one.waits.max_us,
                wakes=one.wakes,
                evictions=one.evictions,
                starved=one.starved,
                evicted_most=dict(one.evicted.most_common(SHOWN)),
                evicting_most=dict(one.evicting.most_common(SHOWN)),
            )
            for one in outcomes
        ),
        tiers=tiers,
    )
