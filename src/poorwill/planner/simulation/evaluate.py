"""Every policy on one trace: which ones there are, and what each of them would have cost."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from poorwill.core.policy import FloorSchedule, Policy
from poorwill.core.settings import PolicyName, PolicySettings
from poorwill.core.words import SECOND_US, Cause
from poorwill.planner.alternatives.hosted import HostedBill
from poorwill.planner.simulation.clairvoyant import clairvoyant
from poorwill.planner.simulation.outcome import Outcome, Waits, added
from poorwill.planner.simulation.scenario import Scenario, TierTimes
from poorwill.planner.simulation.simulate import simulate
from poorwill.planner.traces.service import ServiceRule
from poorwill.planner.traces.trace import Micros, Trace
from poorwill.policies import break_even_us, envelope_after_us, make_policy

Timeline = list[tuple[int, Cause]]

YARDSTICK = "clairvoyant"
HOSTED = "hosted"
CONTINUOUS = "continuous"
BRIDGE = "bridge"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """The requests of one replica."""

    model: str
    arrival_us: Micros
    service_us: Micros
    hosted_nusd: NDArray[np.float64] | None = None
    """What a hosted API would charge for each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrant:
    """A way to serve that is judged."""

    name: str
    run: Callable[[Workload, Timeline | None], Outcome]
    """Prices it on the requests of one replica; a timeline receives when each cause began."""
    idle_us: int | None = None
    runs_in_serve: bool = False
    """Whether `fleet.toml` can name it and `check` accepts it."""

    def account(self, loads: Sequence[Workload]) -> Outcome:
        """Return its account, one replica per load."""
        outcome = added([self.run(load, None) for load in loads])
        return replace(outcome, policy=self.name, idle_us=self.idle_us)


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """What the entrants have in common."""

    scenario: Scenario
    cold: TierTimes
    """What `cold` alone uses: its own tier's times."""
    idles_us: Sequence[int] = field(default_factory=tuple)
    floor: FloorSchedule | None = None
    bill: HostedBill | None = None


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


def entrants(of: Field) -> Iterator[Entrant]:
    """Return the ways to serve, in the order of the report.

    Fixed idle times, `hibernate`, `break-even` and `bridge` use the first tier only; `cold` its own times;
    `ladder`, `adaptive` and `clairvoyant` all tiers of the scenario.
    """
    scenario = of.scenario
    first = scenario.with_tiers(scenario.tiers[:1])
    wait = scenario.wait_nusd_s
    yield _continuous(first)
    yield _entrant("cold", of, first.with_tiers((of.cold,)), "fixed", idle_us=0)
    yield _entrant("hibernate", of, first, "fixed", idle_us=0)
    costs = scenario.costs()
    least = break_even_us(costs[first.ladder[0]], wait_nusd_s=wait)
    for idle in of.idles_us:
        name = f"fixed-{idle / SECOND_US:g}s"
        serves = least is not None and idle >= least
        yield _entrant(name, of, first, "fixed", idle_us=idle, runs_in_serve=serves)
    yield _entrant("break-even", of, first, "break-even", idle_us=least, runs_in_serve=True)
    envelope = envelope_after_us(costs, scenario.ladder, wait_nusd_s=wait)
    first_us = envelope[0][1] if envelope else None
    yield _entrant("ladder", of, scenario, "ladder", idle_us=first_us, runs_in_serve=True)
    yield _entrant("adaptive", of, scenario, "adaptive", runs_in_serve=True)
    if of.bill is not None:
        yield _bridge(of, first, least)
    yield Entrant(name=YARDSTICK, run=lambda load, _: clairvoyant(load.arrival_us, load.service_us, scenario))
    if of.bill is not None:
        yield Entrant(name=HOSTED, run=_hosted)


def _entrant(
    name: str,
    of: Field,
    scenario: Scenario,
    policy: PolicyName,
    *,
    idle_us: int | None = None,
    runs_in_serve: bool = False,
) -> Entrant:
    def run(load: Workload, spans: Timeline | None) -> Outcome:
        made = _made(policy, scenario, idle_us=idle_us)
        return simulate(load.arrival_us, load.service_us, scenario, made, floor=of.floor, timeline=spans)

    return Entrant(
        name=name,
        run=run,
        idle_us=idle_us,
        runs_in_serve=runs_in_serve,
    )


def _made(policy: PolicyName, scenario: Scenario, *, idle_us: int | None = None) -> Policy:
    """Return a new policy, made as `serve` makes it."""
    settings = PolicySettings(name=policy, idle_us=idle_us, wait_nusd_s=scenario.wait_nusd_s)
    return make_policy(settings, ladder=scenario.ladder, costs=scenario.costs())


def _continuous(scenario: Scenario) -> Entrant:
    ready = replace(scenario, starts_ready=True)
    return Entrant(
        name=CONTINUOUS,
        run=lambda load, spans: simulate(
            load.arrival_us, load.service_us, ready, _made("fixed", scenario), timeline=spans
        ),
        runs_in_serve=True,
    )


def _bridge(of: Field, scenario: Scenario, idle_us: int | None) -> Entrant:
    def run(load: Workload, spans: Timeline | None) -> Outcome:
        even = _made("break-even", scenario)
        bridged: list[int] = []
        outcome = simulate(
            load.arrival_us, load.service_us, scenario, even, floor=of.floor, timeline=spans, bridged=bridged
        )
        assert load.hosted_nusd is not None
        paid = round(float(load.hosted_nusd[bridged].sum()))
        return replace(outcome, extra_nusd=paid, notes=(f"{len(bridged)} requests went to the hosted API",))

    return Entrant(name=BRIDGE, run=run, idle_us=idle_us, runs_in_serve=True)


def _hosted(load: Workload, _: Timeline | None) -> Outcome:
    assert load.hosted_nusd is not None
    nobody = Waits(requests=len(load.arrival_us), held_us=np.zeros(0, np.int64))
    return Outcome(
        policy=HOSTED,
        idle_us=None,
        wakes=0,
        active_us=0,
        useful_us=0,
        parked_us={},
        cost_numerator=0,
        waits=nobody,
        extra_nusd=round(float(load.hosted_nusd.sum())),
    )
