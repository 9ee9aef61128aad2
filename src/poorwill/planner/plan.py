"""Judges every way to serve a job: the report and the pictures of `poorwill plan`."""

import asyncio
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from poorwill.core.format import DAY_US, counted
from poorwill.core.settings import PolicySettings
from poorwill.core.words import SECOND_US
from poorwill.planner.hosted import HostedBill, TokenGuess, hosted_bill
from poorwill.planner.jobs import PlanJob
from poorwill.planner.report.advice import advice, reservation
from poorwill.planner.report.picture import Picture, busiest_day, new_picture
from poorwill.planner.report.report import PlanReport, frontier
from poorwill.planner.report.verdict import Case, PlanVerdict, WorkNeeds, judge, peak_rps
from poorwill.planner.simulation.evaluate import (
    BRIDGE,
    HOSTED,
    YARDSTICK,
    Contest,
    Entrant,
    TimelineWindow,
    Workload,
    entrants,
    loads_of,
)
from poorwill.planner.simulation.hindsight import idle_curve
from poorwill.planner.simulation.outcome import Outcome, added
from poorwill.planner.sizing import Size, SizeOutcome, best_size, sizes_to_try, try_size
from poorwill.remote.hosted_prices import Offer, find_offer, offer_of

DEFAULT_IDLES_US = tuple(seconds * SECOND_US for seconds in (90, 300, 900, 3600))
"""Judged when no --idle-s is given: what peers use, and two longer ones."""

BY_LEVEL = (
    "clairvoyant serves each request as soon as one of all places is free; to wait instead may cost less"
)
FLOORLESS = "clairvoyant keeps to no floor, so `x best` counts the floor's price as a loss"

Progress = Callable[[str, int, int], None]
"""Receives what is being priced, its number and how many there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostedOptions:
    """The hosted API to compare with."""

    name: str | None = None
    """PROVIDER/MODEL; None compares with a reference."""
    table: str | None = None
    """A price table of the user's own."""
    tokens: TokenGuess = field(default_factory=TokenGuess)


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeOptions:
    """What ways to serve are judged, and what the user says about the work."""

    hosted: HostedOptions = field(default_factory=HostedOptions)
    work_needs: WorkNeeds = field(default_factory=WorkNeeds)
    idles_us: tuple[int, ...] = ()
    today_us: int = 0
    """Prices an undated trace."""


async def judge_job(
    job: PlanJob, options: JudgeOptions, *, progress: Progress | None = None
) -> tuple[PlanReport, Picture]:
    """Judge every way to serve one job. Cancelled: between two of them."""
    hosted = options.hosted
    offer = _offer(hosted, job)
    bill = hosted_bill(job.trace, offer, guess=hosted.tokens, today_us=options.today_us)
    loads = loads_of(job.trace, job.rule, bill)
    sizes = sizes_to_try(loads, job.replicas, job.limits)
    tried = await _try_sizes(job, loads, sizes, progress) if len(sizes) > 1 else []
    if not job.keeps_size:
        chosen = best_size(tried, job.scenario.wait_nusd_s).size if tried else sizes[0]
        job, loads = replace(job, scenario=chosen.of(job.scenario)), chosen.slowed(loads)
    ways = list(
        entrants(
            Contest(
                scenario=job.scenario,
                cold=job.cold,
                idles_us=tuple(dict.fromkeys((*job.idles_us, *(options.idles_us or DEFAULT_IDLES_US)))),
                floors=job.floors,
                bill=bill,
            )
        )
    )
    accounts: dict[str, list[Outcome]] = {}
    timelines: dict[str, TimelineWindow] = {}
    from_us = job.scenario.origin_us + busiest_day(loads[0].arrival_us)
    for number, way in enumerate(ways, start=1):
        if progress is not None:
            progress(way.name, number, len(ways))
        await asyncio.sleep(0)
        timelines[way.name] = TimelineWindow(from_us, from_us + DAY_US)
        within = _within(progress, way.name, number, len(ways))
        with no_collection():
            accounts[way.name] = way.accounts(loads, timelines[way.name], within)
    report = replace(_report(options.work_needs, job, ways, accounts, loads, bill, offer), sizes=tried)
    return report, _picture(report, job, ways, loads, timelines)


async def _try_sizes(
    job: PlanJob, loads: Sequence[Workload], sizes: Sequence[Size], progress: Progress | None
) -> list[SizeOutcome]:
    """Try the sizes under the model's own policy, else under the plain rule. Cancelled: between two."""
    wait, own = job.scenario.wait_nusd_s, job.own
    policy = PolicySettings(name="break-even", wait_nusd_s=wait)
    if own is not None and own.policy:
        policy = PolicySettings(name=own.policy, idle_us=own.idle_us, wait_nusd_s=wait)
    tried = []
    for number, size in enumerate(sizes, start=1):
        if progress is not None:
            progress(f"{counted(size.replicas, 'replica')}", number, len(sizes))
        await asyncio.sleep(0)
        within = _within(progress, counted(size.replicas, "replica"), number, len(sizes))
        tried.append(try_size(size, loads, job.scenario, policy, floors=job.floors, progress=within))
    return tried


@contextmanager
def no_collection() -> Iterator[None]:
    """Look for no reference cycles meanwhile: none are made, and there are millions of tuples."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _within(progress: Progress | None, name: str, number: int, of: int) -> Callable[[float], None] | None:
    """Return what receives how far one way is."""
    return None if progress is None else lambda part: progress(f"{name}, {part:.0%}", number, of)


def _offer(hosted: HostedOptions, job: PlanJob) -> Offer:
    """Return the hosted API that is named, else the one the model's bridge leads to, else the reference."""
    if hosted.name is None and job.bridge is not None:
        return offer_of(job.bridge)
    return find_offer(hosted.name, hosted.table)


def _hosted_source(offer: Offer, bill: HostedBill | None) -> str:
    """Say where the hosted prices are from, or why there are none."""
    if bill is None:
        return f"not known: {offer.source} has no price of {offer.name} before {offer.known_from:%Y-%m-%d}"
    return f"{offer.name}, {offer.source}, {bill.dated}"


def _picture(
    report: PlanReport,
    job: PlanJob,
    ways: Sequence[Entrant],
    loads: Sequence[Workload],
    timelines: Mapping[str, TimelineWindow],
) -> Picture:
    # A hosted API has no states to draw: then draw those of the best policy of the operator's own.
    drawn = report.verdict.own
    chosen, timeline = next(way for way in ways if way.name == drawn), timelines[drawn]
    if not timeline:  # it was swept
        load = loads[0]
        origin_us, times = job.scenario.origin_us, (job.scenario.tiers[0], job.cold)
        reset_us = (chosen.idle_us or 0) + max(2 * tier.park_us + max(tier.wake_us) for tier in times)
        begin = load.blocks(job.scenario.span_us).rested(reset_us, timeline.from_us - origin_us)
        upto = int(np.searchsorted(load.arrival_us, timeline.to_us - origin_us))
        part = slice(begin, upto)
        cut = replace(load, arrival_us=load.arrival_us[part], service_us=load.service_us[part])
        chosen.run(cut, timeline, None)
    even = next(way for way in ways if way.name == "break-even")
    return new_picture(
        report, loads, even_us=even.idle_us, policy=drawn, timeline=timeline, origin_us=job.scenario.origin_us
    )


def _verdict(
    said: WorkNeeds,
    job: PlanJob,
    ways: Sequence[Entrant],
    accounts: Mapping[str, Sequence[Outcome]],
    loads: Sequence[Workload],
    bill: HostedBill | None,
) -> PlanVerdict:
    """Return the answer for all models together, which takes up the answers for each of several."""
    scenario = job.scenario
    serve = [way.name for way in ways if way.runs_in_serve and (way.name != BRIDGE or said.hosted_named)]

    def case_of(found: Mapping[str, Outcome], asked: Sequence[Workload], hosted: HostedBill | None) -> Case:
        arrivals = np.sort(np.concatenate([load.arrival_us for load in asked]))
        return Case(
            requests=len(arrivals),
            span_us=scenario.span_us,
            peak_rps=peak_rps(arrivals),
            choices=[found[name] for name in serve],
            offer=None if said.hosted_named else found.get(BRIDGE),
            hosted=hosted,
            wait_nusd_s=scenario.wait_nusd_s,
            on_paper=[found[name] for name in ("cold", "hibernate")],
        )

    models = []
    for number, load in enumerate(loads if len(loads) > 1 else ()):
        found = {name: each[number] for name, each in accounts.items()}
        share = None if bill is None else replace(bill, nusd=found[HOSTED].cost_nusd)
        models.append((load.model, judge(case_of(found, [load], share), said)))
    whole = {name: added(each) for name, each in accounts.items()}
    return judge(case_of(whole, loads, bill), said, models)


def _report(
    said: WorkNeeds,
    job: PlanJob,
    ways: Sequence[Entrant],
    accounts: Mapping[str, Sequence[Outcome]],
    loads: Sequence[Workload],
    bill: HostedBill | None,
    offer: Offer,
) -> PlanReport:
    scenario = job.scenario
    if job.bridge is not None:
        said = replace(said, hosted_named=True)
    outcomes = {name: added(each) for name, each in accounts.items()}
    verdict = _verdict(said, job, ways, accounts, loads, bill)
    aside = {YARDSTICK} if said.hosted_named else {YARDSTICK, HOSTED}
    real = [outcome for name, outcome in outcomes.items() if name not in aside]
    curve = idle_curve(loads, scenario, floors=job.floors, also_us=job.idles_us)
    own = job.own
    return PlanReport(
        source=job.trace.source,
        requests=len(job.trace),
        span_us=scenario.span_us,
        models=len(loads),
        replicas=scenario.replicas,
        outcomes=tuple(outcomes.values()),
        yardstick=outcomes[YARDSTICK],
        wait_nusd_s=scenario.wait_nusd_s,
        frontier=[outcome.policy for outcome in frontier(real)],
        verdict=verdict,
        curve=curve,
        tiers=scenario.tiers,
        model=own.model if own else "",
        period=own.period if own else "",
        advice=advice(own, outcomes, curve) if own else "",
        reservation=reservation(len(job.trace), scenario.span_us) if own else "",
        prices={"hosted": _hosted_source(offer, bill)},
        notes=(
            *job.notes,
            *((BY_LEVEL,) if scenario.replicas > 1 else ()),
            *(bill.notes if bill else ()),
            *((FLOORLESS,) if job.floors else ()),
        ),
    )
