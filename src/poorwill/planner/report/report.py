"""The report of `plan`: which policies are worth considering, and the figures as JSON and as text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from poorwill.core.format import counted
from poorwill.core.money import NUSD, dollars
from poorwill.core.words import HOUR_US, SECOND_US
from poorwill.planner.report.figures import DAY_US, brief_s, length
from poorwill.planner.report.verdict import Verdict
from poorwill.planner.simulation.hindsight import Curve
from poorwill.planner.simulation.outcome import Outcome
from poorwill.planner.simulation.scenario import TierTimes

PERCENTILES = (50, 95, 99)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything `plan` says about a trace."""

    source: str
    requests: int
    span_us: int
    replicas: int
    outcomes: Sequence[Outcome]
    yardstick: Outcome
    wait_nusd_s: int
    frontier: Sequence[str]
    verdict: Verdict
    curve: Curve
    """Fixed idle times in hindsight."""
    tiers: Sequence[TierTimes] = ()
    """The ladder that was replayed, each tier with where its figures come from."""
    model: str = ""
    """Where the plan is from a ledger: whose history it is."""
    period: str = ""
    """Likewise, in words."""
    advice: str = ""
    """Likewise: what another idle time would have changed."""
    reservation: str = ""
    """Likewise: why that is no advice yet."""
    prices: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = field(default_factory=tuple)

    def ratio(self, outcome: Outcome) -> float | None:
        """Return an outcome's objective over the clairvoyant one's."""
        least = self.yardstick.objective_nusd(self.wait_nusd_s)
        return outcome.objective_nusd(self.wait_nusd_s) / least if least else None


def frontier(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return the outcomes that no other beats in cost and in 95th-percentile wait, cheapest first."""
    points = [(outcome.cost_nusd, outcome.waits.percentile_us(95)) for outcome in outcomes]

    def beaten(point: tuple[int, int]) -> bool:
        return any(other != point and other[0] <= point[0] and other[1] <= point[1] for other in points)

    kept = [outcome for outcome, point in zip(outcomes, points, strict=True) if not beaten(point)]
    return sorted(kept, key=lambda outcome: outcome.cost_nusd)


def as_json(report: Report) -> dict[str, object]:
    """Return what `plan --json` prints."""
    return {
        "source": report.source,
        "requests": report.requests,
        "span_s": report.span_us / SECOND_US,
        "replicas": report.replicas,
        "wait_usd_s": report.wait_nusd_s / NUSD,
        "policies": [_policy(report, outcome) for outcome in report.outcomes],
        "pareto": list(report.frontier),
        "recommended": report.verdict.policy,
        "answer": str(report.verdict.answer),
        "verdict": report.verdict.text,
        "period": report.period,
        "advice": report.advice,
        "reservation": report.reservation,
        "best_fixed_in_hindsight": _best_fixed(report),
        "tiers": tiers_json(report.tiers),
        "prices": dict(report.prices),
        "notes": list(report.notes),
    }


def _policy(report: Report, outcome: Outcome) -> dict[str, object]:
    waits = outcome.waits
    return {
        "name": outcome.policy,
        "idle_s": None if outcome.idle_us is None else outcome.idle_us / SECOND_US,
        "wakes": outcome.wakes,
        "active_s": outcome.active_us / SECOND_US,
        "useful_s": outcome.useful_us / SECOND_US,
        "parked_s": {str(tier): us / SECOND_US for tier, us in outcome.parked_us.items()},
        "duty_cycle": outcome.duty_cycle,
        "cost_usd": outcome.cost_nusd / NUSD,
        "hosted_usd": outcome.extra_nusd / NUSD,
        "objective_usd": outcome.objective_nusd(report.wait_nusd_s) / NUSD,
        "ratio_to_clairvoyant": report.ratio(outcome),
        "held_share": len(waits.held_us) / waits.requests if waits.requests else 0.0,
        "wait_s": {
            "mean": waits.total_us / waits.requests / SECOND_US if waits.requests else 0.0,
            **{f"p{p}": waits.percentile_us(p) / SECOND_US for p in PERCENTILES},
            "max": waits.max_us / SECOND_US,
        },
        "notes": list(outcome.notes),
    }


def _tried(report: Report) -> str:
    """Return how many idle times were tried in hindsight, and by which evaluator."""
    count, why = len(report.curve.idles_us), report.curve.simulated
    return f"of {count}, {'simulated one by one: ' + why if why else 'by the sweep'}"


def _best_fixed(report: Report) -> dict[str, object]:
    best = report.curve.best
    least = report.yardstick.objective_nusd(report.wait_nusd_s)
    return {
        "tried": len(report.curve.idles_us),
        "evaluator": "simulation" if report.curve.simulated else "sweep",
        "why": report.curve.simulated,
        "idle_s": report.curve.idles_us[best] / SECOND_US,
        "cost_usd": report.curve.cost_nusd[best] / NUSD,
        "ratio_to_clairvoyant": report.curve.objective_nusd[best] / least if least else None,
        "held_share": report.curve.held[best] / report.requests if report.requests else 0.0,
    }


HEADS = ("", "policy", "idle", "wakes", "paid", "duty", "cost", "x best", "held", "p95 wait", "max")


def as_text(report: Report) -> str:
    """Return the report for a terminal."""
    head = f"{report.source}: {counted(report.requests, 'request')} in {length(report.span_us)}"
    if report.replicas > 1:
        head += f", {report.replicas} models, one replica each"
    rows = [HEADS, *(_row(report, outcome) for outcome in report.outcomes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADS))]
    table = ["  ".join(_cell(cell, widths[i], left=i < 2) for i, cell in enumerate(row)) for row in rows]
    doubt = [report.reservation] if report.reservation else []
    told = [head, *doubt, "", *table, "", *_legend(report), ""]
    told += [*report.verdict.lines, *(f"note: {note}" for note in report.notes)]
    return "\n".join(line.rstrip() for line in told)


def last_lines(reports: Sequence[Report]) -> list[str]:
    """Return how a plan from a ledger ends: a sentence for each model."""
    told = []
    for report in reports:
        if report.advice:
            model = f"{report.model}: " if len(reports) > 1 else ""
            doubt = " (too little history to act on)" if report.reservation else ""
            told += ["", f"{model}{report.advice}{doubt}"]
    return told


def _cell(text: str, width: int, *, left: bool) -> str:
    return text.ljust(width) if left else text.rjust(width)


def _row(report: Report, outcome: Outcome) -> tuple[str, ...]:
    waits = outcome.waits
    ratio = report.ratio(outcome)
    mark = ">" if outcome.policy == report.verdict.policy else ""
    mark += "*" if outcome.policy in report.frontier else ""
    return (
        mark,
        outcome.policy,
        "" if outcome.idle_us is None else f"{brief_s(outcome.idle_us)} s",
        f"{outcome.wakes:,}",
        _paid(outcome.active_us, report.span_us),
        "" if outcome.duty_cycle is None else f"{outcome.duty_cycle:.1%}",
        dollars(outcome.cost_nusd, places=_places(report)),
        "" if ratio is None else f"{ratio:.3f}",
        f"{len(waits.held_us) / max(waits.requests, 1):.1%}",
        f"{brief_s(waits.percentile_us(95))} s",
        f"{brief_s(waits.max_us)} s",
    )


def _paid(us: int, span_us: int) -> str:
    """Return paid time in a unit that suits the span."""
    if span_us >= 2 * DAY_US:
        return f"{us / HOUR_US:,.1f} h"
    return f"{us / SECOND_US / 60:,.1f} min" if span_us >= HOUR_US else f"{us / SECOND_US:,.1f} s"


def _places(report: Report) -> int:
    """Return how many decimals of a dollar it takes to tell the costs apart."""
    most = max(outcome.cost_nusd for outcome in report.outcomes)
    return 2 if most >= 10 * NUSD else 4 if most >= NUSD // 10 else 6


def _legend(report: Report) -> list[str]:
    chosen = "would be recommended" if report.reservation else "recommended"
    told = [
        f"> {chosen}   * on the frontier of cost and 95th-percentile wait   x best: cost (and "
        "waiting, where it has a price) over clairvoyant's"
    ]
    told.append(
        f"best fixed idle time in hindsight: {brief_s(report.curve.idles_us[report.curve.best])} s, "
        f"{dollars(report.curve.cost_nusd[report.curve.best], places=_places(report))} ({_tried(report)})"
    )
    told += [f"{name}: {source}" for name, source in report.prices.items()]
    return told + tier_lines(report.tiers)


def tier_lines(tiers: Sequence[TierTimes]) -> list[str]:
    """Return how long a wake from each tier was taken to last, and how that is known."""
    return [
        f"a wake from {times.tier}: {'on average ' if len(times.wake_us) > 1 else ''}"
        f"{times.mean_wake_us / SECOND_US:.3g} s ({times.source}); a park there: "
        f"{times.park_us / SECOND_US:.3g} s"
        for times in tiers
    ]


def tiers_json(tiers: Sequence[TierTimes]) -> list[dict[str, object]]:
    """Return the same, with what else was reckoned with, as JSON."""
    return [
        {
            "tier": str(times.tier),
            "wake_s": [wake_us / SECOND_US for wake_us in times.wake_us],
            "park_s": times.park_us / SECOND_US,
            "parked_usd_h": times.parked_nusd_h / NUSD,
            "source": times.source,
        }
        for times in tiers
    ]
