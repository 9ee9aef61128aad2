"""What `poorwill plan` is to work on, from its options: a trace, a drawing, or the fleet's own ledger."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from poorwill.cli.parsing.verb import Streams
from poorwill.cli.plan.options import floor_of
from poorwill.cli.plan.tiers import cold_of, known_tiers, scenario_of
from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.core.format import counted
from poorwill.core.policy import FloorSchedule
from poorwill.core.settings import HostedSettings
from poorwill.core.words import SECOND_US
from poorwill.planner.report.advice import Own
from poorwill.planner.simulation.scenario import Scenario, TierTimes
from poorwill.planner.traces.readers import read_trace
from poorwill.planner.traces.service import ServiceRule
from poorwill.planner.traces.synthetic import Draw, draw_trace
from poorwill.planner.traces.trace import Trace

MONTH_US = 30 * 86_400 * SECOND_US
"""The span of a drawn trace, and how far a plan from the ledger looks back, where none is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One report to make."""

    trace: Trace
    rule: ServiceRule
    scenario: Scenario
    cold: TierTimes
    floor: FloorSchedule | None = None
    own: Own | None = None
    """Where the job is about one's own history: what one has now."""
    bridge: HostedSettings | None = None
    """Likewise: where the model's bridge leads, if it has one."""
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def idles_us(self) -> tuple[int, ...]:
        """Return one's own fixed idle time, to be judged before all others."""
        return () if self.own is None or self.own.idle_us is None else (self.own.idle_us,)


def jobs(options: argparse.Namespace, streams: Streams) -> Iterator[Job]:
    """Return the reports to make: one, or from a ledger one per model."""
    if options.from_ledger:
        from poorwill.cli.plan.ledger import (
            own_jobs,  # needs the whole fleet; other plans do without
        )

        yield from own_jobs(options, streams)
        return
    trace, notes = _drawn(options) if options.synthetic else _read(options, streams)
    if options.origin is not None:
        trace = replace(trace, origin_us=options.origin)
    if options.model is not None:
        trace = trace.only(options.model)
    if options.one_replica:
        trace = trace.merged()
    rule = rule_of(options)
    span = options.span_s or _span_us(options, trace, rule)
    beyond = int((trace.arrival_us >= span).sum())
    if beyond:
        notes.append(f"{counted(beyond, 'request')} after the span's end left out")
        trace = trace.before(span)
    if not len(trace):
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            f"no request of {trace.source} arrives within the span",
            hint="a longer --span-s, or more --requests-per-day",
        )
    known = known_tiers(options, streams)
    scenario = scenario_of(options, known, span_us=span, origin_us=trace.origin_us or 0)
    yield Job(
        trace=trace,
        rule=rule,
        scenario=scenario,
        cold=cold_of(scenario.tiers),
        floor=floor_of(options),
        notes=notes,
    )


def rule_of(options: argparse.Namespace) -> ServiceRule:
    """Return what is assumed about service times."""
    return ServiceRule(
        constant_us=options.service_s,
        prompt_tokens_s=options.prompt_tokens_s,
        output_tokens_s=options.output_tokens_s,
    )


def _drawn(options: argparse.Namespace) -> tuple[Trace, list[str]]:
    draw = Draw(
        kind=options.synthetic,
        span_us=options.span_s or MONTH_US,
        requests_per_day=options.requests_per_day,
        seed=options.seed,
    )
    return draw_trace(draw), []


def _read(options: argparse.Namespace, streams: Streams) -> tuple[Trace, list[str]]:
    reading = read_trace(options.trace, refuse_bad=options.bad_rows == "refuse")
    notes = []
    for problem in reading.bad:
        streams.tell(f"{options.trace}: {problem}: skipped")
    if reading.bad_count:
        notes.append(f"{counted(reading.bad_count, 'bad row')} skipped (--bad-rows refuse stops instead)")
    if reading.unsorted:
        notes.append(f"{counted(reading.unsorted, 'row')} out of order, sorted")
    return reading.trace, notes


def _span_us(options: argparse.Namespace, trace: Trace, rule: ServiceRule) -> int:
    """Return the span where none is given: to the last request's end, in whole seconds."""
    if options.synthetic:
        return MONTH_US
    last = int((trace.arrival_us + rule.times(trace)).max())
    return max(-(-last // SECOND_US), 1) * SECOND_US
