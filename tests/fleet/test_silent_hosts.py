"""A host that falls silent: its time is unobserved, and what comes back is adopted or is not."""

import asyncio

from poorwill.core.launch import Running
from poorwill.core.machine.lifecycle import State
from poorwill.core.ports.silence import HostSilent

from .house import A, House


async def silence(house: House) -> tuple[Running, asyncio.Event]:
    """Have the host of the one replica fall silent; return what ran there, and what ends the silence."""
    await house.serve()
    (running,) = house.world.of("a-0")
    back = asyncio.Event()

    async def is_back() -> None:
        await back.wait()

    await house.settle()
    house.world.ends.pop(running.pid).set_exception(HostSilent("the host x is silent", back=is_back))
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
        back.set()
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
        back.set()
        await house.settle()
        assert house.state() is State.READY and house.world.killed == []
    house.check_tiling()


async def test_a_host_back_without_its_engine(house: House):
    house.model()
    async with house.open():
        running, back = await silence(house)
        del house.world.processes[running.pid]
        back.set()
        await house.settle()
        assert house.state() is State.PARKED and house.causes()[-2:] == ["unobserved", "parked.cold"]
        await house.serve()
    house.check_tiling()
