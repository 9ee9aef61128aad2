"""The shutdown: fail what is held, let requests end, park, stop or leave, and be done in time."""

import asyncio

import pytest

from poorwill.core.errors import ErrorCode, TryLater
from poorwill.core.machine.lifecycle import State
from poorwill.core.settings import ParkSettings
from poorwill.core.words import Tier

from .house import House, S


@pytest.mark.parametrize(
    ("action", "tier", "processes"), [("park", Tier.FROZEN, 0), ("stop", Tier.COLD, 0), ("leave", None, 1)]
)
async def test_a_shutdown_parks_stops_or_leaves(house: House, action, tier, processes):
    house.model()
    async with house.open(on_exit=action):
        await house.serve()
    assert house.fleet is not None and not house.fleet.controller.given_up
    assert len(house.world.processes) == processes
    assert bool(house.world.snapshots) == (tier is Tier.FROZEN)


async def test_a_shutdown_that_stops_ends_a_sleeping_engine_too(house: House):
    house.model(ladder=(Tier.ASLEEP, Tier.COLD), idle_s=(10, 600))
    async with house.open(on_exit="stop"):
        await house.serve()
        await house.pass_time(11)
        assert house.world.asleep
    assert not house.world.processes


async def test_a_shutdown_refuses_requests(house: House):
    room = house.model()
    room.cold.wake_door.shut()
    async with house.open(on_exit="park"):
        held = house.hold()
        await room.cold.wake_door.reached()
        assert house.fleet is not None
        closing = house.start(house.fleet.close("park", 5 * S))
        with pytest.raises(TryLater) as caught:
            await held.lease()
        assert caught.value.code is ErrorCode.DRAINING
        with pytest.raises(TryLater) as caught:
            house.hold()
        assert caught.value.code is ErrorCode.DRAINING
        await closing
    assert not house.world.processes


@pytest.mark.parametrize("action", ["park", "leave", "stop"])
async def test_a_shutdown_waits_but_not_for_ever(house: House, action: str):
    house.model(park=ParkSettings(drain_us=3600 * S))
    async with house.open(on_exit=action, exit_us=3600 * S):
        lease = await house.lease()
        assert house.fleet is not None
        closing = house.start(house.fleet.close(action, 40 * S))
        await house.pass_time(19)
        assert not house.connections.cuts and not closing.done()
        await house.pass_time(2)
        assert len(house.connections.cuts) == 1
        await closing
        house.give_back(lease)
        assert not house.fleet.controller.given_up
        assert house.unit().replica.load.in_flight == 0
    assert bool(house.world.processes) == (action == "leave")


async def test_a_shutdown_ends_in_time(house: House):
    room = house.model()
    house.expected_errors = ("engines run on and nobody serves them",)
    async with house.open(on_exit="park", exit_us=100_000):
        await house.serve()
        room.frozen.park_door.shut()
        loop = asyncio.get_running_loop()
        began = loop.time()
    assert loop.time() - began < 2
    assert room.frozen.park_door.cancelled == 1
    assert house.fleet is not None and house.fleet.controller.given_up
    # The engine is still there, and named; the next start finds it.
    assert house.left == ["a-0: pid 100"]
    room.frozen.park_door.open.set()
    async with house.open():
        assert house.state() is State.READY
        await house.serve()
    assert "unobserved" in house.causes()


async def test_what_must_stop_is_ended_at_last(house: House):
    room = house.model()
    async with house.open(on_exit="stop", exit_us=100_000):
        await house.serve()
        room.cold.park_door.shut()
    assert house.fleet is not None and house.fleet.controller.given_up
    assert not house.world.processes and not house.left


async def test_a_second_signal_ends_the_waiting(house: House):
    house.model(park=ParkSettings(drain_us=3600 * S))
    house.expected_errors = ("engines run on and nobody serves them",)
    async with house.open(on_exit="park", exit_us=3600 * S):
        await house.lease()
        assert house.fleet is not None
        closing = house.start(house.fleet.close("park", 3600 * S))
        await house.settle()
        closing.cancel()
        await asyncio.wait([closing])
    assert house.left == ["a-0: pid 100"]
