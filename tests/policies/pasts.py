"""Pasts that a policy has lived through."""

import random

from poorwill.core.words import HOUR_US, SECOND_US, Tier
from poorwill.policies import TierCosts

S = SECOND_US
DAY = 86_400 * S


def costs(wake=95, park=20, active=3_800_000_000, parked=0):
    return TierCosts(wake_us=wake * S, park_us=park * S, active_nusd_h=active, parked_nusd_h=parked)


FROZEN = {Tier.FROZEN: costs()}


def gaps_of(pattern, count, seed=3):
    rng = random.Random(seed)
    return [pattern(rng) for _ in range(count)]


def teach(policy, gaps, *, busy=5 * S, begin=10 * DAY, joined=()):
    """Let the policy live through these gaps; return when it falls idle after the last one.

    With every wake come requests that `joined` it so long before its end.
    """
    idle = begin
    for gap in gaps:
        policy.descent(idle)
        policy.observe(idle, idle + gap)
        rungs = policy.descent(idle).rungs
        woken = bool(rungs) and gap > rungs[0].at_us - idle
        if woken and joined:
            policy.woke([95 * S, *joined])
        idle += gap + busy + (95 * S if woken else 0)
    return idle


def hourly(policy, hours=80):
    return teach(policy, [HOUR_US - 100 * S] * hours)
