"""Every policy on one trace: which ones there are, and what each of them would have cost."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice, repeat

import numpy as np
from numpy.typing import NDArray

from poorwill.core.policy import FloorSchedule, LearnsFromMeter, NoFloor, Policy
from poorwill.core.settings import PolicySettings
from poorwill.core.words import SECOND_US, Cause, Tier
from poorwill.hosts.files.traces.service import ServiceRule
from poorwill.hosts.files.traces.trace import Micros, Trace
from poorwill.planner.hosted import HostedBill
from poorwill.planner.simulation.account import SpanAccount, Timeline
from poorwill.planner.simulation.busy_blocks import Blocks, new_blocks
from poorwill.planner.simulation.clairvoyant import WAIT_UNITS, clairvoyant, clairvoyant_levels
from poorwill.planner.simulation.outcome import Outcome, Progress, cost_numerator, waits_of
from poorwill.planner.simulation.scenario import Scenario, TierTimes
from poorwill.planner.simulation.simulate import Level, simulate
from poorwill.planner.simulation.sweep import IdleSweep, sweep
from poorwill.planner.simulation.walk import Walk
from poorwill.policies import Timed, break_even_us, envelope_after_us, make_policy


class TimelineWindow(Timeline):
    """The causes of a window of time: the one that holds when it begins, and those that follow."""

    def __init__(self, from_us: int, to_us: int) -> None:
        super().__init__()
        self.from_us, self.to_us = from_us, to_us

    def append(self, entry: tuple[int, Cause]) -> None:
        """Keep an entry; it takes the place of one that ended before the window."""
        if entry[0] <= self.from_us:
            self[:] = [entry]
        elif entry[0] < self.to_us:
            super().append(entry)


YARDSTICK = "clairvoyant"
HOSTED = "hosted"
CONTINUOUS = "continuous"
BRIDGE = "bridge"
RELEASING_TIERS = frozenset(Tier) - {Tier.ASLEEP}


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """The requests of one model."""

    model: str
    arrival_us: Micros
    service_us: Micros
    hosted_nusd: NDArray[np.float64] | None = None
    """What a hosted API would charge for each."""
    _blocks: dict[int, Blocks] = field(default_factory=dict, init=False, repr=False, compare=False)

    def blocks(self, span_us: int) -> Blocks:
        """Return their busy blocks within a span; made once, because every swept policy asks."""
        if span_us not in self._blocks:
            self._blocks[span_us] = new_blocks(self.arrival_us, self.service_us, span_us)
        return self._blocks[span_us]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrant:
    """A way to serve that is judged."""

    name: str
    run: Callable[[Workload, Timeline | None, Progress | None], Outcome]
    """Prices it on the requests of one model; a timeline receives when each cause of its first replica
    began."""
    idle_us: int | None = None
    runs_in_serve: bool = False
    """Whether `fleet.toml` can name it and `check` accepts it."""
    simulated: bool = False
    """Whether its account is simulated at all, so that a timeline costs nothing."""

    def accounts(
        self, loads: Sequence[Workload], timeline: Timeline, progress: Progress | None = None
    ) -> list[Outcome]:
        """Return its account of each model; the timeline is of the first, if it is simulated."""
        spans = timeline if self.simulated else None
        outcomes = [self.run(load, None if number else spans, progress) for number, load in enumerate(loads)]
        return [replace(outcome, policy=self.name, idle_us=self.idle_us) for outcome in outcomes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """What the entrants have in common."""

    scenario: Scenario
    cold: TierTimes
    """What `cold` alone uses: its own tier's times."""
    idles_us: Sequence[int] = field(default_factory=tuple)
    floors: Sequence[FloorSchedule] = ()
    """Of the first levels of demand."""
    bill: HostedBill | None = None
    priced: dict[tuple[str, TierTimes, int], Outcome] = field(default_factory=dict)
    """What was swept, by model, tier and idle time: equal schedules are priced once."""


def loads_of(trace: Trace, rule: ServiceRule, bill: HostedBill | None = None) -> list[Workload]:
    """Return one load per model of the trace."""
    hosted = {}
    if bill is not None:
        hosted = {int(code): bill.per_request_nusd[trace.model == code] for code in np.unique(trace.model)}
    return [
        Workload(
            model=model,
            arrival_us=part.arrival_us,
            service_us=rule.times(part),
            hosted_nusd=hosted.get(trace.models.index(model)),
        )
        for model, part in trace.by_model()
    ]


def entrants(of: Contest) -> Iterator[Entrant]:
    """Return the ways to serve, in the order of the report.

    Fixed idle times, `hibernate`, `break-even` and `bridge` use the first tier only; `cold` its own times;
    `ladder`, `adaptive` and `clairvoyant` all tiers of the scenario. Each begins parked in its deepest tier;
    `clairvoyant` there or in the first, so that it is a bound for all of them.
    """
    scenario = of.scenario
    first = scenario.with_tiers(scenario.tiers[:1])
    cold = first.with_tiers((of.cold,))
    least = break_even_us(scenario.costs()[first.tiers[0].tier], wait_nusd_s=scenario.wait_nusd_s)
    yield _continuous(first)
    yield _entrant("cold", of, cold, PolicySettings(name="fixed", idle_us=0), idle_us=0)
    yield _entrant("hibernate", of, first, PolicySettings(name="fixed", idle_us=0), idle_us=0)
    for idle in of.idles_us:
        fixed = PolicySettings(name="fixed", idle_us=idle)
        serves = least is not None and idle >= least
        name = f"fixed-{idle / SECOND_US:g}s"
        yield _entrant(name, of, first, fixed, idle_us=idle, runs_in_serve=serves)
    rule = PolicySettings(name="break-even", wait_nusd_s=scenario.wait_nusd_s)
    yield _entrant("break-even", of, first, rule, idle_us=least, runs_in_serve=True)
    envelope = envelope_after_us(scenario.costs(), scenario.ladder, wait_nusd_s=scenario.wait_nusd_s)
    deep = replace(rule, name="ladder")
    rung = envelope[0][1] if envelope else None
    yield _entrant("ladder", of, scenario, deep, idle_us=rung, runs_in_serve=True)
    yield _entrant("adaptive", of, scenario, replace(rule, name="adaptive"), runs_in_serve=True)
    if of.bill is not None:
        yield _bridge(of, first, rule, idle_us=least)
    yield Entrant(name=YARDSTICK, run=lambda load, _, told: _best(load, scenario, told))
    if of.bill is not None:
        yield Entrant(name=HOSTED, run=_hosted)


def _best(load: Workload, scenario: Scenario, progress: Progress | None) -> Outcome:
    best = clairvoyant if scenario.replicas == 1 else clairvoyant_levels
    starts = dict.fromkeys((scenario.ladder[0], scenario.ladder[-1]))
    begins = [replace(scenario, start_tier=tier) for tier in starts]
    found = [best(load.arrival_us, load.service_us, begin, progress) for begin in begins]
    wait_rate = scenario.wait_nusd_s * WAIT_UNITS
    return min(found, key=lambda outcome: outcome.cost_numerator + outcome.waits.total_us * wait_rate)


def new_policy(settings: PolicySettings, scenario: Scenario) -> Policy:
    """Return a policy as production makes it, for one replica of the scenario."""
    return make_policy(settings, ladder=scenario.ladder, costs=scenario.costs())


def _entrant(
    name: str,
    of: Contest,
    scenario: Scenario,
    settings: PolicySettings,
    *,
    idle_us: int | None = None,
    runs_in_serve: bool = False,
) -> Entrant:
    sweeps = idle_us is not None and _sweeps(settings, scenario, of)

    def run(load: Workload, spans: Timeline | None, progress: Progress | None) -> Outcome:
        if spans is None and idle_us is not None and sweeps:
            key = load.model, scenario.tiers[0], idle_us
            return of.priced.setdefault(key, of.priced.get(key) or swept_outcome(load, scenario, idle_us))
        levels = levels_of(lambda: new_policy(settings, scenario), scenario, of.floors)
        return evaluate(load, scenario, levels, timeline=spans, progress=progress)

    return Entrant(name=name, run=run, idle_us=idle_us, runs_in_serve=runs_in_serve, simulated=not sweeps)


def levels_of(
    new: Callable[[], Policy], scenario: Scenario, floors: Sequence[FloorSchedule] = ()
) -> list[Level]:
    """Return a new policy and the floor of each level of demand."""
    return [(new(), floor) for floor in islice(chain(floors, repeat(NoFloor())), scenario.replicas)]


def evaluate(
    load: Workload,
    scenario: Scenario,
    levels: Sequence[Level],
    *,
    timeline: Timeline | None = None,
    bridged: list[int] | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Return what new policies cost: walked from stretch to stretch where that is exact, else simulated."""
    (policy, floor), *others = levels
    learns = policy.name == "adaptive" and (scenario.wait_nusd_s or bridged is not None)
    bounded = (
        scenario.max_concurrency
        or scenario.starts_ready
        or not isinstance(floor, NoFloor)
        or len(scenario.tiers) > 1
    )
    if others or learns or bounded or isinstance(policy, LearnsFromMeter):
        return simulate(
            load.arrival_us,
            load.service_us,
            scenario,
            policy,
            floor=floor,
            others=others,
            timelines=[] if timeline is None else [timeline],
            bridged=bridged,
            progress=progress,
        )
    account = SpanAccount(timeline=timeline)
    walk = Walk(scenario=scenario, policy=policy, account=account, bridged=bridged, progress=progress)
    return walk.replay(load.arrival_us, load.service_us)


def _sweeps(settings: PolicySettings, scenario: Scenario, of: Contest) -> bool:
    """Return whether a policy is one fixed idle time in a world that the sweep knows."""
    times = scenario.tiers[0]
    one_tier = len(scenario.tiers) == 1 and times.tier in RELEASING_TIERS and len(set(times.wake_us)) == 1
    plain = not scenario.billing.rounds and not scenario.wait_nusd_s
    fixed = settings.name == "fixed" or (settings.name in ("break-even", "ladder") and plain)
    return one_tier and fixed and not of.floors and not scenario.max_concurrency


def swept(
    load: Workload, scenario: Scenario, idles_us: Sequence[int], held: list[Micros] | None = None
) -> IdleSweep:
    """Return what fixed idle times in the first tier cost; `held` receives the waits."""
    times, billing = scenario.tiers[0], scenario.billing
    blocks = load.blocks(scenario.span_us)
    wake_us, park_us = times.wake_us[0], times.park_us
    return sweep(blocks, idles_us, wake_us=wake_us, park_us=park_us, billing=billing, held=held)


def swept_outcome(load: Workload, scenario: Scenario, idle_us: int) -> Outcome:
    """Return the account of one fixed idle time by the sweep: the same microseconds, many times sooner."""
    held = list[Micros]()
    found = swept(load, scenario, [idle_us], held)
    active_us, added_us = int(found.active_us[0]), int(found.added_us[0])
    parked_us = {scenario.tiers[0].tier: scenario.span_us - active_us}
    return Outcome(
        policy="fixed",
        idle_us=idle_us,
        wakes=int(found.wakes[0]),
        active_us=active_us,
        useful_us=int(found.useful_us[0]),
        parked_us=parked_us,
        added_us=added_us,
        cost_numerator=cost_numerator(
            active_us + added_us, scenario.active_nusd_h, parked_us, scenario.rates()
        ),
        waits=waits_of(len(load.arrival_us), held),
    )


def _continuous(scenario: Scenario) -> Entrant:
    """Always ready: nothing needs to be simulated unless requests queue or the states are drawn."""
    ready = replace(scenario, starts_ready=True)
    stays = levels_of(lambda: Timed(name=CONTINUOUS, after_us=(), why="never parks"), scenario)

    def run(load: Workload, spans: Timeline | None, progress: Progress | None) -> Outcome:
        if spans is not None or scenario.max_concurrency:
            return evaluate(load, ready, stays, timeline=spans)
        blocks = load.blocks(scenario.span_us)
        return Outcome(
            policy=CONTINUOUS,
            active_us=scenario.span_us,
            useful_us=int(blocks.busy_sum[-1]),
            cost_numerator=scenario.span_us * scenario.active_nusd_h,
            waits=waits_of(len(load.arrival_us), []),
        )

    return Entrant(name=CONTINUOUS, run=run, runs_in_serve=True)


def _bridge(of: Contest, scenario: Scenario, rule: PolicySettings, *, idle_us: int | None) -> Entrant:
    def run(load: Workload, spans: Timeline | None, progress: Progress | None) -> Outcome:
        bridged: list[int] = []
        levels = levels_of(lambda: new_policy(rule, scenario), scenario, of.floors)
        outcome = evaluate(load, scenario, levels, timeline=spans, bridged=bridged, progress=progress)
        assert load.hosted_nusd is not None
        paid = round(float(load.hosted_nusd[bridged].sum()))
        return replace(outcome, extra_nusd=paid, notes=(f"{len(bridged)} requests went to the hosted API",))

    return Entrant(name=BRIDGE, run=run, idle_us=idle_us, runs_in_serve=True, simulated=True)


def _hosted(load: Workload, _: Timeline | None, __: Progress | None) -> Outcome:
    assert load.hosted_nusd is not None
    return Outcome(
        policy=HOSTED,
        waits=waits_of(len(load.arrival_us), []),
        extra_nusd=round(float(load.hosted_nusd.sum())),
    )
