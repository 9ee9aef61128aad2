"""The drivers of a host from afar, for the contract suite: through Ray, or a stand-in for it."""

import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from tests.hosts.fleet import HostedFleet, hosted_fleet
from tests.hosts.room import Room, a_room
from tests.kept_log import KeptLog

from poorwill.compose.clock import SystemClock
from poorwill.compose.drivers.fleet_drivers import FleetDrivers, ModelDrivers
from poorwill.compose.drivers.on_hosts import drivers_on_hosts
from poorwill.core.launch import Launch, Parked, PhaseMark, Running
from poorwill.core.ports.driver import Driver, Found
from poorwill.core.settings import (
    Address,
    EngineSettings,
    FleetSettings,
    HostsSettings,
    ModelSettings,
    ParkSettings,
    ReplicaSettings,
)
from poorwill.core.words import ModelName, ReplicaId, Tier
from poorwill.engines.port_choice import replica_port
from poorwill.hosts.processes.exclusive import Exclusive
from poorwill.hosts.processes.process import EngineProcesses
from poorwill.remote.ray.drivers import HostsDriver, HostsEngine, HostsProcesses

from .conftest import TINY_ENGINE, ask, new_fleet

HOST = "a"
TINY = ModelName("tiny")
LOCAL = "127.0.0.1"


def counting() -> ModelSettings:
    """A model whose engine is the tiny one, on the host."""
    command = (sys.executable, "-I", "-S", str(TINY_ENGINE), "{port}")
    park = ParkSettings(ladder=(Tier.FROZEN, Tier.COLD))
    return ModelSettings(
        name=TINY,
        engine=EngineSettings(kind="command", command=command),
        replica=ReplicaSettings(model=TINY, max_concurrency=4, park=park),
        hosts=(HOST,),
    )


@dataclass
class FarProcesses:
    """The engines of the host: looked at from beside its service, ended from afar."""

    beside: EngineProcesses
    own: ModelDrivers

    def found(self) -> Sequence[Found]:
        return [
            replace(each, running=replace(each.running, machine=HOST, host=HOST))
            for each in self.beside.found()
            if each.running is not None
        ]

    def alive(self, running: Running) -> bool:
        return self.beside.alive(local(running))

    async def kill(self, running: Running | None) -> None:
        assert running is not None
        await self.own.processes.kill(running)

    def kill_now(self, running: Running) -> None:
        self.beside.kill_now(local(running))

    async def gone(self, running: Running) -> None:
        await self.beside.gone(local(running))


def local(running: Running) -> Running:
    """An engine as the host itself knows it."""
    return replace(running, machine="", host=LOCAL)


@dataclass
class FarFleet:
    """A fleet on one host."""

    directory: Path
    """Of the host."""
    own: ModelDrivers
    beside: EngineProcesses
    clock: SystemClock = field(default_factory=SystemClock.started)
    log: KeptLog = field(default_factory=KeptLog)
    marks: list[PhaseMark] = field(default_factory=list)

    @property
    def processes(self) -> FarProcesses:
        return FarProcesses(self.beside, self.own)

    @property
    def engine(self) -> HostsEngine:
        assert isinstance(self.own.engine, HostsEngine)
        return self.own.engine

    def driver(self, tier: Tier) -> Driver:
        if tier not in self.own.drivers:
            pytest.skip(f"no {tier} on the host: {self.own.broken}")
        return self.own.drivers[tier]

    def launch(self, *, replica: str = "tiny") -> Launch:
        port = replica_port(str(self.directory), replica, LOCAL, anew=False)
        return replace(self.engine.launch(replica=ReplicaId(replica), generation=0), port=port)

    def cold(self, launch: Launch) -> Parked:
        return Parked(replica=launch.replica, generation=0, tier=Tier.COLD)

    def report(self, mark: PhaseMark) -> None:
        self.marks.append(mark)

    def ask(self, running: Running) -> str:
        return ask(local(running))

    async def probe(self, running: Running) -> str:
        return await self.engine.probe(running, self.launch(replica=running.replica))

    def again(self) -> "FarFleet":
        """The same fleet as a restarted poorwill sees it: nothing remembered but where the host is."""
        hosts = replace(self.engine.hosts, offers={}, equipped={}, seen={}, exclusive=Exclusive())
        drivers = {tier: HostsDriver(name=tier.value, tier=tier, hosts=hosts) for tier in self.own.drivers}
        engine = HostsEngine(model=self.engine.model, hosts=hosts)
        own = replace(self.own, drivers=drivers, processes=HostsProcesses(hosts=hosts), engine=engine)
        return FarFleet(directory=self.directory, own=own, beside=self.beside)

    async def clear(self) -> None:
        """End and remove everything: the host serves other tests as well."""
        for each in self.processes.found():
            await self.processes.kill(each.running)
        for driver in self.own.drivers.values():
            for found in await driver.inventory():
                if found.parked is not None:
                    await driver.discard(found.parked)


@pytest.fixture
async def beside_ray(tmp_path: Path) -> AsyncIterator[FarFleet]:
    """A host whose calls a stand-in for Ray carries; its service, relay and drivers are the real ones."""
    async with hosted_fleet(tmp_path, HOST, served=counting()) as hosted:
        fleet = far(hosted)
        yield fleet
        await fleet.clear()


def far(hosted: HostedFleet) -> FarFleet:
    directory = hosted.directory / HOST
    return FarFleet(directory=directory, own=hosted.own, beside=new_fleet(directory).processes)


@pytest.fixture(scope="session")
def ray_room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    """Ray's head and a host, for all tests."""
    with a_room(tmp_path_factory.mktemp("far"), HOST) as room:
        yield room


@pytest.fixture
async def through_ray(ray_room: Room) -> AsyncIterator[FarFleet]:
    """The host of a real Ray, with a connection of this test's own."""
    host, _, port = ray_room.head_at.rpartition(":")
    there, _, relay = ray_room.addresses[HOST].rpartition(":")
    named = HostsSettings(
        head=Address(host, int(port)), relays={HOST: Address(there, int(relay))}, key=str(ray_room.key)
    )
    settings = FleetSettings(directory=str(ray_room.fleet), models=(counting(),), hosts=named)
    beside = new_fleet(ray_room.directory / HOST).processes
    here = FleetDrivers(drivers={}, processes=new_fleet(ray_room.fleet).processes)
    async with drivers_on_hosts(here, settings, named, clock=SystemClock.started(), log=KeptLog()) as both:
        fleet = FarFleet(directory=ray_room.directory / HOST, own=both.elsewhere[TINY], beside=beside)
        yield fleet
        await fleet.clear()
