"""The planner and a real fleet find the same spans for the same trace, to the microsecond."""

import itertools
from zlib import crc32

import numpy as np
import pytest
from tests.property.worlds import Shifts

from poorwill.core.policy import NoFloor
from poorwill.core.settings import PolicySettings
from poorwill.core.words import SECOND_US, Tier
from poorwill.planner.simulation.evaluate import levels_of, new_policy
from poorwill.planner.simulation.scenario import Scenario, TierTimes
from poorwill.planner.simulation.simulate import simulate

from .fakes import START
from .virtual_fleet import virtual_fleet

S = SECOND_US
FROZEN = TierTimes(
    tier=Tier.FROZEN, wake_us=(5 * S, 9 * S + 7, 4 * S), park_us=3 * S + 1, parked_nusd_h=30_000_000
)
COLD = TierTimes(tier=Tier.COLD, wake_us=(60 * S, 83 * S + 3), park_us=2 * S, parked_nusd_h=0)
POLICIES = {
    "break-even": PolicySettings(name="break-even", wait_nusd_s=300_000),
    "fixed": PolicySettings(name="fixed", idle_us=45 * S, rungs_us={Tier.COLD: 400 * S}),
    "never parks": PolicySettings(name="fixed"),
    "ladder": PolicySettings(name="ladder", wait_nusd_s=300_000),
    "adaptive": PolicySettings(name="adaptive", wait_nusd_s=300_000),
    "shadow": PolicySettings(name="adaptive", wait_nusd_s=300_000, shadow="ladder"),
}


def trace(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Bursts, pauses that are longer than a linger, and pauses that reach the end of the ladder."""
    rng = np.random.default_rng(seed)
    longest = rng.choice([3 * S, 100 * S, 3000 * S], 150, p=[0.6, 0.25, 0.15])
    gaps = rng.integers(1, longest)
    return np.cumsum(gaps), rng.integers(S // 10, 20 * S, 150)


def comparable(spans: list[tuple[int, str]], ends_us: int) -> list[tuple[int, str]]:
    """Spans with the phases of a wake as one, and without those that took no time."""
    whole = [(at, cause.partition(".")[0] if cause.startswith("wake") else cause) for at, cause in spans]
    inside = [*(span for span in whole if span[0] < ends_us), (ends_us, "")]
    lasting = [span for span, after in itertools.pairwise(inside) if after[0] > span[0]]
    return [span for before, span in itertools.pairwise([(0, ""), *lasting]) if span[1] != before[1]]


@pytest.mark.parametrize("limit", [0, 2])
@pytest.mark.parametrize("bridges", [False, True], ids=["holds", "bridges"])
@pytest.mark.parametrize("floor", [NoFloor(), Shifts(2000 * S)], ids=["no floor", "floor"])
@pytest.mark.parametrize("name", POLICIES)
async def test_fleet_and_planner_agree(name, floor, bridges, limit):
    arrivals, services = trace(crc32(f"{name} {bridges} {limit}".encode()))
    [spans] = await agree(name, [floor], arrivals, services, bridges=bridges, limit=limit)
    assert len(spans) > 50


@pytest.mark.parametrize(("slots", "bridges"), [(1, False), (2, False), (2, True)])
@pytest.mark.parametrize("name", POLICIES)
async def test_they_agree_on_three_replicas(name, bridges, slots):
    arrivals, services = trace(crc32(f"{name} {bridges} {slots}".encode()))
    floors = [Shifts(2000 * S), NoFloor(), NoFloor()]
    replicas = await agree(name, floors, arrivals // 4, services, bridges=bridges, limit=slots)
    assert all(len(spans) > 5 for spans in replicas[: 2 if bridges else 3])
    assert sum(map(len, replicas)) > 60


async def agree(name, floors, arrivals, services, *, bridges, limit) -> list[list[tuple[int, str]]]:
    """Return the spans of each replica, in which fleet and planner agree."""
    scenario = Scenario(
        span_us=int(arrivals[-1]) + 1000 * S,
        active_nusd_h=3_600_000_000,
        tiers=(FROZEN, COLD),
        replicas=len(floors),
        max_concurrency=limit,
        wait_nusd_s=POLICIES[name].wait_nusd_s,
        origin_us=START,
    )

    def levels():
        return levels_of(lambda: new_policy(POLICIES[name], scenario), scenario, floors)

    timelines: list[list[tuple[int, str]]] = [[] for _ in floors]
    (policy, floor), *others = levels()
    simulate(
        arrivals,
        services,
        scenario,
        policy,
        floor=floor,
        others=others,
        timelines=timelines,
        bridged=[] if bridges else None,
    )
    async with virtual_fleet(scenario, levels(), bridges=bridges) as fleet:
        await fleet.replay(arrivals.tolist(), services.tolist(), span_us=scenario.span_us)
        real = fleet.spans()
    ends_us = START + scenario.span_us
    found = [comparable(spans, ends_us) for spans in real]
    assert found == [comparable(spans, ends_us) for spans in timelines]
    return found
