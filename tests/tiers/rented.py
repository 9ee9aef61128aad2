"""Rented machines for the driver tests: the real client and drivers over a fake cloud with tiny engines."""

# The SDKs read the environment by themselves.
# ruff: noqa: TID251

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.kept_log import KeptLog

from poorwill.compose.clock import SystemClock
from poorwill.core.launch import Launch, Parked, PhaseMark, Running
from poorwill.core.ports.driver import Found
from poorwill.core.settings import EngineUrl
from poorwill.core.words import ModelName, ReplicaId, Tier
from poorwill.hosts.files.reach import Reach
from poorwill.hosts.processes.exclusive import Exclusive
from poorwill.remote.clouds.aws import Aws
from poorwill.remote.clouds.cloud import Cloud
from poorwill.remote.clouds.driver import RentedDriver
from poorwill.remote.clouds.engines import RentedEngines
from poorwill.remote.clouds.gcp import Gcp
from poorwill.remote.clouds.hyperstack import Hyperstack
from poorwill.remote.clouds.machine import Pace, RentedMachine
from poorwill.remote.clouds.scaleway import Scaleway
from poorwill.tiers.proof import free_port

from .conftest import TINY_ENGINE
from .fake_aws import FakeAws
from .fake_gcp import FakeGcp, key_file
from .fake_hyperstack import FakeHyperstack, Machine
from .fake_scaleway import FakeScaleway

QUICK = Pace(
    first_look_s=0.004,
    longest_look_s=0.02,
    retry_s=0.01,
    longest_retry_s=0.1,
    attempts=3,
    unmoved_s=0.3,
)


@dataclass
class RentedProcesses:
    """The engines on the fake's machines, as the suite looks at real processes."""

    fleet: "RentedFleet"

    def found(self) -> Sequence[Found]:
        return [
            Found(
                replica=replica,
                generation=0,
                tier=None,
                what=machine.named,
                running=self.fleet.running(replica),
            )
            for replica, machine in self.fleet.machines.items()
            if self.fleet.at(replica).engine_runs
        ]

    def alive(self, running: Running) -> bool:
        return self.fleet.at(running.replica).engine_runs

    async def kill(self, running: Running | None) -> None:
        assert running is not None
        await self.fleet.engines.kill(running)

    def kill_now(self, running: Running) -> None:
        """The engine dies by itself; its machine runs on."""
        self.fleet.at(running.replica).end_engine()

    async def gone(self, running: Running) -> None:
        assert not self.alive(running)


@dataclass
class RentedFleet:
    """A fleet of rented machines, one for each replica, rented as a launch is asked for."""

    directory: Path
    cloud: FakeHyperstack
    api: str
    clock: SystemClock = field(default_factory=SystemClock.started)
    log: KeptLog = field(default_factory=KeptLog)
    marks: list[PhaseMark] = field(default_factory=list)
    machines: dict[ReplicaId, RentedMachine] = field(default_factory=dict)
    exclusive: Exclusive = field(default_factory=Exclusive)
    host: str = "127.0.0.1"
    """Where the machines' engines are said to be."""
    sdk: dict[str, Aws | Gcp] = field(default_factory=dict)
    """The client, if it has an SDK: opening one takes a while."""

    @classmethod
    def open(cls, directory: Path, cloud: FakeHyperstack | None = None) -> "RentedFleet":
        cloud = cloud or FakeHyperstack()
        fleet = cls(directory=directory, cloud=cloud, api=cloud.open())
        fleet.give_credentials()
        return fleet

    def give_credentials(self, key: str = "") -> None:
        """Put what the SDKs look for where they look: their chains are their own."""
        if isinstance(self.cloud, FakeAws):
            os.environ["AWS_ACCESS_KEY_ID"] = key or self.cloud.key
            os.environ["AWS_SECRET_ACCESS_KEY"] = "secret-of-mine"
        if isinstance(self.cloud, FakeGcp):
            made = self.directory / "google.json"
            made.write_text(key_file(key) if key else key_file())
            os.environ["GOOGLE_APPLICATION_CREDENTIALS"] = str(made)

    def client(self, key: str = "", answer_limit_s: float = 2.0) -> Cloud:
        """The client of the cloud that this fleet's machines are at."""
        if isinstance(self.cloud, FakeAws):
            return self.sdk.setdefault("aws", Aws(api=self.api, answer_limit_s=10.0))
        if isinstance(self.cloud, FakeGcp):
            return self.sdk.setdefault("gcp", Gcp(api=self.api, answer_limit_s=10.0))
        of = Scaleway if isinstance(self.cloud, FakeScaleway) else Hyperstack
        return of(key=key or self.cloud.key, api=self.api, answer_limit_s=answer_limit_s)

    @property
    def engines(self) -> RentedEngines:
        return RentedEngines(machines=self.machines, log=self.log, watch_s=0.01, silences=3, kill_limit_s=5.0)

    @property
    def processes(self) -> RentedProcesses:
        return RentedProcesses(self)

    def driver(self, tier: Tier, **changes: float) -> RentedDriver:
        driver = RentedDriver(
            into=tier,
            machines=self.machines,
            clock=self.clock,
            log=self.log,
            park_limit_s=5.0,
            wake_limit_s=10.0,
            undo_limit_s=5.0,
            silent_s=3.0,
            look_s=0.05,
            exclusive=self.exclusive,
        )
        return replace(driver, **changes)

    def at(self, replica: ReplicaId) -> Machine:
        """The machine at the fake cloud."""
        return self.cloud.machines[self.machines[replica].id.rpartition("/")[2].removeprefix("vm-")]

    def machine(self, replica: str = "tiny") -> RentedMachine:
        return self.machines[ReplicaId(replica)]

    def launch(self, *switches: str, replica: str = "tiny") -> Launch:
        name = ReplicaId(replica)
        if name not in self.machines:
            port = free_port()
            argv = (sys.executable, "-I", "-S", str(TINY_ENGINE), str(port), *switches)
            there = self.cloud.add(str(1000 + len(self.cloud.machines)), argv)
            self.machines[name] = RentedMachine(
                cloud=self.client(),
                id=self.cloud.named(there.id),
                host=self.host,
                port=port,
                reach=Reach(url=EngineUrl(self.host, port)),
                pace=QUICK,
            )
        return Launch(
            replica=name,
            model=ModelName("tiny"),
            engine="tiny",
            argv=(),
            port=self.machines[name].port,
            log_path="",
        )

    def running(self, replica: ReplicaId) -> Running:
        machine = self.machines[replica]
        return Running(
            replica=replica,
            generation=0,
            host=machine.address,
            port=machine.port,
            log_path="",
            driver="rented",
            machine=machine.named,
        )

    def cold(self, launch: Launch) -> Parked:
        return Parked(replica=launch.replica, generation=0, tier=Tier.COLD)

    def report(self, mark: PhaseMark) -> None:
        self.marks.append(mark)

    def again(self) -> "RentedFleet":
        """The same fleet as a restarted poorwill sees it: configured alike, and nothing looked at yet."""
        machines = {name: replace(each, seen=None) for name, each in self.machines.items()}
        return RentedFleet(directory=self.directory, cloud=self.cloud, api=self.api, machines=machines)
