"""The offline optimum: what a policy that knew the future would have paid. The yardstick, not a choice.

A policy decides, whenever the replica falls idle, whether to park it, into which tier, and whether to wake
it ahead of demand; demand that finds it parked wakes it at once. Over all such decisions the objective
(dollars plus the price of held seconds) is minimised by dynamic programming over the points at which the
replica becomes ready: (next request, instant of readiness). A wake delays completions and so may swallow
the gaps that follow; the busy period after each point is followed exactly.

Three facts keep the points few:

1. To park later than at once, or into a gap shorter than the park, is never better than to stay ready: the
   same time is paid at the active rate, and requests are done later.
2. Descending through tiers costs a park more than going straight to the deeper one.
3. Being ready at the next arrival or a whole wake after it is best, and nothing in between, if a held
   second costs nothing, or no less than what an active second costs beyond a parked one. For prices in
   between the arrivals during the wake are tried too; there the optimum is one over these instants.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from heapq import heapify, heapreplace

import numpy as np

from poorwill.core.words import Tier
from poorwill.planner.simulation.outcome import Outcome, cost_numerator, waits_of
from poorwill.planner.simulation.scenario import Scenario, TierTimes
from poorwill.planner.traces.busy_blocks import new_blocks
from poorwill.planner.traces.trace import Micros

WAIT_UNITS = 3600
"""A price per second of waiting, as a price per hour: what rates are given in."""

Point = tuple[int, int, tuple[int, ...]]
"""The next request, the instant of readiness, and how many wakes there were from each tier (modulo the
length of its list)."""


@dataclass(frozen=True, slots=True)
class Busy:
    """The busy period after a point; `waits` are the waits of the requests from the point's own on."""

    next_request: int
    end_us: int
    waits_us: Micros


@dataclass(frozen=True, slots=True)
class Way:
    """The gap before a point: since when idle, in which tier (None: stayed ready), from when parked to when
    the wake began."""

    before: Point | None
    idle_us: int
    tier: Tier | None
    down_us: int
    wake_us: int
    cost: int
    """Of everything up to the point's readiness, in nano-dollars times microseconds an hour."""


def clairvoyant(arrival_us: Micros, service_us: Micros, scenario: Scenario) -> Outcome:
    """Return the account of the best policy in hindsight."""
    busy_after = (
        _limited(arrival_us, service_us, scenario.max_concurrency)
        if scenario.max_concurrency
        else _unlimited(arrival_us, service_us, scenario.span_us)
    )
    search = _Search(scenario, arrival_us.tolist(), busy_after)
    return search.outcome(search.best())


class _Search:
    """The points reached so far, each by its cheapest way, worked off in the order of their requests."""

    def __init__(
        self, scenario: Scenario, arrivals: list[int], busy_after: Callable[[int, int], Busy]
    ) -> None:
        self.scenario = scenario
        self.arrivals = arrivals
        self.busy_after = busy_after
        self.wait_rate = scenario.wait_nusd_s * WAIT_UNITS
        self.ways: list[dict[Point, Way]] = [{} for _ in range(len(arrivals) + 1)]

    def best(self) -> Way:
        """Fill in all points and return the way to the end of the span."""
        tiers = self.scenario.tiers
        start = self.scenario.start_tier or tiers[-1].tier
        begins = next(index for index, times in enumerate(tiers) if times.tier is start)
        nothing = Way(None, 0, None, 0, 0, 0)
        turns = (0,) * len(tiers)
        for index in range(begins, len(tiers)):  # where it starts, or deeper at once
            park_us = tiers[index].park_us if index > begins else 0
            for point, way in self._through(index, nothing, None, 0, 0, turns, parked_us=park_us):
                self._offer(point, way)
        for index in range(len(self.arrivals)):
            for point, way in self.ways[index].items():
                self._leave(point, way)
        return min(self.ways[-1].values(), key=lambda way: way.cost)

    def _offer(self, point: Point, way: Way) -> None:
        known = self.ways[point[0]].get(point)
        if known is None or way.cost < known.cost:
            self.ways[point[0]][point] = way

    def _leave(self, point: Point, way: Way) -> None:
        """Serve the busy period after a point and try everything in the gap that follows."""
        span, active = self.scenario.span_us, self.scenario.active_nusd_h
        first, ready, turns = point
        busy = self.busy_after(first, ready)
        end = min(busy.end_us, span)
        cost = way.cost + active * (end - min(ready, span))
        if self.wait_rate:
            cost += self.wait_rate * int(busy.waits_us.sum())
        done = Way(point, end, None, 0, 0, cost)
        following = busy.next_request
        if following == len(self.arrivals):
            stay = Way(point, end, None, span, span, cost + active * (span - end))
            self._offer((following, span, turns), stay)
        else:
            arrival = self.arrivals[following]
            whole = cost + active * (arrival - end)
            stay = Way(point, end, None, arrival, arrival, whole)
            self._offer((following, arrival, turns), stay)
        for index, times in enumerate(self.scenario.tiers):
            for reached, passed in self._through(
                index, done, point, following, end, turns, parked_us=times.park_us
            ):
                self._offer(reached, passed)

    def _through(
        self,
        index: int,
        done: Way,
        before: Point | None,
        following: int,
        idle_us: int,
        turns: tuple[int, ...],
        *,
        parked_us: int,
    ) -> Iterator[tuple[Point, Way]]:
        """Yield the points reached by parking in a tier; `parked_us` is how long the park takes."""
        span, active = self.scenario.span_us, self.scenario.active_nusd_h
        times = self.scenario.tiers[index]
        rate = times.parked_nusd_h
        down = idle_us + parked_us
        if following == len(self.arrivals):
            down = min(down, span)
            cost = done.cost + active * (down - idle_us) + rate * (span - down)
            yield (following, span, turns), Way(before, idle_us, times.tier, down, span, cost)
            return
        if self.arrivals[following] < down:
            return
        wake = times.wake_us[turns[index]]
        turn = (turns[index] + 1) % len(times.wake_us)
        after = (*turns[:index], turn, *turns[index + 1 :])
        for ready in self._readiness(times, following, wake, down):
            began = ready - wake
            cost = done.cost + active * parked_us + rate * (began - down)
            cost += active * (min(ready, span) - began)
            yield (following, ready, after), Way(before, idle_us, times.tier, down, began, cost)

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
        """Return the account of the way that ends here."""
        scenario, span = self.scenario, self.scenario.span_us
        parked = dict.fromkeys((times.tier for times in scenario.tiers), 0)
        useful = wakes = 0
        waits: list[Micros] = []
        way = last
        while True:
            if way.tier is not None:
                parked[way.tier] += way.wake_us - way.down_us
                wakes += way.wake_us < span
            if way.before is None:
                break
            busy = self.busy_after(way.before[0], way.before[1])
            useful += way.idle_us - min(way.before[1], span)
            waits.append(busy.waits_us)
            way = self.ways[way.before[0]][way.before]
        active = span - sum(parked.values())
        return Outcome(
            policy="clairvoyant",
            idle_us=None,
            wakes=wakes,
            active_us=active,
            useful_us=useful,
            parked_us=parked,
            cost_numerator=cost_numerator(active, scenario.active_nusd_h, parked, scenario.rates()),
            waits=waits_of(len(self.arrivals), waits),
        )


def _unlimited(arrival_us: Micros, service_us: Micros, span_us: int) -> Callable[[int, int], Busy]:
    """Return the busy period after a point, where any number of requests is served at once."""
    blocks = new_blocks(arrival_us, service_us, span_us)
    arrivals, begins = arrival_us.tolist(), blocks.begin_us.tolist()
    ends, firsts = blocks.end_us.tolist(), [*blocks.first.tolist(), len(arrivals)]

    def busy_after(first: int, ready: int) -> Busy:
        held = bisect_right(arrivals, ready, lo=first)
        done = min(ready + int(service_us[first:held].max()), span_us)
        following = bisect_right(begins, done)
        waits = ready - arrival_us[first:held]
        return Busy(firsts[following], max(done, ends[following - 1]), waits)

    return busy_after


def _limited(arrival_us: Micros, service_us: Micros, limit: int) -> Callable[[int, int], Busy]:
    """Return the busy period after a point, where requests queue for `limit` places."""
    arrivals, services = arrival_us.tolist(), service_us.tolist()

    def busy_after(first: int, ready: int) -> Busy:
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
        return Busy(index, end, np.asarray(waits, np.int64))

    return busy_after
