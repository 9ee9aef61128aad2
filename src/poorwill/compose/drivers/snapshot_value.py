"""What a model's snapshot is worth, from its measured wakes: who is evicted first when disk is short."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from statistics import median_low

from poorwill.compose.plans import ASSUMED_WAKE_US
from poorwill.core.errors import PoorwillError
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.log import Log
from poorwill.core.words import SECOND_US, ReplicaId, Tier
from poorwill.ledger.history.recovery import WakeTime, recovered
from poorwill.ledger.schema import reading
from poorwill.tiers.snapshots.space import Value

COUNTED_US = 7 * 24 * 3600 * SECOND_US
"""How far back wakes are counted: a week holds every hour of the day and every day."""

COUNTED_WAKES = 1000
"""Of each tier; beyond that a snapshot is worth keeping anyway."""

SNAPSHOTS = (Tier.FROZEN, Tier.SUSPENDED, Tier.HIBERNATED)

NOBODYS = float("-inf")
"""The priority of a snapshot whose model is no longer configured: it goes before any other."""


def snapshot_worth(wakes: Sequence[WakeTime], replica: ReplicaId, tier: Tier, *, now_us: int) -> float:
    """Return the seconds of waiting that a replica's snapshot saves in a week like the last one.

        worth = (1 + wakes in the last 7 days) * max(0, cold start - wake from `tier`)

    each the median of the measured ones. An evicted replica is cold whatever its ladder, so a cold start
    (assumed if none was measured) is what it is compared with. Counted are the wakes that started or could
    have started from it, and the one it is kept for. A wake from `tier` not measured yet counts as instant
    until the first one.
    """
    mine = [wake for wake in wakes if wake.replica == replica]
    cold = [wake.lasted_us for wake in mine if wake.from_tier is Tier.COLD]
    thaw = [wake.lasted_us for wake in mine if wake.from_tier is tier]
    cold_us = median_low(cold) if cold else ASSUMED_WAKE_US[Tier.COLD]
    saved_us = max(0, cold_us - (median_low(thaw) if thaw else 0))
    count = sum(
        wake.from_tier in (Tier.COLD, *SNAPSHOTS) and wake.ended_us >= now_us - COUNTED_US for wake in mine
    )
    return (1 + count) * saved_us / SECOND_US


def value_by_ledger(
    path: str, *, priorities: Mapping[ReplicaId, int], clock: Clock, log: Log
) -> Callable[[ReplicaId, Tier], Value]:
    """Return `Space.value` over a ledger, read anew each time. Blocks.

    A ledger that cannot be read makes all of a priority alike: the park that needs the room goes on.
    """

    def value(replica: ReplicaId, tier: Tier) -> Value:
        priority = priorities.get(replica, NOBODYS)
        try:
            with reading(path) as db:
                wakes = recovered(db, remembered=COUNTED_WAKES).wake_times
        except (PoorwillError, sqlite3.Error) as error:
            log.warning("cannot weigh a snapshot", replica=replica, why=str(error))
            return Value(priority=priority)
        worth = snapshot_worth(wakes, replica, tier, now_us=clock.now_us())
        return Value(priority=priority, worth=worth)

    return value
