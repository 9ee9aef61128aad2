"""When to wake a parked replica ahead of demand: only where waiting has a price and the past repeats itself.

Two forecasts are tried on the same question, "how long after the stretch's begin does demand come?": the
lengths of past long gaps, and the times of day at which past long gaps ended. A wake ahead is proposed if,
over those past gaps, it would have saved more in waiting than it would have cost in ready time and in
cycles for nothing. The hybrid histogram of Serverless in the Wild (Shahrad et al., ATC 2020) does the
former with fixed percentiles and without prices.
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
    """The last long gaps, as lengths and as times of day."""

    lengths_us: deque[int] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    ends_us: deque[int] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def observe(self, idle_since_us: int, demand_at_us: int) -> None:
        """Learn of a gap long enough to have been parked in."""
        self.lengths_us.append(demand_at_us - idle_since_us)
        self.ends_us.append(demand_at_us % DAY_US)

    def ahead(self, idle_since_us: int, *, parked_after_us: int, stakes: Stakes) -> Ahead | None:
        """Return the wake ahead of demand that past gaps speak for, None where they do not."""
        if len(self.lengths_us) < ENOUGH or stakes.waiting_nusd_h <= 0 or stakes.ready_nusd_h <= 0:
            return None
        soonest = parked_after_us + stakes.wake_us
        by_clock = [(end - idle_since_us) % DAY_US for end in self.ends_us]
        best: tuple[int, Ahead | None] = (0, None)
        for gaps in (self.lengths_us, by_clock):
            later = sorted(gap for gap in gaps if gap > soonest)
            if len(later) >= ENOUGH:
                won, ahead = _best(later, soonest, stakes)
                # Per gap that could have been met, so that both forecasts compare.
                best = max(best, (won // len(later), ahead), key=lambda pair: pair[0])
        return best[1]


def _best(gaps: Sequence[int], soonest: int, stakes: Stakes) -> tuple[int, Ahead | None]:
    """Return the gain over these ascending gaps of the best wake ahead of them."""
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
