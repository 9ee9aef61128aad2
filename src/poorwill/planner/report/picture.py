"""The pictures of a plan as plain data: the frontier, the idle gaps, the states of a day.

`drawing` draws them into files, `terminal` with characters. Neither computes anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from poorwill.core.format import DAY_US, MINUTE_US, counted, duration
from poorwill.core.words import DRAIN, FLOOR, HOUR_US, LINGER, PARK, PARKED_CAUSES, SECOND_US, SERVING, Cause
from poorwill.hosts.files.traces.trace import Micros
from poorwill.planner.report.report import PlanReport
from poorwill.planner.simulation.account import Timeline
from poorwill.planner.simulation.evaluate import HOSTED, Workload

UNITS = ((HOUR_US, "hours"), (MINUTE_US, "minutes"), (SECOND_US, "seconds"))
STATES = ("parked", "waking", "serving", "lingering", "floor", "parking")
"""A replica's states, coarsely, in drawing order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One policy in the plane of cost and waiting."""

    name: str
    cost_usd: float
    p95_s: float
    on_frontier: bool
    recommended: bool
    aside: bool
    """Neither on the frontier nor dominated: a yardstick, or an alternative nobody named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnState:
    """A state within the drawn window, counted from the window's begin."""

    state: str
    begin_us: int
    end_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Everything that is drawn."""

    title: str
    points: Sequence[Point]
    gaps_s: Sequence[float]
    """Idle gaps of always-ready replicas."""
    even_s: float | None
    """The break-even idle time."""
    day: Sequence[DrawnState]
    day_title: str
    day_us: int = DAY_US
    """Length of the drawn window: a day, or the whole of a shorter span."""

    @property
    def even(self) -> str:
        """Return the break-even for people; empty if there is none."""
        return "" if self.even_s is None else duration(round(self.even_s * SECOND_US))

    @property
    def unit(self) -> tuple[int, str]:
        """Return the unit of the drawn window, in microseconds, and its name."""
        return next((unit for unit in UNITS if self.day_us >= 2 * unit[0]), UNITS[-1])


def new_picture(
    report: PlanReport,
    loads: Sequence[Workload],
    *,
    even_us: int | None,
    policy: str,
    timeline: Timeline,
    origin_us: int,
) -> Picture:
    """Return the picture of a report. `timeline` is what the policy does on the first load."""
    named = {outcome.policy: outcome for outcome in report.outcomes}
    points = [
        Point(
            name=name,
            cost_usd=outcome.cost_nusd / 1e9,
            p95_s=outcome.waits.percentile_us(95) / SECOND_US,
            on_frontier=name in report.frontier,
            recommended=name == report.verdict.policy,
            aside=name == report.yardstick.policy or (name == HOSTED and name not in report.frontier),
        )
        for name, outcome in named.items()
    ]
    day_us = min(DAY_US, report.span_us)
    begin_us = busiest_day(loads[0].arrival_us) if day_us == DAY_US else 0
    model = f" of {loads[0].model}" if len(loads) > 1 else ""
    model += ", the first replica" if report.replicas > 1 else ""
    day = f"on day {begin_us // DAY_US + 1}, the busiest" if day_us == DAY_US else "of the whole span"
    return Picture(
        title=f"{report.source}: {counted(report.requests, 'request')} in {duration(report.span_us)}",
        points=points,
        gaps_s=[gap for load in loads for gap in _gaps_s(load, report.span_us)],
        even_s=None if even_us is None else even_us / SECOND_US,
        day=_stretches(timeline, origin_us + begin_us, origin_us + report.span_us),
        day_title=f"states {day}{model}, under {policy}",
        day_us=day_us,
    )


def _gaps_s(load: Workload, span_us: int) -> list[float]:
    gaps: list[float] = (load.blocks(span_us).gap_us[1:] / SECOND_US).tolist()
    return gaps


def busiest_day(arrival_us: Micros) -> int:
    """Return the begin of the day with the most requests, counted from the trace's origin."""
    days, counts = np.unique(arrival_us // DAY_US, return_counts=True)
    return int(days[counts.argmax()]) * DAY_US if len(days) else 0


def _stretches(timeline: Timeline, from_us: int, ends_us: int) -> list[DrawnState]:
    to_us = min(from_us + DAY_US, ends_us)
    found: list[DrawnState] = []
    for (begin, cause), (end, _) in pairwise([*timeline, (ends_us, LINGER)]):
        begin, end = max(begin, from_us), min(end, to_us)
        if begin < end:
            found.append(DrawnState(state=_state(cause), begin_us=begin - from_us, end_us=end - from_us))
    return found


def _state(cause: Cause) -> str:
    if cause in PARKED_CAUSES:
        return "parked"
    return {SERVING: "serving", DRAIN: "serving", LINGER: "lingering", FLOOR: "floor", PARK: "parking"}.get(
        cause, "waking"
    )
