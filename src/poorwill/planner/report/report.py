"""The report of `plan` as text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from poorwill.core.format import counted, duration, money, percent, table
from poorwill.planner.report.verdict import PlanVerdict
from poorwill.planner.simulation.hindsight import Curve
from poorwill.planner.simulation.outcome import HELD_HOUR_NUSD, Outcome
from poorwill.planner.simulation.scenario import TierTimes
from poorwill.planner.sizing import SizeOutcome, best_size


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReport:
    """Everything `plan` says about a trace."""

    source: str
    requests: int
    span_us: int
    models: int
    replicas: int
    """Of each model."""
    outcomes: Sequence[Outcome]
    yardstick: Outcome
    wait_nusd_s: int
    frontier: Sequence[str]
    verdict: PlanVerdict
    curve: Curve
    """Fixed idle times in hindsight."""
    sizes: Sequence[SizeOutcome] = ()
    """Other numbers of replicas and limits, if any were tried."""
    tiers: Sequence[TierTimes] = ()
    """The ladder that was replayed, each tier with the source of its figures."""
    model: str = ""
    """With a plan from a ledger: the model whose history it is."""
    period: str = ""
    """Likewise: the period in words."""
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


def _tried(report: PlanReport) -> str:
    """Return how many idle times were tried in hindsight, and which evaluator priced them."""
    count, why = len(report.curve.idles_us), report.curve.simulated
    return f"of {count}, {'simulated one by one: ' + why if why else 'by the sweep'}"


HEADS = ("", "policy", "idle", "wakes", "paid", "duty", "cost", "x best", "held", "p95 wait", "max")


def as_text(report: PlanReport) -> str:
    """Return the report for a terminal."""
    head = f"{report.source}: {counted(report.requests, 'request')} in {duration(report.span_us)}"
    if report.models > 1 or report.replicas > 1:
        each = counted(report.replicas, "replica")
        head += f", {counted(report.models, 'model')}, {each}{' each' if report.models > 1 else ''}"
    rows = [HEADS, *(_row(report, outcome) for outcome in report.outcomes)]
    doubt = [report.reservation] if report.reservation else []
    told = [head, *doubt, *_sizes(report), "", *table(rows, "<<>"), "", *_legend(report), ""]
    told += [*report.verdict.lines, *(f"note: {note}" for note in report.notes)]
    return "\n".join(told)


def last_lines(reports: Sequence[PlanReport]) -> list[str]:
    """Return the last lines of a plan from a ledger: a sentence for each model."""
    told = []
    for report in reports:
        if report.advice:
            model = f"{report.model}: " if len(reports) > 1 else ""
            doubt = " (too little history to act on)" if report.reservation else ""
            told += ["", f"{model}{report.advice}{doubt}"]
    return told


def _row(report: PlanReport, outcome: Outcome) -> tuple[str, ...]:
    waits = outcome.waits
    ratio = report.ratio(outcome)
    mark = ">" if outcome.policy == report.verdict.policy else ""
    mark += "*" if outcome.policy in report.frontier else ""
    return (
        mark,
        outcome.policy,
        "" if outcome.idle_us is None else duration(outcome.idle_us),
        f"{outcome.wakes:,}",
        duration(outcome.active_us),
        percent(outcome.duty_cycle),
        money(outcome.cost_nusd),
        "" if ratio is None else f"{ratio:.3f}",
        percent(len(waits.held_us) / max(waits.requests, 1)),
        duration(waits.percentile_us(95)),
        duration(waits.max_us),
    )


def _sizes(report: PlanReport) -> list[str]:
    """Return the table of the sizes that were tried."""
    if not report.sizes:
        return []
    best = best_size(report.sizes, report.wait_nusd_s)
    ahead = frontier([one.outcome for one in report.sizes])
    rows: list[Sequence[str]] = [("", "replicas", "at once", *HEADS[3:7], *HEADS[8:])]
    for one in report.sizes:
        mark = (">" if one is best else "") + ("*" if one.outcome in ahead else "")
        limit = one.size.limit
        slower = "" if limit.slowdown == 1 else f", x {limit.slowdown:g}"
        _, _, _, *figures, _, held, p95, most = _row(report, one.outcome)
        rows.append((mark, str(one.size.replicas), f"{limit.requests}{slower}", *figures, held, p95, most))
    price = report.wait_nusd_s * 3600 or HELD_HOUR_NUSD
    return [
        "",
        f"how many replicas, and how many requests at once on each, under {best.outcome.policy}:",
        *table(rows, "<>"),
        f"> least cost with a held hour worth {money(price)}"
        + ("" if report.wait_nusd_s else " (--wait-usd-s says otherwise)"),
    ]


def _legend(report: PlanReport) -> list[str]:
    chosen = "would be recommended" if report.reservation else "recommended"
    told = [
        f"> {chosen}   * on the frontier of cost and 95th-percentile wait   x best: cost (and "
        "waiting, where it has a price) over clairvoyant's"
    ]
    told.append(
        f"best fixed idle time in hindsight: {duration(report.curve.idles_us[report.curve.best])}, "
        f"{money(report.curve.cost_nusd[report.curve.best])} ({_tried(report)})"
    )
    own = next(one for one in report.outcomes if one.policy == report.verdict.own)
    if own.added_us:
        told.append(
            f"the provider's increments and minimum add {duration(own.added_us)} to {own.policy}'s paid time"
        )
    told += [f"{name}: {source}" for name, source in report.prices.items()]
    return told + tier_lines(report.tiers)


def tier_lines(tiers: Sequence[TierTimes]) -> list[str]:
    """Return the assumed length of a wake from each tier, and its source."""
    return [
        f"a wake from {times.tier}: {'on average ' if len(times.wake_us) > 1 else ''}"
        f"{duration(times.median_wake_us)} ({times.source}); a park there: {duration(times.park_us)}"
        for times in tiers
    ]
