"""`poorwill plan`: what each way of serving would cost, how long users would wait, what to choose."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

from poorwill.cli.ledger import add_ledger_options, add_period_options
from poorwill.cli.parsing.target import add_json_option
from poorwill.cli.parsing.verb import Streams, Verb
from poorwill.cli.plan.conflicts import check_asked
from poorwill.cli.plan.fleet import known_tiers
from poorwill.cli.plan.ledger import own_jobs
from poorwill.cli.plan.options import EPILOG, add_options
from poorwill.cli.plan.typed import cost_options, hosted_options, job_options, judge_options, pool_options
from poorwill.compose.clock import SystemClock
from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.planner.alternatives import duty
from poorwill.planner.alternatives.hosted import find_offer
from poorwill.planner.jobs import PlanJob, load_requests, trace_job
from poorwill.planner.ladder import new_scenario
from poorwill.planner.plan import judge_job
from poorwill.planner.report import terminal
from poorwill.planner.report.drawing import draw
from poorwill.planner.report.picture import Picture
from poorwill.planner.report.pool_report import pool_json, pool_text
from poorwill.planner.report.report import PlanReport, as_json, as_text, last_lines, tier_lines, tiers_json
from poorwill.planner.shared_pool import DEFAULT_SPAN_US, plan_pool


def _options(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s (--trace FILE | --synthetic KIND | --from-ledger | ...) [OPTION...]"
    add_options(parser)
    add_ledger_options(parser)
    add_period_options(parser, default="with --from-ledger, the last 30 days")
    add_json_option(parser)


async def _run(options: argparse.Namespace, streams: Streams) -> int:
    check_asked(options)  # before the work, not after it
    if options.tenants is not None:
        return await _pool(options, streams)
    if not (options.trace or options.synthetic or options.from_ledger):
        return _duty(options, streams)
    judged = judge_options(options, today_us=_now_us())
    told = _tell_progress(streams)
    drawn = [await judge_job(job, judged, progress=told) for job in _jobs(options, streams)]
    _clear_progress(streams)
    if options.plot:
        _draw(options.plot, drawn)
    if options.json:
        documents = [as_json(report) for report, _ in drawn]
        streams.say_json(documents[0] if len(documents) == 1 else {"reports": documents})
        return 0
    for report, picture in drawn:
        streams.say(as_text(report))
        if not options.plot:
            streams.say("\n" + terminal.as_text(picture))
    for line in last_lines([report for report, _ in drawn]):
        streams.say(line)
    return 0


def _jobs(options: argparse.Namespace, streams: Streams) -> Iterator[PlanJob]:
    """Yield the reports to make: one, or from a ledger one per model."""
    if options.from_ledger:
        yield from own_jobs(options, streams)
        return
    asked = job_options(options)
    requests = load_requests(asked.trace)
    for line in requests.skipped:
        streams.tell(line)
    yield trace_job(requests, asked, known_tiers(options, streams))


def _tell_progress(streams: Streams) -> Callable[[str, int, int], None] | None:
    """Return what shows progress on a terminal; None in a pipe."""
    if not streams.progress:
        return None

    def tell(what: str, number: int, of: int) -> None:
        streams.stderr.write(f"\r\x1b[K{what} ({number:,}/{of:,})")
        streams.stderr.flush()

    return tell


def _clear_progress(streams: Streams) -> None:
    if streams.progress:
        streams.stderr.write("\r\x1b[K")


async def _pool(options: argparse.Namespace, streams: Streams) -> int:
    span_us = options.span_s or DEFAULT_SPAN_US
    known = known_tiers(options, streams)
    scenario = new_scenario(cost_options(options), known, span_us=span_us, origin_us=0)
    plan = await plan_pool(pool_options(options), scenario, progress=_tell_progress(streams))
    _clear_progress(streams)
    if options.json:
        tiers = tiers_json(scenario.tiers[:1])
        streams.say_json(pool_json(plan.outcomes, plan.alone_nusd, span_us) | {"tiers": tiers})
    else:
        told = [*pool_text(plan.outcomes, plan.alone_nusd, span_us), *tier_lines(scenario.tiers[:1])]
        streams.say("\n".join(told))
    return 0


def _draw(path: str, drawn: Sequence[tuple[PlanReport, Picture]]) -> None:
    """Draw the first report; further ones of a fleet into files numbered from 2."""
    for number, (report, picture) in enumerate(drawn, start=1):
        stem, dot, kind = path.rpartition(".")
        name = path if number == 1 else f"{stem}-{number}{dot}{kind}"
        draw(picture, name, text="\n".join([as_text(report), *last_lines([report])]))


def _duty(options: argparse.Namespace, streams: Streams) -> int:
    """The closed form: no trace."""
    if options.hours_per_day is None:
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            "nothing to plan from",
            hint="give --trace FILE, --synthetic KIND, --from-ledger or --hours-per-day H",
        )
    scenario = new_scenario(cost_options(options), known_tiers(options, streams), span_us=0, origin_us=0)
    use = duty.DailyUse(
        hours_per_day=_number(options.hours_per_day, most=24),
        wakes_per_day=_number(options.wakes_per_day),
        costs=scenario.costs()[scenario.tiers[0].tier],
        wait_nusd_s=options.wait_usd_s,
    )
    hosted = hosted_options(options)
    blend = duty.blend_of(find_offer(hosted.name, hosted.table), hosted.tokens, today_us=_now_us())
    if options.json:
        streams.say_json(duty.as_json(use, blend) | {"tiers": tiers_json(scenario.tiers[:1])})
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


VERB = Verb(
    name="plan",
    help="what each way of serving would cost, how long users would wait, which idle time to choose",
    options=_options,
    run=_run,
    epilog=EPILOG,
)
