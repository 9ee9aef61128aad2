"""A fleet with hosts on this machine: each its own directory, relay and service. Ray is stood in for."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.kept_log import KeptLog

from poorwill.compose.clock import SystemClock
from poorwill.compose.drivers.fleet_drivers import FleetDrivers, ModelDrivers
from poorwill.compose.drivers.hosting import serving_host
from poorwill.compose.drivers.on_hosts import FOUND_S, drivers_on_hosts
from poorwill.core.launch import Launch, Parked, PhaseMark, Running
from poorwill.core.ports.driver import DriverError
from poorwill.core.ports.engine import Engine
from poorwill.core.settings import (
    Address,
    DeviceNeed,
    EngineSettings,
    FleetSettings,
    HostsSettings,
    ModelSettings,
    ParkSettings,
    ReplicaSettings,
    ReplicasSettings,
)
from poorwill.core.words import ModelName, Tier, replica_id
from poorwill.hosts.processes.process import EngineProcesses
from poorwill.policies.placement.devices import DeviceState
from poorwill.remote.ray.calls import Call, CallAnswer, line, read_answer
from poorwill.remote.ray.carrier import carry
from poorwill.remote.ray.drivers import HostsDriver
from poorwill.remote.ray.hosts import Hosts
from poorwill.remote.ray.identity import make_key
from poorwill.remote.ray.node import HostPlan
from poorwill.remote.ray.service import HostService
from poorwill.tiers.proof import free_port

TINY = ModelName("tiny")
ENV = {"PATH": "/usr/bin:/bin"}


@dataclass
class FakeCluster:
    """In place of Ray: carries calls to services of this process, and counts places."""

    services: dict[str, HostService] = field(default_factory=dict)
    room: dict[str, int] = field(default_factory=dict)
    """How many places a host has; many, if not named."""
    held: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    settled: bool = True
    joining: set[str] = field(default_factory=set)
    """The hosts that have not joined yet."""

    async def call(self, host: str, call: Call) -> CallAnswer:
        if self.cut or host not in self.services:
            raise DriverError("Ray cannot be reached")
        try:
            return read_answer(await carry(str(self.services[host].socket), line(call)))
        except OSError as error:
            raise DriverError(f"Ray: {error}") from error

    async def joined(self) -> frozenset[str]:
        if self.cut:
            raise DriverError("Ray cannot be reached")
        return frozenset(self.services.keys() - self.joining)

    async def lease(self, name: str, host: str, needs: Mapping[str, float], *, wait_s: float) -> bool:
        taken = sum(each == host for holder, each in self.held.items() if holder != name)
        if taken >= self.room.get(host, 100):
            return False
        self.held[name] = host
        return True

    def keep(self, name: str, host: str, needs: Mapping[str, float]) -> None:
        self.held.setdefault(name, host)

    async def release(self, name: str) -> None:
        self.held.pop(name, None)


def model(
    *hosts: str,
    ladder: tuple[Tier, ...] = (Tier.COLD,),
    most: int = 1,
    gpus: int = 0,
    on: tuple[str, ...] = (),
    **options: object,
) -> ModelSettings:
    """A model whose engine is the toy, on these hosts."""
    return ModelSettings(
        devices=DeviceNeed(gpus=gpus, on=on),
        name=TINY,
        engine=EngineSettings(kind="toy", options=options),  # type: ignore[arg-type]
        replica=ReplicaSettings(model=TINY, max_concurrency=4, park=ParkSettings(ladder=ladder)),
        replicas=ReplicasSettings(most=most),
        hosts=hosts,
    )


@dataclass
class HostedFleet:
    """Hosts that serve, and what the controller has of them."""

    directory: Path
    cluster: FakeCluster
    settings: FleetSettings
    log: KeptLog
    devices: tuple[str, ...] = ()
    """Of each host."""
    services: dict[str, AsyncExitStack] = field(default_factory=dict)
    drivers: FleetDrivers | None = None
    marks: list[PhaseMark] = field(default_factory=list)

    @property
    def own(self) -> ModelDrivers:
        assert self.drivers is not None
        return self.drivers.elsewhere[TINY]

    @property
    def hosts(self) -> Hosts:
        driver = self.own.drivers[Tier.COLD]
        assert isinstance(driver, HostsDriver)
        return driver.hosts

    @property
    def engine(self) -> Engine:
        assert self.own.engine is not None
        return self.own.engine

    async def start(self, host: str) -> HostService:
        """Start a host's service, or another one after it has stopped."""
        stack = AsyncExitStack()
        service = await stack.enter_async_context(serving_host(self.plan(host), env=ENV, log=self.log))
        self.services[host], self.cluster.services[host] = stack, service
        return service

    def plan(self, host: str) -> HostPlan:
        assert self.settings.hosts is not None
        directory = self.directory / host
        directory.mkdir(exist_ok=True, mode=0o700)
        key, relay = Path(self.settings.hosts.key), self.settings.hosts.relays[host]
        devices = tuple(
            DeviceState(id=each, index=index, host=host, bytes=0) for index, each in enumerate(self.devices)
        )
        return HostPlan(name=host, directory=directory, key=key, relay=relay, devices=devices)

    async def stop(self, host: str) -> None:
        """Stop a host's service; its engines run on."""
        del self.cluster.services[host]
        await self.services.pop(host).aclose()

    def launch(self, number: int = 0, *, generation: int = 1) -> Launch:
        return self.engine.launch(replica=replica_id(TINY, number), generation=generation)

    async def wake(self, launch: Launch, *, generation: int = 1, parked: Parked | None = None) -> Running:
        parked = parked or Parked(replica=launch.replica, generation=generation, tier=Tier.COLD)
        driver = self.own.drivers[parked.tier]
        return await driver.wake(parked, launch, generation=generation, report=self.marks.append)

    def said(self, message: str) -> int:
        """How often this was logged."""
        return [each for _, each, _ in self.log.lines].count(message)

    def processes(self, host: str) -> EngineProcesses:
        """What runs on a host, seen from beside its service."""
        clock = SystemClock.started()
        return EngineProcesses(fleet=str(self.directory / host), clock=clock, log=self.log, grace_s=1.0)

    def engines(self, host: str) -> list[Running]:
        return [found.running for found in self.processes(host).found() if found.running is not None]


@asynccontextmanager
async def hosted_fleet(
    directory: Path,
    *hosts: str,
    served: ModelSettings | None = None,
    room: Mapping[str, int] | None = None,
    late: bool = False,
    devices: tuple[str, ...] = (),
    encrypt_key_env: str = "",
) -> AsyncIterator[HostedFleet]:
    """Serve hosts, unless they are `late`, and connect to them.

    Every engine is ended afterwards, and counts as a failure.
    """
    key = directory / "hosts.pem"
    make_key(key)
    relays = {host: Address("127.0.0.1", free_port()) for host in hosts}
    settings = FleetSettings(
        directory=str(directory),
        encrypt_key_env=encrypt_key_env,
        models=(served or model(*hosts),),
        hosts=HostsSettings(head=Address("127.0.0.1", 1), relays=relays, key=str(key)),
    )
    cluster, log = FakeCluster(room=dict(room or {})), KeptLog()
    fleet = HostedFleet(directory=directory, cluster=cluster, settings=settings, log=log, devices=devices)
    here = FleetDrivers(drivers={}, processes=fleet.processes("here"))
    try:
        for host in () if late else hosts:
            await fleet.start(host)
        assert settings.hosts is not None
        async with drivers_on_hosts(
            here,
            settings,
            settings.hosts,
            clock=SystemClock.started(),
            log=log,
            cluster=cluster,
            found_s=0.0 if late else FOUND_S,
        ) as both:
            fleet.drivers = replace(both)
            yield fleet
            assert not [each for host in hosts for each in fleet.engines(host)], "left behind"
    finally:
        for stack in list(fleet.services.values()):
            await stack.aclose()
        for host in hosts:
            for running in fleet.engines(host):
                fleet.processes(host).kill_now(running)
