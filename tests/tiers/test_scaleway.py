"""Scaleway's client, against the fake of its documented API. What clouds share is in test_hyperstack.py."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from poorwill.core.ports.driver import DriverError, NoCapacity
from poorwill.core.words import ReplicaId, Tier
from poorwill.remote.clouds.cloud import CloudAction, CloudBusy, CloudRefused, MachineGone, MachineState
from poorwill.remote.clouds.machine import PARK, RUN, Goal
from poorwill.remote.clouds.scaleway import ACTIONS

from .conftest import ask
from .fake_hyperstack import Machine, Mistake
from .fake_scaleway import ZONE, FakeScaleway
from .rented import RentedFleet

TINY = ReplicaId("tiny")


@pytest.fixture
def rented(tmp_path: Path) -> Iterator[RentedFleet]:
    fleet = RentedFleet.open(tmp_path, FakeScaleway())
    fleet.launch()
    yield fleet
    fleet.cloud.close()


@pytest.fixture
def there(rented: RentedFleet) -> Machine:
    """The machine at the fake cloud."""
    return rented.at(TINY)


@pytest.mark.parametrize(
    ("status", "state", "word"),
    [
        ("ACTIVE", MachineState.RUNNING, "running"),
        ("SHUTOFF", MachineState.OFF, "stopped in place"),
        ("HIBERNATING", MachineState.PARKING, "stopping"),
        ("HIBERNATED", MachineState.PARKED, "stopped"),
        ("RESTORING", MachineState.MOVING, "starting"),
        ("ERROR", MachineState.FAILED, "locked"),
    ],
)
async def test_every_state_is_understood(
    rented: RentedFleet, there: Machine, status: str, state: MachineState, word: str
):
    rented.cloud.put(there.id, status)
    seen = await rented.client().state(f"{ZONE}/{there.id}")
    assert (seen.state, seen.word) == (state, word)
    assert there.asked == []


@pytest.mark.parametrize(
    ("mistake", "error", "words"),
    [
        (Mistake(403, "permissions_denied|no"), CloudRefused, "403 permissions_denied: no"),
        (Mistake(403, "quotas_exceeded|too many"), CloudRefused, "403 quotas_exceeded: too many"),
        (Mistake(409, "transient_state|wait"), CloudBusy, "still busy with machine"),
        (Mistake(403, "out_of_stock|none"), NoCapacity, "no room for machine"),
        (Mistake(503, "out_of_stock|none"), NoCapacity, "no room for machine"),
        (Mistake(429, "slow down"), CloudBusy, "takes no more requests now"),
        (Mistake(500, "internal"), CloudBusy, "500"),
        (Mistake(0, silent=True), CloudBusy, "no answer from scaleway"),
    ],
)
async def test_errors_differ_by_what_helps(
    rented: RentedFleet, there: Machine, mistake: Mistake, error: type[DriverError], words: str
):
    there.mistakes.append(mistake)
    with pytest.raises(error, match=words):
        await rented.client().ask(f"{ZONE}/{there.id}", CloudAction.RESTORE)
    assert there.asked == []


async def test_unknown_machines_and_refused_keys(rented: RentedFleet, there: Machine):
    with pytest.raises(MachineGone, match="machine fr-par-2/99 is gone"):
        await rented.client().state(f"{ZONE}/99")
    with pytest.raises(CloudRefused, match=r"refuses the API key \(401") as caught:
        await rented.client("secret-of-mine").state(f"{ZONE}/{there.id}")
    assert "secret-of-mine" not in f"{caught.value} {rented.client('secret-of-mine')!r}"


@pytest.mark.parametrize(
    ("status", "goal", "verbs", "end"),
    [
        ("HIBERNATED", RUN, ["hibernate-restore"], "ACTIVE"),
        ("SHUTOFF", RUN, ["start"], "ACTIVE"),
        ("ACTIVE", PARK, ["hibernate"], "HIBERNATED"),
        ("SHUTOFF", PARK, ["start", "hibernate"], "HIBERNATED"),
    ],
)
async def test_a_machine_reaches_its_goal(
    rented: RentedFleet, there: Machine, status: str, goal: Goal, verbs: list[str], end: str
):
    rented.cloud.put(there.id, status)
    await rented.machine().bring_to(goal, limit_s=5.0)
    assert (there.asked, there.status) == (verbs, end)


async def test_it_serves_is_parked_and_serves_again(rented: RentedFleet, there: Machine):
    launch = rented.launch()
    driver = rented.driver(Tier.HIBERNATED)
    running = await rented.driver(Tier.COLD).wake(
        rented.cold(launch), launch, generation=1, report=rented.report
    )
    assert ask(running) == "1" and running.machine == f"scaleway {ZONE}/{there.id}"
    parked = await driver.park(running, launch, generation=2)
    assert there.status == "HIBERNATED" and parked.machine == running.machine
    woken = await driver.wake(parked, launch, generation=3, report=rented.report)
    assert ask(woken) == "1"


def test_every_verb_has_an_action():
    assert set(ACTIONS) == set(CloudAction) and set(ACTIONS.values()) == {"poweron", "poweroff", "reboot"}
