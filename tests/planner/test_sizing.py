"""How many replicas a plan says there should be, and how many requests at once on each."""

from pathlib import Path

import numpy as np
import pytest
from tests.planner import units

from poorwill.core.errors import RequestFault
from poorwill.core.words import SECOND_US, Tier
from poorwill.planner.simulation.clairvoyant import clairvoyant, clairvoyant_levels
from poorwill.planner.simulation.evaluate import Workload, evaluate, levels_of
from poorwill.planner.simulation.scenario import Limit, Scenario, TierTimes
from poorwill.planner.sizing import Size, sizes_to_try
from poorwill.policies import fixed_idle

S = SECOND_US
COLD = TierTimes(tier=Tier.COLD, wake_us=(0,), park_us=0, parked_nusd_h=0)


def load(*requests: tuple[int, int]) -> Workload:
    begin, took = zip(*requests, strict=True)
    return Workload(
        model="m", arrival_us=np.array(begin, np.int64) * S, service_us=np.array(took, np.int64) * S
    )


def world(replicas: int, limit: int, *, wake_s: int = 0) -> Scenario:
    tier = TierTimes(tier=Tier.COLD, wake_us=(wake_s * S,), park_us=0, parked_nusd_h=0)
    return Scenario(
        span_us=1000 * S, active_nusd_h=3600, tiers=(tier,), replicas=replicas, max_concurrency=limit
    )


def priced(scenario: Scenario, requests: Workload, idle_s: int = 0):
    rule = ((Tier.COLD, idle_s * S),)
    return evaluate(requests, scenario, levels_of(lambda: fixed_idle(rule), scenario))


def test_sizes_stop_where_all_have_room():
    busy = load((0, 10), (1, 10), (2, 10), (3, 10), (4, 10))
    tried = sizes_to_try([busy], (), [Limit(requests=2), Limit(requests=5)])
    assert [(size.replicas, size.limit.requests) for size in tried] == [(1, 2), (2, 2), (3, 2), (1, 5)]


def test_no_limit_needs_no_second_replica():
    assert [size.replicas for size in sizes_to_try([load((0, 10), (1, 10))], (), [Limit()])] == [1]
    with pytest.raises(RequestFault, match="need a limit"):
        sizes_to_try([load((0, 10))], (2,), [Limit()])


def test_a_slower_limit_keeps_requests_longer():
    [slow] = Size(replicas=1, limit=Limit(requests=8, slowdown=1.5)).slowed([load((0, 10))])
    assert slow.service_us.tolist() == [15 * S]


def test_a_second_replica_takes_what_would_queue():
    both = load((0, 100), (1, 50))
    one, two = priced(world(1, 1), both), priced(world(2, 1), both)
    assert (one.waits.max_us, two.waits.max_us) == (99 * S, 0)
    assert (one.active_us, two.active_us) == (150 * S, 150 * S)
    assert (one.wakes, two.wakes) == (1, 2)


def test_replicas_that_are_not_needed_cost_nothing():
    single = load((0, 10), (100, 10))
    assert priced(world(4, 1), single).cost_nusd == priced(world(1, 1), single).cost_nusd


def test_the_yardstick_of_levels_is_a_bound():
    rng = np.random.default_rng(3)
    arrivals = np.cumsum(rng.integers(1, 12 * S, 60))
    requests = Workload(model="m", arrival_us=arrivals, service_us=rng.integers(S, 20 * S, 60))
    for replicas, limit in ((2, 2), (4, 1), (3, 2)):
        scenario = world(replicas, limit)
        best = clairvoyant_levels(requests.arrival_us, requests.service_us, scenario)
        assert len(best.waits.held_us) <= 60, "one that queued and woke a replica waited once"
        for idle_s in (0, 10, 60):
            assert best.cost_nusd <= priced(scenario, requests, idle_s).cost_nusd


def test_one_level_is_the_plain_yardstick():
    requests = load((0, 5), (20, 5), (90, 3))
    scenario = world(1, 1, wake_s=4)
    by_levels = clairvoyant_levels(requests.arrival_us, requests.service_us, scenario)
    plain = clairvoyant(requests.arrival_us, requests.service_us, scenario)
    assert (by_levels.cost_nusd, by_levels.wakes) == (plain.cost_nusd, plain.wakes)
    assert by_levels.waits.held_us.tolist() == plain.waits.held_us.tolist() == [4 * S] * 3


async def test_plan_says_how_many(plan, tmp_path: Path):
    rows = [f"{60 * minute + second},20" for minute in range(0, 60, 10) for second in range(0, 12, 3)]
    trace = tmp_path / "trace.csv"
    trace.write_text("arrival_s,service_s\n" + "\n".join(rows))
    told = await plan(
        "--trace", str(trace), "--active-usd-h", "1", "--wake-s", "5", "--wait-usd-s", "0.01",
        "--max-concurrency", "1,4:1.1", "--json",
    )  # fmt: skip
    document = units.read(told.out)
    sizes = document["sizes"]
    tried = [(one["replicas"], one["max_concurrency"]) for one in sizes]
    assert tried == [(1, 1), (2, 1), (3, 1), (4, 1), (1, 4)]
    assert document["replicas"] == 1
    [best] = [one for one in sizes if one["recommended"]]
    assert (best["replicas"], best["max_concurrency"], best["on_frontier"]) == (1, 4, True)
