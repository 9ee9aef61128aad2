"""From demand to lease: one wake, in order, under a budget, whoever leaves."""

import asyncio

import pytest

from poorwill.core.errors import ErrorCode, RequestFault, TryLater
from poorwill.core.machine.inputs import Close
from poorwill.core.machine.lifecycle import State
from poorwill.core.ports.driver import DriverError, NoCapacity, SnapshotRefused
from poorwill.core.settings import HoldSettings, WakeSettings
from poorwill.core.words import Tier

from .house import A, House, S


def last_error(house: House) -> str:
    """Return what the operator is told."""
    assert house.fleet is not None
    return house.fleet.view.status()[0].last_error


async def test_a_held_request_is_granted(house: House):
    room = house.model()
    async with house.open():
        assert house.claim() is None
        lease = await house.lease()
        assert (lease.port, house.state()) == (room.engine.port, State.READY)
        house.give_back(lease)
        warm = house.claim()
        assert warm is not None and warm.generation == lease.generation
        house.give_back(warm)
    assert house.causes()[:1] == ["parked.cold"]
    assert "serving" in house.causes() and house.causes()[-1] == "linger"
    assert house.rows("SELECT ok, served, held FROM wakes") == [(1, 1, 1)]


async def test_one_wake_grants_many_in_order(house: House):
    room = house.model(concurrency=2)
    room.cold.wake_door.shut()
    order: list[int] = []

    async def client(number: int, held):
        lease = await held.lease()
        order.append(number)
        return lease

    async with house.open():
        helds = [house.hold(request=f"r{i}") for i in range(5)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(client(i, held)) for i, held in enumerate(helds)]
            await room.cold.wake_door.reached()
            room.cold.wake_door.open.set()
            await house.until(A, State.READY)
            await house.settle()
            assert order == [0, 1], "within its concurrency, and all of that at once"
            house.give_back(tasks[0].result())
            await house.settle()
            assert order == [0, 1, 2]
            assert house.claim() is None, "nobody overtakes those who wait"
            house.give_back(tasks[1].result())
            house.give_back(tasks[2].result())
            await house.settle()
            assert order == [0, 1, 2, 3, 4]
        for task in tasks[3:]:
            house.give_back(task.result())
    assert room.cold.wake_door.passed == 1
    assert len(house.rows("SELECT * FROM wakes")) == 1


async def test_without_limit_all_are_granted(house: House):
    house.model()
    async with house.open():
        helds = [house.hold(request=f"r{i}") for i in range(20)]
        leases = [await held.lease() for held in helds]
        assert house.unit().replica.load.in_flight == 20
        for lease in leases:
            house.give_back(lease)


async def test_the_wake_outlives_its_budget(house: House):
    room = house.model()
    room.cold.wake_door.shut()
    async with house.open():
        held = house.hold()
        await house.pass_time(30)
        late = house.hold(request="late")
        assert late.notice().left_us <= 30 * S, "the budget runs from the first who waits"
        await house.pass_time(31)
        for each in (held, late):
            with pytest.raises(TryLater) as caught:
                await each.lease()
            assert caught.value.code is ErrorCode.WAKE_TIMEOUT
            assert (caught.value.retry_after_s or 0) >= 1
        assert house.state() is State.WAKING
        room.cold.wake_door.open.set()
        await house.until(A, State.READY)
        lease = house.claim()
        assert lease is not None, "a retry finds it warm"
        house.give_back(lease)
        assert house.fleet is not None
        assert house.fleet.view.status()[0].wake.over_budget == 1


async def test_a_capped_wake_backs_off(house: House):
    room = house.model(wake=WakeSettings(budget_us=60 * S, cap_us=180 * S))
    room.cold.wake_door.shut()
    async with house.open():
        house.hold()
        await house.pass_time(179)
        assert house.state() is State.WAKING
        await house.pass_time(2)
        assert house.state() is State.PARKED and room.cold.wake_door.cancelled == 1
        assert not house.world.processes, "a wake that was torn down leaves no process"
        with pytest.raises(TryLater) as caught:
            house.hold()
        assert caught.value.code is ErrorCode.WAKE_FAILED
        assert (caught.value.retry_after_s or 0) >= 4
        await house.pass_time(5)
        room.cold.wake_door.open.set()
        house.give_back(await house.lease())
    assert house.causes()[:2] == ["parked.cold", "failed_wake"]


async def test_a_wake_outlives_a_client(house: House):
    room = house.model(hold=HoldSettings(count=1))
    room.cold.wake_door.shut()
    async with house.open():
        held = house.hold()
        waiting = house.start(held.lease())
        await room.cold.wake_door.reached()
        with pytest.raises(TryLater) as caught:
            house.hold(request="second")
        assert caught.value.code is ErrorCode.HOLD_QUEUE_FULL
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert not house.unit().replica.holds and not house.unit().waiting
        second = house.hold(request="second")
        room.cold.wake_door.open.set()
        house.give_back(await second.lease())
    assert room.cold.wake_door.passed == 1
    assert house.rows("SELECT served FROM wakes") == [(2,)], "it woke for both"


async def test_a_wake_outlives_its_last_client(house: House):
    room = house.model()
    room.cold.wake_door.shut()
    async with house.open():
        waiting = house.start(house.hold().lease())
        await room.cold.wake_door.reached()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await house.pass_time(100)
        assert house.state() is State.WAKING
        room.cold.wake_door.open.set()
        await house.until(A, State.READY)


@pytest.mark.parametrize("first", ["the grant", "the client"])
async def test_a_late_leaver_gives_the_lease_back(house: House, first: str):
    room = house.model()
    room.cold.wake_door.shut()
    async with house.open():
        waiting = house.start(house.hold().lease())
        await room.cold.wake_door.reached()
        await house.settle()
        unit = house.unit()

        if first == "the grant":  # the future gets its result; the task is cancelled before it sees it
            loop = asyncio.get_running_loop()
            room.engine.on_refine = lambda: loop.call_soon(waiting.cancel)
        else:  # the future is cancelled; the withdrawal is submitted only after the grant
            room.engine.on_refine = waiting.cancel
        room.cold.wake_door.open.set()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await house.until(A, State.READY)
        await house.settle()
        assert (unit.replica.load.in_flight, unit.replica.load.cause) == (0, "linger")
        assert not unit.waiting and not unit.replica.holds
        await house.pass_time(31)
        assert house.state() is State.PARKED, "nothing holds it ready"


@pytest.mark.parametrize(
    "failure", [SnapshotRefused("the kernel is another one"), DriverError("pid 7 is in use")]
)
async def test_a_failed_snapshot_starts_cold(house: House, failure: DriverError):
    room = house.model()
    async with house.open():
        await house.serve()
        await house.pass_time(31)
        assert (house.state(), house.tier()) == (State.PARKED, Tier.FROZEN)
        room.frozen.wake_door.mistakes.append(failure)
        lease = await house.lease()
        assert lease.port == room.engine.port
        house.give_back(lease)
        assert len(room.frozen.discarded) == 1 and not house.world.snapshots
    tiers = house.rows("SELECT from_tier, ok, asked_by FROM wakes ORDER BY id")
    assert tiers == [("cold", 1, "key"), ("frozen", 0, "key"), ("cold", 1, "key")]


@pytest.mark.parametrize("tier", [Tier.HIBERNATED, Tier.FROZEN])
async def test_no_room_is_one_failure_and_keeps_the_image(house: House, tier: Tier):
    """A driver says so if nothing else has room either."""
    room = house.model(ladder=(tier, Tier.COLD))
    async with house.open():
        await house.serve()
        await house.pass_time(31)
        room.drivers[tier].wake_door.mistakes.append(NoCapacity("no room for machine 1 now"))
        with pytest.raises(TryLater) as caught:
            await house.hold().lease()
        assert caught.value.code is ErrorCode.NO_CAPACITY and caught.value.retry_after_s
        assert last_error(house) == "no room for machine 1 now"
        assert (house.state(), house.tier()) == (State.PARKED, tier) and not room.drivers[tier].discarded
        await house.pass_time(60)
        house.give_back(await house.lease())
    woken = [from_tier for (from_tier,) in house.rows("SELECT from_tier FROM wakes ORDER BY id")]
    assert woken == ["cold", tier, tier]
    assert house.causes().count(f"parked.{tier}") == 2, "kept, it costs its storage"


async def test_a_wrong_answer_starts_cold(house: House):
    room = house.model()
    async with house.open():
        await house.serve()
        await house.pass_time(31)
        room.engine.answers.append("43")
        lease = await house.lease()
        assert len(house.world.of("a-0")) == 1, "the one that answered wrongly is gone"
        assert not house.world.snapshots
        house.give_back(lease)
    assert house.rows("SELECT from_tier, ok FROM wakes ORDER BY id")[1:] == [("frozen", 0), ("cold", 1)]


async def test_failed_starts_back_off_longer(house: House):
    room = house.model()
    async with house.open():
        for delay in (5, 10, 20):
            room.cold.wake_door.mistakes.append(DriverError("no such device"))
            held = house.hold()
            with pytest.raises(TryLater) as caught:
                await held.lease()
            assert caught.value.code is ErrorCode.WAKE_FAILED
            assert "no such device" not in str(caught.value), "that is not for clients"
            assert last_error(house) == "no such device"
            await house.pass_time(delay - 1)
            with pytest.raises(TryLater):
                house.hold()
            await house.pass_time(1)
        await house.serve()
        assert len(house.rows("SELECT * FROM wakes WHERE NOT ok")) == 3


async def test_a_wake_cancelled_before_its_first_step_still_reports(house: House):
    room = house.model()
    async with house.open(on_exit="park"):
        held = house.hold()
        assert house.fleet is not None
        # No await between the two: the wake's task has not begun when it is aborted.
        house.fleet.controller.submit(house.unit(), Close(action="park"))
        with pytest.raises(TryLater) as caught:
            await held.lease()
        assert caught.value.code is ErrorCode.DRAINING
        await house.until(A, State.PARKED)
        assert not room.cold.woken
    assert not house.fleet.controller.given_up
    assert house.rows("SELECT ok FROM wakes") == [(0,)]


@pytest.mark.parametrize("door", ["wake", "ready", "probe"])
async def test_an_aborted_wake_leaves_no_process(house: House, door: str):
    room = house.model()
    tier = room.frozen if door == "probe" else room.cold
    async with house.open():
        if door == "probe":
            await house.serve()
            await house.pass_time(31)
        at = {"wake": tier.wake_door, "ready": room.engine.ready_door}.get(door, room.engine.probe_door)
        at.shut()
        house.hold()
        await at.reached()
        await house.pass_time(181)
        assert house.state() is State.PARKED and house.tier() is Tier.COLD
        assert not house.world.processes and not house.world.snapshots
        assert room.engine.following == 0, "nobody reads the log any more"
        at.open.set()
        await house.pass_time(5)
        await house.serve()


async def test_a_wake_waits_for_its_engines_end(house: House):
    """However often it is cancelled: no second engine starts while the first one still ends."""
    room = house.model()
    async with house.open():
        room.engine.ready_door.shut()
        house.world.kill_door.shut()
        house.hold()
        await room.engine.ready_door.reached()
        job = house.unit().job
        assert job is not None
        for _ in range(3):
            job.cancel()
            await house.settle()
            assert not job.done() and house.world.processes
        house.world.kill_door.open.set()
        await house.until(A, State.PARKED)
        assert not house.world.processes and not house.world.kill_door.cancelled


@pytest.mark.parametrize("what", ["refine", "follow", "discard"])
async def test_helpers_may_fail_not_the_wake(house: House, what: str):
    room = house.model()
    async with house.open():
        await house.serve()
        await house.pass_time(31)
        if what == "refine":
            room.engine.refine_mistakes.append(ValueError("no such line"))
        elif what == "follow":
            room.engine.follow_mistakes.append(UnicodeDecodeError("utf-8", b"", 0, 1, "odd"))
        else:
            room.frozen.discard_mistakes.append(DriverError("busy"))
            room.frozen.wake_door.mistakes.append(SnapshotRefused("damaged"))
        await house.serve()
        assert house.state() is State.READY


async def test_a_lost_model_file_keeps_the_snapshot(house: House):
    room = house.model()
    async with house.open():
        await house.serve()
        await house.pass_time(31)
        house.world.weights_exist = False
        with pytest.raises(TryLater):
            await house.hold().lease()
        assert "no such model file" in last_error(house)
        assert (house.state(), house.tier()) == (State.PARKED, Tier.FROZEN)
        assert house.world.snapshots and not room.frozen.discarded
        house.world.weights_exist = True
        await house.pass_time(5)
        await house.serve()
        assert room.frozen.wake_door.passed == 1


async def test_an_unknown_model_is_refused_by_name(house: House):
    house.model()
    async with house.open():
        with pytest.raises(RequestFault, match="nosuch"):
            house.claim("nosuch")  # type: ignore[arg-type]


async def test_a_hold_cap_of_zero_holds_nothing_but_wakes(house: House):
    house.model(hold=HoldSettings(count=0))
    async with house.open():
        with pytest.raises(TryLater) as caught:
            house.hold()
        assert caught.value.code is ErrorCode.HOLD_QUEUE_FULL
        await house.until(A, State.READY)
        lease = house.claim()
        assert lease is not None
        house.give_back(lease)


async def test_a_dead_engine_voids_its_leases(house: House):
    house.model()
    async with house.open():
        lease = await house.lease()
        await house.pass_time(61)
        house.world.end(house.world.of("a-0")[0].pid, "out of memory")
        await house.until(A, State.PARKED)
        assert house.unit().replica.load.in_flight == 0
        house.give_back(lease)
        assert house.unit().replica.load.in_flight == 0, "a lease of an older generation counts no more"
        again = await house.lease()
        assert again.generation > lease.generation
        house.give_back(again)


async def test_an_early_death_is_a_failed_wake(house: House):
    house.model()
    async with house.open():
        await house.serve()
        house.world.end(house.world.of("a-0")[0].pid, "out of memory")
        await house.until(A, State.PARKED)
        with pytest.raises(TryLater):
            house.hold()
        assert "out of memory" in last_error(house)


async def test_an_unreapable_engine_stops_no_fleet(house: House):
    house.model()
    house.expected_errors = ("cannot end an engine",)
    async with house.open():
        await house.serve()
        await house.pass_time(61 - 32)
        house.world.kill_mistakes.append(DriverError("hangs inside the kernel"))
        house.world.end(house.world.of("a-0")[0].pid, "out of memory")
        await house.until(A, State.PARKED)
        await house.pass_time(100)
        await house.serve()
