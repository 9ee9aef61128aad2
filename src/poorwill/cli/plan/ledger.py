"""`poorwill plan --from-ledger`: the fleet's own requests, measured wakes, rates, floor and policy."""

import os
import sqlite3
from collections.abc import Iterator

from poorwill.cli.parsing.streams import Streams
from poorwill.cli.plan.fleet import known_tiers
from poorwill.cli.plan.options import PlanOptions
from poorwill.cli.plan.planner_options import job_options
from poorwill.compose.planning import FleetKnown, measured
from poorwill.core.errors import ErrorCode, OperatorFault, RequestFault
from poorwill.core.format import duration
from poorwill.core.words import ModelName
from poorwill.ledger.bill.items import last_instant
from poorwill.ledger.dates import Period, iso
from poorwill.ledger.history.demand import demanded_models, known_from_us, past_requests
from poorwill.ledger.schema import reading
from poorwill.planner.jobs import MONTH_US, PlanJob, fleet_job, history_job
from poorwill.planner.ladder import KnownTiers
from poorwill.planner.report.advice import CurrentPolicy
from poorwill.planner.traces.trace import UNKNOWN, Trace, new_trace

ELSEWHERE = "--trace and --synthetic plan without a ledger"


def own_jobs(options: PlanOptions, streams: Streams) -> Iterator[PlanJob]:
    """Return one job per model that has requests in the period. Raises OperatorFault where none has."""
    path, wanted = options.ledger.path(streams.env), options.source.model
    fleet = options.ledger.settings(streams.env)
    with reading(path) as db:
        looked, words = _looked_at(db, options)
        known = measured(db, fleet, streams.env) if fleet else None
        names = [wanted] if wanted else demanded_models(db)
        pasts = {
            name: past_requests(db, ModelName(name), from_us=looked.from_us, to_us=looked.to_us)
            for name in names
        }
    if not any(pasts.values()):
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            f"{os.path.basename(path)} has no request" + (f" for {wanted}" if wanted else "") + f" {words}",
            hint=f"--period looks at another; {ELSEWHERE}",
        )
    for name, past in pasts.items():
        if past:
            trace = new_trace(
                arrival_us=[one.arrived_us - looked.from_us for one in past],
                service_us=[UNKNOWN if one.served_us is None else one.served_us for one in past],
                prompt_tokens=[_tokens(one.tokens_in) for one in past],
                output_tokens=[_tokens(one.tokens_out) for one in past],
                models=[name] * len(past),
                origin_us=looked.from_us,
                source=f"the ledger, {name}",
            )
            own = CurrentPolicy(model=name, period=words)
            yield _own_job(options, streams, trace, own, known, span_us=looked.us)


def _looked_at(db: sqlite3.Connection, options: PlanOptions) -> tuple[Period, str]:
    """Return the period, cut to what the ledger knows request by request, and how to speak of it.

    Raises RequestFault where nothing is left of it.
    """
    first_us, last_us = known_from_us(db), last_instant(db)
    asked = options.when.asked(last_us=last_us)
    if asked is not None and options.source.span_us:
        raise RequestFault(ErrorCode.INVALID_REQUEST, "--span-s and a period are two answers to one question")
    if first_us is None or first_us >= last_us:
        raise OperatorFault(ErrorCode.CONFIG_INVALID, "the ledger has no request", hint=ELSEWHERE)
    span_us = options.source.span_us or MONTH_US
    wanted = asked or Period(from_us=last_us - span_us, to_us=last_us)
    begin_us, end_us = max(wanted.from_us, first_us), min(wanted.to_us, last_us)
    if begin_us >= end_us:
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            f"the ledger has nothing from {wanted}",
            hint=f"it has requests from {iso(first_us)} to {iso(last_us)}",
        )
    looked = Period(from_us=begin_us, to_us=end_us)
    if asked is not None:
        period = options.when.period
        named = period is not None and ".." not in period and looked == asked
        return looked, f"in {period}" if named else f"from {looked}"
    return looked, "last month" if looked.us == MONTH_US else f"in the last {duration(looked.us)}"


def _tokens(count: int | None) -> int:
    return UNKNOWN if count is None else count


def _own_job(
    options: PlanOptions,
    streams: Streams,
    trace: Trace,
    own: CurrentPolicy,
    known: FleetKnown | None,
    *,
    span_us: int,
) -> PlanJob:
    """Return the job for one model of the fleet, with its own rates, measured times, floor and policy."""
    models = known.fleet.models if known else ()
    model = next((model for model in models if model.name == own.model), None)
    asked = job_options(options)
    if known is None or model is None:
        return history_job(trace, own, asked, known_tiers(options, streams), span_us=span_us)
    predicted = known_tiers(options, streams) if options.predicted.params is not None else KnownTiers()
    return fleet_job(trace, own, asked, known.planned(model), predicted.tiers, span_us=span_us)
