"""Every policy on one trace: which ones there are, and what each of them would have cost."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from poorwill.core.policy import FixedIdle, FloorSchedule, Policy
from poorwill.core.words import SECOND_US, Cause, Tier
from poorwill.planner.alternatives.hosted import HostedBill
from poorwill.planner.simulation.clairvoyant import clairvoyant
from poorwill.planner.simulation.outcome import Outcome, Waits, added
from poorwill.planner.simulation.scenario import Scenario, TierTimes
from poorwill.planner.simulation.simulate import simulate
from poorwill.planner.traces.service import ServiceRule
from poorwill.planner.traces.trace import Micros, Trace
from poorwill.policies import Timed, adaptive, break_even, descend

Timeline = list[tuple[int, Cause]]

YARDSTICK = "clairvoyant"
HOSTED = "hosted"
CONTINUOUS = "continuous"
BRIDGE = "bridge"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
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
    run: Callable[[Load, Timeline | None], Outcome]
    """Prices it on the requests of one replica; a timeline receives when each cause began."""
    idle_us: int | None = None
    runs_in_serve: bool = False
    """Whether `fleet.toml` can name it and `check` accepts it."""

    def account(self, loads: Sequence[Load]) -> Outcome:
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


def loads_of(trace: Trace, rule: ServiceRule, bill: HostedBill | None = None) -> list[Load]:
    """Return one load per model of the trace."""
    hosted = {}
    if bill is not None:
        hosted = {int(code): bill.per_request_nusd[trace.model == code] for code in np.unique(trace.model)}
    return [
        Load(
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
    tier, wait = first.tiers[0].tier, scenario.wait_nusd_s
    yield _continuous(first)
    yield _entrant("cold", of, first.with_tiers((of.cold,)), _fixed(of.cold.tier, 0), idle_us=0)
    yield _entrant("hibernate", of, first, _fixed(tier, 0), idle_us=0)
    even = break_even(ladder=(tier,), costs=scenario.costs(), wait_nusd_s=wait)
    least = _first_idle(even)
    for idle in of.idles_us:
        name = f"fixed-{idle / SECOND_US:g}s"
        serves = least is not None and idle >= least
        yield _entrant(name, of, first, _fixed(tier, idle), idle_us=idle, runs_in_serve=serves)
    yield _entrant("break-even", of, first, lambda: even, idle_us=least, runs_in_serve=True)
    tiers = tuple(times.tier for times in scenario.tiers)
    envelope = descend(ladder=tiers, costs=scenario.costs(), wait_nusd_s=wait)
    yield _entrant(
        "ladder", of, scenario, lambda: envelope, idle_us=_first_idle(envelope), runs_in_serve=True
    )
    yield _entrant(
        "adaptive",
        of,
        scenario,
        lambda: adaptive(ladder=tiers, costs=scenario.costs(), wait_nusd_s=wait),
        runs_in_serve=True,
    )
    if of.bill is not None:
        yield _bridge(of, first, even)
    yield Entrant(name=YARDSTICK, run=lambda load, _: clairvoyant(load.arrival_us, load.service_us, scenario))
    if of.bill is not None:
        yield Entrant(name=HOSTED, run=_hosted)


def _entrant(
    name: str,
    of: Field,
    scenario: Scenario,
    new: Callable[[], Policy],
    *,
    idle_us: int | None = None,
    runs_in_serve: bool = False,
) -> Entrant:
    return Entrant(
        name=name,
        run=lambda load, spans: simulate(
            load.arrival_us, load.service_us, scenario, new(), floor=of.floor, timeline=spans
        ),
        idle_us=idle_us,
        runs_in_serve=runs_in_serve,
    )


def _continuous(scenario: Scenario) -> Entrant:
    ready = replace(scenario, starts_ready=True)
    stays = Timed(name=CONTINUOUS, after_us=(), why="never parks")
    return Entrant(
        name=CONTINUOUS,
        run=lambda load, spans: simulate(load.arrival_us, load.service_us, ready, stays, timeline=spans),
        runs_in_serve=True,
    )


def _bridge(of: Field, scenario: Scenario, even: Timed) -> Entrant:
    def run(load: Load, spans: Timeline | None) -> Outcome:
        bridged: list[int] = []
        outcome = simulate(
            load.arrival_us, load.service_us, scenario, even, floor=of.floor, timeline=spans, bridged=bridged
        )
        assert load.hosted_nusd is not None
        paid = round(float(load.hosted_nusd[bridged].sum()))
        return replace(outcome, extra_nusd=paid, notes=(f"{len(bridged)} requests went to the hosted API",))

    return Entrant(name=BRIDGE, run=run, idle_us=_first_idle(even), runs_in_serve=True)


def _hosted(load: Load, _: Timeline | None) -> Outcome:
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


def _fixed(tier: Tier, idle_us: int) -> Callable[[], Policy]:
    return lambda: FixedIdle(((tier, idle_us),))


def _first_idle(policy: Timed) -> int | None:
    return policy.after_us[0][1] if policy.after_us else None
