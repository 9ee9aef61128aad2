"""What policies reckon with if the replicas of a model are rented at different rates."""

import pytest

from poorwill.compose.plans import price_in_force
from poorwill.core.settings import (
    EngineSettings,
    ModelSettings,
    RateSettings,
    ReplicaSettings,
    ReplicasSettings,
)
from poorwill.core.words import ModelName, ReplicaId, Tier

M = ModelName("m")


def price(most: int, *rates: RateSettings):
    model = ModelSettings(
        name=M,
        engine=EngineSettings(kind="vllm"),
        replica=ReplicaSettings(model=M, max_concurrency=4),
        replicas=ReplicasSettings(most=most),
    )
    return price_in_force(model, rates, 10)


def rate(replica: str | None, nusd: int, **more) -> RateSettings:
    return RateSettings(replica=None if replica is None else ReplicaId(replica), active_nusd_h=nusd, **more)


def test_a_rate_of_each_replica_counts():
    mixed = price(4, rate(None, 100), rate("m-0", 300, parked_nusd_h={Tier.FROZEN: 40}), rate("m-3", 500))
    assert mixed.active_nusd_h == (300 + 100 + 100 + 500) // 4
    assert mixed.parked_nusd_h == {Tier.FROZEN: 10}


def test_one_rate_is_taken_as_it_is():
    for most in (1, 3):
        found = price(most, rate(None, 100, increment_us=60, minimum_us=600, storage_nusd_gb_month=7))
        assert (found.active_nusd_h, found.increment_us, found.minimum_us) == (100, 60, 600)
        assert found.storage_nusd_gb_month == 7


@pytest.mark.parametrize("replica", ["m-0", "m-1"])
def test_the_coarsest_meter_counts(replica):
    found = price(2, rate(None, 100), rate(replica, 100, increment_us=3_600_000_000))
    assert found.increment_us == 3_600_000_000
