"""The tier `hibernated` and cold starts of rented machines: what fails, and what is then still paid for."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.waiting import until

from poorwill.core.launch import Launch, Running
from poorwill.core.ports.driver import DriverError, NoCapacity, SnapshotRefused
from poorwill.core.words import Phase, ReplicaId, Tier
from poorwill.remote.clouds.cloud import CloudAction, CloudBusy, CloudRefused, MachineGone
from poorwill.remote.clouds.driver import RentedDriver

from .conftest import ask
from .fake_hyperstack import Machine, Mistake
from .rented import RentedFleet

TINY = ReplicaId("tiny")


@pytest.fixture
def rented(tmp_path: Path) -> Iterator[RentedFleet]:
    fleet = RentedFleet.open(tmp_path)
    yield fleet
    fleet.cloud.close()


@pytest.fixture
def launch(rented: RentedFleet) -> Launch:
    return rented.launch()


@pytest.fixture
def there(rented: RentedFleet, launch: Launch) -> Machine:
    return rented.at(TINY)


async def wake(
    rented: RentedFleet,
    launch: Launch,
    tier: Tier = Tier.COLD,
    driver: RentedDriver | None = None,
) -> Running:
    parked = replace(rented.cold(launch), tier=tier, machine=rented.machine().named)
    driver = driver or rented.driver(tier)
    return await driver.wake(parked, launch, generation=2, report=rented.report)


# where a wake finds the machine


@pytest.mark.parametrize("tier", [Tier.HIBERNATED, Tier.COLD])
@pytest.mark.parametrize(("state", "verbs"), [("HIBERNATED", ["hibernate-restore"]), ("SHUTOFF", ["start"])])
async def test_a_wake_starts_from_any_state(
    rented: RentedFleet, launch: Launch, there: Machine, tier: Tier, state: str, verbs: list[str]
):
    rented.cloud.put(there.id, state)
    running = await wake(rented, launch, tier)
    assert ask(running) == "1" and there.asked == verbs
    assert (running.machine, running.pid) == (f"hyperstack {there.id}", 0)


async def test_a_serving_engine_is_taken_as_it_is(rented: RentedFleet, launch: Launch, there: Machine):
    rented.cloud.put(there.id, "ACTIVE")
    first = await wake(rented, launch)
    assert ask(first) == "1"
    assert ask(await wake(rented, launch)) == "2" and there.asked == []


async def test_a_machine_with_a_dead_engine_is_rebooted(rented: RentedFleet, launch: Launch, there: Machine):
    there.boots_dead = 1
    rented.cloud.put(there.id, "ACTIVE")
    running = await wake(rented, launch, driver=rented.driver(Tier.COLD, silent_s=1.5))
    assert ask(running) == "1" and there.asked == ["hard-reboot"]
    assert [mark.phase for mark in rented.marks] == [Phase.PROVISION, Phase.SPAWN] * 2


async def test_a_loading_engine_is_not_rebooted(rented: RentedFleet):
    launch = rented.launch("--slow-ready", "2.0")
    there = rented.at(TINY)
    rented.cloud.put(there.id, "ACTIVE")
    await wake(rented, launch, driver=rented.driver(Tier.COLD, silent_s=1.5))
    assert there.asked == []


async def test_phases_of_a_rented_machine(
    rented: RentedFleet,
):
    launch = rented.launch("--slow-ready", "0.3")
    await wake(rented, launch)
    marks = rented.marks
    assert [mark.phase for mark in marks] == [Phase.PROVISION, Phase.SPAWN, Phase.WEIGHTS]
    assert [mark.detail for mark in marks] == [
        rented.machine().named,
        "the machine boots and starts its engine",
        "its engine answers 503",
    ]


# wakes that fail: the machine is not left running


async def test_an_engine_never_ready_is_hibernated(
    rented: RentedFleet,
):
    launch = rented.launch("--never-ready")
    there = rented.at(TINY)
    with pytest.raises(DriverError, match="/health last answered status 503"):
        await wake(rented, launch, driver=rented.driver(Tier.COLD, wake_limit_s=0.4))
    assert there.asked[-1] == "hibernate" and not there.engine_runs


async def test_hibernated_at_the_console_fails_the_wake(rented: RentedFleet, there: Machine, launch: Launch):
    there.boots_dead = 1
    waking = asyncio.get_running_loop().create_task(wake(rented, launch))
    await until(lambda: any(mark.phase is Phase.SPAWN for mark in rented.marks))
    rented.cloud.put(there.id, "HIBERNATED")
    with pytest.raises(DriverError, match="became HIBERNATED before its engine was ready"):
        await waking
    assert there.asked == ["hibernate-restore"]


async def test_a_silent_cloud_does_not_fail_a_wake(
    rented: RentedFleet,
):
    launch = rented.launch("--slow-ready", "0.4")
    there = rented.at(TINY)
    waking = asyncio.get_running_loop().create_task(wake(rented, launch))
    await until(lambda: any(mark.phase is Phase.SPAWN for mark in rented.marks))
    there.mistakes += [Mistake(503)] * 50
    assert ask(await waking) == "1"
    assert 0 < len(there.mistakes) < 50, "it was looked at"


async def test_a_machine_deleted_in_a_wake_is_gone(rented: RentedFleet, there: Machine, launch: Launch):
    there.boots_dead = 1
    waking = asyncio.get_running_loop().create_task(wake(rented, launch, Tier.HIBERNATED))
    await until(lambda: any(mark.phase is Phase.SPAWN for mark in rented.marks))
    there.deleted = True
    with pytest.raises(SnapshotRefused, match="is gone"):
        await waking
    assert rented.log.lines == []


async def test_no_free_hardware_costs_nothing(rented: RentedFleet, there: Machine, launch: Launch):
    there.mistakes.append(Mistake(400, "Not enough GPUs", verb="hibernate-restore"))
    with pytest.raises(NoCapacity, match="no room for machine"):
        await wake(rented, launch, Tier.HIBERNATED)
    assert there.status == "HIBERNATED" and there.asked == []


async def test_a_gone_machine_refuses_its_wake(rented: RentedFleet, there: Machine, launch: Launch):
    there.deleted = True
    with pytest.raises(SnapshotRefused, match=r"machine 1000 is gone, or the API key may not"):
        await wake(rented, launch, Tier.HIBERNATED)
    with pytest.raises(MachineGone):
        await wake(rented, launch, Tier.COLD)
    for tier in (Tier.HIBERNATED, Tier.COLD):
        assert list(await rented.driver(tier).inventory()) == []


async def test_a_refused_key_is_named_in_the_error(rented: RentedFleet, there: Machine, launch: Launch):
    rented.cloud.key = "another"
    with pytest.raises(CloudRefused, match="refuses the API key"):
        await wake(rented, launch)
    assert rented.log.lines == [], "nothing was asked of the machine, so nothing is undone"


async def test_a_silent_cloud_leaves_it_to_the_sweep(rented: RentedFleet, there: Machine, launch: Launch):
    there.mistakes.append(Mistake(0, silent=True, done=True, verb="hibernate-restore"))
    there.mistakes += [Mistake(503)] * 6
    with pytest.raises(CloudBusy, match="503"):
        await wake(rented, launch)
    assert [line[1].partition(";")[0] for line in rented.log.lines] == [
        "a rented machine may run on, and be billed"
    ]
    await until(lambda: there.status == "ACTIVE")
    (found,) = await rented.driver(Tier.COLD).inventory()
    assert found.unfinished


async def test_a_cancelled_wake_hibernates_again(rented: RentedFleet, there: Machine, launch: Launch):
    rented.cloud.restore_s = 0.3
    waking = asyncio.get_running_loop().create_task(wake(rented, launch))
    await until(lambda: there.status == "RESTORING")
    waking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waking
    assert there.asked == ["hibernate-restore", "hibernate"]
    assert list(await rented.driver(Tier.COLD).inventory()) == []


async def test_a_late_hibernation_is_unfinished(rented: RentedFleet, there: Machine, launch: Launch):
    rented.cloud.restore_s = 0.4
    waking = asyncio.get_running_loop().create_task(
        wake(rented, launch, driver=rented.driver(Tier.COLD, undo_limit_s=0.05))
    )
    await until(lambda: there.status == "RESTORING")
    waking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waking
    ((level, message, _),) = rented.log.lines
    assert (level, message.partition(",")[0]) == ("error", "a rented machine may run on")
    (found,) = await rented.driver(Tier.COLD).inventory()
    assert found.unfinished and found.running is not None
    await rented.engines.kill(found.running)
    assert there.asked[-1] == "hibernate"
    assert list(await rented.driver(Tier.COLD).inventory()) == []


async def test_a_wake_makes_a_machine_wanted(rented: RentedFleet, there: Machine, launch: Launch):
    rented.machine().unwanted = True
    await wake(rented, launch)
    (found,) = await rented.driver(Tier.COLD).inventory()
    assert not found.unfinished


# parks


@pytest.mark.parametrize("tier", [Tier.HIBERNATED, Tier.COLD])
async def test_every_park_hibernates(rented: RentedFleet, there: Machine, launch: Launch, tier: Tier):
    running = await wake(rented, launch)
    parked = await rented.driver(tier).park(running, launch, generation=3)
    assert there.status == "HIBERNATED" and there.kept_address
    assert (parked.tier, parked.machine, parked.path) == (tier, running.machine, None)
    billed_s = rented.cloud.bill_s(there.id)
    await rented.machine().look()  # which takes some time
    assert rented.cloud.bill_s(there.id) == billed_s > 0


async def test_a_machine_off_is_started_to_hibernate(rented: RentedFleet, there: Machine, launch: Launch):
    running = await wake(rented, launch)
    rented.cloud.put(there.id, "SHUTOFF")
    await rented.driver(Tier.COLD).park(running, launch, generation=3)
    assert there.asked[-2:] == ["start", "hibernate"] and there.status == "HIBERNATED"


async def test_a_failed_hibernation_serves_on(rented: RentedFleet, there: Machine, launch: Launch):
    running = await wake(rented, launch)
    there.mistakes.append(Mistake(400, "Flavor cannot hibernate", verb="hibernate"))
    with pytest.raises(DriverError, match="Flavor cannot hibernate") as caught:
        await rented.driver(Tier.HIBERNATED).park(running, launch, generation=3)
    assert caught.value.running == running
    assert ask(running) == "1"


async def test_a_hibernation_error_is_reported(rented: RentedFleet, there: Machine, launch: Launch):
    running = await wake(rented, launch)
    there.leads_to["hibernate"] = "ERROR"
    with pytest.raises(DriverError, match="is in state ERROR") as caught:
        await rented.driver(Tier.HIBERNATED).park(running, launch, generation=3)
    assert caught.value.running is None
    there.leads_to["hibernate"] = "ACTIVE"
    rented.cloud.put(there.id, "ACTIVE")
    with pytest.raises(DriverError, match="ACTIVE again after it was asked to hibernate") as caught:
        await rented.driver(Tier.HIBERNATED).park(running, launch, generation=3)
    assert caught.value.running == running


async def test_a_cancelled_park_goes_on_at_the_cloud(rented: RentedFleet, there: Machine, launch: Launch):
    running = await wake(rented, launch)
    rented.cloud.hibernate_s = 0.1
    parking = asyncio.get_running_loop().create_task(
        rented.driver(Tier.HIBERNATED).park(running, launch, generation=3)
    )
    await until(lambda: there.status == "HIBERNATING")
    parking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await parking
    assert not rented.engines.alive(running)
    woken = await wake(rented, launch, Tier.HIBERNATED)
    assert ask(woken) == "1"
    assert there.asked == ["hibernate-restore", "hibernate", "hibernate-restore"]


async def test_only_hibernated_becomes_cold(rented: RentedFleet, there: Machine, launch: Launch):
    running = await wake(rented, launch)
    parked = await rented.driver(Tier.HIBERNATED).park(running, launch, generation=3)
    asked = list(there.asked)
    cold = await rented.driver(Tier.COLD).descend(parked, launch, generation=4)
    assert (cold.tier, cold.generation, there.asked) == (Tier.COLD, 4, asked)
    with pytest.raises(DriverError, match="no way from"):
        await rented.driver(Tier.HIBERNATED).descend(cold, launch, generation=5)
    with pytest.raises(DriverError, match="no way from"):
        await rented.driver(Tier.COLD).descend(replace(parked, machine=""), launch, generation=5)


# what is found


@pytest.mark.parametrize(
    ("state", "found_by"),
    [
        ("ACTIVE", Tier.COLD),
        ("SHUTOFF", Tier.COLD),
        ("RESTORING", Tier.COLD),
        ("HIBERNATED", Tier.HIBERNATED),
        ("HIBERNATING", Tier.HIBERNATED),
        ("ERROR", None),
    ],
)
async def test_the_inventory_tells_paid_from_parked(
    rented: RentedFleet, there: Machine, state: str, found_by: Tier | None
):
    rented.cloud.put(there.id, state)
    for tier in (Tier.COLD, Tier.HIBERNATED):
        found = await rented.driver(tier).inventory()
        assert len(found) == (tier is found_by)
        for each in found:
            assert (each.running is None) == (tier is Tier.HIBERNATED)
            assert (each.parked is None) == (tier is Tier.COLD)


async def test_a_silent_cloud_shows_the_last_state(rented: RentedFleet, there: Machine, launch: Launch):
    driver = rented.driver(Tier.HIBERNATED)
    there.mistakes.append(Mistake(503))
    assert list(await driver.inventory()) == [], "not seen yet"
    (found,) = await driver.inventory()
    there.mistakes.append(Mistake(503))
    assert list(await driver.inventory()) == [found]


# engines watched from here


def answers(running: Running) -> bool:
    try:
        return ask(running, "/health") == "ok"
    except OSError:
        return False


async def ended(rented: RentedFleet, running: Running) -> str:
    async with asyncio.timeout(5):
        return await rented.engines.exited(running)


async def test_a_dead_engine_on_a_live_machine(rented: RentedFleet, there: Machine, launch: Launch):
    running = await wake(rented, launch)
    watching = asyncio.get_running_loop().create_task(ended(rented, running))
    there.end_engine()
    assert await watching == f"does not answer on hyperstack {there.id}, which runs"
    assert rented.engines.alive(running)
    await rented.engines.kill(running)
    assert there.asked[-1] == "hibernate", "a machine without an engine is not paid for"


async def test_an_engine_ends_with_its_machine(rented: RentedFleet, there: Machine, launch: Launch):
    running = await wake(rented, launch)
    rented.cloud.put(there.id, "HIBERNATED")
    why = f"ended with its machine: hyperstack {there.id} is HIBERNATED"
    assert await ended(rented, running) == why
    assert not rented.engines.alive(running)


async def test_an_engine_ends_with_a_deleted_machine(rented: RentedFleet, there: Machine, launch: Launch):
    running = await wake(rented, launch)
    there.end_engine()
    there.deleted = True
    assert "is gone" in await ended(rented, running)
    await rented.engines.kill(running)


async def test_a_silent_cloud_kills_no_engine(rented: RentedFleet, there: Machine, launch: Launch):
    running = await wake(rented, launch)
    there.end_engine()
    there.mistakes += [Mistake(503)] * 2
    assert "does not answer" in await ended(rented, running)
    assert not there.mistakes


async def test_a_restarted_engine_has_not_ended(rented: RentedFleet, there: Machine, launch: Launch):
    running = await wake(rented, launch)
    engines = replace(rented.engines, watch_s=0.04, silences=100)
    watching = asyncio.get_running_loop().create_task(engines.exited(running))
    for _ in range(2):  # silent for longer than it may, but not at a stretch
        there.end_engine()
        looked = there.looks
        await until(lambda before=looked: there.looks > before + 50)
        rented.cloud.boot(there)
        await until(lambda: answers(running) and int(ask(running, "/greeted")) > 0)
    assert not watching.done()
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    assert ask(running) == "1"


async def test_another_machines_engine_is_spared(rented: RentedFleet, launch: Launch):
    running = await wake(rented, launch)
    with pytest.raises(DriverError, match="hyperstack 77 is not the rented machine of tiny"):
        await rented.engines.kill(replace(running, machine="hyperstack 77"))
    with pytest.raises(DriverError, match="this machine is not the rented machine of tiny"):
        await rented.engines.kill(replace(running, machine=""))
    with pytest.raises(DriverError, match="replica other has no rented machine"):
        await rented.driver(Tier.COLD).park(
            replace(running, replica=ReplicaId("other")), launch, generation=1
        )


async def test_a_former_machines_engine_is_not_alive(rented: RentedFleet, launch: Launch):
    running = await wake(rented, launch)
    assert rented.engines.alive(running)
    assert not rented.engines.alive(replace(running, machine="hyperstack 77"))
    assert not rented.engines.alive(replace(running, machine="", pid=1))


async def test_a_restored_machine_is_not_rebooted(rented: RentedFleet, launch: Launch):
    there, machine = rented.at(TINY), rented.machine()
    rented.cloud.put(there.id, "ACTIVE")
    await machine.look()
    async with machine.turn:  # as a sweep that ends it has
        running = asyncio.get_running_loop().create_task(machine.run(limit_s=5.0))
        looked = there.looks
        await until(lambda: there.looks > looked and machine.seen is not None)
        await machine.request(CloudAction.HIBERNATE)
        await until(lambda: there.status == "HIBERNATED")
    assert not await running, "it did not run all along"
