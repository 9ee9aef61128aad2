"""`poorwill plan`: what each way of serving would cost, how long users would wait, what to choose."""

import argparse
import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from poorwill.cli.plan_options import (
    EPILOG,
    add_options,
    circumstances,
    cold_of,
    scenario_of,
)
from poorwill.cli.target import add_json_option
from poorwill.cli.verb import Streams, Verb
from poorwill.clock import SystemClock
from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.core.words import SECOND_US
from poorwill.planner import duty
from poorwill.planner.evaluate import HOSTED, YARDSTICK, Entrant, Field, Load, entrants, loads_of
from poorwill.planner.hindsight import curve, idle_times, sweepable
from poorwill.planner.hosted import HostedBill, Offer, TokenGuess, find_offer, hosted_bill
from poorwill.planner.outcome import Outcome
from poorwill.planner.readers import read_trace
from poorwill.planner.report import Report, as_json, as_text, frontier
from poorwill.planner.scenario import Scenario
from poorwill.planner.service import ServiceRule
from poorwill.planner.synthetic import Draw, draw_trace
from poorwill.planner.trace import Trace
from poorwill.planner.verdict import Case, judge, peak_rps

DRAWN_SPAN_US = 30 * 86_400 * SECOND_US
"""Of a drawn trace, where no span is given."""
DEFAULT_IDLES_US = tuple(seconds * SECOND_US for seconds in (90, 300, 900, 3600))
"""Judged where no --idle-s is given: what peers use, and two longer ones."""


def _options(parser: argparse.ArgumentParser) -> None:
    add_options(parser)
    add_json_option(parser)


async def _run(options: argparse.Namespace, streams: Streams) -> int:
    if options.trace is None and options.synthetic is None:
        return _duty(options, streams)
    trace, notes = _trace(options, streams)
    report = await _report(options, streams, trace, notes)
    if options.json:
        streams.say_json(as_json(report))
    else:
        streams.say(as_text(report))
    return 0


def _duty(options: argparse.Namespace, streams: Streams) -> int:
    """The closed form: no trace."""
    if options.hours_per_day is None:
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            "nothing to plan from",
            hint="give --trace FILE, --synthetic KIND, --from-ledger or --hours-per-day H",
        )
    scenario = scenario_of(options, span_us=0, origin_us=0)
    use = duty.Use(
        hours_per_day=_hours(options.hours_per_day),
        wakes_per_day=_hours(options.wakes_per_day),
        costs=scenario.costs()[scenario.tiers[0].tier],
        wait_nusd_s=options.wait_usd_s,
    )
    blend = _blend(_offer(options), options)
    if options.json:
        streams.say_json(duty.as_json(use, blend))
    else:
        for line in duty.lines(use, blend):
            streams.say(line)
    return 0


def _hours(text: str) -> Fraction:
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise RequestFault(ErrorCode.INVALID_REQUEST, f"{text!r} is not a number") from None
    if value < 0:
        raise RequestFault(ErrorCode.INVALID_REQUEST, f"{text!r} is negative")
    return value


def _offer(options: argparse.Namespace) -> Offer:
    return find_offer(options.hosted, options.prices)


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


def _trace(options: argparse.Namespace, streams: Streams) -> tuple[Trace, list[str]]:
    """Return the requests to plan for and what is to be said about them."""
    notes: list[str] = []
    if options.synthetic is not None:
        trace = draw_trace(
            Draw(
                kind=options.synthetic,
                span_us=options.span_s or DRAWN_SPAN_US,
                requests_per_day=options.requests_per_day,
                seed=options.seed,
            )
        )
    else:
        reading = read_trace(options.trace, refuse_bad=options.bad_rows == "refuse")
        trace = reading.trace
        for problem in reading.bad:
            streams.tell(f"{options.trace}: {problem}: skipped")
        if reading.bad_count:
            notes.append(f"{reading.bad_count} bad rows skipped (--bad-rows refuse stops instead)")
        if reading.unsorted:
            notes.append(f"{reading.unsorted} rows were out of order and were sorted")
    if options.origin is not None:
        trace = replace(trace, origin_us=options.origin)
    if options.model is not None:
        trace = trace.only(options.model)
    return trace.merged() if options.one_replica else trace, notes


async def _report(
    options: argparse.Namespace, streams: Streams, trace: Trace, notes: list[str]
) -> Report:
    rule = ServiceRule(
        constant_us=options.service_s,
        prompt_tokens_s=options.prompt_tokens_s,
        output_tokens_s=options.output_tokens_s,
    )
    span = options.span_s or _span_us(options, trace, rule)
    beyond = int((trace.arrival_us >= span).sum())
    if beyond:
        notes.append(f"{beyond} requests arrive after the span's end and are left out")
        trace = trace.before(span)
    scenario = scenario_of(options, span_us=span, origin_us=trace.origin_us or 0)
    guess = TokenGuess(prompt=options.prompt_tokens, output=options.output_tokens)
    bill = hosted_bill(trace, _offer(options), guess=guess, today_us=_now_us())
    notes += bill.notes
    loads = loads_of(trace, rule, bill)
    field = Field(
        scenario=scenario,
        cold=cold_of(options),
        idles_us=options.idle_s or DEFAULT_IDLES_US,
        bill=bill,
    )
    ways = list(entrants(field))
    outcomes = await _accounts(ways, loads, streams)
    return _judged(options, trace, scenario, ways, outcomes, loads, bill, notes)


def _span_us(options: argparse.Namespace, trace: Trace, rule: ServiceRule) -> int:
    """Return the span where none is given: to the last request's end, in whole seconds."""
    if options.synthetic is not None:
        return DRAWN_SPAN_US
    last = int((trace.arrival_us + rule.times(trace)).max())
    return -(-last // SECOND_US) * SECOND_US


async def _accounts(ways: list[Entrant], loads: list[Load], streams: Streams) -> dict[str, Outcome]:
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
    trace: Trace,
    scenario: Scenario,
    ways: list[Entrant],
    outcomes: dict[str, Outcome],
    loads: list[Load],
    bill: HostedBill,
    notes: list[str],
) -> Report:
    said = circumstances(options)
    choices = [outcomes[way.name] for way in ways if way.runs_in_serve]
    case = Case(
        requests=len(trace),
        span_us=scenario.span_us,
        peak_rps=peak_rps(trace.arrival_us),
        choices=choices,
        hosted=bill,
        wait_nusd_s=scenario.wait_nusd_s,
        on_paper=[outcomes[name] for name in ("cold", "hibernate")],
    )
    aside = {YARDSTICK} if said.hosted_named else {YARDSTICK, HOSTED}
    real = [outcome for name, outcome in outcomes.items() if name not in aside]
    idles = idle_times(scenario)
    return Report(
        source=trace.source,
        requests=len(trace),
        span_us=scenario.span_us,
        replicas=len(loads),
        outcomes=tuple(outcomes.values()),
        yardstick=outcomes[YARDSTICK],
        wait_nusd_s=scenario.wait_nusd_s,
        frontier=[outcome.policy for outcome in frontier(real)],
        verdict=judge(case, said),
        curve=curve(loads, scenario, idles) if sweepable(scenario) else None,
        prices={"hosted": f"{bill.offer.name}, {bill.offer.source}, as of {bill.as_of}"},
        notes=tuple(notes),
    )


VERB = Verb(
    name="plan",
    help="what each way of serving would cost, how long users would wait, which idle time to choose",
    options=_options,
    run=_run,
    epilog=EPILOG,
)
