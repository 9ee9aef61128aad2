"""What a model's snapshot is worth, from its measured wakes: who is evicted first when disk is short."""

import sqlite3
from collections.abc import Callable, Sequence
from statistics import median_low

from poorwill.compose.plans import ASSUMED_WAKE_US
from poorwill.core.errors import PoorwillError
from poorwill.core.ports import Clock, Log
from poorwill.core.words import SECOND_US, ReplicaId, Tier
from poorwill.drivers.space import no_worth
from poorwill.ledger.recovery import WakeTime, recovered
from poorwill.ledger.schema import reading

COUNTED_US = 7 * 24 * 3600 * SECOND_US
"""How far back wakes are counted: a week holds every hour of the day and every day."""

COUNTED_WAKES = 1000
"""Of each tier; beyond that a snapshot is worth keeping anyway."""

SNAPSHOTS = (Tier.FROZEN, Tier.SUSPENDED, Tier.HIBERNATED)


def snapshot_worth(wakes: Sequence[WakeTime], replica: ReplicaId, *, now_us: int) -> float:
    """Return the seconds of waiting that a replica's snapshot saves in a week like the last one.

    A cold start's measured length (assumed where none was) less a thaw's, for each wake that started or
    could have started from it, and for the one it is kept for. A thaw not measured yet counts as instant:
    the first one tells. 0 where thawing is slower.
    """
    mine = [wake for wake in wakes if wake.replica == replica]
    cold = [wake.lasted_us for wake in mine if wake.from_tier is Tier.COLD]
    thaw = [wake.lasted_us for wake in mine if wake.from_tier in SNAPSHOTS]
    cold_us = median_low(cold) if cold else ASSUMED_WAKE_US[Tier.COLD]
    saved_us = max(0, cold_us - (median_low(thaw) if thaw else 0))
    count = sum(
        wake.from_tier in (Tier.COLD, *SNAPSHOTS) and wake.ended_us >= now_us - COUNTED_US
        for wake in mine
    )
    return (1 + count) * saved_us / SECOND_US


def worth_by_ledger(path: str, *, clock: Clock, log: Log) -> Callable[[ReplicaId], float]:
    """Return `Space.worth` over a ledger, read anew each time. Blocks.

    A ledger that cannot be read makes all alike: the park that needs the room goes on.
    """

    def worth(replica: ReplicaId) -> float:
        try:
            with reading(path) as db:
                wakes = recovered(db, remembered=COUNTED_WAKES).wake_times
        except (PoorwillError, sqlite3.Error) as error:
            log.warning("cannot weigh a snapshot", replica=replica, why=str(error))
            return no_worth(replica)
        return snapshot_worth(wakes, replica, now_us=clock.now_us())

    return worth
