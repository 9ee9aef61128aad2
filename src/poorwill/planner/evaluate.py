"""Every policy on one trace: which ones there are, and what each of them would have cost."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from poorwill.core.policies import Timed, break_even, descend
from poorwill.core.policy import FixedIdle, Policy
from poorwill.core.words import SECOND_US, Tier
from poorwill.planner.outcome import Outcome, added
from poorwill.planner.scenario import Scenario, TierTimes
from poorwill.planner.service import ServiceRule
from poorwill.planner.simulate import simulate
from poorwill.planner.trace import Micros, Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The requests of one replica."""

    model: str
    arrival_us: Micros
    service_us: Micros


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrant:
    """A policy to be judged: how to make a new one, and in which scenario it lives."""

    name: str
    scenario: Scenario
    new: Callable[[], Policy]
    idle_us: int | None = None

    def run(self, loads: Sequence[Load]) -> Outcome:
        """Return its account, one replica per load."""
        outcomes = [
            simulate(load.arrival_us, load.service_us, self.scenario, self.new()) for load in loads
        ]
        return replace(added(outcomes), policy=self.name, idle_us=self.idle_us)


def loads_of(trace: Trace, rule: ServiceRule) -> list[Load]:
    """Return one load per model of the trace."""
    return [
        Load(model=model, arrival_us=part.arrival_us, service_us=rule.times(part))
        for model, part in trace.by_model()
    ]


def entrants(scenario: Scenario, idles_us: Sequence[int], cold: TierTimes) -> Iterator[Entrant]:
    """Return the policies to judge, in the order of the report.

    Fixed idle times, `hibernate` and `break-even` use the first tier only; `cold` its own times; `ladder`
    and `adaptive` all tiers of the scenario.
    """
    first = scenario.with_tiers(scenario.tiers[:1])
    tier = first.tiers[0].tier
    wait = scenario.wait_nusd_s
    yield Entrant(
        name="continuous",
        scenario=replace(first, starts_ready=True),
        new=lambda: Timed(name="continuous", after_us=(), why="never parks"),
    )
    yield Entrant(
        name="cold",
        scenario=first.with_tiers((cold,)),
        new=lambda: FixedIdle(((cold.tier, 0),)),
        idle_us=0,
    )
    yield Entrant(name="hibernate", scenario=first, new=lambda: FixedIdle(((tier, 0),)), idle_us=0)
    for idle in idles_us:
        yield _fixed(first, tier, idle)
    even = break_even(ladder=(tier,), costs=scenario.costs(), wait_nusd_s=wait)
    yield Entrant(name="break-even", scenario=first, new=lambda: even, idle_us=_first_idle(even))
    tiers = tuple(times.tier for times in scenario.tiers)
    envelope = descend(ladder=tiers, costs=scenario.costs(), wait_nusd_s=wait)
    yield Entrant(
        name="ladder", scenario=scenario, new=lambda: envelope, idle_us=_first_idle(envelope)
    )


def _fixed(scenario: Scenario, tier: Tier, idle_us: int) -> Entrant:
    return Entrant(
        name=f"fixed-{idle_us / SECOND_US:g}s",
        scenario=scenario,
        new=lambda: FixedIdle(((tier, idle_us),)),
        idle_us=idle_us,
    )


def _first_idle(policy: Timed) -> int | None:
    return policy.after_us[0][1] if policy.after_us else None
