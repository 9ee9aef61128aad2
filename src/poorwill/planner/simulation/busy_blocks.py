"""A trace as busy blocks: the stretches a replica that is always ready would be serving without a break.

With unlimited concurrency a wake changes nothing but when the requests it held are done, so everything a
policy does can be reckoned on blocks instead of requests. The sweep and the clairvoyant optimum share it.

Why it is exact. Let `r` be when the replica becomes ready and `i` the request that woke it. Requests i..m
with arrivals up to `r` start at `r` and are done by e0 = r + max(service i..m). Whoever arrives later is
served at once and done at arrival + service, just as on a replica that is always ready. So the busy period
ends at the first block of the always-ready replica that begins after e0, at max(e0, the end of the block
before); and from there on blocks are what they were.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from poorwill.hosts.files.traces.trace import Micros


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """Requests and the busy blocks they form on an always-ready replica, up to the span's end."""

    span_us: int
    arrival_us: Micros
    """Of every request, ascending, all before the span's end."""
    service_us: Micros
    arrival_sum: Micros
    """Sums of the first n arrivals, n from 0."""
    first: Micros
    """The first request of every block."""
    begin_us: Micros
    end_us: Micros
    """Of every block; clipped to the span."""
    busy_sum: Micros
    """Lengths of the first n blocks, n from 0."""
    gap_us: Micros
    """Idle time before every block; before the first one, from the span's start."""
    deepest: list[Micros]
    """Sparse table of the largest service time: level k holds maxima over 2**k requests. It grows as it is
    asked: a million requests take 8 MB a level, and few wakes hold more than a hundred requests."""

    def longest_service(self, first: Micros, last: Micros) -> Micros:
        """Return the largest service time of requests first..last, for arrays of such ranges."""
        width = last - first + 1
        level = np.frexp(width.astype(np.float64))[1] - 1
        for k in range(len(self.deepest) - 1, int(level.max(initial=0))):
            row, half = self.deepest[k], 1 << k
            self.deepest.append(np.maximum(row[:-half], row[half:]))
        longest = np.empty(len(first), np.int64)
        for k in np.unique(level):
            here = level == k
            row = self.deepest[int(k)]
            longest[here] = np.maximum(row[first[here]], row[last[here] + 1 - (1 << int(k))])
        return longest


def new_blocks(arrival_us: Micros, service_us: Micros, span_us: int) -> Blocks:
    """Return the blocks of these requests; all must arrive within the span, in order."""
    done = np.minimum(arrival_us + service_us, span_us)
    latest = np.maximum.accumulate(done) if len(done) else done
    starts = np.ones(len(arrival_us), np.bool_)
    if len(arrival_us) > 1:
        starts[1:] = arrival_us[1:] > latest[:-1]
    first = np.flatnonzero(starts)
    last = np.append(first[1:], len(arrival_us)) - 1 if len(first) else first
    begin, end = arrival_us[first], latest[last]
    return Blocks(
        span_us=span_us,
        arrival_us=arrival_us,
        service_us=service_us,
        arrival_sum=_running(arrival_us),
        first=first,
        begin_us=begin,
        end_us=end,
        busy_sum=_running(end - begin),
        gap_us=begin - np.concatenate(([0], end[:-1])) if len(first) else begin,
        deepest=[service_us],
    )


def packed(times_us: Micros) -> Sequence[int]:
    """Return times as plain integers, which are read one by one faster than numpy's, in as little memory."""
    return array("q", times_us.astype(np.int64).tobytes())


def _running(values: Micros) -> Micros:
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(values, dtype=np.int64)))
