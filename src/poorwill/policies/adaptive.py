"""The adaptive policy: it keeps choosing the schedule that would have cost least on the model's own past.

For each idle stretch:

1. Candidates are fixed schedules: the ladder's lower envelope, sooner and later, every tier after a few
   multiples of its break-even, never. `replay` follows them all over the same demand, each with the
   delays its own wakes cause; older stretches count less (`situations.DECAY`).
2. Leaders choose among the candidates: by the whole history, by the hour of the week, by how long the last
   gap was, by the place in a burst. Leaders are followed as well, each by what it chose at the time,
   before the outcome was known. The whole history decides, unless another is cheaper by MARGIN: hours and
   bursts are used if they pay and ignored if they would only fit noise.
3. If waiting has a price, a wake ahead of demand makes further leaders (see `ahead`).
4. With fewer than THIN stretches it is the envelope (for one tier: the break-even rule), and likewise when
   its account has run ahead of that rule's by more than the bound: in the account of `replay` it never costs
   more than (1 + BOUND) times that rule and SLACK cycles of park and wake. The rule costs at most twice the
   optimum.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from poorwill.core.format import duration
from poorwill.core.policy import Descent
from poorwill.core.words import HOUR_US, SECOND_US, Tier
from poorwill.policies.ahead import Forecast, Stakes
from poorwill.policies.costs import (
    TierCosts,
    break_even_us,
    envelope_after_us,
    held_by_wakes,
    park_cost,
    rungs_at,
)
from poorwill.policies.past import Past
from poorwill.policies.replay import Ahead, Followers, Plan, Prices, Schedule, Stretch, cross
from poorwill.policies.situations import NAMES, Key, ScoreTable, Situation, faded

THIN = 6
MARGIN = 0.03
BOUND = 0.10
SLACK = 5
MULTIPLES = (0.0, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 8.0)
"""Idle times tried, in break-evens: a gap is rarely known better than by a factor of two."""
CROWDED = (1.4, 3.0, 4.0)
"""Further ones if waiting has a price: a wake that holds several requests is worth a longer idle time."""
FIRST_RUNGS, DEEPER_RUNGS = (0.0, 1 / 4, 1.0), (1 / 64, 1 / 16, 1 / 4, 1.0, 4.0)
"""Descents through several tiers that are tried, in parts of the envelope's times: of its first rung, and of
the others. A wake that overlaps with work costs less than the envelope assumes."""
WAIT_UNITS = HOUR_US // SECOND_US
LINGERS = (0.0, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""Idle times that go with wakes ahead of demand, in break-evens: who was met ready is often not alone."""
AHEAD = len(LINGERS) + len(NAMES)
"""Wakes ahead go with each of these lingers, and with the one that did best in each situation."""
LEADERS = (*NAMES, *("forecast",) * AHEAD)
"""The forecasts only if waiting has a price."""


class Choice(NamedTuple):
    """A plan for one stretch and who proposed it."""

    plan: Plan
    why: str
    led: tuple[Plan, ...] = ()
    """What each leader would do."""


@dataclass(slots=True, kw_only=True, eq=False)
class Adaptive:
    """One replica's adaptive policy. Made by `adaptive`."""

    prices: Prices
    candidates: tuple[Schedule, ...]
    """The first is the rule that it falls back to."""
    even_us: int
    """The first tier's break-even: the unit for gaps."""
    cycle: int
    """What one park and wake cost, in nano-dollars times microseconds an hour."""
    saved_nusd_h: int
    """What a parked hour saves in the first tier."""
    wait_nusd_h: int
    """What one request's waiting costs an hour."""
    fixed: tuple[Plan, ...]
    """The candidates as plans."""
    followers: Followers
    """One for each candidate, one for each leader, and what it does itself."""
    led: list[float]
    """What following each leader cost, fading."""
    situation: Situation
    past: Past = field(default_factory=Past)
    forecast: Forecast = field(default_factory=Forecast)
    scores: ScoreTable = field(default_factory=ScoreTable)
    """Of the candidates."""
    ahead_scores: ScoreTable = field(default_factory=ScoreTable)
    """Of the lingers that go with wakes ahead."""
    held: float = 1.0
    """Requests' waits per wake, in whole wakes: how many requests a wake holds."""
    stretches: int = 0
    _asked_us: int | None = None
    _choice: Choice = field(default_factory=lambda: Choice(Plan(()), ""))
    """The answer to what was asked last; forgotten when something is learnt."""
    _told: tuple[Choice | None, Descent] = (None, Descent(()))
    """The last answer as a descent."""

    @property
    def name(self) -> str:
        """Return `adaptive`."""
        return "adaptive"

    def woke(self, waits_us: Sequence[int]) -> None:
        """Learn how many requests a wake holds, counted in waits as long as the first one's, and when the
        others came."""
        if not waits_us or waits_us[0] <= 0:
            return
        self.held = held_by_wakes(self.held, waits_us)
        self.past.woke(waits_us)
        self._asked_us = None

    def observe(self, idle_since_us: int, demand_at_us: int, *, others: int = 0) -> None:
        """Learn of a finished stretch: settle every follower's account and score the candidates."""
        past = self.past
        if not past.follows(idle_since_us, demand_at_us):
            return
        for hidden in past.hidden():
            keys = self.situation.keys(hidden.idle_us)
            self._follow(hidden, self._choose(hidden.idle_us, keys), keys)
        choice = self.choice_for(idle_since_us)
        stretch = past.stretch(idle_since_us, demand_at_us, others=others)
        self._follow(stretch, choice, self.situation.keys(idle_since_us))
        _, ready = cross(choice.plan, idle_since_us, demand_at_us, self.prices)
        past.began(demand_at_us, ready)
        self._asked_us = None

    def _follow(self, stretch: Stretch, choice: Choice, keys: Sequence[Key]) -> None:
        """Follow every schedule through the work before a stretch and on to the next demand."""
        plans = (*self.fixed, *choice.led, choice.plan)
        self._score(keys, list(map(float, self.followers.follow(stretch, plans, self.prices))))
        _, idle_us, ended_us, demand_us = stretch
        long = demand_us - ended_us > self.even_us
        self.situation.passed(demand_us - idle_us, long=long)
        if long and self.wait_nusd_h:  # without a price of waiting nothing is woken ahead
            self.forecast.observe(ended_us, demand_us)
        self.stretches += 1

    def descent(self, idle_since_us: int) -> Descent:
        """Return the plan for a stretch: its rungs, and a wake ahead of demand if one would pay."""
        choice = self.choice_for(idle_since_us)
        if choice is not self._told[0]:
            self._told = choice, self._descent(choice, idle_since_us)
        return self._told[1]

    def _descent(self, choice: Choice, idle_since_us: int) -> Descent:
        plan = choice.plan
        rungs = rungs_at(plan.schedule, idle_since_us)
        linger = duration(plan.schedule[0][1]) if plan.schedule else "stays ready"
        why = f"{choice.why}, {linger}"
        if plan.ahead is None:
            return Descent(rungs, why=why)
        tier = plan.schedule[-1][0]
        wake_at = plan.ahead.wake_at_us
        ready = wake_at + self.prices.costs[tier].wake_us
        again = rungs_at(((tier, plan.ahead.stay_us), *plan.ahead.deeper), ready)
        return Descent((*rungs, *again), wake_at, why)

    def _score(self, keys: Sequence[Key], cost: Sequence[float]) -> None:
        """Add what a stretch cost each follower to the scores."""
        count = len(self.candidates)
        self.scores.add(keys, cost[:count])
        if self.wait_nusd_h:
            first = count + len(NAMES)
            self.ahead_scores.add(keys, cost[first : first + len(LINGERS)])
        self.led = faded(self.led, cost[count:-1])

    def choice_for(self, idle_since_us: int) -> Choice:
        """Return the choice for a stretch; asked again and again while it lasts."""
        if self._asked_us != idle_since_us:
            keys = self.situation.keys(idle_since_us)
            self._asked_us, self._choice = idle_since_us, self._choose(idle_since_us, keys)
        return self._choice

    # choosing

    def _choose(self, idle_since_us: int, keys: Sequence[Key]) -> Choice:
        allowance = self._allowance()
        led = self._leading(idle_since_us, keys)
        if self.stretches < THIN or allowance <= 0:
            why = "little history" if self.stretches < THIN else "at its bound"
            name = "break-even" if len(self.candidates[0]) < 2 else "ladder"
            return Choice(self.fixed[0], f"{name}, {why}", led)
        leader = self._leader()
        return Choice(self._within(led[leader], allowance), f"by {LEADERS[leader]}", led)

    def _leader(self) -> int:
        """Return the leader to follow: the whole history, unless another is cheaper by the margin."""
        cost = self.led
        best = cost.index(min(cost))
        return best if cost[best] < cost[0] * (1 - MARGIN) else 0

    def _leading(self, idle_since_us: int, keys: Sequence[Key]) -> tuple[Plan, ...]:
        """Return each leader's plan."""
        if self.stretches < THIN:
            return self.fixed[:1] * len(self.led)
        plans = [self.fixed[best] for best in self.scores.picks(keys)]
        if len(plans) == len(self.led):
            return tuple(plans)
        rest = self._rest()
        ahead = self._ahead(*rest[0], idle_since_us) if rest else None
        if ahead is None:
            return (*plans, *plans[:1] * AHEAD)
        tier, ahead = rest[0][0], replace(ahead, deeper=_from(rest[1:], ahead.stay_us))
        lingers = [((tier, int(self.even_us * part)),) for part in LINGERS]
        lingers += [lingers[best] for best in self.ahead_scores.picks(keys)]
        return (*plans, *(Plan(schedule, ahead) for schedule in lingers))

    def _rest(self) -> Schedule:
        """Return the rule from the rung on which a typical long gap ends, empty if it never parks."""
        rule, typical_us = self.candidates[0], self.forecast.typical_us
        reached = sum(after <= typical_us for _, after in rule)
        return rule[max(reached - 1, 0) :]

    def _ahead(self, tier: Tier, after_us: int, idle_since_us: int) -> Ahead | None:
        costs = self.prices.costs[tier]
        stakes = Stakes(
            wake_us=costs.wake_us,
            park_us=costs.park_us,
            ready_nusd_h=costs.active_nusd_h - costs.parked_nusd_h,
            waiting_nusd_h=int(self.wait_nusd_h * self.held),
        )
        return self.forecast.ahead(
            self.past.work_ended_us(idle_since_us),
            parked_us=idle_since_us + after_us + costs.park_us,
            stakes=stakes,
        )

    # the bound

    def _allowance(self) -> int:
        """Return how much more it may spend than the rule before it must be that rule."""
        spent = self.followers.spent
        return int((1 + BOUND) * spent[0] + SLACK * self.cycle - spent[-1])

    def _within(self, plan: Plan, allowance: int) -> Plan:
        """Cut a linger short if it would spend more than the allowance."""
        rule = self.candidates[0]
        if not rule or self.saved_nusd_h <= 0:
            return plan
        longest = rule[0][1] + allowance // self.saved_nusd_h
        if plan.schedule and plan.schedule[0][1] <= longest:
            return plan
        return Plan(_from(rule, longest))


def adaptive(*, ladder: Sequence[Tier], costs: Mapping[Tier, TierCosts], wait_nusd_s: int = 0) -> Adaptive:
    """Return a new adaptive policy for one replica."""
    first = costs[ladder[0]]
    even_us = break_even_us(first, wait_nusd_s=wait_nusd_s)
    envelope = envelope_after_us(costs, ladder, wait_nusd_s=wait_nusd_s)
    candidates: list[Schedule] = [envelope, *_scaled(envelope)]
    for depth, tier in enumerate(ladder):
        unit = break_even_us(costs[tier], wait_nusd_s=wait_nusd_s)
        deeper = [rung for rung in envelope if rung[0] in ladder[depth + 1 :]]
        if unit is not None:
            multiples = (*MULTIPLES, *CROWDED) if wait_nusd_s else MULTIPLES
            afters = [int(unit * times) for times in multiples]
            candidates += [((tier, after), *_from(deeper, after)) for after in afters]
    candidates.append(())
    distinct = tuple(dict.fromkeys(tuple(schedule) for schedule in candidates))
    leaders = len(LEADERS if wait_nusd_s else NAMES)
    count = len(distinct) + leaders + 1
    return Adaptive(
        prices=Prices(costs, first.active_nusd_h, wait_nusd_s * WAIT_UNITS),
        candidates=distinct,
        even_us=even_us or HOUR_US,
        cycle=park_cost(first, wait_nusd_s=wait_nusd_s),
        saved_nusd_h=first.active_nusd_h - first.parked_nusd_h,
        wait_nusd_h=wait_nusd_s * WAIT_UNITS,
        fixed=tuple(map(Plan, distinct)),
        followers=Followers([(0, 0)] * count, [0] * count),
        led=[0.0] * leaders,
        situation=Situation(even_us or HOUR_US),
    )


def _scaled(envelope: Schedule) -> list[Schedule]:
    """Return the envelope's descent, sooner and later; nothing if it has one rung alone."""
    if len(envelope) < 2:
        return []
    (tier, first_us), *rest = envelope
    found: list[Schedule] = []
    for begin in (int(first_us * part) for part in FIRST_RUNGS):
        for part in DEEPER_RUNGS:
            later = [(below, int(after * part)) for below, after in rest]
            found.append(((tier, begin), *_from(later, begin)))
    return found


def _from(schedule: Schedule, earliest_us: int) -> Schedule:
    """Return a schedule, no rung of which is entered before so much idle time."""
    return tuple((tier, max(after, earliest_us)) for tier, after in schedule)
