"""The offline optimum: what a policy that knew the future would have paid. The yardstick, not a choice.

A policy decides, whenever the replica falls idle, whether to park it, into which tier, and whether to wake
it ahead of demand; demand that finds it parked wakes it at once. Over all such decisions the objective
(dollars plus the price of held seconds) is minimised by dynamic programming over the points at which the
replica becomes ready: (next request, instant of readiness). A wake delays completions and so may swallow
the gaps that follow; the busy period after each point is followed exactly.

Three facts keep the points few:

1. To park later than at once, or into a gap shorter than the park, is never better than to stay ready: the
   same time is paid at the active rate, and requests are done later. If the provider bills in increments, to
   park at the end of the increment already paid for may be better, and no later instant.
2. Descending through tiers costs a park more than going straight to the deeper one.
3. Being ready at the next arrival or a whole wake after it is best, and nothing in between, if a held
   second costs nothing, or no less than what an active second costs beyond a parked one. For prices in
   between the arrivals during the wake are tried too; there the optimum is one over these instants.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from heapq import heapify, heapreplace
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from poorwill.core.words import Tier
from poorwill.hosts.files.traces.trace import Micros
from poorwill.planner.simulation.block_optimum import block_optimum
from poorwill.planner.simulation.busy_blocks import new_blocks, packed
from poorwill.planner.simulation.outcome import TELL_EVERY, Outcome, Progress, added, cost_numerator, waits_of
from poorwill.planner.simulation.scenario import Scenario, TierTimes
from poorwill.policies.pricing import paid_until_us

WAIT_UNITS = 3600
"""A price per second of waiting, as a price per hour: what rates are given in."""

Point = tuple[int, int, tuple[int, ...]]
"""The next request, the instant of readiness, and how many wakes there were from each tier (modulo the
length of its list)."""


class BusyPeriod(NamedTuple):
    """The busy period after a point; `waits` are the waits of the requests from the point's own on."""

    next_request: int
    end_us: int
    waits_us: Sequence[int]


class Way(NamedTuple):
    """One way to reach a point: the gap before it, and everything earlier.

    Since when it was idle, in which tier (None: stayed ready), from when parked to when the wake began.
    """

    point: Point | None
    before: "Way | None"
    idle_us: int
    tier: Tier | None
    down_us: int
    wake_us: int
    cost: int
    """Of everything up to the point's readiness, in nano-dollars times microseconds an hour."""
    metered_us: int = 0
    """When the stretch began that the provider meters now."""
    added_us: int = 0
    """What the provider has added to stretches so far."""


def clairvoyant(
    arrival_us: Micros, service_us: Micros, scenario: Scenario, progress: Progress | None = None
) -> Outcome:
    """Return the account of the best policy in hindsight."""
    plain = not (scenario.wait_nusd_s or scenario.max_concurrency or scenario.billing.rounds)
    if plain and all(len(set(times.wake_us)) == 1 for times in scenario.tiers):
        return block_optimum(arrival_us, service_us, scenario, progress)
    return searched(arrival_us, service_us, scenario, progress)


def searched(
    arrival_us: Micros, service_us: Micros, scenario: Scenario, progress: Progress | None = None
) -> Outcome:
    """Return the same by the search through all points."""
    busy_after = (
        _limited(arrival_us, service_us, scenario.max_concurrency)
        if scenario.max_concurrency
        else _unlimited(arrival_us, service_us, scenario.span_us)
    )
    search = _Search(scenario, packed(arrival_us), busy_after)
    return search.outcome(search.best(progress))


def clairvoyant_levels(
    arrival_us: Micros, service_us: Micros, scenario: Scenario, progress: Progress | None = None
) -> Outcome:
    """Return the account of the best policy in hindsight for several replicas, level by level of demand.

    The sum is the optimum if every request is served as soon as one of all places is free (Lu, Chen: arXiv
    1112.0442). Who lets requests queue instead, or cannot move them between replicas, may pay less or more.
    """
    limit = scenario.max_concurrency
    free, begins = [0] * (limit * scenario.replicas), []
    for arrival, service in zip(arrival_us.tolist(), service_us.tolist(), strict=True):
        begins.append(max(arrival, free[0]))
        heapreplace(free, begins[-1] + service)
    begin_us = np.asarray(begins, np.int64)
    inside = begin_us < scenario.span_us
    begin_us, service_us = begin_us[inside], service_us[inside]
    at_us = np.concatenate((begin_us + service_us, begin_us))
    order = np.argsort(at_us, kind="stable")  # at one instant those that end come first
    at_us, turns = at_us[order], np.repeat((-1, 1), len(begin_us))[order]
    flying = np.cumsum(turns)
    alone, found = replace(scenario, replicas=1, max_concurrency=0), list[Outcome]()
    for level in range(scenario.replicas):
        above = limit * level
        up = at_us[(flying == above + 1) & (turns == 1)]
        down = at_us[(flying == above) & (turns == -1)]
        found.append(clairvoyant(up, down - up, alone, progress))
    queued = begin_us - arrival_us[inside]
    held_us = waits_of(0, [queued, *(outcome.waits.held_us for outcome in found)]).held_us
    twice = max(0, len(held_us) - len(arrival_us))  # so many queued, and then waited for a wake
    held_us[twice : 2 * twice] += held_us[:twice]
    return replace(added(found), waits=waits_of(len(arrival_us), held_us[twice:]))


class _Search:
    """The points reached so far, each by its cheapest ways, worked off in the order of their requests."""

    def __init__(
        self, scenario: Scenario, arrivals: Sequence[int], busy_after: Callable[[int, int], BusyPeriod]
    ) -> None:
        self.scenario = scenario
        self.arrivals = arrivals
        self.busy_after = busy_after
        self.wait_rate = scenario.wait_nusd_s * WAIT_UNITS
        self.rounds = scenario.billing.rounds
        self.rates = scenario.rates()
        self.ways: dict[int, dict[Point, list[Way]]] = defaultdict(dict)
        """By the next request; what lies before the search is kept by the ways that came from there."""

    def best(self, progress: Progress | None = None) -> Way:
        """Fill in all points and return the way to the end of the span."""
        tiers = self.scenario.tiers
        start = self.scenario.start_tier or tiers[-1].tier
        begins = next(index for index, times in enumerate(tiers) if times.tier is start)
        nothing = Way(None, None, 0, None, 0, 0, 0)
        turns = (0,) * len(tiers)
        for index in range(begins, len(tiers)):  # where it starts, or deeper at once
            down = tiers[index].park_us if index > begins else 0
            self._park(index, nothing, 0, 0, 0, turns, down_us=down, added_us=0)
        for index in range(len(self.arrivals)):
            if progress is not None and index % TELL_EVERY == 0:
                progress(index / len(self.arrivals))
            for ways in self.ways.pop(index, {}).values():
                for way in ways:
                    self._leave(way)
        return min(
            (way for ways in self.ways[len(self.arrivals)].values() for way in ways), key=attrgetter("cost")
        )

    def _offer(self, point: Point, way: Way) -> None:
        ways = self.ways[point[0]]
        known = ways.get(point)
        if known is None:
            ways[point] = [way]
        elif not self.rounds:
            if way.cost < known[0].cost:
                known[0] = way
        elif not any(self._no_worse(other, way) for other in known):
            known[:] = [other for other in known if not self._no_worse(way, other)]
            known.append(way)

    def _no_worse(self, one: Way, other: Way) -> bool:
        """Return whether the first way to a point can do whatever the second can, for no more.

        The provider bills in increments: what is paid for beyond the point counts, with it, and where it
        ends. A way that is cheaper by a whole increment may buy one.
        """
        billing = self.scenario.billing
        assert one.point is not None
        at_us, active = one.point[1], self.scenario.active_nusd_h
        paid = [
            paid_until_us(way.metered_us, at_us, billing.increment_us, billing.minimum_us)
            for way in (one, other)
        ]
        dearer = one.cost + active * paid[0] - other.cost - active * paid[1]
        later = paid[0] - paid[1]
        increment = billing.increment_us
        return (dearer <= 0 and later >= 0) or (dearer + active * increment <= 0 and later + increment >= 0)

    def _leave(self, way: Way) -> None:
        """Serve the busy period after a point and try everything in the gap that follows."""
        assert way.point is not None
        span, active = self.scenario.span_us, self.scenario.active_nusd_h
        first, ready, turns = way.point
        busy = self.busy_after(first, ready)
        end = min(busy.end_us, span)
        cost = way.cost + active * (end - min(ready, span))
        if self.wait_rate:
            cost += self.wait_rate * sum(busy.waits_us)
        following = busy.next_request
        until = span if following == len(self.arrivals) else self.arrivals[following]
        point, whole = (following, until, turns), cost + active * (until - end)
        self._offer(point, Way(point, way, end, None, until, until, whole, way.metered_us, way.added_us))
        for index, times in enumerate(self.scenario.tiers):
            for down, paid in self._parked_from(way.metered_us, end, times, until):
                self._park(index, way, cost, following, end, turns, down_us=down, added_us=paid)

    def _parked_from(
        self, metered_us: int, idle_us: int, times: TierTimes, until_us: int
    ) -> Sequence[tuple[int, int]]:
        """Return the instants for a park (at once, or as the paid time ends), and what the provider adds."""
        soonest = idle_us + times.park_us
        if not self.rounds or times.tier is Tier.ASLEEP:
            return ((soonest, 0),)
        billing = self.scenario.billing
        paid = paid_until_us(metered_us, soonest, billing.increment_us, billing.minimum_us)
        at_once = soonest, paid - soonest
        return (at_once, (paid, 0)) if soonest < paid <= until_us else (at_once,)

    def _park(
        self,
        index: int,
        done: Way,
        spent: int,
        following: int,
        idle_us: int,
        turns: tuple[int, ...],
        *,
        down_us: int,
        added_us: int,
    ) -> None:
        """Offer the points reached by being parked in a tier from `down_us` on, after `spent`."""
        span, active = self.scenario.span_us, self.scenario.active_nusd_h
        times, down = self.scenario.tiers[index], down_us
        rate = self.rates[times.tier]
        before = None if done.point is None else done
        if following == len(self.arrivals):
            if down > span:  # the account closes before the stretch does
                down, added_us = span, 0
            cost = spent + active * (down - idle_us + added_us) + rate * (span - down)
            point = (following, span, turns)
            self._offer(
                point, Way(point, before, idle_us, times.tier, down, span, cost, 0, done.added_us + added_us)
            )
            return
        if self.arrivals[following] < down:
            return
        wake = times.wake_us[turns[index]]
        turn = (turns[index] + 1) % len(times.wake_us)
        after = (*turns[:index], turn, *turns[index + 1 :])
        for ready in self._readiness(times, following, wake, down):
            began = ready - wake
            # A wake that begins as the park ends goes on with the same stretch: nothing was released.
            released = began > down and times.tier is not Tier.ASLEEP
            added = added_us if released else 0
            cost = spent + active * (down - idle_us + added) + rate * (began - down)
            cost += active * (min(ready, span) - began)
            metered = began if released or before is None else done.metered_us
            point = (following, ready, after)
            self._offer(
                point,
                Way(point, before, idle_us, times.tier, down, began, cost, metered, done.added_us + added),
            )

    def _readiness(self, times: TierTimes, following: int, wake: int, down: int) -> list[int]:
        """Return the instants at which it may be best to become ready for a request."""
        arrival = self.arrivals[following]
        instants = [arrival + wake]
        if not self.wait_rate or not wake:
            return instants
        if arrival - wake >= down:
            instants.append(arrival)
        if self.wait_rate < self.scenario.active_nusd_h - times.parked_nusd_h:
            soonest = max(arrival + 1, down + wake)
            begin = bisect_left(self.arrivals, soonest)
            end = bisect_left(self.arrivals, arrival + wake)
            instants += sorted(set(self.arrivals[begin:end]))
        return instants

    def outcome(self, last: Way) -> Outcome:
        """Return the account of the path that ends here."""
        scenario, span = self.scenario, self.scenario.span_us
        parked = dict.fromkeys((times.tier for times in scenario.tiers), 0)
        useful = wakes = 0
        waits = array("q")
        way = last
        while True:
            if way.tier is not None:
                parked[way.tier] += way.wake_us - way.down_us
                wakes += way.wake_us < span
            if way.before is None or way.before.point is None:
                break
            first, ready, _ = way.before.point
            useful += way.idle_us - min(ready, span)
            waits.extend(self.busy_after(first, ready).waits_us)
            way = way.before
        active = span - sum(parked.values())
        return Outcome(
            policy="clairvoyant",
            wakes=wakes,
            active_us=active,
            useful_us=useful,
            parked_us=parked,
            added_us=last.added_us,
            cost_numerator=cost_numerator(active + last.added_us, scenario.active_nusd_h, parked, self.rates),
            waits=waits_of(len(self.arrivals), np.frombuffer(waits, np.int64)),
        )


def _unlimited(arrival_us: Micros, service_us: Micros, span_us: int) -> Callable[[int, int], BusyPeriod]:
    """Return the busy period after a point, when any number of requests is served at once."""
    blocks = new_blocks(arrival_us, service_us, span_us)
    arrivals, services = packed(arrival_us), packed(service_us)
    begins, ends = blocks.begin_us.tolist(), blocks.end_us.tolist()
    firsts = [*blocks.first.tolist(), len(arrivals)]

    def busy_after(first: int, ready: int) -> BusyPeriod:
        if ready == arrivals[first]:  # it was ready: the block goes as it came
            following = bisect_right(begins, ready)
            return BusyPeriod(firsts[following], ends[following - 1], ())
        held = bisect_right(arrivals, ready, lo=first)
        done = min(ready + max(services[first:held]), span_us)
        following = bisect_right(begins, done)
        waits = [ready - arrival for arrival in arrivals[first:held]]
        return BusyPeriod(firsts[following], max(done, ends[following - 1]), waits)

    return busy_after


def _limited(arrival_us: Micros, service_us: Micros, limit: int) -> Callable[[int, int], BusyPeriod]:
    """Return the busy period after a point, when requests queue for `limit` places."""
    arrivals, services = packed(arrival_us), packed(service_us)

    def busy_after(first: int, ready: int) -> BusyPeriod:
        places = [ready] * limit
        heapify(places)
        waits: list[int] = []
        end, index = ready, first
        while index < len(arrivals) and arrivals[index] <= end:
            begins = max(arrivals[index], places[0])
            waits.append(begins - arrivals[index])
            heapreplace(places, begins + services[index])
            end = max(end, begins + services[index])
            index += 1
        return BusyPeriod(index, end, waits)

    return busy_after
