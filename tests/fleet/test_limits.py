"""What holds a replica ready or keeps it from waking: floors and the spend breaker."""

import asyncio

import pytest

from poorwill.core.entries import Noted
from poorwill.core.errors import ErrorCode, RequestFault, TryLater
from poorwill.core.machine.inputs import SpendChanged
from poorwill.core.machine.lifecycle import State
from poorwill.core.machine.replica import Blocked
from poorwill.core.settings import SpendSettings
from poorwill.core.spend import Standing

from .fakes import Until
from .house import A, House, S, stopped


async def test_a_floor_keeps_it_ready(house: House):
    room = house.model()
    room.floor = Until(house.clock.at_us + 3600 * S)
    async with house.open():
        await house.until(A, State.READY)
        await house.serve()
        await house.pass_time(1800)
        assert house.state() is State.READY
        assert house.fleet is not None
        with pytest.raises(TryLater, match="morning"):
            await house.fleet.view.park(A, None)
        assert house.state() is State.READY
        await house.pass_time(1801)
        assert house.state() is State.PARKED, "the floor has ended and it has long been idle"
    assert "floor" in house.causes()


async def test_a_floor_that_begins_wakes_the_replica(house: House):
    room = house.model()
    room.floor = Until(0, begins_us=house.clock.at_us + 600 * S)
    async with house.open():
        await house.pass_time(599)
        assert house.state() is State.PARKED
        await house.pass_time(2)
        assert house.state() is State.READY
    assert house.rows("SELECT asked_by, why FROM wakes") == [("floor", "evening")]


async def test_an_operator_learns_of_the_limit(house: House):
    room = house.model()
    room.cold.wake_door.shut()
    async with house.open():
        assert house.fleet is not None
        asking = house.start(_over_the_limit(house.fleet.view.wake(A)))
        await room.cold.wake_door.reached()
        until = house.clock.at_us + 3600 * S
        house.fleet.controller.submit(house.unit(), SpendChanged(blocked=Blocked(until_us=until, why="day")))
        room.cold.wake_door.open.set()
        async with asyncio.timeout(5):
            await asking
        await house.until(A, State.PARKED)


async def test_a_limit_during_a_wake_ends_it(house: House):
    room = house.model()
    room.cold.wake_door.shut()
    async with house.open():
        held = house.hold()
        await room.cold.wake_door.reached()
        until = house.clock.at_us + 3600 * S
        assert house.fleet is not None
        blocked = Blocked(until_us=until, why="day")
        house.fleet.controller.submit(house.unit(), SpendChanged(blocked=blocked))
        with pytest.raises(TryLater) as caught:
            await held.lease()
        assert caught.value.code is ErrorCode.SPEND_LIMIT
        assert 3590 <= (caught.value.retry_after_s or 0) <= 3601
        await house.until(A, State.PARKED)
        assert not house.world.processes
    assert house.rows("SELECT ok, failure FROM wakes")[0][0] == 0


async def _over_the_limit(work) -> None:
    with pytest.raises(TryLater) as caught:
        await work
    assert caught.value.code is ErrorCode.SPEND_LIMIT


async def test_a_spend_limit_can_be_lifted(house: House):
    house.model()
    async with house.open():
        lease = await house.lease()
        assert house.fleet is not None
        until = house.clock.at_us + 3600 * S
        house.fleet.controller.submit(house.unit(), SpendChanged(blocked=Blocked(until_us=until, why="day")))
        assert house.claim() is None
        with pytest.raises(TryLater) as caught:
            house.hold()
        assert caught.value.code is ErrorCode.SPEND_LIMIT
        assert 3590 <= (caught.value.retry_after_s or 0) <= 3601
        house.give_back(lease)
        await house.until(A, State.PARKED)
        house.fleet.controller.submit(house.unit(), SpendChanged(blocked=None))
        await house.serve()


async def test_a_known_limit_stops_a_floor(house: House):
    room = house.model()
    room.floor = Until(house.clock.at_us + 10**6 * S)
    house.verdict = stopped(until_us=house.clock.at_us + 3600 * S)
    async with house.open():
        await house.settle()
        assert house.state() is State.PARKED and not room.cold.woken
        assert house.fleet is not None and house.fleet.view.limits() == house.verdict.limits
        house.verdict = None
        assert house.guard is not None
        await house.guard.look_again(house.fleet.controller)
        await house.until(A, State.READY)


async def test_an_operator_lifts_a_limit(house: House):
    house.model()
    house.limits = SpendSettings(model_day_nusd={A: 0})
    async with house.open():
        assert house.fleet is not None
        view = house.fleet.view
        with pytest.raises(TryLater, match="spend limit of model"):
            await view.wake(A)
        with pytest.raises(RequestFault, match="no spend limit 'day_usd'"):
            await view.lift("day_usd", by="ann")
        lifted = await view.lift(f"model_day_usd.{A}", by="ann")
        assert lifted.standing is Standing.LIFTED
        await view.wake(A)
        await view.park(A, None)
    said = [one for one in house.entries if isinstance(one, Noted) and one.kind == "spend_lifted"]
    assert [one.detail["by"] for one in said] == ["ann"]
    async with house.open():
        assert house.fleet is not None
        await house.fleet.view.wake(A)  # a restart does not bring it back


async def test_who_lifts_a_limit_may_leave(house: House):
    house.model()
    house.limits = SpendSettings(model_day_nusd={A: 0})
    async with house.open():
        assert house.fleet is not None and house.guard is not None
        view = house.fleet.view
        lifting = house.start(view.lift(f"model_day_usd.{A}", by="ann"))
        await house.settle()
        lifting.cancel()
        await asyncio.wait([lifting])
        await view.lift(f"model_day_usd.{A}", by="bob")  # nothing is locked
        await house.guard.look_again(house.fleet.controller)
        assert [one.standing for one in view.limits()] == [Standing.LIFTED]


async def test_a_look_counts_unwritten_wakes(house: House):
    """It would give what that wake took from the limit to another one."""
    house.model()
    house.verdict = stopped(until_us=house.clock.at_us + 3600 * S)
    async with house.open():
        assert house.fleet is not None and house.guard is not None
        controller, order = house.fleet.controller, []
        recorded, look = controller.journal.ledger.record, house.guard.look

        class Slow:
            unavailable = ""

            def dropped_rows(self):
                return 0

            def post(self, entries):
                real.post(entries)

            async def record(self, entries):
                await asyncio.sleep(0)
                await recorded(entries)
                order.append("committed")

        async def looked():
            order.append("looked")
            return await look()

        real, controller.journal.ledger = controller.journal.ledger, Slow()
        house.guard.look = looked
        await house.guard.look_again(controller)
        controller.journal.ledger = real
    assert order == ["committed", "looked"]
