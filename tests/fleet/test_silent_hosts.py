"""A host that falls silent: its time is unobserved, and what comes back is adopted or is not."""

from collections.abc import Callable

import pytest

from poorwill.core.launch import Running
from poorwill.core.machine.lifecycle import State
from poorwill.core.words import Tier

from .house import A, House


async def silence(house: House) -> tuple[Running, Callable[[], None]]:
    """Have the host of the one replica fall silent; return what ran there, and what ends the silence."""
    await house.serve()
    (running,) = house.world.of("a-0")
    await house.settle()
    back = house.world.fall_silent(running)
    await house.until(A, State.PARKED)
    await house.settle()
    return running, back


async def test_silent_time_is_unobserved_then_goes_on(house: House):
    room = house.model()
    async with house.open():
        running, back = await silence(house)
        assert house.connections.sent_back == [9000] and house.causes()[-1] == "unobserved"
        await house.pass_time(3)
        assert house.claim() is None and not house.world.killed
        back()
        await house.until(A, State.READY)
        await house.serve()
        assert house.world.of("a-0") == [running] and room.cold.wake_door.passed == 1
        await house.settle()
        assert house.causes()[-4:] == ["unobserved", "linger", "serving", "linger"]
        kinds = [kind for (kind,) in house.rows("SELECT kind FROM notes WHERE replica = 'a-0'")]
        assert kinds.count("host_silent") == kinds.count("adopted") == 1
    house.check_tiling()


async def test_demand_meanwhile_wakes_it_elsewhere(house: House):
    room = house.model()
    async with house.open():
        running, back = await silence(house)
        del house.world.processes[running.pid]  # on the silent host, not where the next one starts
        await house.serve()
        assert room.cold.wake_door.passed == 2
        back()
        await house.settle()
        assert house.state() is State.READY and house.world.killed == []
    house.check_tiling()


async def test_a_host_back_without_its_engine(house: House):
    house.model()
    async with house.open():
        running, back = await silence(house)
        del house.world.processes[running.pid]
        back()
        await house.settle()
        assert house.state() is State.PARKED and house.causes()[-2:] == ["unobserved", "parked.cold"]
        await house.serve()
    house.check_tiling()


async def test_a_host_that_is_silent_twice(house: House):
    house.model()
    async with house.open():
        running, back = await silence(house)
        ready = house.rooms[A].engine.ready_door
        ready.shut()
        back()
        await ready.reached()
        again = house.world.fall_silent(running)
        ready.mistakes.append(house.world.silent[running.pid])
        ready.open.set()
        await house.settle()
        assert house.causes()[-1] == "unobserved" and house.world.killed == []
        again()
        await house.until(A, State.READY)
        assert house.world.of("a-0") == [running]


async def test_a_sweep_leaves_what_is_out_of_sight(house: House):
    house.model()
    async with house.open():
        running, back = await silence(house)
        ready = house.rooms[A].engine.ready_door
        ready.shut()
        back()
        await ready.reached()
        await house.sweeps.one()
        ready.open.set()
        await house.until(A, State.READY)
        assert house.world.of("a-0") == [running] and house.world.killed == []


async def test_what_slept_sleeps_on(house: House):
    room = house.model(ladder=(Tier.ASLEEP, Tier.COLD))
    async with house.open():
        await house.serve()
        await house.pass_time(31)
        (running,) = house.world.of("a-0")
        assert (house.state(), house.tier()) == (State.PARKED, Tier.ASLEEP)
        back = house.world.fall_silent(running)
        await house.settle()
        assert house.causes()[-1] == "unobserved" and house.unit().running is None
        back()
        await house.settle()
        assert (house.tier(), house.causes()[-1]) == (Tier.ASLEEP, "parked.asleep")
        await house.serve()
        assert house.world.of("a-0") == [running] and room.cold.wake_door.passed == 1


@pytest.mark.parametrize("sleeps", [False, True], ids=["serving", "asleep"])
async def test_silent_as_poorwill_restarts(house: House, sleeps: bool):
    house.model(ladder=(Tier.ASLEEP, Tier.COLD))
    async with house.open():
        await house.serve()
        await house.pass_time(31 if sleeps else 1)
        (running,) = house.world.of("a-0")
        before = house.causes()
    back = house.world.fall_silent(running)
    async with house.open():
        assert house.state() is State.PARKED and house.claim() is None
        await house.sweeps.one()
        assert house.causes() == [*before, "unobserved"]
        back()
        await house.until(A, State.PARKED if sleeps else State.READY)
        await house.settle()
        assert house.causes()[len(before) :] == ["unobserved", "parked.asleep" if sleeps else "linger"]
        await house.serve()
        assert house.world.of("a-0") == [running] and house.world.killed == []


async def test_silent_over_two_restarts(house: House):
    house.model()
    async with house.open():
        await house.serve()
        (running,) = house.world.of("a-0")
    back = house.world.fall_silent(running)
    for _ in range(2):
        async with house.open():
            await house.settle()
    assert house.causes().count("unobserved") == 1
    async with house.open():
        back()
        await house.until(A, State.READY)
        assert house.world.of("a-0") == [running]


async def test_dead_when_its_host_is_back(house: House):
    house.model()
    async with house.open():
        await house.serve()
        (running,) = house.world.of("a-0")
    back = house.world.fall_silent(running)
    async with house.open():
        house.world.end(running.pid)
        back()
        await house.settle()
        assert house.state() is State.PARKED and house.causes()[-2:] == ["unobserved", "parked.cold"]
        await house.serve()


async def test_a_park_that_meets_silence(house: House):
    room = house.model()
    async with house.open():
        await house.serve()
        (running,) = house.world.of("a-0")
        room.frozen.park_door.shut()
        await house.pass_time(31)
        await room.frozen.park_door.reached()
        back = house.world.fall_silent(running)
        room.frozen.park_door.mistakes.append(house.world.silent[running.pid])
        room.frozen.park_door.open.set()
        await house.until(A, State.PARKED)
        await house.settle()
        assert house.causes()[-1] == "unobserved"
        back()
        await house.until(A, State.READY)
        assert house.world.of("a-0") == [running] and house.world.killed == []


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "gone"])
async def test_an_image_on_a_silent_host_is_kept(house: House, kept: bool):
    room = house.model()
    house.world.images_on = "x"
    async with house.open():
        await house.serve()
        await house.pass_time(31)
        assert house.tier() is Tier.FROZEN
    house.world.unseen = True
    async with house.open():
        await house.sweeps.one()
        assert (house.tier(), house.causes()[-1]) == (Tier.FROZEN, "parked.frozen")
        assert house.rows("SELECT * FROM notes WHERE kind IN ('orphan', 'swept', 'image_lost')") == []
        house.world.unseen = False
        if not kept:
            house.world.snapshots.clear()
        await house.sweeps.one()
        assert house.tier() is (Tier.FROZEN if kept else Tier.COLD)
        await house.serve()
        assert (room.frozen.wake_door.passed, room.cold.wake_door.passed) == ((1, 1) if kept else (0, 2))
    house.check_tiling()
