"""The orphan sweep over rented machines: what runs and should not, is told, counted and hibernated."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.waiting import until

from poorwill.core.entries import Entry, Noted, ReplicaCreated, ReplicaEnded, SpanOpened
from poorwill.core.machine.cell import Cell
from poorwill.core.machine.holds import HoldQueue
from poorwill.core.machine.replica import Load, Replica
from poorwill.core.policy import NoFloor
from poorwill.core.settings import ReplicaSettings
from poorwill.core.words import ORPHAN, ModelName, ReplicaId, Tier
from poorwill.fleet.sweeps.sweeper import Sweeper
from poorwill.fleet.unit import Equipment, Unit
from poorwill.policies import fixed_idle
from poorwill.policies.dispatch import Replicas

from .fake_hyperstack import Machine, Mistake
from .rented import RentedFleet

BIG = ModelName("big")


@pytest.fixture
def rented(tmp_path: Path) -> Iterator[RentedFleet]:
    fleet = RentedFleet.open(tmp_path)
    fleet.launch(replica="big-0")
    yield fleet
    fleet.cloud.close()


@pytest.fixture
def there(rented: RentedFleet) -> Machine:
    return rented.at(ReplicaId("big-0"))


def units(rented: RentedFleet) -> dict[ReplicaId, Unit]:
    """One replica, parked cold as far as the ledger knows."""
    replica = Replica(
        id=ReplicaId("big-0"),
        settings=ReplicaSettings(model=BIG),
        policy=fixed_idle(()),
        floor=NoFloor(),
        load=Load(0, 0),
        park_began_us=0,
    )
    equipment = Equipment(
        engine=None,  # type: ignore[arg-type]
        drivers={tier: rented.driver(tier) for tier in (Tier.HIBERNATED, Tier.COLD)},
        processes=rented.engines,
    )
    cell = Cell(replica, HoldQueue())
    unit = Unit(cell=cell, replicas=Replicas([cell]), equipment=equipment, driver="hibernated", waiting={})
    return {replica.id: unit}


def sweeper(rented: RentedFleet, *, reap_orphans: bool = False) -> Sweeper:
    return Sweeper(clock=rented.clock, log=rented.log, reap_orphans=reap_orphans)


def kinds(entries: list[Entry]) -> list[str]:
    return [entry.kind for entry in entries if isinstance(entry, Noted)]


async def test_a_machine_at_rest_is_as_it_should_be(rented: RentedFleet):
    assert list(await sweeper(rented).sweep(units(rented))) == []


async def test_a_machine_started_by_hand_is_an_orphan(rented: RentedFleet, there: Machine):
    fleet, sweeps = units(rented), sweeper(rented)
    rented.cloud.put(there.id, "ACTIVE")
    noted, created, opened = await sweeps.sweep(fleet)
    assert isinstance(noted, Noted) and noted.kind == "orphan"
    assert isinstance(created, ReplicaCreated) and created.model == "big"
    assert isinstance(opened, SpanOpened) and opened.cause == ORPHAN
    assert opened.replica == created.replica == f"big-0:orphan-hyperstack {there.id}"
    rented.cloud.put(there.id, "SHUTOFF")
    assert list(await sweeps.sweep(fleet)) == [], "the same machine, billed as before"
    assert there.asked == []
    rented.cloud.put(there.id, "HIBERNATED")
    (ended,) = await sweeps.sweep(fleet)
    assert isinstance(ended, ReplicaEnded) and ended.replica == created.replica


async def test_an_orphan_is_hibernated_if_configured(rented: RentedFleet, there: Machine):
    rented.cloud.put(there.id, "ACTIVE")
    entries = await sweeper(rented, reap_orphans=True).sweep(units(rented))
    assert kinds(list(entries)) == ["swept"] and there.asked == ["hibernate"]


async def test_poorwills_own_leftover_is_hibernated(rented: RentedFleet, there: Machine):
    rented.cloud.put(there.id, "ACTIVE")
    rented.machine("big-0").unwanted = True
    entries = await sweeper(rented).sweep(units(rented))
    assert kinds(list(entries)) == ["swept"] and there.asked == ["hibernate"]
    await until(lambda: there.status == "HIBERNATED")
    await rented.machine("big-0").look()
    assert not rented.machine("big-0").unwanted


async def test_one_that_turns_back_is_hibernated_again(rented: RentedFleet, there: Machine):
    rented.cloud.put(there.id, "ACTIVE")
    there.leads_to["hibernate"] = "ACTIVE"
    await rented.engines.kill(rented.running(ReplicaId("big-0")))
    await until(lambda: there.status == "ACTIVE")
    entries = await sweeper(rented).sweep(units(rented))
    assert kinds(list(entries)) == ["swept"] and there.asked == ["hibernate"] * 2


async def test_a_stuck_machine_is_counted(rented: RentedFleet, there: Machine):
    fleet, sweeps = units(rented), sweeper(rented)
    rented.cloud.put(there.id, "ACTIVE")
    there.mistakes.append(Mistake(400, "not now", verb="hibernate"))
    entries = list(await sweeps.sweep(fleet, ended=[ReplicaId("big-0")]))
    assert kinds(entries) == ["orphan"] and there.status == "ACTIVE"
    assert ORPHAN in [entry.cause for entry in entries if isinstance(entry, SpanOpened)]
    assert kinds(list(await sweeps.sweep(fleet))) == ["swept"]
    assert there.asked == ["hibernate"]
    (ended,) = await sweeps.sweep(fleet)
    assert isinstance(ended, ReplicaEnded)
