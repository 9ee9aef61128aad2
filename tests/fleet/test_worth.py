"""Which snapshot goes first when disk is short: by what its replica's measured wakes say it saves."""

import os
from pathlib import Path

import pytest
from tests.kept_log import KeptLog

from poorwill.compose.drivers.snapshot_value import COUNTED_US, snapshot_worth, value_by_ledger
from poorwill.compose.served.resources import fleet_resources
from poorwill.core.machine.lifecycle import State
from poorwill.core.settings import EngineSettings, FleetSettings, ModelSettings, ParkSettings, ReplicaSettings
from poorwill.core.words import ReplicaId, Tier
from poorwill.ledger.history.recovery import WakeTime
from poorwill.tiers.frozen.driver import FrozenDriver
from poorwill.tiers.snapshots.space import Value

from .fakes import HandClock
from .house import A, B, House, S

NOW = 100 * COUNTED_US
ONE = ReplicaId("one-0")
OTHER = ReplicaId("other-0")


def wakes(tier: Tier, lasted_s: float, *, count: int = 1, ago_us: int = 0, replica=ONE):
    lasted_us = int(lasted_s * S)
    return [WakeTime(replica=replica, from_tier=tier, ended_us=NOW - ago_us, lasted_us=lasted_us)] * count


def worth(*measured: list[WakeTime]) -> float:
    flat = [wake for each in measured for wake in each]
    return snapshot_worth(flat, ONE, Tier.FROZEN, now_us=NOW)


def test_worth_is_the_waiting_saved_in_a_week():
    assert worth(wakes(Tier.COLD, 60, count=2), wakes(Tier.FROZEN, 10, count=3)) == 6 * 50.0


def test_old_wakes_count_only_in_length():
    long_ago = COUNTED_US + 1
    assert worth(wakes(Tier.COLD, 60, ago_us=long_ago), wakes(Tier.FROZEN, 10)) == 2 * 50.0


def test_other_wakes_do_not_count():
    known = wakes(Tier.COLD, 60), wakes(Tier.FROZEN, 10)
    others = wakes(Tier.ASLEEP, 1, count=9), wakes(Tier.FROZEN, 1, count=9, replica=OTHER)
    assert worth(*known, *others) == worth(*known)


def test_each_tier_is_measured_by_its_own_wakes():
    measured = [*wakes(Tier.COLD, 60), *wakes(Tier.FROZEN, 10), *wakes(Tier.SUSPENDED, 40)]
    saved = {tier: snapshot_worth(measured, ONE, tier, now_us=NOW) for tier in (Tier.FROZEN, Tier.SUSPENDED)}
    assert saved == {Tier.FROZEN: 4 * 50.0, Tier.SUSPENDED: 4 * 20.0}


def test_a_thaw_slower_than_a_cold_start_is_worth_nothing():
    assert worth(wakes(Tier.COLD, 5), wakes(Tier.FROZEN, 6)) == 0


@pytest.mark.parametrize(
    ("measured", "seconds"), [((), 120), (wakes(Tier.COLD, 7), 14), (wakes(Tier.FROZEN, 20), 200)]
)
def test_what_was_never_measured_is_assumed(measured, seconds: float):
    assert worth(list(measured)) == seconds


async def test_the_ledger_of_a_fleet_tells_the_worth_as_it_grows(house: House):
    for name in (A, B):
        house.model(name)
    path = str(house.directory / "ledger.sqlite")
    a, b = ReplicaId("a-0"), ReplicaId("b-0")
    value = value_by_ledger(path, priorities={a: 2, b: 0}, clock=house.clock, log=house.log)

    def weigh(replica: ReplicaId) -> float:
        return value(replica, Tier.FROZEN).worth

    async with house.open():
        for name in (A, B):
            door = house.rooms[name].cold.wake_door
            door.shut()
            house.start(house.serve(name))
            await door.reached()
            await house.pass_time(20)
            door.open.set()
            await house.until(name, State.READY)
        await house.settle()
        assert (weigh(a), weigh(b)) == pytest.approx((40, 40), rel=1e-5)
        await house.pass_time(60)
        await house.serve(A)
        await house.settle()
        assert (weigh(a), weigh(b)) == pytest.approx((60, 40), rel=1e-5)
    assert value(a, Tier.FROZEN).priority == 2
    assert value(ReplicaId("stranger-0"), Tier.FROZEN).priority < value(b, Tier.FROZEN).priority


async def test_a_ledger_that_cannot_be_read_makes_all_alike(tmp_path):
    log = KeptLog()
    priorities = {ONE: 1, OTHER: 1}
    weigh = value_by_ledger(str(tmp_path / "none"), priorities=priorities, clock=HandClock(), log=log)
    assert weigh(ONE, Tier.FROZEN) == weigh(OTHER, Tier.FROZEN) == Value(priority=1)


async def test_serve_weighs_frozen_snapshots_by_its_ledger(tmp_path: Path):
    park = ParkSettings(ladder=(Tier.FROZEN, Tier.COLD))
    model = ModelSettings(
        name=A, engine=EngineSettings(kind="toy"), replica=ReplicaSettings(model=A, park=park), priority=3
    )
    settings = FleetSettings(directory=str(tmp_path), models=(model,))
    env = {"PATH": os.defpath, "HOME": str(Path.home())}
    async with fleet_resources(settings, env=env, log=KeptLog()) as own:
        driver = own.fleet_drivers.drivers.get(Tier.FROZEN)
        if driver is None:
            pytest.skip(f"frozen does not work here: {own.fleet_drivers.broken[Tier.FROZEN]}")
        assert isinstance(driver, FrozenDriver)
        assert driver.space.value(ReplicaId("a-0"), Tier.FROZEN) == Value(priority=3, worth=120)
        assert {store.tier for store in driver.space.stores} == {Tier.FROZEN, Tier.SUSPENDED}
        assert driver.store in driver.space.stores, "it must know which images are in use"
