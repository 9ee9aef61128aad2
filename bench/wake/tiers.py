"""The engines and drivers that the wake benchmark runs, as poorwill composes them but without a fleet."""

import asyncio
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

from poorwill.compose.clock import SystemClock
from poorwill.compose.drivers.snapshots import fleet_snapshots
from poorwill.compose.drivers.virtual_machines import guest_plan, machine_drivers
from poorwill.core.launch import Launch, Parked, PhaseMark, Running
from poorwill.core.ports.driver import Driver
from poorwill.core.ports.engine import Engine
from poorwill.core.settings import (
    EngineSettings,
    FleetSettings,
    ModelSettings,
    ReplicaSettings,
)
from poorwill.core.words import ModelName, ReplicaId, Tier
from poorwill.engines.kinds import make_engine
from poorwill.engines.sleeping import engine_sleeps
from poorwill.hosts.guests.build import build_guest
from poorwill.hosts.guests.kernel import fetch_busybox, fetch_kernel
from poorwill.hosts.processes.process import EngineProcesses
from poorwill.tiers.asleep.driver import AsleepDriver
from poorwill.tiers.cold.driver import ColdDriver
from poorwill.tiers.frozen.criu import find_criu
from poorwill.tiers.frozen.driver import FrozenDriver
from poorwill.tiers.snapshots.space import Space
from poorwill.tiers.snapshots.store import SnapshotStore, store_root
from poorwill.tiers.suspended.qemu.kvm import prove_kvm
from poorwill.tiers.suspended.qemu.program import find_hypervisor
from poorwill.tiers.suspended.qemu.runs import QemuRuns


@dataclass
class Quiet:
    """A log that shows what went wrong."""

    def info(self, message: str, /, **fields: object) -> None: ...

    def warning(self, message: str, /, **fields: object) -> None:
        print(f"  {message} {fields}")

    def error(self, message: str, /, **fields: object) -> None:
        print(f"  {message} {fields}")


@dataclass
class Bench:
    """One engine with the driver whose parks and wakes are timed, and the one that starts it cold."""

    name: str
    engine: Engine
    launch: Launch
    driver: Driver
    cold: Driver
    clock: SystemClock
    marks: list[PhaseMark] = field(default_factory=list)
    generation: int = 0
    note: str = ""

    async def start(self) -> Running:
        parked = Parked(replica=self.launch.replica, generation=0, tier=Tier.COLD)
        return await self._followed(self.cold, parked)

    async def park(self, running: Running) -> Parked:
        self.generation += 1
        return await self.driver.park(running, self.launch, generation=self.generation)

    async def wake(self, parked: Parked) -> Running:
        return await self._followed(self.driver, parked)

    async def _followed(self, driver: Driver, parked: Parked) -> Running:
        """Wake with the engine followed meanwhile, as the fleet does: that is what reads ahead."""
        self.marks.clear()
        self.generation += 1
        self.engine.launch(
            replica=self.launch.replica, generation=self.generation, anew=parked.tier is Tier.COLD
        )
        async with asyncio.TaskGroup() as group:
            follower = group.create_task(self.engine.follow(self.launch, lambda mark: None))
            await asyncio.sleep(0)
            try:
                return await driver.wake(
                    parked, self.launch, generation=self.generation, report=self.marks.append
                )
            finally:
                follower.cancel()

    async def end(self) -> None:
        """End whatever still runs: after a failure, nothing must stay behind."""
        for found in await self.cold.inventory():
            if found.running is not None:
                await self.stop(found.running)

    async def stop(self, running: Running) -> None:
        await self.cold.park(running, self.launch, generation=self.generation)


def settings_for(model: Path, options: dict[str, str | int], *, read_ahead: bool) -> ModelSettings:
    name = ModelName("bench")
    engine = EngineSettings(
        kind="llama.cpp", path=str(model), context=512, options=options, read_ahead=read_ahead
    )
    return ModelSettings(name=name, engine=engine, replica=ReplicaSettings(model=name))


async def open_bench(
    tier: Tier, directory: Path, model: Path, *, load_mode: str, threads: int, read_ahead: bool
) -> Bench:
    """Compose what is to be measured. Raises an error of poorwill's where the machine cannot do the tier."""
    options: dict[str, str | int] = {
        "load_mode": load_mode,
        "parallel": 1,
        "threads": threads,
    }
    if tier is Tier.ASLEEP:
        options["sleep_idle_seconds"] = 1
    settings = settings_for(model, options, read_ahead=read_ahead)
    clock, log = SystemClock.started(), Quiet()
    processes = EngineProcesses(fleet=str(directory), clock=clock, log=log)
    env = dict(os.environ)  # noqa: TID251 - a script is its own edge
    engine = make_engine(settings, directory=str(directory), clock=clock, env=env)
    launch = engine.launch(replica=ReplicaId("bench-0"), generation=1)
    launch = replace(launch, ready_path="/health")
    cold: Driver = ColdDriver(processes=processes, clock=clock, log=log)
    bench = Bench(name=str(tier), engine=engine, launch=launch, driver=cold, cold=cold, clock=clock)
    if tier is Tier.ASLEEP:
        bench.driver = AsleepDriver(processes=processes, sleeps=engine_sleeps(), clock=clock, log=log)
    elif tier is Tier.FROZEN:
        criu = await find_criu(env)
        if criu is None:
            raise SystemExit("no CRIU here: poorwill doctor --install-criu")
        store = SnapshotStore(root=store_root(directory, tier), tier=tier)
        bench.driver = FrozenDriver(
            criu=criu, store=store, space=Space(log=log), processes=processes, clock=clock, log=log
        )
        bench.note = f"criu {criu.version}"
    elif tier is Tier.SUSPENDED:
        await _in_a_machine(bench, directory, settings, processes, clock, log)
    return bench


async def _in_a_machine(
    bench: Bench,
    directory: Path,
    model: ModelSettings,
    processes: EngineProcesses,
    clock: SystemClock,
    log: Quiet,
) -> None:
    fleet = FleetSettings(directory=str(directory), models=(model,))
    cache = Path.home() / ".cache" / "poorwill" / "guest"
    plan = guest_plan(fleet, model)
    guest = build_guest(plan, kernel=fetch_kernel(cache), busybox=fetch_busybox(cache))
    hypervisor, _ = await prove_kvm(await find_hypervisor(), guest)
    runs = QemuRuns(
        hypervisor=hypervisor,
        guests={model.name: guest},
        processes=processes,
        directory=directory / "runs",
        clock=clock,
        log=log,
    )
    bench.driver, bench.cold = machine_drivers(fleet, runs, fleet_snapshots(fleet, log=log))
    bench.note = f"{hypervisor.named}, {guest.memory_mib} MiB"
