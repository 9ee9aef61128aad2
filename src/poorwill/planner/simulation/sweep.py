"""Fixed idle times by the thousand: the vectorised evaluator, for unlimited concurrency and constant wakes.

All policies are walked at once, and every policy in many places at once: when a gap is so long that the
replica is parked whatever happened before (longer than idle + 2 park + wake, since no request is ever done
later than park + wake after its time on an always-ready replica), the walk can start afresh. Between such
places the wakes of all policies are followed in lockstep. It agrees with `simulate` to the microsecond.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from poorwill.hosts.files.traces.trace import Micros
from poorwill.planner.simulation.busy_blocks import STEPS, Blocks, BusyPeriods, busy_after
from poorwill.planner.simulation.scenario import PLAIN_BILLING, Billing

CHUNK = 500_000
"""Places walked at once; bounds the memory to a hundred MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleSweep:
    """One figure per idle time, in the order they were given."""

    wakes: Micros
    active_us: Micros
    useful_us: Micros
    held: Micros
    """Requests that waited."""
    waited_us: Micros
    """All waits together."""
    added_us: Micros
    """What the provider adds to paid stretches."""


def sweep(
    blocks: Blocks,
    idles_us: Sequence[int],
    *,
    wake_us: int,
    park_us: int,
    billing: Billing = PLAIN_BILLING,
    held: list[Micros] | None = None,
) -> IdleSweep:
    """Return what every idle time would have cost; `held` receives the waits of those that waited."""
    given = np.asarray(idles_us, np.int64)
    order = np.argsort(given, kind="stable")
    idles = given[order]
    totals = IdleSweep(**{name: np.zeros(len(idles), np.int64) for name in IdleSweep.__slots__})
    if len(blocks.first):
        prompt = blocks.prompt(wake_us)
        for walk in _walks(blocks, idles, reset_us=2 * park_us + wake_us):
            _follow(
                blocks,
                prompt,
                idles,
                walk,
                totals,
                wake_us=wake_us,
                park_us=park_us,
                billing=billing,
                held=held,
            )
    back = np.argsort(order, kind="stable")
    return IdleSweep(**{name: getattr(totals, name)[back] for name in IdleSweep.__slots__})


@dataclass(slots=True)
class _Walk:
    """Places being walked, and where each policy's gaps longer than its idle time are."""

    candidate: Micros
    """Blocks before which a policy may park, policy after policy."""
    upto: Micros
    """For each policy: where its candidates end in `candidate`."""
    policy: Micros
    place: Micros
    """Index into `candidate` of the block that wakes the replica."""
    reset: NDArray[np.bool_]
    """For each candidate: whether a walk starts there."""
    blocks: int
    keys: Micros
    """Policy and candidate in one ascending number, to search all policies' candidates at once."""

    def key(self, policy: Micros, block: Micros) -> Micros:
        """Return the number to search for."""
        return policy * (self.blocks + 1) + block


def _walks(blocks: Blocks, idles: Micros, *, reset_us: int) -> Iterator[_Walk]:
    """Yield the walks of ascending idle times, as many at once as fit into a chunk."""
    count = len(blocks.first)
    # The first request finds the replica parked, whatever the gap before it.
    gaps = blocks.gap_us.copy()
    gaps[0] = np.iinfo(np.int64).max
    places = np.arange(count, dtype=np.int64)
    found: list[Micros] = []
    begin = size = 0
    for index, idle in enumerate(idles.tolist()):
        places = places[gaps[places] > idle]  # longer idle times park before fewer gaps
        found.append(places)
        size += len(places)
        if size >= CHUNK or index == len(idles) - 1:
            yield _walk(gaps, idles, found, begin, count, reset_us)
            found, begin, size = [], index + 1, 0


def _walk(gaps: Micros, idles: Micros, found: list[Micros], begin: int, count: int, reset_us: int) -> _Walk:
    counts = np.array([len(places) for places in found], np.int64)
    policies = np.repeat(np.arange(begin, begin + len(found), dtype=np.int64), counts)
    candidate = np.concatenate(found)
    reset = gaps[candidate] - reset_us > idles[policies]
    place = np.flatnonzero(reset)
    upto = np.zeros(len(idles), np.int64)
    upto[begin : begin + len(found)] = np.cumsum(counts)
    keys = policies * (count + 1) + candidate
    return _Walk(candidate, upto, policies[place], place, reset, count, keys)


def _follow(
    blocks: Blocks,
    prompt: BusyPeriods,
    idles: Micros,
    walk: _Walk,
    totals: IdleSweep,
    *,
    wake_us: int,
    park_us: int,
    billing: Billing,
    held: list[Micros] | None,
) -> None:
    """Follow all walks in lockstep, one wake a round, adding up as it goes."""
    span, count = blocks.span_us, len(blocks.first)
    policy, place = walk.policy, walk.place
    begin_us = np.append(blocks.begin_us, np.iinfo(np.int64).max)
    # When the wake began, and when the stretch did that the provider meters.
    start = began = begin_us[walk.candidate[place]]
    while len(place):
        block, idle = walk.candidate[place], idles[policy]
        busy = prompt.at(block)
        late = start != blocks.begin_us[block]  # the arrival found the replica on its way down
        if late.any():
            sooner = prompt.at(block[late])
            busy.put(late, busy_after(blocks, block[late], start[late] + wake_us, sooner))
        if held is not None:
            held.append(held_waits(blocks, block, busy.held, start + wake_us))
        following = busy.next_block
        parks_there = begin_us[following] - busy.end_us > idle
        after = _next_candidate(walk, policy, place, following + ~parks_there)
        ends = after == walk.upto[policy]
        next_block = np.where(ends, count, walk.candidate[np.where(ends, 0, after)])
        direct = next_block == following
        idle_from = np.where(direct, busy.end_us, blocks.end_us[next_block - 1])
        parked = idle_from + idle + park_us
        useful = np.where(
            direct, 0, blocks.busy_sum[next_block] - blocks.busy_sum[np.minimum(following, count)]
        )
        turns = np.flatnonzero(np.diff(policy, prepend=-1))  # policies ascend: their first rows
        _add(totals.wakes, policy, turns, (start < span).astype(np.int64))
        _add(totals.active_us, policy, turns, np.minimum(parked, span) - np.minimum(start, span))
        _add(totals.useful_us, policy, turns, busy.useful_us + useful)
        _add(totals.held, policy, turns, busy.held)
        _add(totals.waited_us, policy, turns, busy.waited_us)
        if billing.rounds:
            # A wake that begins as the park ends goes on with the same stretch: nothing was released.
            merges = ~ends & (begin_us[next_block] <= parked)
            still_open = (parked > span) | (idle_from + idle >= span)
            added = _added(parked - began, billing)
            _add(totals.added_us, policy, turns, np.where(merges | still_open, 0, added))
            began = np.where(merges, began, begin_us[next_block])
        goes_on = ~ends
        goes_on[goes_on] = ~walk.reset[after[goes_on]]
        policy, place = policy[goes_on], after[goes_on]
        start = np.maximum(begin_us[next_block[goes_on]], parked[goes_on])
        began = began[goes_on]


def held_waits(blocks: Blocks, block: Micros, held: Micros, ready_us: Micros) -> Micros:
    """Return how long each request waited that these wakes held."""
    first = np.repeat(blocks.first[block] - np.cumsum(held) + held, held)
    return np.repeat(ready_us, held) - blocks.arrival_us[first + np.arange(int(held.sum()))]


def _added(lasted_us: Micros, billing: Billing) -> Micros:
    charged = np.maximum(lasted_us, billing.minimum_us)
    return -(-charged // billing.increment_us) * billing.increment_us - lasted_us


def _next_candidate(walk: _Walk, policy: Micros, place: Micros, block: Micros) -> Micros:
    """Return the index of each policy's first candidate that is not before `block`; `upto` if none."""
    end = walk.upto[policy]
    after = np.minimum(place + 1, end)
    left = np.arange(len(place))
    for _ in range(STEPS):
        left = left[after[left] < end[left]]
        left = left[walk.candidate[after[left]] < block[left]]
        if not len(left):  # no candidate more that the wake's delay swallowed
            return after
        after[left] += 1
    found = np.searchsorted(walk.keys, walk.key(policy[left], block[left]))
    after[left] = np.minimum(found, end[left])
    return after


def _add(total: Micros, policy: Micros, turns: Micros, amount: Micros) -> None:
    """Add amounts up by policy; each begins at one of `turns`."""
    total[policy[turns]] += np.add.reduceat(amount, turns)
