"""`poorwill plan`: what each way of serving would cost, how long users would wait, what to choose."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction

from poorwill.bill import duty
from poorwill.cli.parsing.streams import Streams
from poorwill.cli.parsing.verb import new_verb
from poorwill.cli.plan.conflicts import check_asked
from poorwill.cli.plan.fleet import known_tiers
from poorwill.cli.plan.options import EPILOG, PlanOptions
from poorwill.cli.plan.planner_options import (
    cost_options,
    hosted_options,
    job_options,
    judge_options,
    pool_options,
)
from poorwill.compose.clock import SystemClock
from poorwill.compose.planning.own_history import HistoryOptions, own_jobs
from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.ledger.costs.items import last_instant
from poorwill.ledger.schema import reading
from poorwill.planner.jobs import PlanJob, load_requests, trace_job
from poorwill.planner.ladder import new_scenario
from poorwill.planner.plan import judge_job, no_collection
from poorwill.planner.report import terminal
from poorwill.planner.report.documents import PlanDocument, PlansDocument, plan_document, tier_documents
from poorwill.planner.report.drawing import draw
from poorwill.planner.report.picture import Picture
from poorwill.planner.report.pool_report import PoolDocument, pool_document, pool_text
from poorwill.planner.report.report import PlanReport, as_text, last_lines, tier_lines
from poorwill.planner.shared_pool import DEFAULT_SPAN_US, plan_pool
from poorwill.remote.hosted_prices import find_offer


async def _run(options: PlanOptions, streams: Streams) -> int:
    check_asked(options)  # before the work, not after it
    options = replace(options, ledger=await options.ledger.here(streams.env))
    source = options.source
    if options.pool.tenants is not None:
        return await _pool(options, streams)
    if not (source.trace or source.synthetic or source.from_ledger):
        return _duty(options, streams)
    judged = judge_options(options, today_us=_now_us())
    with no_collection():
        drawn = [await judge_job(job, judged, progress=_progress(streams)) for job in _jobs(options, streams)]
    streams.show_progress("")
    if options.other.plot:
        _draw(options.other.plot, drawn)
    if options.json:
        plans = tuple(plan_document(report, picture) for report, picture in drawn)
        streams.say_json(plans[0] if len(plans) == 1 else PlansDocument(reports=plans))
        return 0
    for report, picture in drawn:
        streams.say(as_text(report))
        if not options.other.plot:
            streams.say("\n" + terminal.as_text(picture))
    streams.say(*last_lines([report for report, _ in drawn]))
    return 0


def _jobs(options: PlanOptions, streams: Streams) -> Iterator[PlanJob]:
    """Yield the reports to make: one, or from a ledger one per model."""
    if options.source.from_ledger:
        yield from _from_ledger(options, streams)
        return
    asked = job_options(options)
    requests = load_requests(asked.trace)
    for line in requests.skipped:
        streams.tell(line)
    yield trace_job(requests, asked, known_tiers(options, streams))


def _from_ledger(options: PlanOptions, streams: Streams) -> Iterator[PlanJob]:
    path, when, source = options.ledger.path(streams.env), options.when, options.source
    with reading(path) as db:
        period = when.asked(last_us=last_instant(db))
    named = when.period if when.period and ".." not in when.period else ""
    yield from own_jobs(
        path,
        options.ledger.settings(streams.env),
        HistoryOptions(model=source.model, period=period, period_words=named, span_us=source.span_us),
        job_options(options),
        lambda: known_tiers(options, streams),
        env=streams.env,
        prefers_predicted=options.predicted.params is not None,
    )


def _progress(streams: Streams) -> Callable[[str, int, int], None] | None:
    """Return what shows progress on a terminal; None in a pipe."""
    if not streams.progress:
        return None
    return lambda what, number, of: streams.show_progress(f"{what} ({number:,}/{of:,})")


async def _pool(options: PlanOptions, streams: Streams) -> int:
    span_us = options.source.span_us or DEFAULT_SPAN_US
    known = known_tiers(options, streams)
    scenario = new_scenario(cost_options(options), known, span_us=span_us, origin_us=0)
    plan = await plan_pool(pool_options(options), scenario, progress=_progress(streams))
    streams.show_progress("")
    if options.json:
        tiers = tier_documents(scenario.tiers[:1])
        streams.say_json(pool_document(plan.outcomes, plan.alone_nusd, span_us, tiers))
    else:
        lines = [*pool_text(plan.outcomes, plan.alone_nusd, span_us), *tier_lines(scenario.tiers[:1])]
        streams.say("\n".join(lines))
    return 0


def _draw(path: str, drawn: Sequence[tuple[PlanReport, Picture]]) -> None:
    """Draw the first report; further ones of a fleet into files numbered from 2."""
    for number, (report, picture) in enumerate(drawn, start=1):
        stem, dot, kind = path.rpartition(".")
        name = path if number == 1 else f"{stem}-{number}{dot}{kind}"
        draw(picture, name, text="\n".join([as_text(report), *last_lines([report])]))


def _duty(options: PlanOptions, streams: Streams) -> int:
    """The closed form: no trace."""
    if options.source.hours_per_day is None:
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            "nothing to plan from",
            hint="give --trace FILE, --synthetic KIND, --from-ledger or --hours-per-day H",
        )
    scenario = new_scenario(cost_options(options), known_tiers(options, streams), span_us=0, origin_us=0)
    use = duty.DailyUse(
        hours_per_day=_number(options.source.hours_per_day, most=24),
        wakes_per_day=_number(options.source.wakes_per_day),
        costs=scenario.costs()[scenario.tiers[0].tier],
        wait_nusd_s=options.costs.wait_nusd_s,
    )
    hosted = hosted_options(options)
    blend = duty.blend_of(find_offer(hosted.name, hosted.table), hosted.tokens, today_us=_now_us())
    if options.json:
        streams.say_json(duty.duty_document(use, blend, tier_documents(scenario.tiers[:1])))
    else:
        streams.say("\n".join([*duty.lines(use, blend), "", *tier_lines(scenario.tiers[:1])]))
    return 0


def _number(text: str, *, most: int | None = None) -> Fraction:
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        value = Fraction(-1)
    if value < 0 or (most is not None and value > most):
        limit = f" from 0 to {most}" if most is not None else " of 0 or more"
        raise RequestFault(ErrorCode.INVALID_REQUEST, f"{text!r} is not a number{limit}")
    return value


def _now_us() -> int:
    return SystemClock.started().now_us()


VERB = new_verb(
    PlanOptions,
    _run,
    PlanDocument,
    PlansDocument,
    PoolDocument,
    duty.DutyDocument,
    usage="(--trace FILE | --synthetic KIND | --from-ledger | ...) [OPTION...]",
    epilog=EPILOG,
)
