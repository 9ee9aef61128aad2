"""EC2's client, against moto with a fake on top of it. What clouds share is in test_hyperstack.py."""

import asyncio
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.waiting import until

from poorwill.core.ports.driver import DriverError, NoCapacity
from poorwill.core.words import ReplicaId, Tier
from poorwill.remote.clouds.aws import ACTIONS, NEEDED, Aws
from poorwill.remote.clouds.cloud import CloudAction, CloudBusy, CloudRefused, MachineGone, MachineState
from poorwill.remote.clouds.machine import PARK, RELEASE, RUN, Goal

from .conftest import SDK_VARIABLES, ask
from .fake_aws import REGION, FakeAws
from .fake_hyperstack import Machine, Mistake
from .rented import RentedFleet

TINY = ReplicaId("tiny")
pytestmark = pytest.mark.xdist_group("moto")  # which takes seconds to be imported


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RentedFleet]:
    """The fleet whose client the tests share: its SDK takes a while to open one."""
    with pytest.MonkeyPatch.context() as patch:
        for name in SDK_VARIABLES:
            patch.setenv(name, "to be put back")
            patch.delenv(name)
        fleet = RentedFleet.open(tmp_path_factory.mktemp("aws"), FakeAws())
        fleet.launch()
        asyncio.run(fleet.machine().look())
    yield fleet
    fleet.cloud.close()


@pytest.fixture
def cloud(opened: RentedFleet) -> FakeAws:
    cloud = opened.cloud
    assert isinstance(cloud, FakeAws)
    cloud.full, cloud.hibernate_s, cloud.restore_s = False, 0.01, 0.01
    return cloud


@pytest.fixture
def rented(tmp_path: Path, cloud: FakeAws, opened: RentedFleet) -> Iterator[RentedFleet]:
    fleet = RentedFleet(directory=tmp_path, cloud=cloud, api=opened.api, sdk=opened.sdk)
    fleet.give_credentials()
    fleet.launch()
    yield fleet
    for machine in cloud.machines.values():
        machine.end_engine()


@pytest.fixture
def there(rented: RentedFleet) -> Machine:
    """The machine at the fake cloud."""
    return rented.at(TINY)


@pytest.mark.parametrize(
    ("status", "state", "word"),
    [
        ("ACTIVE", MachineState.RUNNING, "running"),
        ("HIBERNATING", MachineState.PARKING, "stopping"),
        ("HIBERNATED", MachineState.PARKED, "stopped"),
        ("RESTORING", MachineState.MOVING, "pending"),
    ],
)
async def test_every_state_is_understood(
    rented: RentedFleet, there: Machine, status: str, state: MachineState, word: str
):
    rented.cloud.put(there.id, status)
    seen = await rented.client().state(f"{REGION}/{there.id}")
    assert (seen.state, seen.word, seen.failure) == (state, word, None)
    assert there.asked == []


async def test_unknown_and_terminated_machines_are_gone(rented: RentedFleet, there: Machine):
    with pytest.raises(MachineGone, match=r"or in another region or account \(InvalidInstanceID.NotFound"):
        await rented.client().state(f"{REGION}/i-0123456789abcdef0")
    rented.cloud.put(there.id, "DELETED")
    with pytest.raises(MachineGone, match="aws says terminated"):
        await rented.client().state(f"{REGION}/{there.id}")


@pytest.mark.parametrize(
    ("mistake", "error", "words"),
    [
        (Mistake(500, "InsufficientInstanceCapacity|none"), NoCapacity, "no room for machine"),
        (Mistake(400, "InsufficientHostCapacity|none"), NoCapacity, "no room for machine"),
        (Mistake(400, "VcpuLimitExceeded|more than 8"), CloudRefused, "quota does not allow"),
        (Mistake(403, "UnauthorizedOperation|no"), CloudRefused, NEEDED),
        (Mistake(400, "OperationNotPermitted|stop protection"), CloudRefused, "stop protection"),
        (Mistake(503, "RequestLimitExceeded|slow"), CloudBusy, "takes no more requests now"),
        (Mistake(400, "Throttling|slow"), CloudBusy, "takes no more requests now"),
        (Mistake(400, "IncorrectInstanceState|stopping"), CloudBusy, "still busy with machine"),
        (Mistake(500, "InternalError|oops"), CloudBusy, "aws fails"),
        (Mistake(0, silent=True), CloudBusy, "no answer from aws: ConnectionClosedError"),
    ],
)
async def test_errors_differ_by_what_helps(
    rented: RentedFleet, there: Machine, mistake: Mistake, error: type[DriverError], words: str
):
    there.mistakes += [mistake, Mistake(500, "InternalError|boto3 asked again")]
    with pytest.raises(error, match=words):
        await rented.client().ask(f"{REGION}/{there.id}", CloudAction.RESTORE)
    assert there.asked == [] and len(there.mistakes) == 1, "boto3's own retries are off"


async def test_credentials_are_boto3s_own_business(rented: RentedFleet, monkeypatch: pytest.MonkeyPatch):
    client, machine = Aws(api=rented.api), rented.machine().id
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(CloudRefused, match=r"no credentials for aws \(NoCredentialsError"):
        await client.state(machine)
    rented.give_credentials("a-strangers-key")
    with pytest.raises(CloudRefused, match=r"refuses the credentials \(AuthFailure") as caught:
        await client.state(machine)
    assert "secret-of-mine" not in f"{caught.value} {client!r}"
    rented.give_credentials()
    assert (await client.state(machine)).word == "stopped", "they are looked for anew"
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(CloudRefused, match=r"ProfileNotFound.*nobody"):
        await Aws(api=rented.api).state(machine)


async def test_nobody_there_is_no_answer(rented: RentedFleet):
    with pytest.raises(CloudBusy, match="no answer from aws: EndpointConnectionError"):
        await Aws(api="http://127.0.0.1:9").state(f"{REGION}/i-0")


@pytest.mark.parametrize(
    ("status", "goal", "verbs", "end"),
    [
        ("HIBERNATED", RUN, ["hibernate-restore"], "ACTIVE"),
        ("ACTIVE", PARK, ["hibernate"], "HIBERNATED"),
        ("HIBERNATED", RELEASE, [], "HIBERNATED"),
    ],
)
async def test_a_machine_reaches_its_goal(
    rented: RentedFleet, there: Machine, status: str, goal: Goal, verbs: list[str], end: str
):
    rented.cloud.put(there.id, status)
    await rented.machine().bring_to(goal, limit_s=30.0)
    assert (there.asked, there.status) == (verbs, end)


async def test_a_start_waits_for_a_slow_stop(rented: RentedFleet, there: Machine):
    rented.cloud.hibernate_s = 0.5
    rented.cloud.put(there.id, "ACTIVE")
    await rented.machine().release(limit_s=30.0)
    assert there.status == "HIBERNATING"
    await rented.machine().run(limit_s=30.0)
    assert there.asked == ["hibernate", "hibernate-restore"] and not there.mistakes


async def test_a_stop_without_end_is_named(rented: RentedFleet, there: Machine):
    rented.cloud.hibernate_s = 60.0
    rented.cloud.put(there.id, "ACTIVE")
    with pytest.raises(DriverError, match=r"was not hibernated within 0.5 s: its state is"):
        await rented.machine().bring_to(PARK, limit_s=0.5)


async def test_throttled_requests_are_repeated(rented: RentedFleet, there: Machine):
    slow = Mistake(503, "RequestLimitExceeded|slow", verb="hibernate-restore")
    there.mistakes += [replace(slow, verb="state"), slow, slow]
    await rented.machine().run(limit_s=30.0)
    assert there.asked == ["hibernate-restore"] and not there.mistakes
    rented.cloud.put(there.id, "HIBERNATED")
    there.mistakes += [slow] * 9
    with pytest.raises(CloudBusy, match="RequestLimitExceeded"):
        await rented.machine().run(limit_s=30.0)
    assert len(there.mistakes) == 9 - rented.machine().pace.attempts


async def test_pending_that_falls_back_is_no_capacity(rented: RentedFleet, there: Machine):
    rented.cloud.full = True
    with pytest.raises(NoCapacity, match=r"no room for machine .*InsufficientInstanceCapacity"):
        await rented.machine().run(limit_s=30.0)
    assert there.asked == ["hibernate-restore"]
    rented.cloud.full = False
    await rented.machine().run(limit_s=30.0)
    assert there.status == "ACTIVE", "what was wrong before is forgotten"


async def test_a_silent_cloud_holds_nobody_up(rented: RentedFleet):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        api = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(CloudBusy, match="no answer from aws"):
            await Aws(api=api, answer_limit_s=0.2).state(f"{REGION}/i-0")
        (await asyncio.to_thread(listener.accept))[0].close()
        looking = asyncio.get_running_loop().create_task(
            Aws(api=api, answer_limit_s=30.0).state(f"{REGION}/i-0")
        )
        connection, _ = await asyncio.to_thread(listener.accept)
        with connection:
            looking.cancel()
            async with asyncio.timeout(5.0):
                with pytest.raises(asyncio.CancelledError):
                    await looking


# addresses that change


@pytest.fixture
def floating(rented: RentedFleet, cloud: FakeAws) -> RentedFleet:
    """A machine that may be anywhere, with its engine at an address of its own."""
    rented.host = "{public}"
    rented.launch("--host", "127.0.0.7", replica="far")
    cloud.shown_at[rented.at(ReplicaId("far")).id] = "127.0.0.7"
    return rented


async def test_an_address_is_asked_for_after_a_start(floating: RentedFleet, cloud: FakeAws):
    launch = floating.launch(replica="far")
    driver = floating.driver(Tier.HIBERNATED)
    running = await floating.driver(Tier.COLD).wake(
        floating.cold(launch), launch, generation=1, report=floating.report
    )
    assert (running.host, ask(running)) == ("127.0.0.7", "1")
    assert floating.engines.reached({}, ("127.0.0.7", launch.port)) and floating.engines.alive(running)
    parked = await driver.park(running, launch, generation=2)
    assert not floating.engines.reached({}, ("127.0.0.7", launch.port)), "it may be anybody's now"
    there = floating.at(ReplicaId("far"))
    cloud.shown_at[there.id] = "127.0.0.8"
    there.engine = [*there.engine[:-1], "127.0.0.8"]
    woken = await driver.wake(parked, launch, generation=3, report=floating.report)
    assert (woken.host, ask(woken)) == ("127.0.0.8", "1")


async def test_a_stranger_at_a_lost_address_is_no_engine(floating: RentedFleet, cloud: FakeAws):
    launch, there = floating.launch(replica="far"), floating.at(ReplicaId("far"))
    running = await floating.driver(Tier.COLD).wake(
        floating.cold(launch), launch, generation=1, report=floating.report
    )
    watching = asyncio.get_running_loop().create_task(floating.engines.exited(running))
    looked = there.looks
    await until(lambda: there.looks > looked + 2)
    assert not watching.done()
    cloud.shown_at[there.id] = "127.0.0.8"  # it was stopped and started at the console; somebody answers
    assert await watching == f"ended with its machine: aws {REGION}/{there.id} is at 127.0.0.8 now"
    assert not floating.engines.alive(running) and not floating.engines.reached(
        {}, ("127.0.0.7", launch.port)
    )


async def test_a_machine_without_an_address_fails_its_wake(floating: RentedFleet, cloud: FakeAws):
    launch, there = floating.launch(replica="far"), floating.at(ReplicaId("far"))
    cloud.shown_at[there.id] = ""
    with pytest.raises(DriverError, match=r"runs, and its cloud gave it no address for \{public\}"):
        await floating.driver(Tier.COLD).wake(
            floating.cold(launch), launch, generation=1, report=floating.report
        )
    await until(lambda: there.status == "HIBERNATED")


async def test_a_restart_asks_where_machines_are(floating: RentedFleet, cloud: FakeAws):
    launch = floating.launch(replica="far")
    running = await floating.driver(Tier.COLD).wake(
        floating.cold(launch), launch, generation=1, report=floating.report
    )
    again = floating.again()
    assert not again.engines.alive(running), "nobody knows yet who answers there"
    await again.engines.locate()
    assert again.engines.alive(running)
    floating.at(ReplicaId("far")).mistakes += [Mistake(500, "InternalError|oops")] * 3
    later = floating.again()
    await later.engines.locate()
    assert not later.engines.alive(running) and len(later.log.lines) == 1


async def test_moto_gives_another_address_each_time(rented: RentedFleet, there: Machine):
    """What the feature is for, as an independent fake of EC2 has it."""
    rented.machine().host = "{public}"
    seen = []
    for _ in range(2):
        await rented.machine().run(limit_s=30.0)
        seen.append(rented.machine().address)
        await rented.machine().bring_to(PARK, limit_s=30.0)
        assert rented.machine().address == ""
    assert seen[0] != seen[1]


def test_every_verb_has_an_action():
    assert set(ACTIONS) == set(CloudAction)
