"""How much of a gap's length can be known before: `python bench/planner/learnable.py [TRACE_DIR] [--habits]`.

A second opinion on what a learning policy could gain over one fixed idle time, without poorwill's own
policy. For every idle gap a random forest is told what is known as it begins (the last five gaps, how much
work there was in the last ten minutes to week, the time of day and week, how long the burst has lasted) and
learns, on the first two thirds of the trace, what each of 27 idle times costs. On the last third its choice
is compared with the fixed idle time that was best on the first two, and with the one best on the last.

The account is simpler than the planner's: a wake delays no completion and swallows no gap. That makes the
figures worse than those of `ratios.py`, and the gain of knowing more larger. Needs scikit-learn, which
poorwill does not: `pip install scikit-learn`.
"""

import argparse
from pathlib import Path

import numpy as np
from ratios import WORLDS, traces
from sklearn.ensemble import RandomForestRegressor

from poorwill.core.words import SECOND_US
from poorwill.hosts.files.traces.service import ServiceRule

DAY_S = 86_400
ACTIVE, PARKED = 3.8 / 3600, 0.02 / 3600
FEWEST = 60
"""Gaps that a trace must have."""
NEVER_S = 1e9


def blocks(arrivals, services):
    """Begin, end and number of requests of each stretch of work, in seconds."""
    ends = np.maximum.accumulate(arrivals + services)
    first = np.flatnonzero(np.r_[True, arrivals[1:] > ends[:-1]])
    last = np.r_[first[1:], len(arrivals)]
    return arrivals[first], ends[last - 1], last - first


def known(arrivals, begins, ends, counts, gaps, origin_s):
    """All that is known when each gap begins: one row a gap."""
    logs = np.log(np.maximum(gaps, 1e-3))
    columns = [np.r_[np.zeros(back), logs[:-back]] for back in range(1, 6)]
    clock = (ends + origin_s) % DAY_S
    columns += [np.sin(2 * np.pi * clock / DAY_S), np.cos(2 * np.pi * clock / DAY_S), clock]
    columns += [(ends + origin_s) // DAY_S % 7, np.log1p(counts), np.log(ends - begins + 1e-3)]
    here = np.searchsorted(arrivals, ends)
    for window in (600, 3600, 6 * 3600, DAY_S, 7 * DAY_S):
        columns.append(here - np.searchsorted(arrivals, ends - window))
    long = np.r_[True, gaps[:-1] > np.median(gaps)]
    begun = np.maximum.accumulate(np.where(long, np.arange(len(gaps)), 0))
    columns += [np.arange(len(gaps)) - begun, ends - begins[begun]]
    return np.array(columns, float).T


def ratios(arrivals, services, span_s, origin_s, world):
    """Best fixed idle time in hindsight, the past's best, and the forest's choice, over the clairvoyant's."""
    wake, park, price = world
    begins, ends, counts = blocks(arrivals, services)
    if len(begins) <= FEWEST:
        return None
    gaps = begins[1:] - ends[:-1]
    held = np.searchsorted(arrivals, begins[1:] + wake)
    since = np.r_[0, np.cumsum(arrivals)]
    met = np.searchsorted(arrivals, begins[1:])
    waits = (held - met) * (begins[1:] + wake) - (since[held] - since[met])
    cycle = ACTIVE * (wake + park) - PARKED * park
    even = (cycle + price * wake) / (ACTIVE - PARKED)
    idles = np.r_[0, even * np.geomspace(1 / 64, 16, 25), NEVER_S]
    parked = ACTIVE * idles + PARKED * (gaps[:, None] - idles).clip(0) + (cycle + price * waits)[:, None]
    costs = np.where(gaps[:, None] > idles, parked, ACTIVE * gaps[:, None])
    least = np.minimum(ACTIVE * gaps, PARKED * gaps + cycle)
    work = ACTIVE * (ends - begins)[1:]
    facts = known(arrivals, begins[:-1], ends[:-1], counts[:-1], gaps, origin_s)
    cut = int(np.searchsorted(ends[:-1], span_s * 2 / 3))
    forest = RandomForestRegressor(200, min_samples_leaf=15, max_features=0.5, n_jobs=2, random_state=0)
    forest.fit(facts[:cut], costs[:cut] - costs[:cut].min(1, keepdims=True))
    later = costs[cut:]
    chosen = later[np.arange(len(later)), forest.predict(facts[cut:]).argmin(1)].sum()
    found = (later.sum(0).min(), later[:, costs[:cut].sum(0).argmin()].sum(), chosen)
    return [(one + work[cut:].sum()) / (least + work)[cut:].sum() for one in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traces", nargs="?", type=Path)
    parser.add_argument("--habits", action="store_true")
    given = parser.parse_args()
    for name, world in WORLDS.items():
        print(f"\n{name}\n{'trace':24} best fixed  past's  forest", flush=True)
        rows = []
        for trace_name, trace, span_us, origin_us in traces(given.traces, with_habits=given.habits):
            arrivals = np.asarray(trace.arrival_us) / SECOND_US
            services = np.asarray(ServiceRule().times(trace)) / SECOND_US
            row = ratios(arrivals, services, span_us / SECOND_US, origin_us / SECOND_US, world)
            if row is not None:
                rows.append(row)
                print(f"{trace_name:24} " + " ".join(f"{value:9.3f}" for value in row), flush=True)
        print(f"{'mean':24} " + " ".join(f"{value:9.3f}" for value in np.mean(rows, 0)), flush=True)


if __name__ == "__main__":
    main()
