"""When to wake a parked replica ahead of demand: only where waiting has a price and the past repeats itself.

Three forecasts are tried on the same question, "when does demand come?": the lengths of past long gaps, the
times from one demand after a long gap to the next such, and the times of day of those demands. A wake ahead
is proposed if, over the past, it would have saved more in waiting than it would have cost in ready time and
in cycles for nothing. None of the three depends on what the policy did: a gap is counted from when the work
before it would have ended had no wake delayed it. The hybrid histogram of Serverless in the Wild (Shahrad et
al., ATC 2020) does the first with fixed percentiles and without prices.
"""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from poorwill.core.policies.replay import Ahead
from poorwill.core.words import SECOND_US

REMEMBERED = 24
ENOUGH = 8
"""Fewer long gaps than this forecast nothing."""
HITS = 4
"""Fewer demands met within the stay are a coincidence."""
DAY_US = 86_400 * SECOND_US
STAYS = (1 / 16, 1 / 4, 1 / 2)
"""How long to stay ready, in parts of the longest stay that one hit can pay for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stakes:
    """What a wake ahead of demand wins and loses; prices in nano-dollars an hour."""

    wake_us: int
    park_us: int
    ready_nusd_h: int
    """What a ready second costs beyond a parked one."""
    waiting_nusd_h: int
    """What the requests held by a wake cost while they wait."""


@dataclass(slots=True)
class Forecast:
    """The last long gaps: their lengths, how far their ends lie apart, and at which times of day."""

    lengths_us: deque[int] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    periods_us: deque[int] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    clocks_us: deque[int] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    last_us: int | None = None
    """The demand that ended the last long gap."""

    def observe(self, work_ended_us: int, demand_at_us: int) -> None:
        """Learn of a gap long enough to have been parked in."""
        self.lengths_us.append(demand_at_us - work_ended_us)
        if self.last_us is not None:
            self.periods_us.append(demand_at_us - self.last_us)
        self.clocks_us.append(demand_at_us % DAY_US)
        self.last_us = demand_at_us

    def ahead(self, work_ended_us: int, *, parked_us: int, stakes: Stakes) -> Ahead | None:
        """Return the wake ahead of demand that the past speaks for, None where it does not.

        `work_ended_us` is when the work before this gap ended, or would have without a wake's delay;
        `parked_us` is when the replica will be parked.
        """
        if self.last_us is None or stakes.waiting_nusd_h <= 0 or stakes.ready_nusd_h <= 0:
            return None
        soonest = parked_us + stakes.wake_us
        tomorrow = soonest - soonest % DAY_US + DAY_US
        best: tuple[int, Ahead | None] = (0, None)
        for instants in (
            [work_ended_us + length for length in self.lengths_us],
            [self.last_us + period for period in self.periods_us],
            [
                tomorrow + clock - (DAY_US if clock > soonest % DAY_US else 0)
                for clock in self.clocks_us
            ],
        ):
            later = sorted(instant for instant in instants if instant > soonest)
            if len(later) >= ENOUGH:
                won, ahead = _best(later, soonest, stakes)
                # Per demand that could have been met, so that the forecasts compare.
                best = max(best, (won // len(later), ahead), key=lambda pair: pair[0])
        return best[1]


def _best(gaps: Sequence[int], soonest: int, stakes: Stakes) -> tuple[int, Ahead | None]:
    """Return the gain over these ascending instants of the best wake ahead of them."""
    sums = [0, *accumulate(gaps)]
    pays_for = stakes.waiting_nusd_h * stakes.wake_us // stakes.ready_nusd_h
    best: tuple[int, Ahead | None] = (0, None)
    for ready in gaps:
        for part in STAYS:
            stay = int(pays_for * part)
            won = _gain(gaps, sums, ready, stay, stakes)
            if won > best[0]:
                best = won, Ahead(ready - stakes.wake_us, stay)
    return best


def _gain(gaps: Sequence[int], sums: Sequence[int], ready: int, stay: int, stakes: Stakes) -> int:
    """Return what being ready from `ready` for `stay` wins over these gaps, in money times microseconds."""
    wake = stakes.wake_us
    began = bisect_left(gaps, ready - wake)
    met = bisect_left(gaps, ready)
    missed = bisect_right(gaps, ready + stay)
    earlier = (met - began) * (wake - ready) + sums[met] - sums[began]
    hits = missed - met
    waited = sums[missed] - sums[met] - hits * ready
    if hits < HITS:
        return 0
    in_vain = len(gaps) - missed + 1  # one longer than any yet must be reckoned with
    return (
        stakes.waiting_nusd_h * (earlier + hits * wake)
        - stakes.ready_nusd_h * waited
        - stakes.ready_nusd_h * in_vain * (wake + stay + stakes.park_us)
    )
