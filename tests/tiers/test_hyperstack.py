"""Hyperstack's client and a machine brought from state to state, against the fake of the documented API."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.waiting import pause, until

from poorwill.core.ports.driver import DriverError, NoCapacity
from poorwill.remote.clouds.cloud import CloudAction, CloudBusy, CloudRefused, MachineGone, MachineState
from poorwill.remote.clouds.hyperstack import PATHS, Hyperstack
from poorwill.remote.clouds.machine import PARK, RELEASE, RUN, Goal, RentedMachine

from .cancelling import cancelled_at
from .fake_hyperstack import ON_THE_WAY, Machine, Mistake
from .rented import RentedFleet

LIMIT_S = 5.0


@pytest.fixture
def rented(tmp_path: Path) -> Iterator[RentedFleet]:
    fleet = RentedFleet.open(tmp_path)
    fleet.launch()
    yield fleet
    fleet.cloud.close()


@pytest.fixture
def machine(rented: RentedFleet) -> RentedMachine:
    return rented.machine()


@pytest.fixture
def there(rented: RentedFleet, machine: RentedMachine) -> Machine:
    """The machine at the fake cloud."""
    return rented.cloud.machines[machine.id]


def client(rented: RentedFleet, key: str = "fake-key") -> Hyperstack:
    return Hyperstack(key=key, api=rented.api, answer_limit_s=2.0)


# the client


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("ACTIVE", MachineState.RUNNING),
        ("SHUTOFF", MachineState.OFF),
        ("HIBERNATING", MachineState.PARKING),
        ("HIBERNATED", MachineState.PARKED),
        ("ERROR", MachineState.FAILED),
        ("RESTORING", MachineState.MOVING),
        ("BUILD", MachineState.MOVING),
        ("a word of next year", MachineState.MOVING),
    ],
)
async def test_every_state_is_understood(rented: RentedFleet, there: Machine, word: str, state: MachineState):
    rented.cloud.put(there.id, word)
    seen = await client(rented).state(there.id)
    assert (seen.state, seen.word) == (state, word.upper())
    assert there.asked == [], "a look changes nothing"


async def test_a_deleted_machine_is_gone(rented: RentedFleet, there: Machine):
    rented.cloud.put(there.id, "DELETED")
    with pytest.raises(MachineGone, match=f"machine {there.id} is gone: hyperstack says DELETED"):
        await client(rented).state(there.id)


async def test_an_unknown_machine_is_gone(rented: RentedFleet):
    with pytest.raises(MachineGone, match=r"machine 99 is gone, or the API key may not see it"):
        await client(rented).state("99")


async def test_a_refused_key_is_never_shown(rented: RentedFleet, there: Machine):
    with pytest.raises(CloudRefused, match=r"refuses the API key \(401 Unauthorized\)") as caught:
        await client(rented, key="secret-of-mine").state(there.id)
    assert "secret-of-mine" not in str(caught.value) + repr(client(rented, key="secret-of-mine"))


@pytest.mark.parametrize(
    ("mistake", "error", "words"),
    [
        (Mistake(403, "Forbidden"), CloudRefused, "does not let the API key do that"),
        (Mistake(400, "Flavor cannot hibernate"), CloudRefused, "400 Flavor cannot hibernate"),
        (Mistake(400, "Insufficient balance"), CloudRefused, "Insufficient balance"),
        (Mistake(400, "Not enough GPUs"), NoCapacity, "no room for machine"),
        (Mistake(409, "No available host was found"), NoCapacity, "no room for machine"),
        (Mistake(200, "it says no"), CloudRefused, "it says no"),
        (Mistake(302, "elsewhere"), CloudRefused, "302"),
        (Mistake(429, "slow down"), CloudBusy, "takes no more requests now"),
        (Mistake(500, "Internal Server Error"), CloudBusy, "500 Internal Server Error"),
        (Mistake(503), CloudBusy, "503"),
        (Mistake(0, silent=True), CloudBusy, "no answer from hyperstack"),
    ],
)
async def test_errors_differ_by_what_helps(
    rented: RentedFleet, there: Machine, mistake: Mistake, error: type[DriverError], words: str
):
    there.mistakes.append(mistake)
    with pytest.raises(error, match=words):
        await client(rented).ask(there.id, CloudAction.RESTORE)
    assert there.asked == []


async def test_an_html_page_is_no_state(rented: RentedFleet, there: Machine):
    there.mistakes.append(Mistake(200, text="<html>we are moving</html>"))
    with pytest.raises(CloudBusy, match="does not say what machine"):
        await client(rented).state(there.id)


async def test_an_answer_that_drips_for_ever_is_no_answer():
    hung_up = asyncio.Event()

    async def drips(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError):
                writer.write(b"HTTP/1.1 200 OK\r\n")
                while not writer.is_closing():
                    writer.write(b"x: y\r\n")
                    await writer.drain()
                    await pause(0.02)
        finally:
            writer.close()
            hung_up.set()

    async with await asyncio.start_server(drips, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        cloud = Hyperstack(key="k", api=f"http://127.0.0.1:{port}", answer_limit_s=0.2)
        async with asyncio.timeout(LIMIT_S):
            with pytest.raises(CloudBusy, match="no answer from hyperstack: TimeoutError"):
                await cloud.state("1")
            await hung_up.wait()


async def test_nobody_there_is_no_answer():
    dead = Hyperstack(key="k", api="http://127.0.0.1:9", answer_limit_s=1.0)
    with pytest.raises(CloudBusy, match="no answer from hyperstack: ConnectError"):
        await dead.state("1")


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("soon", None), (None, None)])
async def test_retry_after_is_read(
    rented: RentedFleet, there: Machine, header: str | None, seconds: float | None
):
    there.mistakes.append(Mistake(429, headers={"retry-after": header} if header else {}))
    with pytest.raises(CloudBusy) as caught:
        await client(rented).state(there.id)
    assert caught.value.retry_after_s == seconds


async def test_a_hibernated_machine_keeps_its_address(rented: RentedFleet, there: Machine):
    rented.cloud.put(there.id, "ACTIVE")
    there.kept_address = False
    await client(rented).ask(there.id, CloudAction.HIBERNATE)
    assert there.kept_address


def test_every_verb_has_the_documented_path():
    assert set(PATHS) == set(CloudAction) and set(PATHS.values()) < set(ON_THE_WAY)


# a machine, from state to state


@pytest.mark.parametrize(
    ("state", "goal", "verbs", "end"),
    [
        ("HIBERNATED", RUN, ["hibernate-restore"], "ACTIVE"),
        ("SHUTOFF", RUN, ["start"], "ACTIVE"),
        ("ACTIVE", RUN, [], "ACTIVE"),
        ("ACTIVE", PARK, ["hibernate"], "HIBERNATED"),
        ("SHUTOFF", PARK, ["start", "hibernate"], "HIBERNATED"),
        ("HIBERNATED", PARK, [], "HIBERNATED"),
        ("HIBERNATED", RELEASE, [], "HIBERNATED"),
    ],
)
async def test_a_machine_reaches_its_goal(
    rented: RentedFleet,
    machine: RentedMachine,
    there: Machine,
    state: str,
    goal: Goal,
    verbs: list[str],
    end: str,
):
    rented.cloud.put(there.id, state)
    await machine.bring_to(goal, limit_s=LIMIT_S)
    assert (there.asked, there.status) == (verbs, end)


@pytest.mark.parametrize(
    ("on_the_way", "goal", "verbs"),
    [
        ("hibernate", RUN, ["hibernate", "hibernate-restore"]),
        ("hibernate", PARK, ["hibernate"]),
        ("hibernate-restore", PARK, ["hibernate-restore", "hibernate"]),
        ("hibernate-restore", RUN, ["hibernate-restore"]),
        ("stop", PARK, ["stop", "start", "hibernate"]),
    ],
)
async def test_a_moving_machine_is_waited_for(
    rented: RentedFleet,
    machine: RentedMachine,
    there: Machine,
    on_the_way: str,
    goal: Goal,
    verbs: list[str],
):
    rented.cloud.put(there.id, ON_THE_WAY[on_the_way][0])
    rented.cloud.carry_out(there, on_the_way, {"retain_ip": ["true"]})
    await machine.bring_to(goal, limit_s=LIMIT_S)
    assert there.asked == verbs


async def test_a_release_does_not_wait_for_the_end(
    rented: RentedFleet, machine: RentedMachine, there: Machine
):
    rented.cloud.hibernate_s = 60.0
    rented.cloud.put(there.id, "ACTIVE")
    await machine.release(limit_s=LIMIT_S)
    assert there.status == "HIBERNATING" and machine.unwanted, "it may yet turn back"
    rented.cloud.put(there.id, "HIBERNATED")
    await machine.look()
    assert not machine.unwanted


@pytest.mark.parametrize(
    "mistake",
    [
        Mistake(500, "Internal Server Error", done=True, verb="hibernate"),
        Mistake(0, silent=True, done=True, verb="hibernate"),
        Mistake(429, done=True, verb="hibernate"),
    ],
)
async def test_a_request_with_a_lost_answer_is_made_once(
    rented: RentedFleet, machine: RentedMachine, there: Machine, mistake: Mistake
):
    rented.cloud.put(there.id, "ACTIVE")
    there.mistakes.append(mistake)
    await machine.bring_to(PARK, limit_s=LIMIT_S)
    assert there.asked == ["hibernate"]


@pytest.mark.parametrize("mistake", [Mistake(500), Mistake(429), Mistake(0, silent=True)])
async def test_unanswered_requests_are_repeated(machine: RentedMachine, there: Machine, mistake: Mistake):
    there.mistakes += [mistake, mistake]
    await machine.bring_to(RUN, limit_s=LIMIT_S)
    there.mistakes += [Mistake(mistake.status, silent=mistake.silent, verb="hibernate")] * 2
    await machine.bring_to(PARK, limit_s=LIMIT_S)
    assert there.asked == ["hibernate-restore", "hibernate"]
    assert not there.mistakes


async def test_a_silent_cloud_is_asked_so_often(machine: RentedMachine, there: Machine):
    there.mistakes += [Mistake(503)] * 10
    with pytest.raises(CloudBusy, match="503"):
        await machine.bring_to(RUN, limit_s=LIMIT_S)
    assert len(there.mistakes) == 10 - machine.pace.attempts


async def test_a_refused_request_is_made_so_often(machine: RentedMachine, there: Machine):
    there.mistakes += [Mistake(503, verb="hibernate-restore")] * 10
    with pytest.raises(CloudBusy, match="503"):
        await machine.bring_to(RUN, limit_s=LIMIT_S)
    assert len(there.mistakes) == 10 - machine.pace.attempts and there.status == "HIBERNATED"


async def test_a_rate_limit_is_obeyed(machine: RentedMachine, there: Machine):
    there.mistakes.append(Mistake(429, headers={"retry-after": "0"}))
    await machine.bring_to(RUN, limit_s=LIMIT_S)
    there.mistakes.append(Mistake(429, headers={"retry-after": "3600"}))
    loop = asyncio.get_running_loop()
    began = loop.time()
    await machine.bring_to(RUN, limit_s=LIMIT_S)
    assert loop.time() - began >= machine.pace.longest_retry_s, "an hour is cut to the longest"


async def test_a_request_without_effect_is_repeated(machine: RentedMachine, there: Machine):
    there.mistakes.append(Mistake(200, lost=True, verb="hibernate-restore"))
    loop = asyncio.get_running_loop()
    began = loop.time()
    await machine.bring_to(RUN, limit_s=LIMIT_S)
    assert there.asked == ["hibernate-restore"] * 2
    assert loop.time() - began >= machine.pace.unmoved_s


async def test_a_machine_that_never_moves_is_given_up(machine: RentedMachine, there: Machine):
    there.mistakes += [Mistake(200, lost=True, verb="hibernate-restore")] * 9
    with pytest.raises(DriverError, match="stays HIBERNATED, though asked 3 times to restore"):
        await machine.bring_to(RUN, limit_s=LIMIT_S)


async def test_a_late_request_is_no_refusal(rented: RentedFleet, machine: RentedMachine, there: Machine):
    """The owner hibernates it at the console between the look and the request."""
    rented.cloud.put(there.id, "ACTIVE")
    there.mistakes.append(Mistake(400, "Cannot hibernate", done=True, verb="hibernate"))
    await machine.bring_to(PARK, limit_s=LIMIT_S)
    assert there.status == "HIBERNATED"


async def test_a_failed_restore_is_no_capacity(rented: RentedFleet, machine: RentedMachine, there: Machine):
    there.leads_to["hibernate-restore"] = "HIBERNATED"
    with pytest.raises(NoCapacity, match="HIBERNATED again after it was asked to restore"):
        await machine.bring_to(RUN, limit_s=LIMIT_S)
    assert there.asked == ["hibernate-restore"]


async def test_a_machine_in_error_is_left_to_its_owner(machine: RentedMachine, there: Machine):
    there.leads_to["hibernate-restore"] = "ERROR"
    with pytest.raises(DriverError, match="is in state ERROR: see its cloud's console"):
        await machine.bring_to(RUN, limit_s=LIMIT_S)


async def test_a_slow_machine_is_named_with_its_state(
    rented: RentedFleet, machine: RentedMachine, there: Machine
):
    rented.cloud.restore_s = 60.0
    with pytest.raises(DriverError, match=r"was not running within 0.2 s: its state is RESTORING"):
        await machine.bring_to(RUN, limit_s=0.2)


async def test_a_cancelled_park_knows_who_pays(rented: RentedFleet, machine: RentedMachine, there: Machine):
    for step in range(200):
        await until(lambda: there.status in ("ACTIVE", "HIBERNATED"))
        rented.cloud.put(there.id, "ACTIVE")
        there.asked.clear()
        machine.seen = None
        cancelled = await cancelled_at(step, machine.bring_to(PARK, limit_s=LIMIT_S))
        asked, runs = there.asked, there.status == "ACTIVE"
        known = machine.seen
        assert asked in ([], ["hibernate"])
        assert runs == (not asked), "a request is either not made or taken on"
        if known is not None:
            assert (known.state is MachineState.RUNNING) == runs
        if not cancelled:
            assert step > 5 and there.status == "HIBERNATED"
            return
    pytest.fail("it has too many awaits")


async def test_cancelled_twice_it_ends_at_once(rented: RentedFleet, machine: RentedMachine, there: Machine):
    held = asyncio.Event()
    asked = asyncio.Event()

    class Slow(Hyperstack):
        async def ask(self, machine: str, verb: CloudAction) -> None:
            asked.set()
            await held.wait()

    machine.cloud = Slow(key="fake-key", api=rented.api)
    task = asyncio.get_running_loop().create_task(machine.bring_to(RUN, limit_s=LIMIT_S))
    await asked.wait()
    task.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not task.done(), "it waits for the answer"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    held.set()


async def test_a_reboot_is_asked_for_until_it_is_taken_on(
    rented: RentedFleet, machine: RentedMachine, there: Machine
):
    rented.cloud.put(there.id, "ACTIVE")
    there.mistakes += [Mistake(503), Mistake(0, silent=True)]
    await machine.reboot()
    assert there.asked == ["hard-reboot"]
    there.mistakes += [Mistake(503)] * 5
    with pytest.raises(CloudBusy):
        await machine.reboot()
    assert len(there.mistakes) == 5 - machine.pace.attempts


async def test_changes_to_a_machine_take_turns(rented: RentedFleet, machine: RentedMachine, there: Machine):
    rented.cloud.hibernate_s = 0.1
    rented.cloud.put(there.id, "ACTIVE")
    async with asyncio.TaskGroup() as group:
        group.create_task(machine.bring_to(PARK, limit_s=LIMIT_S))
        await until(lambda: there.status == "HIBERNATING")
        group.create_task(machine.run(limit_s=LIMIT_S))
    assert (there.asked, there.status) == (["hibernate", "hibernate-restore"], "ACTIVE")
    async with machine.turn:
        with pytest.raises(DriverError, match=r"was not hibernated within 0.05 s"):
            await machine.bring_to(PARK, limit_s=0.05)
