"""Compute Engine's client, against the fake of its API. What clouds share is in test_hyperstack.py."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.waiting import until

from poorwill.core.ports.driver import DriverError, NoCapacity
from poorwill.core.words import ReplicaId, Tier
from poorwill.remote.clouds.cloud import CloudAction, CloudBusy, CloudRefused, MachineGone, MachineState
from poorwill.remote.clouds.gcp import ACTIONS, NEEDED, Gcp
from poorwill.remote.clouds.machine import PARK, RUN, Goal

from .conftest import SDK_VARIABLES, ask
from .fake_gcp import PROJECT, ZONE, FakeGcp
from .fake_hyperstack import Machine, Mistake
from .rented import RentedFleet

# The SDK reads the environment by itself.
# ruff: noqa: TID251

TINY = ReplicaId("tiny")
pytestmark = pytest.mark.xdist_group("google")  # whose SDK takes seconds to be imported


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RentedFleet]:
    """The fleet whose client the tests share: its SDK takes a while to open one."""
    with pytest.MonkeyPatch.context() as patch:
        for name in SDK_VARIABLES:
            patch.setenv(name, "to be put back")
            patch.delenv(name)
        fleet = RentedFleet.open(tmp_path_factory.mktemp("gcp"), FakeGcp())
        fleet.launch()
        asyncio.run(fleet.machine().look())
    yield fleet
    fleet.cloud.close()


@pytest.fixture
def cloud(opened: RentedFleet) -> FakeGcp:
    cloud = opened.cloud
    assert isinstance(cloud, FakeGcp)
    cloud.full, cloud.hibernate_s, cloud.restore_s = False, 0.01, 0.01
    return cloud


@pytest.fixture
def rented(tmp_path: Path, cloud: FakeGcp, opened: RentedFleet) -> Iterator[RentedFleet]:
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
        ("ACTIVE", MachineState.RUNNING, "RUNNING"),
        ("HIBERNATING", MachineState.PARKING, "STOPPING"),
        ("HIBERNATED", MachineState.PARKED, "TERMINATED"),
        ("RESTORING", MachineState.MOVING, "STAGING"),
        ("ERROR", MachineState.FAILED, "SUSPENDED"),
    ],
)
async def test_every_state_is_understood(
    rented: RentedFleet, there: Machine, status: str, state: MachineState, word: str
):
    rented.cloud.put(there.id, status)
    seen = await rented.client().state(rented.machine().id)
    assert (seen.state, seen.word, seen.failure) == (state, word, None)
    assert there.asked == []


async def test_an_unknown_machine_is_gone(rented: RentedFleet):
    with pytest.raises(MachineGone, match="or in another zone or project"):
        await rented.client().state(f"{PROJECT}/{ZONE}/vm-99")


@pytest.mark.parametrize(
    ("mistake", "error", "words"),
    [
        (Mistake(503, "insufficientCapacity|none"), NoCapacity, "no room for machine"),
        (Mistake(403, "quotaExceeded|Quota 'GPUS'"), CloudRefused, "quota does not allow"),
        (Mistake(403, "rateLimitExceeded|slow"), CloudBusy, "takes no more requests now"),
        (Mistake(429, "slow"), CloudBusy, "takes no more requests now"),
        (Mistake(403, "Required 'compute.instances.start'"), CloudRefused, NEEDED),
        (Mistake(400, "resourceNotReady|wait"), CloudBusy, "takes no more requests now"),
        (Mistake(400, "invalid|no"), CloudRefused, "refuses it to machine"),
        (Mistake(503, "backendError|oops"), CloudBusy, "gcp fails"),
        (Mistake(0, silent=True), CloudBusy, "no answer from gcp"),
    ],
)
async def test_errors_differ_by_what_helps(
    rented: RentedFleet, there: Machine, mistake: Mistake, error: type[DriverError], words: str
):
    there.mistakes += [mistake, Mistake(503, "backendError|the SDK asked again")]
    with pytest.raises(error, match=words):
        await rented.client().ask(rented.machine().id, CloudAction.RESTORE)
    assert there.asked == [] and len(there.mistakes) == 1, "the SDK's own retries are off"


async def test_credentials_are_the_sdks_own_business(rented: RentedFleet):
    client, machine = Gcp(api=rented.api), rented.machine().id
    key_file = os.environ.pop("GOOGLE_APPLICATION_CREDENTIALS")
    with pytest.raises(CloudRefused, match=r"no credentials for gcp \(DefaultCredentialsError"):
        await client.state(machine)
    rented.give_credentials("a-stranger")
    with pytest.raises(CloudRefused, match=r"refuses the credentials \(401") as caught:
        await client.state(machine)
    assert "PRIVATE KEY" not in f"{caught.value} {client!r}"
    rented.give_credentials()
    assert (await client.state(machine)).word == "TERMINATED", "they are looked for anew"
    os.environ["GOOGLE_APPLICATION_CREDENTIALS"] = f"{key_file}.gone"
    with pytest.raises(CloudRefused, match="no credentials for gcp"):
        await Gcp(api=rented.api).state(machine)


async def test_nobody_there_is_no_answer(rented: RentedFleet):
    with pytest.raises(CloudBusy, match="no answer from gcp: ConnectionError"):
        await Gcp(api="http://127.0.0.1:9").state(rented.machine().id)


@pytest.mark.parametrize(
    ("status", "goal", "verbs", "end"),
    [
        ("HIBERNATED", RUN, ["hibernate-restore"], "ACTIVE"),
        ("ACTIVE", PARK, ["hibernate"], "HIBERNATED"),
    ],
)
async def test_a_machine_reaches_its_goal(
    rented: RentedFleet, there: Machine, status: str, goal: Goal, verbs: list[str], end: str
):
    rented.cloud.put(there.id, status)
    await rented.machine().bring_to(goal, limit_s=30.0)
    assert (there.asked, there.status) == (verbs, end)


async def test_local_ssds_are_discarded(rented: RentedFleet, cloud: FakeGcp, there: Machine):
    """The API refuses to stop a machine that has some, unless it is told what becomes of them."""
    cloud.put(there.id, "ACTIVE")
    await rented.machine().bring_to(PARK, limit_s=30.0)
    assert cloud.discarded_ssd


async def test_an_operation_under_way_is_waited_for(rented: RentedFleet, cloud: FakeGcp, there: Machine):
    """The state shows a request only a while after it was taken on."""
    client, machine = rented.client(), rented.machine().id
    cloud.pending = True
    await client.ask(machine, CloudAction.RESTORE)
    await until(lambda: there.status == "ACTIVE")
    assert (await client.state(machine)).state is MachineState.MOVING
    cloud.pending = False
    assert (await client.state(machine)).state is MachineState.RUNNING


@pytest.mark.parametrize(
    ("why", "error", "words"),
    [
        ("ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS|no GPU", NoCapacity, "no room for machine"),
        ("QUOTA_EXCEEDED|Quota 'NVIDIA_L4_GPUS'", CloudRefused, "quota does not allow"),
        ("UNSUPPORTED_OPERATION|no", CloudRefused, "refuses it to machine"),
    ],
)
async def test_an_operation_tells_why_it_failed(
    rented: RentedFleet, cloud: FakeGcp, there: Machine, why: str, error: type[DriverError], words: str
):
    there.leads_to["hibernate-restore"] = "HIBERNATED"
    cloud.failed[there.id] = why
    with pytest.raises(error, match=words):
        await rented.machine().run(limit_s=30.0)
    assert there.asked == ["hibernate-restore"]


async def test_a_lack_of_hardware_shows_late(rented: RentedFleet, cloud: FakeGcp, there: Machine):
    cloud.full, cloud.restore_s = True, 0.2
    with pytest.raises(NoCapacity, match="ZONE_RESOURCE_POOL_EXHAUSTED"):
        await rented.machine().run(limit_s=30.0)
    cloud.full = False
    await rented.machine().run(limit_s=30.0)
    assert there.status == "ACTIVE"


async def test_a_forgotten_operation_is_no_error(rented: RentedFleet, cloud: FakeGcp, there: Machine):
    client, machine = rented.client(), rented.machine().id
    await client.ask(machine, CloudAction.RESTORE)
    cloud.operations.clear()
    await until(lambda: there.status == "ACTIVE")
    assert (await client.state(machine)).state is MachineState.RUNNING


async def test_a_suspended_machine_is_left_to_its_owner(rented: RentedFleet, there: Machine):
    rented.cloud.put(there.id, "ERROR")
    with pytest.raises(DriverError, match="is in state SUSPENDED: see its cloud's console"):
        await rented.machine().run(limit_s=30.0)


async def test_an_address_is_asked_for_after_a_start(rented: RentedFleet, cloud: FakeGcp):
    rented.host = "{public}"
    launch = rented.launch("--host", "127.0.0.7", replica="far")
    cloud.shown_at[rented.at(ReplicaId("far")).id] = "127.0.0.7"
    running = await rented.driver(Tier.COLD).wake(
        rented.cold(launch), launch, generation=1, report=rented.report
    )
    assert (running.host, ask(running)) == ("127.0.0.7", "1")
    assert (await rented.machine("far").look()).hosts == {"{public}": "127.0.0.7", "{private}": "10.164.0.2"}


def test_every_verb_has_a_method():
    assert set(ACTIONS) == set(CloudAction)
