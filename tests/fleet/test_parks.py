"""From idle to parked: after the last completion, never with demand, down the ladder, and at the end."""

import asyncio
from dataclasses import dataclass

import pytest

from poorwill.core.errors import ErrorCode, RequestFault, TryLater
from poorwill.core.inputs import SpendChanged
from poorwill.core.lifecycle import State
from poorwill.core.policy import Floor
from poorwill.core.ports import DriverError
from poorwill.core.settings import ParkSettings
from poorwill.core.words import Tier

from .house import A, House, S


@dataclass
class Until:
    """A floor that holds until an instant, and again from another one."""

    ends_us: int
    begins_us: int | None = None

    def at(self, now_us: int) -> Floor:
        if now_us < self.ends_us:
            return Floor(required=True, until_us=self.ends_us, name="morning")
        if self.begins_us is not None and now_us >= self.begins_us:
            return Floor(required=True, until_us=None, name="evening")
        return Floor(required=False, until_us=self.begins_us)


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


async def test_a_replica_goes_down_its_ladder_as_the_gap_grows(house: House):
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


async def test_a_tier_that_cannot_be_reached_does_not_keep_the_replica_from_the_next(house: House):
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


async def test_a_request_that_arrives_while_its_replica_drains_cancels_the_park(house: House):
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


async def _refused(work) -> None:
    with pytest.raises(TryLater) as caught:
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


async def test_a_drain_that_reaches_its_deadline_cuts_what_is_in_flight(house: House):
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
        assert (house.unit().gate.in_flight, house.state()) == (0, State.PARKED)


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


async def test_a_request_that_arrives_during_a_park_is_woken_for_when_it_is_done(house: House):
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


async def test_a_park_that_fails_without_harm_falls_back_to_the_next_colder_tier(house: House):
    room = house.model()
    room.frozen.park_door.mistakes.append(DriverError("no permission to dump"))
    async with house.open():
        await house.serve()
        await house.pass_time(31)
        assert (house.state(), house.tier()) == (State.PARKED, Tier.COLD)
    assert house.rows("SELECT to_tier, ok FROM parks ORDER BY id") == [("frozen", 0), ("cold", 1)]


async def test_a_park_that_fails_while_somebody_waits_serves_them_at_once(house: House):
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


async def test_a_park_that_lost_the_engine_leaves_the_replica_cold(house: House):
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


async def test_a_model_file_that_is_gone_does_not_keep_its_engine_from_stopping(house: House):
    house.model(ladder=(Tier.COLD,))
    async with house.open():
        await house.serve()
        house.world.weights_exist = False
        await house.pass_time(31)
        assert house.state() is State.PARKED and not house.world.processes


async def test_an_engine_that_cannot_be_ended_after_a_failed_park_does_not_stop_the_fleet(
    house: House,
):
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


async def test_a_floor_keeps_the_replica_ready_and_is_paid_as_such(house: House):
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
        assert not house.unit().onlookers
        room.cold.wake_door.open.set()
        await house.until(A, State.READY)


async def test_an_operator_whose_wake_runs_into_the_spend_limit_is_told(house: House):
    room = house.model()
    room.cold.wake_door.shut()
    async with house.open():
        assert house.fleet is not None
        asking = house.start(_over_the_limit(house.fleet.view.wake(A)))
        await room.cold.wake_door.reached()
        until = house.clock.at_us + 3600 * S
        house.fleet.controller.submit(house.unit(), SpendChanged(until_us=until, why="day"))
        room.cold.wake_door.open.set()
        async with asyncio.timeout(5):
            await asking
        await house.until(A, State.PARKED)


async def _over_the_limit(work) -> None:
    with pytest.raises(TryLater) as caught:
        await work
    assert caught.value.code is ErrorCode.SPEND_LIMIT


async def test_a_spend_limit_refuses_requests_parks_and_ends_by_itself(house: House):
    house.model()
    async with house.open():
        lease = await house.lease()
        assert house.fleet is not None
        until = house.clock.at_us + 3600 * S
        house.fleet.controller.submit(house.unit(), SpendChanged(until_us=until, why="day"))
        assert house.claim() is None
        with pytest.raises(TryLater) as caught:
            house.hold()
        assert caught.value.code is ErrorCode.SPEND_LIMIT
        assert 3590 <= (caught.value.retry_after_s or 0) <= 3601
        house.give_back(lease)
        await house.until(A, State.PARKED)
        await house.pass_time(3601)
        await house.serve()


# the shutdown


@pytest.mark.parametrize(
    ("action", "tier", "processes"),
    [("park", Tier.FROZEN, 0), ("stop", Tier.COLD, 0), ("leave", None, 1)],
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


async def test_a_shutdown_fails_what_is_held_and_refuses_what_comes(house: House):
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
async def test_a_shutdown_lets_requests_finish_but_not_for_ever(house: House, action: str):
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
        assert house.unit().gate.in_flight == 0
    assert bool(house.world.processes) == (action == "leave")


async def test_a_shutdown_is_over_when_its_time_is_up_whatever_hangs(house: House):
    room = house.model()
    async with house.open(on_exit="park", exit_us=100_000):
        await house.serve()
        room.frozen.park_door.shut()
        loop = asyncio.get_running_loop()
        began = loop.time()
    assert loop.time() - began < 2
    assert room.frozen.park_door.cancelled == 1
    assert house.fleet is not None and house.fleet.controller.given_up
    # The engine is still there; the next start finds it.
    room.frozen.park_door.open.set()
    async with house.open():
        assert house.state() is State.READY
        await house.serve()
    assert "unobserved" in house.causes()
