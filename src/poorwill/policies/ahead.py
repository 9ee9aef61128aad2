"""When to wake a parked replica ahead of demand: only if waiting has a price and the past repeats itself.

Several forecasts answer the same question, "when does demand come?": the lengths of past long gaps, the
times from one demand after a long gap to the next such, the times of day of those demands, and their phases
in shorter periods that clocks have (if the Rayleigh test says that the phases are not spread evenly). A
wake ahead is proposed if, over the past, it would have saved more in waiting than it would have cost in
ready time and in cycles for nothing. What each forecast proposes is settled when the demand has come; the
one that earned most decides. None of them depends on what the policy did: a gap is counted from when the
work before it would have ended had no wake delayed it. The hybrid histogram of Serverless in the Wild
(Shahrad et al., ATC 2020) does the first with fixed percentiles and without prices.
"""

from bisect import bisect_right
from cmath import exp, pi
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from statistics import median_low

from poorwill.core.format import DAY_US, MINUTE_US
from poorwill.policies.replay import Ahead

REMEMBERED = 48
ENOUGH = 8
"""Fewer long gaps than this forecast nothing."""
HITS = 4
"""Fewer demands met within the stay are a coincidence."""
CLOCKS_US = tuple(minutes * MINUTE_US for minutes in (5, 10, 15, 30, 60, 120, 180, 240, 360, 720))
"""Periods of jobs that run by the clock, beside the day."""
UNEVEN = 6.0
"""The Rayleigh statistic beyond which phases are not even: by chance once in exp(6), about 400 times."""
STAYS = (1.0, 1 / 2, 1 / 4, 1 / 16)
"""How long to stay ready, in parts of the longest stay that one hit can pay for; the longest first."""
TRUST = 4
"""As many settled proposals count as much as what the past promised."""
FADE = 1 - 1 / 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Stakes:
    """What a wake ahead of demand wins and loses; prices in nano-dollars an hour."""

    wake_us: int
    park_us: int
    ready_nusd_h: int
    """What a ready second costs beyond a parked one."""
    waiting_nusd_h: int
    """What the requests held by a wake cost while they wait."""

    def won(self, ahead: Ahead, demand_us: int) -> int:
        """Return what a wake ahead won when demand came, in money times microseconds an hour."""
        ready = ahead.wake_at_us + self.wake_us
        if demand_us <= ahead.wake_at_us:
            return 0
        if demand_us < ready:
            return self.waiting_nusd_h * (demand_us - ahead.wake_at_us)
        waited = demand_us - ready
        if waited <= ahead.stay_us:
            return self.waiting_nusd_h * self.wake_us - self.ready_nusd_h * waited
        return -self.in_vain(ahead.stay_us)

    def in_vain(self, stay_us: int) -> int:
        """Return what a wake costs that nobody came for within the stay."""
        return self.ready_nusd_h * (self.wake_us + stay_us + self.park_us)


@dataclass(slots=True)
class TrackRecord:
    """How a forecast did: what its settled proposals won, and the one that is open."""

    won: float = 0.0
    settled: float = 0.0
    open: tuple[Ahead, Stakes] | None = None

    def settle(self, demand_us: int) -> None:
        """Settle the open proposal: demand came."""
        if self.open is not None:
            ahead, stakes = self.open
            self.won = self.won * FADE + stakes.won(ahead, demand_us)
            self.settled = self.settled * FADE + 1
            self.open = None

    def worth(self, promised: float) -> float:
        """Return what to expect of a proposal that the past promises so much for."""
        return (TRUST * promised + self.won) / (TRUST + self.settled)


@dataclass(slots=True)
class Forecast:
    """The last long gaps: their lengths, how far their ends lie apart, and when they ended."""

    lengths_us: deque[int] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    periods_us: deque[int] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    ended_us: deque[int] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    """The demands that ended the last long gaps."""
    typical_us: int = 0
    """The median of their lengths."""
    uneven_us: tuple[int, ...] = (DAY_US,)
    """The periods in which demand has its phases; the hour of day is always considered."""
    records: dict[str | int, TrackRecord] = field(default_factory=dict)

    def observe(self, work_ended_us: int, demand_at_us: int) -> None:
        """Learn of a gap long enough to have been parked in."""
        for record in self.records.values():
            record.settle(demand_at_us)
        self.lengths_us.append(demand_at_us - work_ended_us)
        if self.ended_us:
            self.periods_us.append(demand_at_us - self.ended_us[-1])
        self.ended_us.append(demand_at_us)
        self.typical_us = median_low(self.lengths_us)
        uneven = (us for us in CLOCKS_US if _unevenness(self.ended_us, us) > UNEVEN)
        self.uneven_us = (*uneven, DAY_US)

    def ahead(self, work_ended_us: int, *, parked_us: int, stakes: Stakes) -> Ahead | None:
        """Return the wake ahead of demand that the past speaks for, None if it does not.

        `work_ended_us` is when the work before this gap ended, or would have without a wake's delay;
        `parked_us` is when the replica will be parked.
        """
        if len(self.ended_us) < ENOUGH or stakes.waiting_nusd_h <= 0 or stakes.ready_nusd_h <= 0:
            return None
        soonest = parked_us + stakes.wake_us
        best: tuple[float, Ahead | None] = (0.0, None)
        for name, instants, blanks in self._instants(work_ended_us, soonest):
            record = self.records.setdefault(name, TrackRecord())
            later = sorted(instant for instant in instants if instant > soonest)
            record.open = None
            if len(later) < ENOUGH:
                continue
            won, ahead = _best(later, blanks, stakes)
            if ahead is not None:
                record.open = ahead, stakes
                # Per demand that could have been met, so that the forecasts compare.
                worth = record.worth(won / (len(later) + blanks))
                if worth > best[0]:
                    best = worth, ahead
        return best[1]

    def _instants(self, work_ended_us: int, soonest: int) -> Iterable[tuple[str | int, Sequence[int], int]]:
        """Yield each forecast's instants at which demand may come next, and how often it came much later.

        In a stretch there is one wake ahead: a job that runs every hour is not met by who looks for it
        every quarter.
        """
        yield "lengths", [work_ended_us + length for length in self.lengths_us], 0
        yield "periods", [self.ended_us[-1] + period for period in self.periods_us], 0
        for period in self.uneven_us:
            longest = soonest - work_ended_us + period
            ends = [
                end for end, length in zip(self.ended_us, self.lengths_us, strict=True) if length <= longest
            ]
            instants = [soonest + 1 + (end - soonest - 1) % period for end in ends]
            yield period, instants, len(self.ended_us) - len(ends)


def _unevenness(instants: Sequence[int], period: int) -> float:
    """Return Rayleigh's statistic: how many instants there are, times the square of their mean phase."""
    total = sum(exp(2j * pi * (instant % period) / period) for instant in instants)
    return abs(total) ** 2 / len(instants)


def _best(gaps: Sequence[int], blanks: int, stakes: Stakes) -> tuple[int, Ahead | None]:
    """Return the gain of the best wake ahead of these ascending instants, which so often is in vain: in money
    times microseconds."""
    wake, waiting_rate, ready_rate = stakes.wake_us, stakes.waiting_nusd_h, stakes.ready_nusd_h
    sums, count = [0, *accumulate(gaps)], len(gaps)
    pays_for = waiting_rate * wake // ready_rate
    stays = [(stay := int(pays_for * part), stakes.in_vain(stay)) for part in STAYS]
    best: tuple[int, Ahead | None] = (0, None)
    began = 0
    for met, ready in enumerate(gaps[: 1 - HITS]):
        while gaps[began] < ready - wake:
            began += 1
        earlier = (met - began) * (wake - ready) + sums[met] - sums[began]
        for stay, in_vain in stays:
            if gaps[met + HITS - 1] > ready + stay:
                break  # it meets too few, and a shorter stay no more
            missed = bisect_right(gaps, ready + stay, met + HITS)
            hits = missed - met
            won = waiting_rate * (earlier + hits * wake)
            won -= ready_rate * (sums[missed] - sums[met] - hits * ready)
            won -= (count - missed + 1 + blanks) * in_vain  # one longer than any yet must be expected
            if won > best[0]:
                best = won, Ahead(ready - wake, stay)
    return best
