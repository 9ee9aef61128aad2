"""How many replicas, and how many requests at once on each: several sizes tried on the same requests."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.core.policy import FloorSchedule
from poorwill.core.settings import PolicySettings
from poorwill.planner.simulation.evaluate import Workload, evaluate, levels_of, new_policy
from poorwill.planner.simulation.outcome import HELD_HOUR_NUSD, Outcome, Progress, added
from poorwill.planner.simulation.scenario import Limit, Scenario

COUNTS = (1, 2, 3, 4, 6, 8, 12, 16)
"""Numbers of replicas that are tried if none are named, up to as many as always have room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A number of replicas and the limit of each."""

    replicas: int
    limit: Limit

    def of(self, scenario: Scenario) -> Scenario:
        """Return the scenario in this size."""
        return replace(scenario, replicas=self.replicas, max_concurrency=self.limit.requests)

    def slowed(self, loads: Sequence[Workload]) -> list[Workload]:
        """Return the requests as they are served in this size."""
        factor = self.limit.slowdown
        served = [np.rint(load.service_us * factor).astype(np.int64) for load in loads]
        return [replace(load, service_us=took) for load, took in zip(loads, served, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeOutcome:
    """What a size costs under the policy that they were all tried with."""

    size: Size
    outcome: Outcome


def sizes_to_try(loads: Sequence[Workload], counts: Sequence[int], limits: Sequence[Limit]) -> list[Size]:
    """Return the sizes that are named or, without counts, would do. Raises RequestFault if they cannot be."""
    found = []
    for limit in limits:
        if not limit.requests and max(counts, default=1) > 1:
            raise RequestFault(
                ErrorCode.INVALID_REQUEST,
                "several replicas need a limit: without one the first takes everything",
                hint="--max-concurrency 16: how many requests one replica takes at once",
            )
        alone = Size(replicas=1, limit=limit)
        most = max(map(_most_at_once, alone.slowed(loads))) if limit.requests else 1
        enough = -(-most // limit.requests) if limit.requests else 1
        tried = counts or [*(count for count in COUNTS if count < enough), min(enough, COUNTS[-1])]
        found += [replace(alone, replicas=count) for count in tried]
    return found


def _most_at_once(load: Workload) -> int:
    """Return how many requests there are at once if each is served as it arrives."""
    ends = np.sort(load.arrival_us + load.service_us)
    over = np.searchsorted(ends, load.arrival_us, "right")
    return int((np.arange(1, len(ends) + 1) - over).max(initial=1))


def try_size(
    size: Size,
    loads: Sequence[Workload],
    scenario: Scenario,
    policy: PolicySettings,
    *,
    floors: Sequence[FloorSchedule],
    progress: Progress | None,
) -> SizeOutcome:
    """Return what a size costs under a policy."""
    sized = size.of(scenario)
    outcomes = [
        evaluate(load, sized, levels_of(lambda: new_policy(policy, sized), sized, floors), progress=progress)
        for load in size.slowed(loads)
    ]
    return SizeOutcome(size=size, outcome=replace(added(outcomes), policy=policy.name))


def best_size(tried: Sequence[SizeOutcome], wait_nusd_s: int) -> SizeOutcome:
    """Return the size with the lowest cost, waits included; the first of equals."""
    price = wait_nusd_s or HELD_HOUR_NUSD // 3600
    return min(tried, key=lambda one: one.outcome.objective_nusd(price))
