"""Demand with habits, drawn: changes of regime, jobs by the clock, days and nights, heavy tails.

For `ratios.py --habits`. Nothing in poorwill was chosen on these; arrivals in seconds, services as those
of `synthetic`.
"""

import numpy as np

from poorwill.core.words import SECOND_US
from poorwill.hosts.files.traces.synthetic import DAY_S, MONDAY_US
from poorwill.hosts.files.traces.trace import new_trace


def poisson(random, begin, end, per_day):
    return random.uniform(begin, end, random.poisson(per_day / DAY_S * (end - begin)))


def regimes(random, span):
    """10, 60 or 200 requests a day, for three to nine days each."""
    found, at, turn = [], 0.0, 0
    while at < span:
        until = min(at + random.uniform(3, 9) * DAY_S, span)
        found.append(poisson(random, at, until, (200, 10, 60)[turn % 3]))
        at, turn = until, turn + 1
    return np.concatenate(found)


def halves(random, span):
    """400 a day, then 15."""
    half = span / 2
    return np.concatenate([poisson(random, 0, half, 400), poisson(random, half, span, 15)])


def jobs(period, jitter, requests, background):
    """Bursts by the clock, over a background of single requests."""

    def drawn(random, span):
        begins = np.arange(random.uniform(0, period), span, period)
        begins = begins + random.uniform(0, jitter, len(begins))
        bursts = [begins + turn * random.exponential(15, len(begins)) for turn in range(requests)]
        return np.concatenate([*bursts, poisson(random, 0, span, background)])

    return drawn


def days_and_nights(random, span):
    found = poisson(random, 0, span, 1000)
    share = np.clip(np.sin((found / DAY_S - 0.3) * 2 * np.pi), 0, 1) ** 2 * 0.95 + 0.005
    return found[random.uniform(size=len(found)) < share]


def on_and_off(on_s, off_s, per_day):
    def drawn(random, span):
        found, at = [np.zeros(0)], random.exponential(off_s)
        while at < span:
            until = min(at + random.exponential(on_s), span)
            found.append(poisson(random, at, until, per_day))
            at = until + random.exponential(off_s)
        return np.concatenate(found)

    return drawn


def heavy_tails(shape, shortest_s):
    def drawn(random, span):
        times = np.cumsum(shortest_s * (random.pareto(shape, 200_000) + 1))
        return times[times < span]

    return drawn


def meetings(random, span):
    """A session on weekdays at nine, noon and three, give or take four minutes."""
    found = []
    for day in range(int(span // DAY_S)):
        for hour in (9, 12, 15) if day % 7 < 5 else ():
            begin = day * DAY_S + hour * 3600 + random.normal(0, 240)
            found.append(begin + np.cumsum(random.lognormal(np.log(40), 0.8, random.geometric(1 / 8))))
    return np.concatenate(found)


HABITS = {
    "regimes": regimes,
    "halves": halves,
    "job every hour": jobs(3600, 20, 3, 0),
    "job every hour, others": jobs(3600, 60, 4, 20),
    "job every 10 min": jobs(600, 10, 2, 0),
    "job every day, others": jobs(DAY_S, 120, 30, 5),
    "days and nights": days_and_nights,
    "on 30 min, off 5 h": on_and_off(1800, 18_000, 1440),
    "on 6 h, off 36 h": on_and_off(6 * 3600, 36 * 3600, 960),
    "heavy tails, 1.2": heavy_tails(1.2, 60),
    "heavy tails, 0.8": heavy_tails(0.8, 20),
    "meetings": meetings,
}


def habits(span_us, seed):
    """Yield the traces by name."""
    for name, draw in HABITS.items():
        random = np.random.default_rng(seed)
        span_s = span_us / SECOND_US
        arrivals = np.sort(draw(random, span_s))
        arrivals = arrivals[(arrivals >= 0) & (arrivals < span_s)]
        count = len(arrivals)
        prompts = np.exp(random.normal(np.log(1500), 1.0, count))
        outputs = np.exp(random.normal(np.log(300), 0.8, count))
        services = np.rint((0.5 + prompts / 4000 + outputs / 40) * SECOND_US).astype(np.int64)
        instants = np.floor(arrivals * SECOND_US).astype(np.int64)
        yield (
            name,
            new_trace(arrival_us=instants, service_us=services, origin_us=MONDAY_US, source=name),
        )
