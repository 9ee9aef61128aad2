"""Finds out by trial which ways of parking work on this machine, and makes the drivers for them.

Imports a tier only if some ladder names it.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

from poorwill.compose.drivers.fleet_drivers import ByUrl, FleetDrivers, ModelDrivers
from poorwill.compose.drivers.snapshots import Snapshots, fleet_snapshots
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.driver import Driver
from poorwill.core.ports.log import Log
from poorwill.core.settings import FleetSettings
from poorwill.core.words import ModelName, ReplicaId, Tier
from poorwill.hosts.files.aside import in_thread
from poorwill.hosts.files.landlock import Confinement
from poorwill.hosts.files.reach import Reach
from poorwill.hosts.processes.exclusive import Exclusive
from poorwill.hosts.processes.groups import engine_groups
from poorwill.hosts.processes.mark import KEY_FILE
from poorwill.hosts.processes.process import EngineProcesses
from poorwill.hosts.processes.readiness import is_proven
from poorwill.ledger.schema import LEDGER_FILE
from poorwill.tiers.cold.driver import ColdDriver
from poorwill.tiers.snapshots.sealing import Sealer
from poorwill.tiers.snapshots.space import Value, all_alike

OWN_FILES = (LEDGER_FILE, KEY_FILE, "snapshots", "logs", "poorwill.", "ports", "outside", ".")
"""The beginnings of names in a fleet's directory that are no engine's business; models may lie there too."""


async def open_drivers(
    settings: FleetSettings,
    *,
    env: Mapping[str, str],
    clock: Clock,
    log: Log,
    value: Callable[[ReplicaId, Tier], Value] = all_alike,
    processes: EngineProcesses | None = None,
) -> FleetDrivers:
    """Return drivers for the tiers that the fleet's ladders name, each proven by a trial on this machine.

    `value` ranks snapshots, as `Space` says; `processes` are those of earlier drivers of the directory.

    Raises OperatorFault if a key is missing or unusable. Cancelled: trials leave nothing behind.
    """
    snapshots = fleet_snapshots(settings, log=log, sealer=_sealer(settings, env), value=value)
    await in_thread(lambda stop: snapshots.space.keep_to_quota())
    processes = processes or engine_processes(settings, clock, log)
    # One for all: a replica that one driver wakes cannot be parked by another meanwhile.
    exclusive = Exclusive()
    cold = ColdDriver(processes=processes, clock=clock, log=log, exclusive=exclusive)
    drivers: dict[Tier, Driver] = {Tier.COLD: cold}
    broken: dict[Tier, tuple[str, str]] = {}
    asleep = partial(_asleep, processes, clock, log, exclusive)
    frozen = partial(_frozen, snapshots, processes, env, clock, exclusive)
    by_url, elsewhere = ByUrl(env=env, clock=clock, log=log), dict[ModelName, ModelDrivers]()
    more = partial(_open_more, drivers, broken, asleep, frozen, by_url, elsewhere)
    await more(settings)
    without_guest: Mapping[ModelName, tuple[str, str]] = {}
    if any(Tier.SUSPENDED in model.replica.park.ladder for model in settings.models):
        from poorwill.compose.drivers.virtual_machines import open_machines

        suspended, without_guest = await open_machines(
            settings, processes=processes, clock=clock, log=log, snapshots=snapshots
        )
        for model, own in suspended.items():
            both = {**drivers, **own}
            both.pop(Tier.FROZEN, None)  # criu cannot dump a virtual machine
            elsewhere[model] = ModelDrivers(drivers=both, processes=processes)
    reached: Callable[[tuple[str, int]], Reach | None] = by_url.reached.get
    if any(model.cloud is not None for model in settings.models):
        from poorwill.compose.drivers.rented import rented_machines

        rented = rented_machines(settings, env=env, clock=clock, log=log)
        on_rented = ModelDrivers(drivers=rented.drivers, processes=rented.engines)
        elsewhere |= dict.fromkeys(rented.models, on_rented)
        await rented.engines.locate()
        reached = partial(rented.engines.reached, by_url.reached)
    return FleetDrivers(
        drivers=drivers,
        processes=processes,
        broken=broken,
        elsewhere=elsewhere,
        without_guest=without_guest,
        proven=partial(is_proven, processes),
        reached=reached,
        more=more,
    )


def engine_processes(settings: FleetSettings, clock: Clock, log: Log) -> EngineProcesses:
    """Return the engine processes of a fleet's directory."""
    confinement = Confinement(directory=Path(settings.directory), closed=OWN_FILES)
    return EngineProcesses(
        fleet=settings.directory,
        clock=clock,
        log=log,
        groups=engine_groups(),
        confinement=confinement if settings.confine_engines else None,
    )


async def _open_more(
    drivers: dict[Tier, Driver],
    broken: dict[Tier, tuple[str, str]],
    asleep: Callable[[], Driver],
    frozen: Callable[[], Awaitable[Driver | tuple[str, str]]],
    by_url: ByUrl,
    elsewhere: dict[ModelName, ModelDrivers],
    settings: FleetSettings,
) -> None:
    """Open what these settings need and was not tried yet."""
    by_url.follow(settings, elsewhere)
    wanted = {tier for model in settings.models if not model.hosts for tier in model.replica.park.ladder}
    missing = wanted - {*drivers, *broken}
    if Tier.ASLEEP in missing:
        drivers[Tier.ASLEEP] = asleep()
    if Tier.FROZEN in missing:
        found = await frozen()
        if isinstance(found, tuple):
            broken[Tier.FROZEN] = found
        else:
            drivers[Tier.FROZEN] = found


def _sealer(settings: FleetSettings, env: Mapping[str, str]) -> Sealer | None:
    name = settings.encrypt_key_env
    return Sealer.from_text(env.get(name, ""), source=f"${name}") if name else None


def _asleep(processes: EngineProcesses, clock: Clock, log: Log, exclusive: Exclusive) -> Driver:
    from poorwill.engines.sleeping import engine_sleeps
    from poorwill.tiers.asleep.driver import AsleepDriver

    return AsleepDriver(
        processes=processes, sleeps=engine_sleeps(), clock=clock, log=log, exclusive=exclusive
    )


async def _frozen(
    snapshots: Snapshots,
    processes: EngineProcesses,
    env: Mapping[str, str],
    clock: Clock,
    exclusive: Exclusive,
) -> Driver | tuple[str, str]:
    """Return the driver, or why freezing does not work here and what would fix it."""
    from poorwill.engines.sleeping import engine_sleeps
    from poorwill.tiers.frozen.criu import find_criu
    from poorwill.tiers.frozen.cuda import CudaDevice
    from poorwill.tiers.frozen.device import NoDevice
    from poorwill.tiers.frozen.driver import FrozenDriver
    from poorwill.tiers.frozen.proof import prove_frozen
    from poorwill.tiers.snapshots.manifest import HostFacts

    criu, log = await find_criu(env), snapshots.space.log
    proof = await prove_frozen(criu=criu, directory=Path(processes.fleet), clock=clock, log=log)
    if criu is None or not proof.works:
        return proof.why, proof.mend
    has_gpu = HostFacts.read().gpu_driver != "none"
    driver = FrozenDriver(
        criu=criu,
        store=snapshots.stores[Tier.FROZEN],
        space=snapshots.space,
        processes=processes,
        clock=clock,
        log=log,
        device=CudaDevice(env=env) if has_gpu else NoDevice(),
        sleeps=engine_sleeps(),
        exclusive=exclusive,
    )
    await driver.recover()
    return driver
