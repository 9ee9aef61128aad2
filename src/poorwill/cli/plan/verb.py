"""`poorwill plan`: what each way of serving would cost, how long users would wait, what to choose."""

import argparse
import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from poorwill.cli.ledger import add_ledger_options, add_period_options
from poorwill.cli.parsing.target import add_json_option
from poorwill.cli.parsing.verb import Streams, Verb
from poorwill.cli.plan import pool as plan_pool
from poorwill.cli.plan.conflicts import check_asked
from poorwill.cli.plan.job import Job, jobs
from poorwill.cli.plan.options import EPILOG, add_options, circumstances, flat
from poorwill.cli.plan.tiers import known_tiers, scenario_of
from poorwill.compose.clock import SystemClock
from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.core.words import SECOND_US, Cause
from poorwill.planner.alternatives import duty
from poorwill.planner.alternatives.hosted import (
    HostedBill,
    Offer,
    TokenGuess,
    find_offer,
    hosted_bill,
    offer_of,
)
from poorwill.planner.report import terminal
from poorwill.planner.report.advice import advice, reservation
from poorwill.planner.report.drawing import draw
from poorwill.planner.report.picture import Picture, new_picture
from poorwill.planner.report.report import (
    Report,
    as_json,
    as_text,
    frontier,
    last_lines,
    tier_lines,
    tiers_json,
)
from poorwill.planner.report.verdict import Case, judge, peak_rps
from poorwill.planner.simulation.evaluate import (
    BRIDGE,
    HOSTED,
    YARDSTICK,
    Entrant,
    Field,
    Load,
    entrants,
    loads_of,
)
from poorwill.planner.simulation.hindsight import idle_curve
from poorwill.planner.simulation.outcome import Outcome

DEFAULT_IDLES_US = tuple(seconds * SECOND_US for seconds in (90, 300, 900, 3600))
"""Judged where no --idle-s is given: what peers use, and two longer ones."""


FLOORLESS = "clairvoyant keeps to no floor, so `x best` counts the floor's price as a loss"


def _options(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s (--trace FILE | --synthetic KIND | --from-ledger | ...) [OPTION...]"
    add_options(parser)
    add_ledger_options(parser)
    add_period_options(parser, default="with --from-ledger, the last 30 days")
    add_json_option(parser)


async def _run(options: argparse.Namespace, streams: Streams) -> int:
    check_asked(options)  # before the work, not after it
    if options.tenants is not None:
        return await plan_pool.run(options, streams)
    if not (options.trace or options.synthetic or options.from_ledger):
        return _duty(options, streams)
    drawn = [await _report(options, streams, job) for job in jobs(options, streams)]
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


def _draw(path: str, drawn: Sequence[tuple[Report, Picture]]) -> None:
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
    scenario = scenario_of(options, known_tiers(options, streams), span_us=0, origin_us=0)
    use = duty.Use(
        hours_per_day=_number(options.hours_per_day, most=24),
        wakes_per_day=_number(options.wakes_per_day),
        costs=scenario.costs()[scenario.tiers[0].tier],
        wait_nusd_s=options.wait_usd_s,
    )
    blend = _blend(find_offer(options.hosted, options.prices), options)
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


def _blend(offer: Offer, options: argparse.Namespace) -> duty.Blend:
    """Return the price of the assumed mix of prompt and output tokens, as of today."""
    prompt, output = options.prompt_tokens, options.output_tokens
    today = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=_now_us())
    quote = offer.quote(today, prompt)
    usd = (quote.input_usd * prompt + quote.output_usd * output) / (prompt + output)
    return duty.Blend(
        name=offer.name,
        source=f"{offer.source}, {today:%Y-%m-%d}",
        usd_per_mtok=usd.quantize(Decimal("0.0001")),
        mix=f"{prompt} prompt to {output} output tokens",
    )


def _now_us() -> int:
    return SystemClock.started().now_us()


def _offer(options: argparse.Namespace, job: Job) -> Offer:
    """Return the hosted API that is named, else where the model's bridge leads, else the reference."""
    if options.hosted is None and job.bridge is not None:
        return offer_of(job.bridge)
    return find_offer(options.hosted, options.prices)


async def _report(options: argparse.Namespace, streams: Streams, job: Job) -> tuple[Report, Picture]:
    """Judge every way to serve one job. Cancelled: between two of them."""
    bill = hosted_bill(
        job.trace,
        _offer(options, job),
        guess=TokenGuess(prompt=options.prompt_tokens, output=options.output_tokens),
        today_us=_now_us(),
    )
    loads = loads_of(job.trace, job.rule, bill)
    field = Field(
        scenario=job.scenario,
        cold=job.cold,
        idles_us=tuple(dict.fromkeys((*job.idles_us, *(flat(options.idle_s) or DEFAULT_IDLES_US)))),
        floor=job.floor,
        bill=bill,
    )
    ways = list(entrants(field))
    outcomes = await _accounts(ways, loads, streams)
    report = _judged(options, job, ways, outcomes, loads, bill)
    return report, _pictured(report, job, ways, loads)


def _pictured(report: Report, job: Job, ways: Sequence[Entrant], loads: Sequence[Load]) -> Picture:
    timeline: list[tuple[int, Cause]] = []
    # A hosted API has no states to draw: then those of the policy that follows one's own demand.
    drawn = "adaptive" if report.verdict.policy == HOSTED else report.verdict.policy
    chosen = next(way for way in ways if way.name == drawn)
    if loads:
        chosen.run(loads[0], timeline)
    even = next(way for way in ways if way.name == "break-even")
    return new_picture(
        report,
        loads,
        even_us=even.idle_us,
        policy=drawn,
        timeline=timeline,
        origin_us=job.scenario.origin_us,
    )


async def _accounts(ways: Sequence[Entrant], loads: Sequence[Load], streams: Streams) -> dict[str, Outcome]:
    """Price every way to serve, telling on a terminal how far it is. Cancelled between two of them."""
    outcomes: dict[str, Outcome] = {}
    for number, way in enumerate(ways, start=1):
        if streams.progress:
            streams.stderr.write(f"\r\x1b[Kpricing {way.name} ({number}/{len(ways)})")
            streams.stderr.flush()
        await asyncio.sleep(0)
        outcomes[way.name] = way.account(loads)
    if streams.progress:
        streams.stderr.write("\r\x1b[K")
    return outcomes


def _judged(
    options: argparse.Namespace,
    job: Job,
    ways: Sequence[Entrant],
    outcomes: dict[str, Outcome],
    loads: Sequence[Load],
    bill: HostedBill,
) -> Report:
    said, scenario = circumstances(options), job.scenario
    if job.bridge is not None:
        said = replace(said, hosted_named=True)
    case = Case(
        requests=len(job.trace),
        span_us=scenario.span_us,
        peak_rps=peak_rps(job.trace.arrival_us),
        choices=[
            outcomes[way.name]
            for way in ways
            if way.runs_in_serve and (way.name != BRIDGE or said.hosted_named)
        ],
        offer=None if said.hosted_named else outcomes[BRIDGE],
        hosted=bill,
        wait_nusd_s=scenario.wait_nusd_s,
        on_paper=[outcomes[name] for name in ("cold", "hibernate")],
    )
    aside = {YARDSTICK} if said.hosted_named else {YARDSTICK, HOSTED}
    real = [outcome for name, outcome in outcomes.items() if name not in aside]
    curve = idle_curve(loads, scenario, floor=job.floor, also_us=job.idles_us)
    own = job.own
    return Report(
        source=job.trace.source,
        requests=len(job.trace),
        span_us=scenario.span_us,
        replicas=len(loads),
        outcomes=tuple(outcomes.values()),
        yardstick=outcomes[YARDSTICK],
        wait_nusd_s=scenario.wait_nusd_s,
        frontier=[outcome.policy for outcome in frontier(real)],
        verdict=judge(case, said),
        curve=curve,
        tiers=scenario.tiers,
        model=own.model if own else "",
        period=own.period if own else "",
        advice=advice(own, outcomes, curve) if own else "",
        reservation=reservation(len(job.trace), scenario.span_us) if own else "",
        prices={"hosted": f"{bill.offer.name}, {bill.offer.source}, as of {bill.as_of}"},
        notes=(*job.notes, *bill.notes, *(() if job.floor is None else (FLOORLESS,))),
    )


VERB = Verb(
    name="plan",
    help="what each way of serving would cost, how long users would wait, which idle time to choose",
    options=_options,
    run=_run,
    epilog=EPILOG,
)
