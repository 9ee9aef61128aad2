"""Several replicas of a model in a whole fleet: as few busy as will do, and one that fails costs no other."""

import asyncio

import pytest

from poorwill.core.errors import RequestFault, TryLater
from poorwill.core.machine.lifecycle import State
from poorwill.core.ports.driver import DriverError
from poorwill.core.words import ReplicaId, Tier

from .fakes import Until, Watcher
from .house import House, S, stopped


def states(house: House) -> dict[str, State]:
    assert house.fleet is not None
    return {unit.id: unit.replica.state for unit in house.fleet.controller.units.values()}


async def test_the_fullest_first_then_another(house: House):
    house.model(concurrency=2, replicas=3)
    async with house.open():
        leases = [await house.lease(request=f"r{number}") for number in range(4)]
        assert [lease.replica for lease in leases] == ["a-0", "a-0", "a-1", "a-1"]
        assert states(house) == {"a-0": State.READY, "a-1": State.READY, "a-2": State.PARKED}
        assert len({lease.port for lease in leases}) == 2
        house.give_back(leases[0])
        house.give_back(leases[2])
        house.give_back(leases[3])
        again = house.claim()
        assert again is not None and again.replica == "a-0", "it is busy already"
        house.give_back(again)
        house.give_back(leases[1])
        last = house.claim()
        assert last is not None and last.replica == "a-0", "it was emptied last"
        house.give_back(last)
    assert house.rows("SELECT count(*), sum(ok) FROM wakes") == [(2, 2)]


async def test_whoever_is_free_first_serves(house: House):
    room = house.model(concurrency=1, replicas=2)
    async with house.open():
        first = await house.lease()
        room.cold.wake_door.shut()
        held = house.hold(request="r2")
        await room.cold.wake_door.reached()
        assert states(house) == {"a-0": State.READY, "a-1": State.WAKING}
        house.give_back(first)
        lease = await held.lease()
        assert lease.replica == "a-0", "nobody waits for the wake that began for him"
        room.cold.wake_door.open.set()
        await house.settle()
        assert states(house)["a-1"] is State.READY
        house.give_back(lease)


async def test_a_failed_wake_costs_the_others_nothing(house: House):
    room = house.model(concurrency=1, replicas=2)
    async with house.open():
        first = await house.lease()
        room.cold.wake_door.mistakes.append(DriverError("no"))
        held = house.hold(request="r2")
        await house.settle()
        assert states(house) == {"a-0": State.READY, "a-1": State.PARKED}
        assert not held.future.done()
        house.give_back(first)
        lease = await held.lease()
        assert lease.replica == "a-0"
        house.give_back(lease)


async def test_a_failed_wake_fails_over(house: House):
    room = house.model(concurrency=1, replicas=2)
    async with house.open():
        room.cold.wake_door.mistakes.append(DriverError("no"))
        lease = await house.lease()
        assert lease.replica == "a-1"
        house.give_back(lease)
        room.cold.wake_door.mistakes.extend([DriverError("no"), DriverError("no")])


async def test_one_that_dies_costs_the_others_nothing(house: House):
    house.model(concurrency=1, replicas=2)
    async with house.open():
        first, second = await house.lease(), await house.lease(request="r2")
        held = house.hold(request="r3")
        (running,) = house.world.of("a-0")
        house.world.end(running.pid)
        await house.settle()
        assert states(house)["a-1"] is State.READY
        house.give_back(second)
        lease = await held.lease()
        house.give_back(lease)
        house.give_back(first)


async def test_each_level_learns_its_own_gaps(house: House):
    room = house.model(concurrency=1, replicas=2, idle_s=(1000, 2000))
    async with house.open():
        first, second = await house.lease(), await house.lease(request="r2")
        house.give_back(second)
        await house.pass_time(10)
        house.give_back(first)
        await house.pass_time(5)
        house.give_back(await house.lease())
        policies = [unit.cell.level.policy for unit in house.fleet.controller.units.values()]
        (highs,) = (each for each in policies if each is not room.policy)
        lows = room.policy
        assert isinstance(highs, Watcher)
        assert [(end - begin) // S for begin, end in lows.observed] == [5]
        assert not highs.observed, "the second level is idle still"


async def test_a_replica_is_woken_and_parked_by_name(house: House):
    house.model(concurrency=1, replicas=2)
    async with house.open():
        assert house.fleet is not None
        await house.fleet.view.wake("a-1")
        assert states(house) == {"a-0": State.PARKED, "a-1": State.READY}
        await house.fleet.view.wake("a")
        assert states(house)["a-0"] is State.PARKED, "one of the model is ready"
        await house.fleet.view.park("a-1", Tier.COLD)
        assert set(states(house).values()) == {State.PARKED}
        with pytest.raises(RequestFault):
            await house.fleet.view.wake("a-2")


async def test_a_window_keeps_two_of_three_ready(house: House):
    room = house.model(concurrency=1, replicas=3)
    room.floor, room.floors = Until(0, begins_us=house.clock.at_us + 600 * S), 2
    async with house.open():
        await house.pass_time(599)
        assert set(states(house).values()) == {State.PARKED}
        await house.pass_time(2)
        assert sorted(states(house).values()) == [State.PARKED, State.READY, State.READY]
        leases = [await house.lease(request=f"r{number}") for number in range(3)]
        assert set(states(house).values()) == {State.READY}
        for lease in leases:
            house.give_back(lease)
        await house.pass_time(3600)
        assert sorted(states(house).values()) == [State.PARKED, State.READY, State.READY]
    assert sorted(house.rows("SELECT asked_by, why FROM wakes")) == [
        ("floor", "evening"), ("floor", "evening"), ("key", "demand")
    ]  # fmt: skip


async def test_a_limit_parks_every_replica(house: House):
    room = house.model(concurrency=1, replicas=3)
    async with house.open():
        first, second = await house.lease(), await house.lease(request="r2")
        house.give_back(second)
        house.verdict = stopped(until_us=house.clock.at_us + 3600 * S)
        assert house.guard is not None and house.fleet is not None
        await house.guard.look_again(house.fleet.controller)
        await house.settle()
        assert sorted(states(house).values()) == [State.PARKED, State.PARKED, State.READY], "one is busy"
        with pytest.raises(TryLater, match="spend"):
            house.hold(request="r3")
        house.give_back(first)
        await house.settle()
        assert set(states(house).values()) == {State.PARKED}
        assert len(room.cold.woken) == 2


async def test_a_client_that_leaves_frees_its_place(house: House):
    room = house.model(concurrency=1, replicas=2)
    async with house.open():
        first = await house.lease()
        room.cold.wake_door.shut()
        leaving = house.start(house.hold(request="r2").lease())
        staying = house.hold(request="r3")
        await house.settle()
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        house.give_back(first)
        lease = await staying.lease()
        assert lease.replica == "a-0"
        room.cold.wake_door.open.set()
        await house.settle()
        house.give_back(lease)


async def test_all_found_again_after_a_restart(house: House):
    house.model(concurrency=1, replicas=2)
    async with house.open():
        leases = [await house.lease(), await house.lease(request="r2")]
        for lease in leases:
            house.give_back(lease)
    async with house.open():
        assert set(states(house).values()) == {State.READY}
        status = house.fleet.view.status() if house.fleet else ()
        assert [each.replica for each in status] == [ReplicaId("a-0"), ReplicaId("a-1")]


async def test_nobody_is_refused_while_one_serves(house: House):
    room = house.model(concurrency=1, replicas=2)
    async with house.open():
        first = await house.lease()
        room.cold.wake_door.mistakes.append(DriverError("no"))
        held = [house.hold(request=f"r{number}") for number in range(2)]
        await house.settle()
        assert not any(each.future.done() for each in held)
        third = house.hold(request="r9")  # its replica's last wake failed a moment ago; the other one serves
        for each in (*held, third):
            house.give_back(first)
            first = await each.lease()
        house.give_back(first)


async def test_a_target_wakes_another_but_is_no_limit(house: House):
    room = house.model(target=2, replicas=2)
    async with house.open():
        leases = [await house.lease(request=f"r{number}") for number in range(2)]
        room.cold.wake_door.shut()
        held = [house.hold(request=f"h{number}") for number in range(3)]
        await room.cold.wake_door.reached()
        assert [lease.replica for lease in leases] == ["a-0", "a-0"], "they wait for another"
        room.cold.wake_door.open.set()
        leases += [await each.lease() for each in held]
        assert [lease.replica for lease in leases[2:]] == ["a-1"] * 3, "nobody else could take the third"
        more = house.claim()
        assert more is not None and more.replica == "a-0", "the one that has fewest"
        for lease in (*leases, more):
            house.give_back(lease)
