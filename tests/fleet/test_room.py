"""Eviction: never a busy one, never to and fro, and nobody waits for one another."""

import asyncio
import random

import pytest

from poorwill.core.errors import ErrorCode, TryLater
from poorwill.core.machine.lifecycle import State
from poorwill.core.ports.driver import DriverError
from poorwill.core.settings import WakeSettings
from poorwill.core.words import ModelName
from poorwill.policies.placement.victims import MIN_RESIDENCE_US

from .fakes import Until
from .house import A, B, C, House, S

GB = 2**30


async def test_an_idle_replica_gives_way_to_one_that_is_wanted(house: House):
    house.memory_bytes = 10 * GB
    house.model(A, memory_bytes=6 * GB)
    house.model(B, memory_bytes=6 * GB)
    async with house.open():
        await house.serve(A)
        await house.pass_time(11)
        await house.serve(B)
        assert (house.state(A), house.state(B)) == (State.PARKED, State.READY)
    assert house.rows("SELECT why FROM spans WHERE cause = 'park'") == [("evicted for b",)]


async def test_concurrent_wakes_do_not_deadlock(house: House):
    house.memory_bytes = 10 * GB
    for name in (A, B, C):
        house.model(name, memory_bytes=6 * GB, idle_s=(12, 300))
    async with house.open():
        helds = {name: house.hold(name) for name in (A, B, C)}
        for name, held in helds.items():
            async with asyncio.timeout(5):
                lease = await held.lease()
            others = [other for other in helds if other != name]
            assert all(house.state(other) is not State.READY for other in others)
            house.give_back(lease)
            await house.pass_time(11)
    assert len(house.rows("SELECT * FROM wakes WHERE ok")) == 3


async def test_a_busy_replica_is_waited_for_not_evicted(house: House):
    house.memory_bytes = 10 * GB
    house.model(A, memory_bytes=6 * GB)
    house.model(B, memory_bytes=6 * GB)
    async with house.open():
        lease = await house.lease(A)
        await house.pass_time(11)
        held = house.hold(B)
        await house.settle()
        assert (house.state(A), house.state(B)) == (State.READY, State.WAKING)
        house.give_back(lease)
        async with asyncio.timeout(5):
            house.give_back(await held.lease())


async def test_a_replica_that_a_floor_holds_is_not_evicted(house: House):
    house.memory_bytes = 10 * GB
    room = house.model(A, memory_bytes=6 * GB)
    room.floor = Until(house.clock.at_us + 50 * S)
    house.model(B, memory_bytes=6 * GB)
    async with house.open():
        await house.until(A, State.READY)
        await house.pass_time(11)
        held = house.hold(B)
        await house.pass_time(20)
        assert (house.state(A), house.state(B)) == (State.READY, State.WAKING)
        await house.pass_time(30)
        async with asyncio.timeout(5):
            house.give_back(await held.lease())
    assert len(house.rows("SELECT * FROM wakes")) == 2, "no to and fro"


async def test_a_floor_makes_another_give_way(house: House):
    house.memory_bytes = 12 * GB
    room = house.model(A, memory_bytes=6 * GB)
    room.floor = Until(house.clock.at_us + 10**6 * S)
    house.model(B, memory_bytes=6 * GB)
    house.model(C, memory_bytes=6 * GB)
    async with house.open():
        await house.until(A, State.READY)
        await house.pass_time(1)
        await house.serve(B)
        await house.pass_time(11)
        await house.serve(C)
        states = [house.state(name) for name in (A, B, C)]
        assert states == [State.READY, State.PARKED, State.READY]


async def test_a_failed_victim_is_left_alone(house: House):
    house.memory_bytes = 10 * GB
    room = house.model(A, memory_bytes=6 * GB)
    house.model(B, memory_bytes=6 * GB)
    async with house.open(on_exit="park"):
        await house.serve(A)
        await house.pass_time(11)
        room.frozen.park_door.mistakes.extend([DriverError("no")] * 50)
        room.cold.park_door.mistakes.extend([DriverError("no")] * 50)
        house.start(_swallow(house.hold(B).lease()))
        await house.pass_time(10)
        assert house.state(A) is State.READY
        assert len(house.rows("SELECT * FROM parks")) == 2
        room.frozen.park_door.mistakes.clear()


async def test_the_seldom_wanted_gives_way(house: House):
    house.memory_bytes = 12 * GB
    for name in (A, B, C):
        house.model(name, memory_bytes=6 * GB, idle_s=(60, 300))
    async with house.open():
        for _ in range(6):  # A every 15 s
            await house.serve(A)
            await house.pass_time(15)
        await house.serve(A)
        await house.serve(B)  # the last one that was used, and never before
        await house.pass_time(11)
        await house.serve(C)
        assert (house.state(A), house.state(B)) == (State.READY, State.PARKED)
        assert len(house.unit(A).cell.level.gaps_us) == 6


async def test_what_never_fits_is_refused(house: House):
    house.memory_bytes = 10 * GB
    house.model(A, memory_bytes=6 * GB)
    house.model(B, memory_bytes=11 * GB)
    async with house.open():
        await house.serve(A)
        with pytest.raises(TryLater) as caught:
            await house.hold(B).lease()
        assert caught.value.code is ErrorCode.NO_CAPACITY
        assert house.state(A) is State.READY


async def test_small_wakes_do_not_starve_large(house: House):
    house.memory_bytes = 10 * GB
    house.model(A, memory_bytes=4 * GB)
    house.model(B, memory_bytes=10 * GB)
    house.model(C, memory_bytes=4 * GB)
    async with house.open():
        lease = await house.lease(A)
        await house.pass_time(11)
        large, small = house.hold(B), house.hold(C)
        await house.settle()
        assert house.state(C) is State.WAKING, "it would fit, but the large one came first"
        assert not house.world.of("c-0")
        house.give_back(lease)
        async with asyncio.timeout(5):
            lease = await large.lease()
        house.give_back(lease)
        await house.pass_time(11)
        async with asyncio.timeout(5):
            house.give_back(await small.lease())


async def test_an_aborted_wait_keeps_its_snapshot(house: House):
    house.memory_bytes = 10 * GB
    house.model(A, memory_bytes=6 * GB)
    house.model(B, memory_bytes=6 * GB)
    async with house.open():
        await house.serve(B)
        await house.pass_time(40)
        assert house.world.snapshots
        lease = await house.lease(A)
        house.start(_swallow(house.hold(B).lease()))
        await house.pass_time(181)
        assert (house.state(B), house.tier(B)) == (State.PARKED, "frozen")
        assert [s.replica for s in house.world.snapshots.values()] == ["b-0"]
        house.give_back(lease)
        await house.pass_time(11)
        await house.serve(B)  # it waits in no line any more


async def _swallow(work) -> None:
    try:
        await work
    except TryLater:
        pass


@pytest.mark.parametrize("seed", range(8))
async def test_any_load_fits_and_is_served(house: House, seed: int):
    random_ = random.Random(seed)
    house.memory_bytes = 10 * GB
    names = [ModelName(f"m{i}") for i in range(5)]
    for name in names:
        house.model(
            name,
            memory_bytes=random_.choice([2, 4, 6, 10]) * GB,
            priority=random_.choice([0, 0, 1]),
            idle_s=(random_.choice([5, 20, 60]), 300),
            wake=WakeSettings(budget_us=3000 * S, cap_us=3600 * S),
        )
    served = 0

    async def client(name: ModelName, seconds: int) -> None:
        nonlocal served
        lease = house.claim(name) or await house.hold(name).lease()
        await work[seconds].wait()
        house.give_back(lease)
        served += 1

    async with house.open():
        work = [asyncio.Event() for _ in range(40)]
        asked = 0
        for second in range(30):
            for _ in range(random_.choice([0, 0, 1, 2])):
                name = random_.choice(names)
                house.start(client(name, min(second + random_.randint(0, 5), 39)))
                asked += 1
            work[second].set()
            await house.pass_time(1)
            check_memory(house)
        for event in work:
            event.set()
        for _ in range(60):
            await house.pass_time(2)
            check_memory(house)
            if served == asked:
                break
        assert served == asked
    assert house.rows("SELECT count(*) FROM wakes WHERE NOT ok") == [(0,)]
    assert len(house.rows("SELECT * FROM wakes")) <= 30 * 2, "no thrash"
    check_evictions(house)


def check_evictions(house: House) -> None:
    """Nobody busy, nobody just woken, nobody of a higher priority was ever parked for another."""
    evicted = house.rows(
        "SELECT l.model, s.began_us, s.cause, s.why FROM spans s JOIN lives l ON l.id = s.life"
        " WHERE s.why LIKE 'evicted for %'"
    )
    assert evicted, "nobody gave way: the load tests nothing"
    for model, began_us, cause, why in evicted:
        assert cause == "park", "a busy one would have been drained"
        wanted = house.rooms[ModelName(str(why).removeprefix("evicted for "))]
        assert house.rooms[ModelName(str(model))].priority <= wanted.priority
        ((woken_us,),) = house.rows(
            "SELECT max(w.ended_us) FROM wakes w JOIN lives l ON l.id = w.life"
            " WHERE l.model = ? AND w.ok AND w.ended_us <= ?",
            model,
            began_us,
        )
        assert int(str(began_us)) - int(str(woken_us)) >= MIN_RESIDENCE_US


def check_memory(house: House) -> None:
    used = sum(
        house.rooms[ModelName(running.replica.removesuffix("-0"))].memory_bytes
        for running in house.world.processes.values()
    )
    assert used <= house.memory_bytes
