"""A running fleet follows a changed configuration; whoever is not changed notices nothing."""

import asyncio
import random

import pytest

from poorwill.core.errors import ErrorCode, PoorwillError, TryLater
from poorwill.core.machine.lifecycle import State
from poorwill.core.policy import Floor
from poorwill.core.words import ModelName, Tier

from .fakes import FakeEngine
from .house import A, B, C, House


def other_engine(house: House, name: ModelName = A) -> FakeEngine:
    """Configure a model's engine otherwise; return what it will be started by."""
    room = house.rooms[name]
    room.engine = FakeEngine(house.world, house.clock, name, room.engine.port, argv=("other",))
    return room.engine


def runs(house: House, name: ModelName = A) -> bool:
    """Whether the model's engine is the one configured now."""
    (running,) = house.world.of(f"{name}-0")
    launch = house.rooms[name].engine.launch(replica=running.replica, generation=0)
    return running.launched == launch.identity()


async def test_untouched_models_notice_nothing(house: House):
    house.model(A)
    house.model(B)
    async with house.open():
        lease = await house.lease(A)
        await house.serve(B)
        unit, engine = house.unit(A), house.world.of("a-0")
        house.model(C)
        await house.reshape(added=[C], removed=[B])
        await house.serve(C)
        await house.settle()
        assert house.unit(A) is unit and house.world.of("a-0") == engine
        assert unit.replica.load.in_flight == 1
        house.give_back(lease)
        await house.serve(A)
        assert house.world.of("a-0") == engine
        assert house.fleet and list(house.fleet.view.models()) == [A, C]
    assert house.causes(A).count("serving") == 2


async def test_removed_model_finishes_and_is_gone(house: House):
    house.model(A)
    house.model(B)
    async with house.open():
        lease = await house.lease(B)
        await house.reshape(removed=[B])
        with pytest.raises(PoorwillError) as refused:
            house.claim(B)
        assert refused.value.code is ErrorCode.MODEL_NOT_FOUND and "a" in str(refused.value)
        await house.settle()
        assert house.world.of("b-0"), "its request is not over"
        house.give_back(lease)
        await house.settle()
        assert not house.world.of("b-0")
        assert house.fleet and B not in house.fleet.controller.models
    (ended,) = house.rows("SELECT ended_us FROM lives WHERE model = 'b'")[0]
    assert ended is not None


async def test_removed_model_keeps_no_image(house: House):
    house.model(A)
    house.model(B)
    async with house.open():
        await house.serve(B)
        await house.pass_time(31)
        assert house.tier(B) is Tier.FROZEN and house.world.snapshots
        await house.reshape(removed=[B])
        await house.settle()
        assert not house.world.snapshots


async def test_who_waits_for_a_removed_model_is_told(house: House):
    house.model(A)
    room = house.model(B)
    async with house.open():
        room.cold.wake_door.shut()
        held = house.hold(B)
        waiting = asyncio.gather(held.lease(), return_exceptions=True)
        await room.cold.wake_door.reached()
        await house.reshape(removed=[B])
        (error,) = await waiting
        assert isinstance(error, TryLater) and "no longer configured" in str(error)
        await house.settle()
        assert not house.world.processes


async def test_a_model_comes_back_while_it_leaves(house: House):
    house.model(A)
    house.model(B)
    async with house.open():
        lease = await house.lease(B)
        leaving = house.unit(B)
        await house.reshape(removed=[B])
        await house.reshape(added=[B])
        assert house.unit(B) is leaving, "one engine at a time"
        house.give_back(lease)
        await house.settle()
        assert house.unit(B) is not leaving
        await house.serve(B)
        house.give_back(lease)  # late, and void
        await house.serve(B)
        assert house.unit(B).replica.load.in_flight == 0
    assert len(house.rows("SELECT id FROM lives WHERE model = 'b'")) == 2


async def test_other_engine_starts_at_the_next_wake(house: House):
    house.model(A)
    async with house.open():
        await house.serve()
        other_engine(house)
        await house.reshape(renewed=[A])
        await house.settle()
        assert (house.state(), house.tier()) == (State.PARKED, Tier.COLD)
        assert not house.world.processes and not house.world.snapshots
        await house.serve()
        assert runs(house)


async def test_drain_for_another_engine_is_firm(house: House):
    """However much is asked of the old one: who comes waits for the new one, within the wake budget."""
    house.model(A)
    async with house.open():
        first, second = await house.lease(), await house.lease()
        other_engine(house)
        await house.reshape(renewed=[A])
        await house.settle()
        assert house.state() is State.DRAINING
        late = house.start(house.hold().lease())
        house.give_back(first)
        await house.settle()
        assert house.state() is State.DRAINING and not late.done()
        house.give_back(second)
        async with asyncio.timeout(5):
            await late
        assert runs(house)


async def test_a_floor_holds_no_old_engine(house: House):
    class Always:
        def at(self, now_us: int) -> Floor:
            return Floor(required=True, until_us=None, name="always")

    house.model(A, floor=Always())
    async with house.open():
        await house.pass_time(1)
        assert house.state() is State.READY
        other_engine(house)
        await house.reshape(renewed=[A])
        await house.pass_time(2)
        assert house.state() is State.READY and runs(house)


async def test_image_of_the_old_engine_is_not_woken(house: House):
    room = house.model(A)
    async with house.open():
        await house.serve()
        await house.pass_time(31)
        assert house.tier() is Tier.FROZEN
        other_engine(house)
        await house.reshape(renewed=[A])
        await house.serve()
        assert runs(house) and room.frozen.woken == [] and not house.world.snapshots


async def test_a_wake_under_way_serves_first(house: House):
    room = house.model(A)
    async with house.open():
        room.cold.wake_door.shut()
        held = house.start(house.hold().lease())
        await room.cold.wake_door.reached()
        other_engine(house)
        await house.reshape(renewed=[A])
        room.cold.wake_door.open.set()
        async with asyncio.timeout(5):
            lease = await held
        assert not runs(house)
        house.give_back(lease)  # type: ignore[arg-type]
        await house.settle()
        assert (house.state(), house.tier()) == (State.PARKED, Tier.COLD)
        await house.serve()
        assert runs(house)


async def test_more_room_lets_in_who_waits(house: House):
    room = house.model(A, concurrency=1)
    async with house.open():
        first = await house.lease()
        engine = house.world.of("a-0")
        second = house.start(house.hold().lease())
        await house.settle()
        assert not second.done()
        house.rooms.pop(A)
        wider = house.model(A, concurrency=2)
        wider.engine, wider.drivers = room.engine, room.drivers
        await house.reshape(adjusted=[A])
        async with asyncio.timeout(5):
            lease = await second
        assert house.world.of("a-0") == engine
        house.give_back(first)
        house.give_back(lease)  # type: ignore[arg-type]
        assert house.unit().replica.load.in_flight == 0


@pytest.mark.parametrize("seed", range(12))
async def test_any_order_of_changes_and_requests(house: House, seed: int):
    """Whatever comes in whatever order: each request ends once, and the fleet is as configured last."""
    chance = random.Random(seed)
    for name in (A, B, C):
        house.model(name, concurrency=chance.choice([0, 1, 2]))
    configured = {A, B, C}
    leases, waiting = [], []
    async with house.open():
        for _ in range(60):
            name = chance.choice([A, B, C])
            what = chance.choice(["ask", "ask", "ask", "return", "return", "change", "time"])
            if what == "ask":
                waiting.append(house.start(_ask(house, name)))
            elif what == "return" and leases:
                house.give_back(leases.pop(chance.randrange(len(leases))))
            elif what == "time":
                await house.pass_time(chance.choice([1, 31, 301]))
            elif what == "change" and name not in configured:
                configured.add(name)
                await house.reshape(added=[name])
            elif what == "change" and chance.random() < 0.5:
                configured.discard(name)
                await house.reshape(removed=[name])
            elif what == "change":
                other_engine(house, name)
                await house.reshape(renewed=[name])
            if chance.random() < 0.5:
                await house.settle()
            leases += [lease for task in waiting if task.done() and (lease := task.result())]
            waiting = [task for task in waiting if not task.done()]
        await house.settle()
        while leases or waiting:
            while leases:
                house.give_back(leases.pop())
            await house.pass_time(30)
            leases += [lease for task in waiting if task.done() and (lease := task.result())]
            waiting = [task for task in waiting if not task.done()]
        await house.pass_time(60)
        assert house.fleet and set(house.fleet.controller.models) == configured
        for name in configured:
            await house.serve(name)
            assert runs(house, name)


async def _ask(house: House, name: ModelName) -> object:
    """A lease, or None if there was none to be had."""
    try:
        return house.claim(name) or await house.hold(name).lease()
    except PoorwillError as error:
        assert error.code in {
            ErrorCode.MODEL_NOT_FOUND,
            ErrorCode.DRAINING,
            ErrorCode.HOLD_QUEUE_FULL,
            ErrorCode.WAKE_FAILED,
            ErrorCode.WAKE_TIMEOUT,
        }
        return None
