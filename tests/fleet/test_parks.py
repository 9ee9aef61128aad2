"""From idle to parked: after the last completion, never with demand, down the ladder, and at the end."""

import asyncio
from dataclasses import dataclass

import pytest

from poorwill.core.errors import ErrorCode, RequestFault, TryLater
from poorwill.core.machine.lifecycle import State
from poorwill.core.policy import Floor
from poorwill.core.ports.driver import DriverError
from poorwill.core.settings import ParkSettings
from poorwill.core.words import Tier

from .house import A, House, S


async def test_idle_is_counted_from_the_last_completion(house: House):
    house.model()
    async with house.open():
        first = await house.lease()
        second = await house.lease()
        await house.pass_time(20)
        house.give_back(first)
        await house.pass_time(100)
        assert house.state() is State.READY, "a request is in flight"
        house.give_back(second)
        await house.pass_time(29)
        assert house.state() is State.READY
        await house.pass_time(1.1)
        assert (house.state(), house.tier()) == (State.PARKED, Tier.FROZEN)


async def test_a_long_gap_goes_down_the_ladder(house: House):
    room = house.model(ladder=(Tier.ASLEEP, Tier.FROZEN, Tier.COLD), idle_s=(10, 60, 600))
    async with house.open():
        await house.serve()
        await house.pass_time(11)
        assert house.tier() is Tier.ASLEEP and house.world.asleep
        await house.pass_time(50)
        assert house.tier() is Tier.FROZEN and not house.world.processes
        assert list(house.world.snapshots)
        await house.pass_time(540)
        assert house.tier() is Tier.COLD and not house.world.snapshots
        assert room.drivers[Tier.FROZEN].discarded
    assert [c for c in house.causes() if c.startswith("parked.")] == [
        "parked.cold",
        "parked.asleep",
        "parked.frozen",
        "parked.cold",
    ]


async def test_an_unreachable_tier_is_passed_over(house: House):
    room = house.model(ladder=(Tier.ASLEEP, Tier.FROZEN, Tier.COLD), idle_s=(10, 60, 600))
    room.frozen.no_way_down = True
    async with house.open():
        await house.serve()
        await house.pass_time(300)
        assert house.tier() is Tier.ASLEEP and house.world.asleep
        tries = len(house.rows("SELECT * FROM parks WHERE NOT ok"))
        assert 2 <= tries <= 4, "tried again, ever later"
        await house.pass_time(600)
        assert house.tier() is Tier.COLD and not house.world.processes


async def test_a_sleeping_engine_that_dies_is_noticed(house: House):
    house.model(ladder=(Tier.ASLEEP, Tier.COLD), idle_s=(10, 600))
    async with house.open():
        await house.serve()
        await house.pass_time(80)
        assert house.tier() is Tier.ASLEEP
        house.world.end(house.world.of("a-0")[0].pid, "out of memory")
        await house.settle()
        assert (house.state(), house.tier()) == (State.PARKED, Tier.COLD)
        assert house.unit().running is None and house.unit().parked is None
        await house.serve()


async def test_a_sleeping_engine_wakes_without_a_start(house: House):
    room = house.model(ladder=(Tier.ASLEEP, Tier.COLD), idle_s=(10, 600))
    async with house.open():
        await house.serve()
        pid = house.world.of("a-0")[0].pid
        await house.pass_time(11)
        await house.serve()
        assert [running.pid for running in house.world.of("a-0")] == [pid]
        assert room.cold.wake_door.passed == 1


async def test_demand_cancels_a_drain(house: House):
    house.model()
    async with house.open():
        lease = await house.lease()
        assert house.fleet is not None
        parking = house.start(_refused(house.fleet.view.park(A, None)))
        await house.until(A, State.DRAINING)
        assert house.claim() is None, "a drain grants no more leases"
        again = await house.lease()
        assert house.state() is State.READY
        await parking
        house.give_back(lease)
        house.give_back(again)
        assert house.state() is State.READY
    assert "drain" in house.causes() and "park" not in house.causes()


async def test_an_operator_is_told_of_the_floor(house: House):
    room = house.model()
    room.floor = Until(Floor(required=True, until_us=None, name="office"))
    async with house.open():
        await house.serve()
        await _refused(
            house.fleet.view.park(A, None), r"its floor \(office\) holds; to park it, change `floor`"
        )


async def _refused(work, match: str = "stays ready") -> None:
    with pytest.raises(TryLater, match=match) as caught:
        await work
    assert caught.value.code is ErrorCode.DRAINING


async def test_a_drain_ends_with_its_last_lease(house: House):
    house.model()
    async with house.open():
        lease = await house.lease()
        assert house.fleet is not None
        parking = house.start(house.fleet.view.park(A, None))
        await house.until(A, State.DRAINING)
        house.give_back(lease)
        await parking
        assert (house.state(), house.tier()) == (State.PARKED, Tier.FROZEN)


async def test_a_drain_deadline_cuts_requests(house: House):
    room = house.model(park=ParkSettings(drain_us=20 * S))
    async with house.open():
        lease = await house.lease()
        assert house.fleet is not None
        parking = house.start(house.fleet.view.park(A, Tier.COLD))
        await house.until(A, State.DRAINING)
        await house.pass_time(19)
        assert not house.connections.cuts
        await house.pass_time(2)
        await parking
        assert [port for port, _ in house.connections.cuts] == [room.engine.port]
        house.give_back(lease)  # the gateway gives back what was cut
        assert (house.unit().replica.load.in_flight, house.state()) == (0, State.PARKED)


async def test_connections_are_closed_before_the_driver_parks(house: House):
    room = house.model()
    room.frozen.park_door.shut()
    async with house.open():
        await house.serve()
        await house.pass_time(31)
        await room.frozen.park_door.reached()
        assert house.connections.closed == [room.engine.port]
        room.frozen.park_door.open.set()
        await house.until(A, State.PARKED)


async def test_demand_in_a_park_wakes_after_it(house: House):
    room = house.model()
    room.frozen.park_door.shut()
    async with house.open():
        await house.serve()
        await house.pass_time(31)
        await room.frozen.park_door.reached()
        held = house.hold()
        assert house.state() is State.PARKING
        room.frozen.park_door.open.set()
        house.give_back(await held.lease())
        assert room.frozen.wake_door.passed == 1


async def test_a_harmless_failure_parks_colder(house: House):
    room = house.model()
    room.frozen.park_door.mistakes.append(DriverError("no permission to dump"))
    async with house.open():
        await house.serve()
        await house.pass_time(31)
        assert (house.state(), house.tier()) == (State.PARKED, Tier.COLD)
    assert house.rows("SELECT to_tier, ok FROM parks ORDER BY id") == [("frozen", 0), ("cold", 1)]


async def test_a_failed_park_serves_those_held(house: House):
    room = house.model()
    async with house.open():
        await house.serve()
        room.frozen.park_door.shut()
        await house.pass_time(31)
        await room.frozen.park_door.reached()
        held = house.hold()
        room.frozen.park_door.mistakes.append(DriverError("no permission to dump"))
        room.frozen.park_door.open.set()
        lease = await held.lease()
        assert room.cold.wake_door.passed == 1, "the engine that is there serves"
        house.give_back(lease)
        await house.pass_time(100)
        assert house.state() is State.PARKED


async def test_a_park_that_lost_its_engine_is_cold(house: House):
    room = house.model()
    async with house.open():
        await house.serve()
        room.frozen.park_door.shut()
        await house.pass_time(31)
        await room.frozen.park_door.reached()
        house.world.processes.clear()
        room.frozen.park_door.open.set()
        await house.until(A, State.PARKED)
        assert house.tier() is Tier.COLD
        await house.serve()


async def test_a_park_that_takes_too_long_has_failed(house: House):
    room = house.model(park=ParkSettings(drain_us=20 * S, limit_us=50_000))
    room.frozen.park_door.shut()
    async with house.open():
        await house.serve()
        await house.pass_time(31)
        await house.until(A, State.PARKED)
        assert room.frozen.park_door.cancelled == 1
    assert house.rows("SELECT to_tier, ok, why FROM parks ORDER BY id")[0] == (
        "frozen",
        0,
        "not parked in 0.05 s",
    )


async def test_a_lost_model_file_lets_engines_stop(house: House):
    house.model(ladder=(Tier.COLD,))
    async with house.open():
        await house.serve()
        house.world.weights_exist = False
        await house.pass_time(31)
        assert house.state() is State.PARKED and not house.world.processes


async def test_an_unkillable_engine_stops_no_fleet(house: House):
    room = house.model()
    house.expected_errors = ("cannot end an engine",)
    async with house.open():
        await house.serve()
        room.frozen.park_door.mistakes.append(DriverError("dump failed"))
        room.engine.ready_door.mistakes.append(DriverError("does not answer"))
        house.world.kill_mistakes.append(DriverError("hangs inside the kernel"))
        await house.pass_time(31)
        assert (house.state(), house.tier()) == (State.PARKED, Tier.COLD)
        house.world.processes.clear()


async def test_an_operator_wakes_and_parks(house: House):
    house.model()
    async with house.open():
        assert house.fleet is not None
        view = house.fleet.view
        await view.wake(A)
        assert view.status()[0].state == "ready"
        await view.wake(A)
        await house.pass_time(20)
        assert house.state() is State.READY, "the linger counts from the wake"
        await view.park(A, Tier.COLD)
        status = view.status()[0]
        assert (status.state, status.tier, status.pid) == ("parked", Tier.COLD, None)
        await view.park(A, None)
        with pytest.raises(RequestFault, match="cannot be parked"):
            await view.park(A, Tier.SUSPENDED)
        with pytest.raises(RequestFault):
            await view.wake("nosuch")  # type: ignore[arg-type]
    assert house.rows("SELECT asked_by, why FROM wakes") == [("operator", "operator")]


@dataclass(frozen=True)
class Until:
    """A floor that holds, or not, until an instant."""

    floor: Floor

    def at(self, now_us: int) -> Floor:
        return self.floor


@pytest.mark.parametrize(
    ("required", "floor_s", "parks_in_s"),
    [(False, None, 30), (False, 3600, 30), (False, 10, None), (True, 3600, None)],
)
async def test_status_says_when_it_parks(
    house: House, required: bool, floor_s: int | None, parks_in_s: int | None
):
    room = house.model()
    until_us = None if floor_s is None else house.clock.now_us() + floor_s * S
    room.floor = Until(Floor(required=required, until_us=until_us, name="office"))
    async with house.open():
        assert house.fleet is not None
        await house.fleet.view.wake(A)
        at_us = house.fleet.view.status()[0].parks_at_us
        told = None if at_us is None else round((at_us - house.clock.now_us()) / S)
        assert told == parks_in_s


async def test_an_operator_is_told_why_a_wake_failed(house: House):
    room = house.model()
    room.cold.wake_door.mistakes.append(DriverError("no such device"))
    async with house.open():
        assert house.fleet is not None
        with pytest.raises(TryLater, match="no such device"):
            await house.fleet.view.wake(A)
        await house.fleet.view.wake(A)
        assert house.state() is State.READY, "an operator need not wait for the back-off"


async def test_an_operator_who_leaves_leaves_the_wake_alone(house: House):
    room = house.model()
    room.cold.wake_door.shut()
    async with house.open():
        assert house.fleet is not None
        asking = house.start(house.fleet.view.wake(A))
        await room.cold.wake_door.reached()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert not house.unit().waiters
        room.cold.wake_door.open.set()
        await house.until(A, State.READY)


async def test_an_operator_who_leaves_leaves_the_park_alone(house: House):
    room = house.model()
    room.frozen.park_door.shut()
    async with house.open():
        await house.serve()
        assert house.fleet is not None
        asking = house.start(house.fleet.view.park(A, None))
        await room.frozen.park_door.reached()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert not house.unit().waiters
        room.frozen.park_door.open.set()
        await house.until(A, State.PARKED)


async def test_a_failed_park_is_no_engine_death(house: House):
    room = house.model()
    async with house.open():
        await house.serve()
        await house.settle()
        room.engine.probe_door.mistakes.append(DriverError("no answer"))
        room.engine.ready_door.mistakes.append(DriverError("no answer"))
        await house.pass_time(31)
        assert (house.state(), house.tier()) == (State.PARKED, Tier.COLD)
    assert not house.rows("SELECT * FROM notes WHERE kind = 'engine_exited'")


async def test_a_new_engine_is_not_compared(house: House):
    room = house.model(ladder=(Tier.HIBERNATED, Tier.COLD), idle_s=(30, 300))
    room.engine.answers.extend(["before the park", "after it"])
    async with house.open():
        await house.serve()
        await house.pass_time(60)
        assert (house.state(), house.tier()) == (State.PARKED, Tier.HIBERNATED)
        room.engine.answer = "something else"
        await house.serve()
        assert house.state() is State.READY
    assert len(room.engine.answers) == 2, "nobody asked"
