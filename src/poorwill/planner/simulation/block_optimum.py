"""The offline optimum from busy block to busy block, where that is exact: see `clairvoyant`.

If waiting costs nothing and all wakes from a tier take equally long, a replica is ready for a block either as
it begins (state 0) or one wake after that (state n: from the n-th tier). The sweep knows what follows each. A
way to such a point is judged by what it has saved compared with staying ready throughout.
"""

from array import array
from collections.abc import Sequence

import numpy as np

from poorwill.hosts.files.traces.trace import Micros
from poorwill.planner.simulation.busy_blocks import new_blocks, packed
from poorwill.planner.simulation.outcome import TELL_EVERY, Outcome, Progress, cost_numerator, waits_of
from poorwill.planner.simulation.scenario import Scenario
from poorwill.planner.simulation.sweep import held_waits


def block_optimum(
    arrival_us: Micros, service_us: Micros, scenario: Scenario, progress: Progress | None = None
) -> Outcome:
    """Return the account of the best policy in hindsight."""
    blocks = new_blocks(arrival_us, service_us, scenario.span_us)
    every = np.arange(len(blocks.first))
    busy = [blocks.prompt(times.wake_us[0]) for times in scenario.tiers]
    begin_us = np.append(blocks.begin_us, scenario.span_us)
    path = _best_path(
        scenario,
        packed(begin_us),
        following=[packed(every + 1), *(packed(after.next_block) for after in busy)],
        idle_us=[packed(blocks.end_us), *(packed(after.end_us) for after in busy)],
        progress=progress,
    )
    at, state, down_us = (np.array(column, np.int64) for column in zip(*path, strict=True))
    inside = at < len(every)  # whatever is parked at the end is not woken
    useful = int((blocks.end_us - blocks.begin_us)[at[inside & (state == 0)]].sum())
    parked, waits = dict.fromkeys(scenario.ladder, 0), list[Micros]()
    for number, (times, after) in enumerate(zip(scenario.tiers, busy, strict=True), start=1):
        parked[times.tier] = int((begin_us[at] - down_us)[state == number].sum())
        woken = at[inside & (state == number)]
        useful += int(after.useful_us[woken].sum())
        waits.append(held_waits(blocks, woken, after.held[woken], begin_us[woken] + times.wake_us[0]))
    active = scenario.span_us - sum(parked.values())
    return Outcome(
        policy="clairvoyant",
        wakes=int((inside & (state > 0)).sum()),
        active_us=active,
        useful_us=useful,
        parked_us=parked,
        cost_numerator=cost_numerator(active, scenario.active_nusd_h, parked, scenario.rates()),
        waits=waits_of(len(arrival_us), waits),
    )


def _best_path(
    scenario: Scenario,
    begin_us: Sequence[int],
    *,
    following: Sequence[Sequence[int]],
    idle_us: Sequence[Sequence[int]],
    progress: Progress | None,
) -> list[tuple[int, int, int]]:
    """Return the best way, from its end: each block, its state there, and when the replica was parked.

    `begin_us` is of every block, and the span's end; by state and block, `following` is the block that comes
    next, and `idle_us` when the replica falls idle before that one.
    """
    tiers, rates = scenario.tiers, scenario.rates()
    count, states = len(begin_us) - 1, len(tiers) + 1
    came = [array("q", [-1]) * (count + 1) for _ in range(states)]  # from: block times states plus state
    saved = [dict[int, int]() for _ in range(states)]  # by block
    descents = [(n, one.park_us, scenario.active_nusd_h - rates[one.tier]) for n, one in enumerate(tiers, 1)]
    start = 1 + scenario.ladder.index(scenario.start_tier or tiers[-1].tier)
    first_us = {state: park_us if state > start else 0 for state, park_us, _ in descents[start - 1 :]}
    for state, _, saves in descents[start - 1 :]:
        if first_us[state] <= begin_us[0]:
            saved[state][0] = (begin_us[0] - first_us[state]) * saves
    for block in range(count):
        if progress is not None and block % TELL_EVERY == 0:
            progress(block / count)
        for state in range(states):
            worth = saved[state].pop(block, None)
            if worth is None:
                continue
            after, code = following[state][block], block * states + state
            gap_us = begin_us[after] - idle_us[state][block]
            for parks, park_us, saves in ((0, 0, 0), *descents):
                if gap_us >= park_us:
                    more, known = worth + (gap_us - park_us) * saves, saved[parks].get(after)
                    if known is None or more > known:
                        saved[parks][after], came[parks][after] = more, code
    block, path = count, list[tuple[int, int, int]]()
    state = max((n for n in range(states) if count in saved[n]), key=lambda n: saved[n][count])
    while (code := came[state][block]) >= 0:
        before, was = divmod(code, states)
        path.append((block, state, idle_us[was][before] + (tiers[state - 1].park_us if state else 0)))
        block, state = before, was
    return [*path, (block, state, first_us[state])]
