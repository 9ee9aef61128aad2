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
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from poorwill.hosts.files.traces.trace import Micros

STEPS = 6
"""As many steps are walked before a search."""


class BusyPeriods(NamedTuple):
    """What follows a wake until the replica is idle for the first time. Arrays."""

    next_block: Micros
    """The first block that begins after that."""
    end_us: Micros
    useful_us: Micros
    held: Micros
    waited_us: Micros

    def at(self, index: Micros) -> "BusyPeriods":
        """Return the rows at these indices."""
        return BusyPeriods(*(column[index] for column in self))

    def put(self, where: NDArray[np.bool_], other: "BusyPeriods") -> None:
        """Overwrite the rows where `where` holds."""
        for column, values in zip(self, other, strict=True):
            column[where] = values


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
    prompts: dict[int, BusyPeriods] = field(default_factory=dict)
    """What follows a prompt wake for each block, by the length of wakes; made as it is asked."""

    def prompt(self, wake_us: int) -> BusyPeriods:
        """Return the busy period of every block if its first request wakes the replica at once."""
        if wake_us not in self.prompts:
            every = np.arange(len(self.first), dtype=np.int64)
            self.prompts[wake_us] = busy_after(self, every, self.begin_us + wake_us)
        return self.prompts[wake_us]

    def rested(self, rest_us: int, before_us: int) -> int:
        """Return the last request before an instant that came after a longer rest than this; 0 if none did.

        After idle time, two parks and a wake a replica is parked, whatever came before (see `sweep`).
        """
        found = np.flatnonzero((self.gap_us > rest_us) & (self.begin_us < before_us))
        return int(self.first[found[-1]]) if len(found) else 0

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


def busy_after(
    blocks: Blocks, block: Micros, ready_us: Micros, sooner: BusyPeriods | None = None
) -> BusyPeriods:
    """Return the busy periods that follow readiness at `ready_us` for wakes by the blocks' first requests.

    `sooner` are those of wakes that were ready no later: where the search begins.
    """
    first = blocks.first[block]
    waiting = first_after(blocks.arrival_us, ready_us - 1, first if sooner is None else first + sooner.held)
    upto = first_after(blocks.arrival_us, ready_us, waiting)  # at this very instant nobody waits
    done = np.minimum(ready_us + blocks.longest_service(first, upto - 1), blocks.span_us)
    following = first_after(blocks.begin_us, done, block if sooner is None else sooner.next_block)
    end = np.maximum(done, blocks.end_us[following - 1])
    held = waiting - first
    return BusyPeriods(
        next_block=following,
        end_us=end,
        useful_us=end - np.minimum(ready_us, blocks.span_us),
        held=held,
        waited_us=held * ready_us - (blocks.arrival_sum[waiting] - blocks.arrival_sum[first]),
    )


def first_after(ordered: Micros, wanted: Micros, hint: Micros) -> Micros:
    """Return, for each wanted instant, the index of the first in `ordered` that is later.

    `hint` is an index that is not too high. The answers are mostly a few steps further on, where walking
    costs a fraction of a search through the whole array.
    """
    found = hint.copy()
    left = np.arange(len(wanted))
    for _ in range(STEPS):
        inside = found[left] < len(ordered)
        left = left[inside]
        left = left[ordered[found[left]] <= wanted[left]]
        if not len(left):
            return found
        found[left] += 1
    found[left] = np.searchsorted(ordered, wanted[left], "right")
    return found


def packed(times_us: Micros) -> Sequence[int]:
    """Return times as plain integers, which are read one by one faster than numpy's, in as little memory."""
    return array("q", times_us.astype(np.int64).tobytes())


def _running(values: Micros) -> Micros:
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(values, dtype=np.int64)))
