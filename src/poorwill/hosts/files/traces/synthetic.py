"""Traces that are drawn, for a plan before there is any traffic: Poisson, bursty, office hours.

Drawn with a seed, so that the same arguments give the same trace. Times are whole microseconds. Service
times and token counts are lognormal, of the order that chat and coding assistants show.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.core.words import SECOND_US
from poorwill.hosts.files.traces.trace import Trace, new_trace

DAY_S = 86_400
SESSION_REQUESTS = 9
"""Mean number of requests in a session."""
THINKING_S = 45.0
"""Median pause between the requests of a session; its logarithm has a deviation of 1."""
OFFICE = (9, 18)
"""Working hours of the drawn office, by the trace's own clock; its origin is a Monday, midnight."""
OFF_HOURS_SHARE = 0.05
"""Sessions outside working hours, of all."""

MONDAY_US = 1_767_571_200 * SECOND_US
"""2026-01-05T00:00Z, a Monday: the origin of drawn traces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """What is to be drawn."""

    kind: str
    span_us: int
    requests_per_day: float
    seed: int = 1


def draw_trace(draw: Draw) -> Trace:
    """Return the drawn trace. Raises RequestFault for a kind that is not in KINDS."""
    if draw.kind not in KINDS:
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            f"no synthetic trace {draw.kind!r}",
            hint=f"kinds: {', '.join(KINDS)}",
        )
    if draw.requests_per_day <= 0 or draw.span_us <= 0:
        raise RequestFault(ErrorCode.INVALID_REQUEST, "a synthetic trace needs requests per day and a span")
    random = np.random.default_rng(draw.seed)
    span_s = draw.span_us / SECOND_US
    arrivals = np.sort(KINDS[draw.kind](random, span_s, draw.requests_per_day / DAY_S))
    arrivals = arrivals[(arrivals >= 0) & (arrivals < span_s)]
    count = len(arrivals)
    prompts = _lognormal(random, count, median=1500, deviation=1.0)
    outputs = _lognormal(random, count, median=300, deviation=0.8)
    services = np.rint((0.5 + prompts / 4000 + outputs / 40) * SECOND_US).astype(np.int64)
    return new_trace(
        arrival_us=np.floor(arrivals * SECOND_US).astype(np.int64),
        service_us=services,
        prompt_tokens=prompts,
        output_tokens=outputs,
        origin_us=MONDAY_US,
        source=f"synthetic {draw.kind}, {draw.requests_per_day:g} requests a day, seed {draw.seed}",
    )


def _poisson(random: np.random.Generator, span_s: float, rate: float) -> NDArray[np.float64]:
    instants: NDArray[np.float64] = random.uniform(0, span_s, random.poisson(rate * span_s))
    return instants


def _bursty(random: np.random.Generator, span_s: float, rate: float) -> NDArray[np.float64]:
    starts = _poisson(random, span_s, rate / SESSION_REQUESTS)
    return _sessions(random, starts)


def _office(random: np.random.Generator, span_s: float, rate: float) -> NDArray[np.float64]:
    """Sessions on weekdays within working hours, few outside; the mean rate is the one asked for."""
    candidates = _poisson(random, span_s, rate / SESSION_REQUESTS)
    hour = candidates / 3600 % 24
    weekday = candidates / DAY_S % 7 < 5
    at_work = weekday & (hour >= OFFICE[0]) & (hour < OFFICE[1])
    stays_off = random.uniform(size=len(candidates)) < OFF_HOURS_SHARE
    moved = ~at_work & ~stays_off
    day = np.floor(candidates[moved] / DAY_S)
    weekend = day % 7 >= 5
    day[weekend] -= random.integers(1, 6, weekend.sum())
    into = random.uniform(OFFICE[0], OFFICE[1], moved.sum())
    candidates[moved] = day * DAY_S + into * 3600
    return _sessions(random, candidates)


def _sessions(random: np.random.Generator, starts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the requests of sessions: a geometric number of them, lognormal pauses in between."""
    counts = random.geometric(1 / SESSION_REQUESTS, len(starts))
    pauses = np.exp(random.normal(np.log(THINKING_S), 1.0, counts.sum()))
    first = np.cumsum(counts) - counts
    pauses[first] = 0
    since: NDArray[np.float64] = np.cumsum(pauses)
    begun: NDArray[np.float64] = np.repeat(starts - since[first], counts)
    return begun + since


def _lognormal(
    random: np.random.Generator, count: int, *, median: float, deviation: float
) -> NDArray[np.int64]:
    drawn = np.exp(random.normal(np.log(median), deviation, count))
    return np.maximum(np.rint(drawn), 1).astype(np.int64)


KINDS: Mapping[str, Callable[[np.random.Generator, float, float], NDArray[np.float64]]] = MappingProxyType(
    {"poisson": _poisson, "bursty": _bursty, "office-hours": _office}
)
"""The kinds of drawn traces."""
