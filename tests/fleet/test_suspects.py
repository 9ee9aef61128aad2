"""An engine under suspicion: what counts as life, and what becomes of one that shows none."""

import asyncio
from collections.abc import Callable
from itertools import count

import pytest

from poorwill.compose.served.suspects import Patience, Suspects
from poorwill.core.machine.inputs import ParkAsked
from poorwill.core.machine.lifecycle import State
from poorwill.core.ports.activator import Lease
from poorwill.core.ports.driver import DriverError
from poorwill.core.ports.engine import UNANSWERED
from poorwill.policies.requests.silence import Suspicion

from .house import A, House

QUIET, TIMEOUTS = Suspicion.QUIET, Suspicion.TIMEOUTS
SHORT = Patience(look_s=0.01, sure_s=0.05, idle_s=0.05, still_s=0.2, deaf_s=0.1, busy_s=0.4)


def suspects(house: House, *, heard: Callable[[str, int], float] = lambda host, port: 0.0) -> Suspects:
    assert house.fleet is not None
    return Suspects(context=house.fleet.controller.context, heard=heard, patience=SHORT)


NUMBERS = count()


def moving() -> str:
    return f"tokens_total {next(NUMBERS)}"


def unanswered() -> None:
    return None


def counters_unanswered() -> str:
    return UNANSWERED


@pytest.mark.parametrize("trouble", [None, DriverError("it refuses"), ValueError("a defect of the probe")])
async def test_answered_probe_clears_an_engine(house: House, trouble: Exception | None):
    """Nor is an error of the probe a verdict."""
    room = house.model()
    async with house.open():
        await house.serve()
        (running,) = house.world.of("a-0")
        if trouble is not None:
            room.engine.probe_door.mistakes.append(trouble)
        await suspects(house).examine(house.unit(), TIMEOUTS)
        assert house.state() is State.READY and house.world.of("a-0") == [running]


@pytest.mark.parametrize(
    ("suspicion", "tells", "uses", "why"),
    [
        (QUIET, unanswered, 0, "its processes did nothing"),
        (TIMEOUTS, lambda: "", 0, "its processes did nothing"),
        (QUIET, lambda: "tokens_total 7", 0, "its counters stood still"),
        (QUIET, counters_unanswered, 0, "its processes did nothing"),
        (TIMEOUTS, counters_unanswered, 1000, "a probe got nothing"),
        (QUIET, unanswered, 1000, "nor did its health"),  # it spins
    ],
)
async def test_engine_without_life_is_ended(
    house: House, suspicion: Suspicion, tells: Callable[[], str | None], uses: int, why: str
):
    room = house.model()
    room.engine.tells, house.world.uses = tells, uses
    room.engine.name = "llama.cpp"
    house.expected_errors = ("an engine hangs; it is ended",)
    async with house.open():
        await house.serve()
        room.engine.probe_door.shut()
        await suspects(house).examine(house.unit(), suspicion)
        replica = house.unit().replica
        assert replica.state is State.PARKED and replica.failures == 1
        assert why in replica.last_error and "the engine hangs" in replica.last_error
        assert house.world.of("a-0") == [] and room.engine.probe_door.cancelled == 1
        assert [port for port, _ in house.connections.cuts] == [9000]


@pytest.mark.parametrize(
    ("suspicion", "tells", "uses"),
    [
        (TIMEOUTS, moving, 0),
        (QUIET, counters_unanswered, 1000),  # a batch that takes long
        (QUIET, lambda: "tokens_total 7", 1000),  # likewise: counters follow batches
        (QUIET, lambda: "", 0),  # healthy, and it may wait for another machine
    ],
)
async def test_slow_engine_is_left_alone(
    house: House, suspicion: Suspicion, tells: Callable[[], str | None], uses: int
):
    room = house.model()
    room.engine.tells, house.world.uses = tells, uses
    async with house.open():
        await house.serve()
        room.engine.probe_door.shut()
        await suspects(house).examine(house.unit(), suspicion)
        assert house.state() is State.READY and len(house.world.of("a-0")) == 1


async def test_a_program_of_ones_own_may_be_deaf_as_it_works(house: House):
    room = house.model()
    room.engine.tells, house.world.uses = unanswered, 1000
    room.engine.name = "command"
    async with house.open():
        await house.serve()
        room.engine.probe_door.shut()
        await suspects(house).examine(house.unit(), QUIET)
        assert house.state() is State.READY


async def test_byte_to_anybody_is_life(house: House):
    house.model().engine.probe_door.shut()
    async with house.open():
        await house.serve()
        loop = asyncio.get_running_loop()
        await suspects(house, heard=lambda host, port: loop.time()).examine(house.unit(), TIMEOUTS)
        assert house.state() is State.READY


async def test_park_ends_an_examination(house: House):
    """An open connection would keep an engine from being frozen."""
    room = house.model()
    room.engine.tells, house.world.uses = unanswered, 1000
    async with house.open():
        await house.serve()
        room.engine.probe_door.shut()
        examining = house.start(suspects(house).examine(house.unit(), TIMEOUTS))
        await room.engine.probe_door.reached()
        room.engine.probe_door.open.set()
        assert house.fleet is not None
        house.fleet.controller.submit(house.unit(), ParkAsked())
        await house.until(A, State.PARKED)
        await examining


async def test_requests_wait_while_a_hung_engine_ends(house: House):
    room = house.model(idle_s=(3_600, 7_200))
    house.expected_errors = ("an engine hangs; it is ended",)
    async with house.open():
        await house.serve()
        unit = house.unit()
        house.clock.at_us += unit.replica.settings.wake.stable_us
        room.engine.probe_door.shut()
        house.world.kill_door.shut()
        examining = house.start(suspects(house).examine(unit, TIMEOUTS))
        await house.world.kill_door.reached()
        held = house.start(house.lease())
        await house.settle()
        assert house.state() is State.WAKING and len(house.world.of("a-0")) == 1, "one engine at a time"
        house.world.kill_door.open.set()
        lease = await held
        assert isinstance(lease, Lease)
        house.give_back(lease)
        assert house.world.killed == [100] and [e.pid for e in house.world.of("a-0")] == [101]
        await examining


async def test_cancelled_examination_leaves_the_engine(house: House):
    room = house.model()
    async with house.open():
        await house.serve()
        room.engine.probe_door.shut()
        examining = house.start(suspects(house).examine(house.unit(), TIMEOUTS))
        await room.engine.probe_door.reached()
        examining.cancel()
        with pytest.raises(asyncio.CancelledError):
            await examining
        assert house.state() is State.READY and room.engine.probe_door.cancelled == 1
