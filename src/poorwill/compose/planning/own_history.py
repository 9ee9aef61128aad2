"""Plans from a fleet's own ledger: its requests, measured wakes, rates, floor and policy."""

import os.path
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from poorwill.compose.planning.known_models import measured
from poorwill.core.errors import ErrorCode, OperatorFault, RequestFault
from poorwill.core.format import duration
from poorwill.core.settings import FleetSettings
from poorwill.core.words import ModelName
from poorwill.hosts.files.traces.trace import UNKNOWN, Trace, new_trace
from poorwill.ledger.costs.items import last_instant
from poorwill.ledger.dates import Period, iso
from poorwill.ledger.history.demand import DemandRequest, demanded_models, known_from_us, past_requests
from poorwill.ledger.schema import reading
from poorwill.planner.jobs import MONTH_US, JobOptions, PlanJob, fleet_job, history_job
from poorwill.planner.ladder import KnownTiers
from poorwill.planner.report.advice import CurrentPolicy

ELSEWHERE = "--trace and --synthetic plan without a ledger"


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryOptions:
    """Which requests of a ledger to plan from."""

    model: str | None = None
    """Only this one's; None: every model's, each by itself."""
    period: Period | None = None
    period_words: str = ""
    """The period as the user wrote it, if it is one word."""
    span_us: int | None = None
    """How far to look back, without a period."""


def own_jobs(
    path: str,
    fleet: FleetSettings | None,
    options: HistoryOptions,
    asked: JobOptions,
    predicted: Callable[[], KnownTiers],
    *,
    env: Mapping[str, str],
    prefers_predicted: bool,
) -> Iterator[PlanJob]:
    """Return one job per model that has requests in the period.

    `predicted` is what is known of the tiers of a model that the fleet does not have. With
    `prefers_predicted` it also goes before what the fleet predicts. Raises OperatorFault without requests.
    """
    with reading(path) as db:
        looked, words = _looked_at(db, options)
        known = measured(db, fleet, env) if fleet else None
        names = [options.model] if options.model else demanded_models(db)
        pasts = {
            name: past_requests(db, ModelName(name), from_us=looked.from_us, to_us=looked.to_us)
            for name in names
        }
    if not any(pasts.values()):
        of = f" for {options.model}" if options.model else ""
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            f"{os.path.basename(path)} has no request{of} {words}",
            hint=f"--period looks at another; {ELSEWHERE}",
        )
    for name, past in pasts.items():
        if not past:
            continue
        trace = _trace(name, past, looked)
        own = CurrentPolicy(model=name, period=words)
        model = next((one for one in known.fleet.models if one.name == name), None) if known else None
        if known is None or model is None:
            yield history_job(trace, own, asked, predicted(), span_us=looked.us)
        else:
            tiers = predicted().tiers if prefers_predicted else {}
            yield fleet_job(trace, own, asked, known.planned(model), tiers, span_us=looked.us)


def _trace(name: str, past: Sequence[DemandRequest], looked: Period) -> Trace:
    return new_trace(
        arrival_us=[one.arrived_us - looked.from_us for one in past],
        service_us=[UNKNOWN if one.served_us is None else one.served_us for one in past],
        prompt_tokens=[_tokens(one.tokens_in) for one in past],
        output_tokens=[_tokens(one.tokens_out) for one in past],
        models=[name] * len(past),
        origin_us=looked.from_us,
        source=f"the ledger, {name}",
    )


def _looked_at(db: sqlite3.Connection, options: HistoryOptions) -> tuple[Period, str]:
    """Return the period, limited to what the ledger has by request, and its description.

    Raises RequestFault if nothing is left of it.
    """
    first_us, last_us = known_from_us(db), last_instant(db)
    if options.period is not None and options.span_us:
        raise RequestFault(ErrorCode.INVALID_REQUEST, "--span-s and a period are two answers to one question")
    if first_us is None or first_us >= last_us:
        raise OperatorFault(ErrorCode.CONFIG_INVALID, "the ledger has no request", hint=ELSEWHERE)
    wanted = options.period or Period(from_us=last_us - (options.span_us or MONTH_US), to_us=last_us)
    begin_us, end_us = max(wanted.from_us, first_us), min(wanted.to_us, last_us)
    if begin_us >= end_us:
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            f"the ledger has nothing from {wanted}",
            hint=f"it has requests from {iso(first_us)} to {iso(last_us)}",
        )
    looked = Period(from_us=begin_us, to_us=end_us)
    if options.period is not None:
        named = bool(options.period_words) and looked == options.period
        return looked, f"in {options.period_words}" if named else f"from {looked}"
    return looked, "last month" if looked.us == MONTH_US else f"in the last {duration(looked.us)}"


def _tokens(count: int | None) -> int:
    return UNKNOWN if count is None else count
