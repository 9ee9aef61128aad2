"""What `poorwill plan --json` prints."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from msgspec import Struct, convert

from poorwill.core.words import Tier
from poorwill.planner.report.picture import Picture
from poorwill.planner.report.report import PlanReport, frontier
from poorwill.planner.report.verdict import Recommendation
from poorwill.planner.simulation.outcome import Outcome
from poorwill.planner.simulation.scenario import TierTimes
from poorwill.planner.sizing import best_size


class TierDocument(Struct, frozen=True, kw_only=True):
    """What was assumed of a tier, and how that is known; the n-th wake takes the n-th of `wake_us`."""

    tier: Tier
    wake_us: tuple[int, ...]
    park_us: int
    parked_nusd_h: int
    source: str


class WaitDocument(Struct, frozen=True, kw_only=True):
    """How long requests wait."""

    mean_us: int
    p50_us: int
    p95_us: int
    p99_us: int
    max_us: int


class PolicyDocument(Struct, frozen=True, kw_only=True):
    """One way to serve. Increments and minimums add `added_us`; `objective_nusd` is cost and the price of
    waiting."""

    name: str
    idle_us: int | None
    wakes: int
    active_us: int
    useful_us: int
    parked_us: Mapping[Tier, int]
    added_us: int
    duty_cycle: float | None
    cost_nusd: int
    hosted_nusd: int
    objective_nusd: int
    ratio_to_clairvoyant: float | None
    held_share: float
    wait: WaitDocument
    notes: tuple[str, ...]


class SizeDocument(Struct, frozen=True, kw_only=True):
    """A number of replicas and of requests at once on each, 0 being unlimited; with so many, each takes
    `slowdown` times as long."""

    replicas: int
    max_concurrency: int
    slowdown: float
    policy: PolicyDocument
    on_frontier: bool
    recommended: bool


class BestFixedDocument(Struct, frozen=True, kw_only=True):
    """The best fixed idle time in hindsight; `why` says why it was not priced by the sweep."""

    tried: int
    evaluator: str
    why: str
    idle_us: int
    cost_nusd: int
    ratio_to_clairvoyant: float | None
    held_share: float


class GapsDocument(Struct, frozen=True, kw_only=True):
    """How many idle gaps were at most so long, and longer than the row before."""

    to_s: float
    gaps: int


class PlanDocument(Struct, frozen=True, kw_only=True):
    """A plan from requests; `pareto` names the policies that no other beats in cost and in waiting.

    `sizes` is empty unless several were tried.
    """

    source: str
    requests: int
    span_us: int
    models: int
    replicas: int
    sizes: tuple[SizeDocument, ...]
    wait_nusd_s: int
    policies: tuple[PolicyDocument, ...]
    pareto: tuple[str, ...]
    recommended: str
    answer: Recommendation
    verdict: str
    model: str
    period: str
    advice: str
    reservation: str
    best_fixed_in_hindsight: BestFixedDocument
    tiers: tuple[TierDocument, ...]
    prices: Mapping[str, str]
    break_even_s: float | None
    gaps: tuple[GapsDocument, ...]
    notes: tuple[str, ...]


class PlansDocument(Struct, frozen=True, kw_only=True):
    """Plans for several models of a ledger."""

    reports: tuple[PlanDocument, ...]


def plan_document(report: PlanReport, picture: Picture) -> PlanDocument:
    """Return a plan for JSON."""
    return PlanDocument(
        source=report.source,
        requests=report.requests,
        span_us=report.span_us,
        models=report.models,
        replicas=report.replicas,
        sizes=_sizes(report),
        wait_nusd_s=report.wait_nusd_s,
        policies=tuple(_policy(report, outcome) for outcome in report.outcomes),
        pareto=tuple(report.frontier),
        recommended=report.verdict.policy,
        answer=report.verdict.answer,
        verdict=report.verdict.text,
        model=report.model,
        period=report.period,
        advice=report.advice,
        reservation=report.reservation,
        best_fixed_in_hindsight=_best_fixed(report),
        tiers=tier_documents(report.tiers),
        prices=dict(report.prices),
        break_even_s=picture.even_s,
        gaps=_gaps(picture.gaps_s),
        notes=tuple(report.notes),
    )


def _gaps(gaps_s: Sequence[float]) -> tuple[GapsDocument, ...]:
    counts = Counter(max(math.ceil(math.log2(gap)), -4) for gap in gaps_s if gap > 0)
    powers = range(min(counts), max(counts) + 1) if counts else ()
    return tuple(GapsDocument(to_s=2.0**power, gaps=counts[power]) for power in powers)


def tier_documents(tiers: Sequence[TierTimes]) -> tuple[TierDocument, ...]:
    """Return the assumptions about tiers for JSON."""
    return convert(tiers, tuple[TierDocument, ...], from_attributes=True)


def _policy(report: PlanReport, outcome: Outcome) -> PolicyDocument:
    waits = outcome.waits
    return PolicyDocument(
        name=outcome.policy,
        idle_us=outcome.idle_us,
        wakes=outcome.wakes,
        active_us=outcome.active_us,
        useful_us=outcome.useful_us,
        parked_us=dict(outcome.parked_us),
        added_us=outcome.added_us,
        duty_cycle=outcome.duty_cycle,
        cost_nusd=outcome.cost_nusd,
        hosted_nusd=outcome.extra_nusd,
        objective_nusd=outcome.objective_nusd(report.wait_nusd_s),
        ratio_to_clairvoyant=report.ratio(outcome),
        held_share=len(waits.held_us) / waits.requests if waits.requests else 0.0,
        wait=WaitDocument(
            mean_us=round(waits.total_us / waits.requests) if waits.requests else 0,
            p50_us=waits.percentile_us(50),
            p95_us=waits.percentile_us(95),
            p99_us=waits.percentile_us(99),
            max_us=waits.max_us,
        ),
        notes=tuple(outcome.notes),
    )


def _sizes(report: PlanReport) -> tuple[SizeDocument, ...]:
    ahead = frontier([one.outcome for one in report.sizes])
    return tuple(
        SizeDocument(
            replicas=one.size.replicas,
            max_concurrency=one.size.limit.requests,
            slowdown=one.size.limit.slowdown,
            policy=_policy(report, one.outcome),
            on_frontier=one.outcome in ahead,
            recommended=one is best_size(report.sizes, report.wait_nusd_s),
        )
        for one in report.sizes
    )


def _best_fixed(report: PlanReport) -> BestFixedDocument:
    curve, best = report.curve, report.curve.best
    least = report.yardstick.objective_nusd(report.wait_nusd_s)
    return BestFixedDocument(
        tried=len(curve.idles_us),
        evaluator="simulation" if curve.simulated else "sweep",
        why=curve.simulated,
        idle_us=curve.idles_us[best],
        cost_nusd=curve.cost_nusd[best],
        ratio_to_clairvoyant=curve.objective_nusd[best] / least if least else None,
        held_share=curve.held[best] / report.requests if report.requests else 0.0,
    )
