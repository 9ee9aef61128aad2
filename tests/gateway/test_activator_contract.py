"""What the gateway counts on, held by the fleet's own activator and by the toy of these tests alike."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio.lowlevel
import pytest
from tests.fleet.house import A, House

from poorwill.compose.clock import SystemClock
from poorwill.core.errors import EngineFault, ErrorCode, RequestFault, TryLater
from poorwill.core.machine.lifecycle import State
from poorwill.core.ports.activator import HeldRequest, Lease
from poorwill.core.ports.driver import DriverError
from poorwill.core.settings import HoldSettings
from poorwill.core.words import ModelName

from .site import ToyActivator
from .toy_upstream import ToyUpstream, chat

LIMIT, PLACES = 2, 3
OTHER = ModelName("another")


class Toy:
    """The toy, woken by hand."""

    def __init__(self) -> None:
        self.upstream = ToyUpstream(script=chat, host="127.0.0.1", port=9000)
        self.activator = ToyActivator(
            clock=SystemClock.started(), ready={A: None}, limit=LIMIT, hold_limit=PLACES
        )

    async def wake(self) -> None:
        self.activator.wake(A, self.upstream)

    async def fail(self) -> None:
        self.activator.fail(EngineFault(ErrorCode.WAKE_FAILED, "it does not come up"))

    def in_flight(self) -> int:
        return len(self.activator.out)


class Real:
    """The fleet, whose engine comes up when the test says so."""

    def __init__(self, house: House) -> None:
        assert house.fleet is not None
        self.house, self.activator = house, house.fleet.activator
        self.door = house.rooms[A].cold.wake_door

    async def wake(self) -> None:
        self.door.open.set()
        await self.house.until(A, State.READY)

    async def fail(self) -> None:
        self.door.mistakes.append(DriverError("it does not come up"))
        self.door.open.set()
        await self.house.settle()

    def in_flight(self) -> int:
        return self.house.unit().replica.load.in_flight


@asynccontextmanager
async def opened(kind: str, directory: Path) -> AsyncIterator[Toy | Real]:
    if kind == "toy":
        yield Toy()
        return
    house = House(directory)
    house.model(concurrency=LIMIT, hold=HoldSettings(count=PLACES)).cold.wake_door.shut()
    async with house.open(on_exit="stop"):
        yield Real(house)


@pytest.fixture(params=["toy", "fleet"])
async def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Toy | Real]:
    async with opened(request.param, tmp_path) as case:
        yield case


def hold(fleet: Toy | Real, request: str = "r") -> HeldRequest:
    return fleet.activator.hold(A, size_bytes=10, asked_by="key", request=request)


def claimed_and_returned(fleet: Toy | Real) -> None:
    lease = fleet.activator.claim(A)
    assert lease is not None
    fleet.activator.give_back(lease)


async def turns() -> None:
    """Let every task run on until it waits."""
    for _ in range(20):
        await anyio.lowlevel.checkpoint()


async def test_a_parked_model_is_held_for(fleet: Toy | Real) -> None:
    assert fleet.activator.claim(A) is None
    held = hold(fleet)
    assert held.wake is not None
    await fleet.wake()
    lease = await held.lease()
    assert lease.model == A and lease.port and fleet.in_flight() == 1
    fleet.activator.give_back(lease)
    assert fleet.in_flight() == 0


async def test_a_ready_model_is_claimed_up_to_its_limit(fleet: Toy | Real) -> None:
    held = hold(fleet)
    await fleet.wake()
    leases = [await held.lease(), fleet.activator.claim(A)]
    assert fleet.activator.claim(A) is None and fleet.in_flight() == LIMIT
    for lease in leases:
        assert lease is not None
        fleet.activator.give_back(lease)
    assert fleet.in_flight() == 0
    claimed_and_returned(fleet)


async def test_first_come_first_served(fleet: Toy | Real) -> None:
    order: list[int] = []

    async def client(number: int, held: HeldRequest) -> Lease:
        lease = await held.lease()
        order.append(number)
        return lease

    held = [hold(fleet, f"r{number}") for number in range(PLACES)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(client(number, each)) for number, each in enumerate(held)]
        await fleet.wake()
        await turns()
        assert order == [0, 1]
        assert fleet.activator.claim(A) is None, "nobody overtakes those who wait"
        fleet.activator.give_back(tasks[0].result())
    assert order == [0, 1, 2]
    for task in tasks[1:]:
        fleet.activator.give_back(task.result())
    assert fleet.in_flight() == 0


async def test_beyond_the_places_it_is_try_later(fleet: Toy | Real) -> None:
    for number in range(PLACES):
        hold(fleet, f"r{number}")
    with pytest.raises(TryLater) as caught:
        hold(fleet, "one too many")
    assert caught.value.code is ErrorCode.HOLD_QUEUE_FULL and caught.value.retry_after_s >= 1


async def test_whoever_leaves_frees_the_place(fleet: Toy | Real) -> None:
    held = [hold(fleet, f"r{number}") for number in range(PLACES)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each.lease()) for each in held]
        await turns()
        tasks[0].cancel()
        await turns()
        tasks.append(group.create_task(hold(fleet, "in its place").lease()))
        await fleet.wake()
        await turns()
        assert [task.done() for task in tasks] == [True, True, True, False]
        fleet.activator.give_back(tasks[1].result())
    assert tasks[0].cancelled() and fleet.in_flight() == LIMIT
    for task in tasks[2:]:
        fleet.activator.give_back(task.result())


async def test_a_lease_of_the_same_tick_is_handed_back(fleet: Toy | Real) -> None:
    task = asyncio.get_running_loop().create_task(hold(fleet).lease())

    async def leave() -> None:
        while not fleet.in_flight():
            await anyio.lowlevel.checkpoint()
        assert not task.done() and task.cancel()

    await turns()
    async with asyncio.TaskGroup() as group:
        group.create_task(leave())
        await fleet.wake()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert fleet.in_flight() == 0
    claimed_and_returned(fleet)


async def test_a_wake_that_fails_fails_all_who_wait(fleet: Toy | Real) -> None:
    held = [hold(fleet, f"r{number}") for number in range(PLACES)]
    await fleet.fail()
    for each in held:
        with pytest.raises((EngineFault, TryLater)) as caught:
            await each.lease()
        assert caught.value.code is ErrorCode.WAKE_FAILED
    assert fleet.in_flight() == 0


async def test_a_model_that_nobody_serves(fleet: Toy | Real) -> None:
    with pytest.raises(RequestFault) as caught:
        fleet.activator.claim(OTHER)
    assert caught.value.code is ErrorCode.MODEL_NOT_FOUND


async def test_who_waits_is_told_how_long(fleet: Toy | Real) -> None:
    held = hold(fleet)
    notice = held.notice()
    assert notice.wake == held.wake
    assert notice.waited_us >= 0 and notice.left_us > 0
    assert fleet.activator.retry_after_s(A) >= 1
    await fleet.wake()
    fleet.activator.give_back(await held.lease())
