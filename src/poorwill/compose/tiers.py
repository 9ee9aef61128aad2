"""Which ways of parking work on this machine, found out by doing, and the drivers for them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from poorwill.compose.machines import Machines, open_machines
from poorwill.compose.rented import Rented, rented_machines
from poorwill.compose.snapshots import Snapshots, fleet_snapshots
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.driver import Driver, Processes
from poorwill.core.ports.log import Log
from poorwill.core.settings import FleetSettings, ModelSettings
from poorwill.core.words import ModelName, ReplicaId, Tier
from poorwill.engines.kinds import cannot_sleep
from poorwill.hosts.processes.blocking import in_thread
from poorwill.hosts.processes.process import EngineProcesses
from poorwill.tiers.asleep.driver import AsleepDriver
from poorwill.tiers.asleep.engines import engine_sleeps
from poorwill.tiers.cold.driver import ColdDriver
from poorwill.tiers.exclusive import Exclusive
from poorwill.tiers.frozen.criu import Criu, find_criu
from poorwill.tiers.frozen.cuda import CudaDevice
from poorwill.tiers.frozen.device import NoDevice
from poorwill.tiers.frozen.driver import FrozenDriver
from poorwill.tiers.proof import prove_frozen
from poorwill.tiers.snapshots.manifest import HostFacts
from poorwill.tiers.snapshots.sealing import Sealer
from poorwill.tiers.snapshots.space import Value, all_alike


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """A tier that a model's ladder names and this machine cannot do."""

    model: ModelName
    tier: Tier
    why: str
    mend: str

    def __str__(self) -> str:
        mend = f"; to mend it: {self.mend}" if self.mend else ""
        return f"{self.model}: not {self.tier}: {self.why}{mend}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """The drivers that work here, and why others do not. Made by `open_workshop`."""

    drivers: Mapping[Tier, Driver]
    processes: EngineProcesses
    broken: Mapping[Tier, tuple[str, str]] = field(default_factory=dict)
    """Why a tier does not work here, and what would mend it."""
    machines: Machines | None = None
    """For the models that run in a virtual machine."""
    without_machine: Mapping[ModelName, tuple[str, str]] = field(default_factory=dict)
    """Likewise why a model that is to be suspended has no machine."""
    rented: Rented
    """For the models whose engines are on rented machines."""

    def processes_of(self, model: ModelName) -> Processes:
        """Return what watches and ends a model's engine."""
        return self.rented.engines if model in self.rented.models else self.processes

    def drivers_of(self, model: ModelName) -> Mapping[Tier, Driver]:
        """Return a model's drivers. One in a virtual machine is suspended, never frozen; one on a rented
        machine has that machine's alone."""
        if model in self.rented.models:
            return self.rented.drivers
        if self.machines is None or model not in self.machines.guests:
            return self.drivers
        drivers: dict[Tier, Driver] = {**self.drivers, **self.machines.drivers}
        drivers.pop(Tier.FROZEN, None)
        return drivers

    def ladder(self, model: ModelSettings) -> tuple[tuple[Tier, ...], Sequence[Fallback]]:
        """Return the rungs of a model's ladder that work here; `cold` is always one of them."""
        rungs, fallbacks = [], []
        drivers = self.drivers_of(model.name)
        for tier in model.replica.park.ladder:
            if tier in drivers and not (tier is Tier.ASLEEP and cannot_sleep(model.engine)):
                rungs.append(tier)
            else:
                why, mend = self._why_not(tier, model)
                fallbacks.append(Fallback(model=model.name, tier=tier, why=why, mend=mend))
        if Tier.COLD not in rungs:
            rungs.append(Tier.COLD)
        return tuple(rungs), fallbacks

    def _why_not(self, tier: Tier, model: ModelSettings) -> tuple[str, str]:
        if tier is Tier.SUSPENDED and model.name in self.without_machine:
            return self.without_machine[model.name]
        if tier is Tier.HIBERNATED:
            return (
                "it is on no rented machine",
                f"[models.{model.name}.cloud]; see docs/hibernated.md",
            )
        sleepless = cannot_sleep(model.engine)
        if tier is Tier.ASLEEP and sleepless:
            return sleepless
        if tier in self.drivers:
            return "it runs in a virtual machine, which is suspended instead", ""
        return self.broken.get(tier, ("there is no driver for it", ""))


async def open_workshop(
    settings: FleetSettings,
    *,
    env: Mapping[str, str],
    clock: Clock,
    log: Log,
    value: Callable[[ReplicaId, Tier], Value] = all_alike,
) -> Workshop:
    """Return drivers for the tiers that the fleet's ladders name, each proven by a trial on this machine.

    `value` ranks snapshots where room for them is short, as `Space` says.

    Raises OperatorFault where a key is missing or unusable. Cancelled: trials leave nothing behind.
    """
    directory = Path(settings.directory)
    snapshots = fleet_snapshots(settings, log=log, sealer=_sealer(settings, env), value=value)
    await in_thread(lambda stop: snapshots.space.keep_to_quota())
    processes = EngineProcesses(fleet=str(directory), clock=clock, log=log)
    rented = rented_machines(settings, env=env, clock=clock, log=log)
    # One for all: a replica that one driver wakes cannot be parked by another meanwhile.
    exclusive = Exclusive()
    drivers: dict[Tier, Driver] = {
        Tier.COLD: ColdDriver(processes=processes, clock=clock, log=log, exclusive=exclusive)
    }
    broken: dict[Tier, tuple[str, str]] = {}
    wanted = {tier for model in settings.models for tier in model.replica.park.ladder}
    if Tier.ASLEEP in wanted:
        drivers[Tier.ASLEEP] = AsleepDriver(
            processes=processes,
            sleeps=engine_sleeps(),
            clock=clock,
            log=log,
            exclusive=exclusive,
        )
    if Tier.FROZEN in wanted:
        criu = await find_criu(env)
        proof = await prove_frozen(criu=criu, directory=directory, clock=clock, log=log)
        if proof.works and criu is not None:
            frozen = _frozen(snapshots, criu, processes, env, clock, exclusive)
            await frozen.recover()
            drivers[Tier.FROZEN] = frozen
        else:
            broken[Tier.FROZEN] = (proof.why, proof.mend)
    machines, without = await open_machines(
        settings,
        processes=processes,
        clock=clock,
        log=log,
        snapshots=snapshots,
    )
    return Workshop(
        drivers=drivers,
        processes=processes,
        broken=broken,
        machines=machines,
        without_machine=without,
        rented=rented,
    )


def _sealer(settings: FleetSettings, env: Mapping[str, str]) -> Sealer | None:
    name = settings.encrypt_key_env
    return Sealer.from_text(env.get(name, ""), source=f"${name}") if name else None


def _frozen(
    snapshots: Snapshots,
    criu: Criu,
    processes: EngineProcesses,
    env: Mapping[str, str],
    clock: Clock,
    exclusive: Exclusive,
) -> FrozenDriver:
    has_gpu = HostFacts.read().gpu_driver != "none"
    return FrozenDriver(
        criu=criu,
        store=snapshots.stores[Tier.FROZEN],
        space=snapshots.space,
        processes=processes,
        clock=clock,
        log=snapshots.space.log,
        device=CudaDevice(env=env) if has_gpu else NoDevice(),
        exclusive=exclusive,
    )
