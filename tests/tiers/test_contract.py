"""The contract of the port `Driver`, run over every driver: whoever parks and wakes must do all of this.

What does not apply to a case is in `cases.LACKS`, with the reason, and is proved there.
"""

# Files are looked at on purpose while nothing else is on the loop.

import asyncio
import os
import shutil
import socket
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.waiting import until

from poorwill.core.launch import Launch, Parked, Running
from poorwill.core.ports.driver import DriverError, Found, SnapshotRefused
from poorwill.core.words import RESUMING_TIERS, Phase, Tier
from poorwill.tiers.frozen.driver import FrozenDriver

from .cancelling import cancelled_at
from .cases import CASES, LACKS, Case, Need, hurt, params
from .conftest import Fleet
from .fake_world import FakeFleet
from .far import FarFleet, beside_ray, ray_room, through_ray
from .rented import RentedFleet
from .sleepers import gguf
from .virtual import debian, golden_guest, hypervisor

__all__ = [
    "beside_ray",
    "debian",
    "gguf",
    "golden_guest",
    "hypervisor",
    "ray_room",
    "through_ray",
]  # fixtures

STEPS = 200
"""More awaits than any call has; a call that has more would make its test fail, not pass."""


@pytest.fixture(params=params())
def case(request: pytest.FixtureRequest, fleet: Fleet) -> Case:
    return CASES[request.param](request, fleet)


@pytest.fixture(params=params(need=Need.IMAGE))
def image_case(request: pytest.FixtureRequest, fleet: Fleet) -> Case:
    return CASES[request.param](request, fleet)


@pytest.fixture(params=params(need=Need.KEPT))
def kept_case(request: pytest.FixtureRequest, fleet: Fleet) -> Case:
    return CASES[request.param](request, fleet)


@pytest.fixture(params=params(need=Need.PORT))
def port_case(request: pytest.FixtureRequest, fleet: Fleet) -> Case:
    return CASES[request.param](request, fleet)


def is_directory(path: str | None) -> bool:
    return path is not None and Path(path).is_dir()


def nothing_runs(case: Case) -> bool:
    return not case.fleet.processes.found()


def left(found: Iterable[Found]) -> list[Found]:
    """What of an inventory is poorwill's own making: a rented machine that is parked is its owner's."""
    return [each for each in found if each.parked is None or each.parked.path or not each.parked.machine]


def at_rest(case: Case, parked: Parked, launch: Launch) -> bool:
    """Whether nothing runs but what the tier keeps running."""
    if parked.running is not None:
        return case.fleet.processes.alive(parked.running)
    return nothing_runs(case) and case.port_is_free(launch.port)


def is_it(found: Running, running: Running) -> bool:
    """Whether this was found. A process tells everything about itself; a cloud knows its machine, no more."""
    return found.key() == running.key() if running.machine else found == running


async def parked_one(case: Case, *, replica: str = "tiny") -> tuple[Parked, Launch]:
    launch = case.launch(replica=replica)
    running = await case.start(launch)
    case.serves(running, asked=1, woken=False)
    return await case.driver.park(running, launch, generation=1), launch


@pytest.fixture(params=params(LACKS))
def lacking(request: pytest.FixtureRequest, fleet: Fleet) -> tuple[str, Case]:
    return request.param, CASES[request.param](request, fleet)


async def test_what_a_case_lacks_it_lacks(lacking: tuple[str, Case]):
    name, case = lacking
    parked, launch = await parked_one(case)
    lacks = set()
    if not is_directory(parked.path):
        lacks.add(Need.IMAGE)
    if (parked.path, parked.running) == (None, None):
        lacks.add(Need.KEPT)
    chooses = isinstance(case.fleet, FarFleet) and case.driver.tier is Tier.COLD
    if chooses or not case.port_is_free(launch.port) or isinstance(case.fleet, FakeFleet | RentedFleet):
        lacks.add(Need.PORT)
    if parked.running is not None and case.fleet.processes.alive(parked.running):
        lacks.add(Need.MEMORY)
    assert lacks == set(LACKS[name])


async def test_a_park_frees_and_a_wake_serves(
    case: Case,
):
    launch = case.launch()
    running = await case.start(launch)
    case.serves(running, asked=1, woken=False)
    parked = await case.driver.park(running, launch, generation=1)
    assert parked.tier is case.driver.tier and parked.generation == 1
    assert at_rest(case, parked, launch)
    woken = await case.wake(parked, launch, generation=2)
    assert (woken.port, woken.generation, woken.driver) == (launch.port, 2, case.driver.name)
    assert woken.launched == launch.identity()
    assert case.fleet.processes.alive(woken)
    case.serves(woken, asked=2)
    await until(lambda: not case.scratch())


async def test_the_probe_answers_the_same_after_a_wake(case: Case):
    launch = case.launch()
    running = await case.start(launch)
    answer = await case.probe(running)
    assert answer
    for generation in (1, 3):
        parked = await case.driver.park(running, launch, generation=generation)
        running = await case.wake(parked, launch, generation=generation + 1)
        assert await case.probe(running) == answer


async def test_many_cycles_leak_and_lose_nothing(case: Case):
    launch = case.launch()
    running = await case.start(launch)
    text = await case.probe(running)
    for cycle in range(case.cycles):
        assert await case.probe(running) == text
        case.serves(running, asked=cycle + 1, woken=cycle > 0)
        parked = await case.driver.park(running, launch, generation=cycle + 1)
        running = await case.wake(parked, launch, generation=cycle + 2)
    await case.fleet.processes.kill(running)
    assert nothing_runs(case)
    assert left(await case.driver.inventory()) == []


async def test_phases_are_reported_in_order(case: Case):
    parked, launch = await parked_one(case)
    case.fleet.marks.clear()
    await case.wake(parked, launch, generation=2)
    marks = case.fleet.marks
    assert marks and [mark.at_us for mark in marks] == sorted(mark.at_us for mark in marks)
    if isinstance(case.driver, FrozenDriver):
        device = [Phase.RESTORE_DEVICE] if case.device is not None else []
        assert [mark.phase for mark in marks] == [
            Phase.READ_IMAGE,
            Phase.RESTORE_PROCESS,
            *device,
            Phase.READY,
        ]
        assert marks[0].bytes_read == parked.image_bytes > 0


async def test_the_inventory_is_complete(case: Case):
    launch = case.launch()
    running = await case.start(launch)
    (found,) = await case.cold.inventory()
    assert found.running is not None and is_it(found.running, running) and found.tier is None
    assert (running.machine or str(running.pid)) in found.what
    parked = await case.driver.park(running, launch, generation=1)
    listed = list(await case.driver.inventory())
    if parked.machine and parked.path is None and parked.tier is not Tier.COLD:
        assert [each.parked.key() for each in listed if each.parked] == [parked.key()]
        return
    if parked.running is not None:  # the process that it is, which the cold driver lists
        listed = [each for each in await case.cold.inventory() if each not in listed]
        assert [each.running for each in listed] == [parked.running]
        return
    if parked.path is None:
        assert listed == []
        return
    (found,) = listed
    assert (found.replica, found.generation, found.tier) == (launch.replica, 1, parked.tier)
    assert found.parked is not None and found.parked.path == parked.path
    assert found.image_bytes >= parked.image_bytes > 0


async def test_discard_is_complete_and_idempotent(case: Case):
    parked, launch = await parked_one(case)
    await case.driver.discard(parked)
    await case.driver.discard(parked)
    assert left(await case.driver.inventory()) == []
    assert nothing_runs(case) and case.port_is_free(launch.port)
    if (parked.path, parked.running) != (None, None):
        with pytest.raises(SnapshotRefused, match=r"missing|gone"):
            await case.wake(parked, launch, generation=2)


async def test_after_a_crash_a_replica_wakes(case: Case):
    parked, launch = await parked_one(case)
    reborn = case.again(case.fleet.again())
    woken = await reborn.wake(Parked.from_json(parked.as_json()), launch, generation=2)
    reborn.serves(woken, asked=2)


async def test_after_a_crash_a_replica_parks(case: Case):
    launch = case.launch()
    running = await case.start(launch)
    reborn = case.again(case.fleet.again())
    (found,) = [f.running for f in await reborn.cold.inventory()]
    assert found is not None and is_it(found, running)
    parked = await reborn.driver.park(Running.from_json(running.as_json()), launch, generation=1)
    assert at_rest(case, parked, launch)
    reborn.serves(await reborn.wake(parked, launch, generation=2), asked=1)


async def test_a_vanished_snapshot_is_refused(kept_case: Case):
    case = kept_case
    parked, launch = await parked_one(case)
    case.lose(parked)
    with pytest.raises(SnapshotRefused, match=r"missing|gone"):
        await case.wake(parked, launch, generation=2)
    assert nothing_runs(case) and case.port_is_free(launch.port) and case.scratch() == []
    case.serves(await case.start(launch, generation=3), asked=1, woken=False)


async def test_of_two_wakes_one_is_refused(case: Case):
    parked, launch = await parked_one(case)
    results = await asyncio.gather(
        case.wake(parked, launch, generation=2),
        case.wake(parked, launch, generation=3),
        return_exceptions=True,
    )
    (refused,) = [result for result in results if isinstance(result, DriverError)]
    (running,) = [result for result in results if isinstance(result, Running)]
    assert "wake is under way" in str(refused)
    case.serves(running, asked=2)
    assert case.fleet.processes.alive(running)
    assert len(case.fleet.processes.found()) == 1


async def test_two_drivers_cannot_wake_one_image(image_case: Case):
    case = image_case
    parked, launch = await parked_one(case)
    other = case.again(case.fleet.again())
    results = await asyncio.gather(
        case.wake(parked, launch, generation=2),
        other.wake(parked, launch, generation=2),
        return_exceptions=True,
    )
    (running,) = [result for result in results if isinstance(result, Running)]
    (refused,) = [result for result in results if isinstance(result, DriverError)]
    assert len(case.fleet.processes.found()) == 1, refused
    case.serves(running, asked=2)


async def test_a_park_during_a_wake_is_refused(case: Case):
    parked, launch = await parked_one(case)
    async with asyncio.TaskGroup() as group:
        waking = group.create_task(case.wake(parked, launch, generation=2))
        await asyncio.sleep(0)
        old = Running(
            replica=launch.replica,
            generation=1,
            pid=os.getpid(),
            pid_started=0,
            host=launch.host,
            port=launch.port,
            log_path=launch.log_path,
            driver=case.driver.name,
            machine=case.machine,
        )
        with pytest.raises(DriverError, match="wake is under way"):
            await case.driver.park(old, launch, generation=2)
    case.serves(waking.result(), asked=2)


async def test_a_taken_port_is_named_with_its_holder(port_case: Case):
    case = port_case
    parked, launch = await parked_one(case)
    with socket.create_server(("127.0.0.1", launch.port)):
        with pytest.raises(DriverError, match=rf"port {launch.port} .*pid {os.getpid()} "):
            await case.wake(parked, launch, generation=2)
        assert nothing_runs(case) and case.scratch() == []
    case.serves(await case.wake(parked, launch, generation=3), asked=2)


async def test_a_dead_engine_makes_no_snapshot(case: Case):
    launch = case.launch()
    running = await case.start(launch)
    case.fleet.processes.kill_now(running)
    await case.fleet.processes.gone(running)
    try:
        parked = await case.driver.park(running, launch, generation=1)
    except DriverError as error:
        assert error.running is None
    else:
        assert parked.tier not in RESUMING_TIERS
    assert nothing_runs(case) and left(await case.driver.inventory()) == []


async def test_a_cancelled_park_leaves_one_of_both(
    case: Case,
):
    for step in range(STEPS):
        launch = case.launch(replica=f"step-{step}")
        running = await case.start(launch)
        cancelled = await cancelled_at(step, case.driver.park(running, launch, generation=1))
        alive = case.fleet.processes.alive(running)
        kept = [
            each
            for each in await case.driver.inventory()
            if each.parked is not None and each.replica == launch.replica
        ]
        assert case.scratch() == []
        assert not (alive and kept), f"await {step}: an engine runs beside its own snapshot"
        if alive:
            if cancelled:
                case.serves(running, asked=1)
            await case.fleet.processes.kill(running)
        await case.fleet.processes.gone(running)
        assert nothing_runs(case) and case.port_is_free(launch.port)
        for found in kept:
            assert found.parked is not None
            await case.wake(found.parked, launch, generation=2)
            await case.fleet.processes.kill(case.fleet.processes.found()[0].running)
        if not cancelled:
            assert step > 0
            return
    pytest.fail(f"a park has more than {STEPS} awaits")


async def test_a_cancelled_wake_leaves_no_process(case: Case):
    for step in range(STEPS):
        parked, launch = await parked_one(case, replica=f"step-{step}")
        cancelled = await cancelled_at(
            step,
            case.driver.wake(parked, launch, generation=2, report=case.fleet.report),
        )
        if not cancelled:
            assert step > 0
            return
        assert nothing_runs(case), f"await {step}"
        assert case.port_is_free(launch.port) and case.scratch() == []
        # What is left of it can be woken, or says that it cannot: nothing in between.
        try:
            running = await case.wake(parked, launch, generation=3)
        except SnapshotRefused:
            assert list(await case.driver.inventory()) == []
        else:
            case.serves(running, asked=2)
            await case.fleet.processes.kill(running)
    pytest.fail(f"a wake has more than {STEPS} awaits")


async def test_a_wake_cancelled_at_a_report_is_clean(case: Case):
    parked, launch = await parked_one(case)
    case.fleet.marks.clear()
    await case.wake(parked, launch, generation=2)
    phases = [mark.phase for mark in case.fleet.marks]
    for number, phase in enumerate(phases):
        parked, launch = await parked_one(case, replica=f"report-{number}")

        async def wake(parked=parked, launch=launch, phase=phase) -> None:
            task = asyncio.current_task()
            assert task is not None

            def report(mark) -> None:
                if mark.phase is phase:
                    task.cancel()

            await case.driver.wake(parked, launch, generation=2, report=report)

        task = asyncio.get_running_loop().create_task(wake())
        await asyncio.wait({task})
        assert task.cancelled()
        assert case.port_is_free(launch.port) and case.scratch() == []
        assert launch.replica not in [found.replica for found in case.fleet.processes.found()]


async def test_another_generation_is_refused(image_case: Case):
    case = image_case
    parked, launch = await parked_one(case)
    with pytest.raises(SnapshotRefused):
        await case.wake(replace(parked, generation=7), launch, generation=8)
    assert nothing_runs(case)


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "remove"])
async def test_a_damaged_image_is_refused(image_case: Case, damage: str, tmp_path: Path):
    case = image_case
    parked, launch = await parked_one(case)
    assert parked.path is not None
    place = Path(parked.path)
    pristine = tmp_path / "pristine"
    shutil.copytree(place, pristine)
    names = sorted(str(path.relative_to(pristine)) for path in pristine.rglob("*") if path.is_file())
    assert "manifest.json" in names and len(names) > 1
    for name in names:
        shutil.rmtree(place, ignore_errors=True)
        for claim in place.parent.glob("woken-*"):
            claim.unlink()
        shutil.copytree(pristine, place)
        if not hurt(place / name, damage):
            continue
        with pytest.raises(SnapshotRefused):
            await case.wake(parked, launch, generation=2)
        assert nothing_runs(case), name
        assert case.port_is_free(launch.port) and case.scratch() == [], name
