"""The service of a host as one `async with`: what `poorwill host --join` runs."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType

from poorwill.compose.clock import SystemClock
from poorwill.compose.drivers.devices import host_devices
from poorwill.compose.drivers.fleet_drivers import FleetDrivers
from poorwill.compose.drivers.sweep import images_of
from poorwill.compose.drivers.tiers import engine_processes, open_drivers
from poorwill.compose.hub.fetch import fetch_first
from poorwill.compose.hub.on_disk import on_disk
from poorwill.core.errors import ErrorCode, PoorwillError, RequestFault
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.log import Log
from poorwill.core.settings import Address, FleetSettings, ModelSettings
from poorwill.core.words import ModelName
from poorwill.engines.kinds import make_engine
from poorwill.engines.weights.files import hub_cache, weights_of
from poorwill.fleet.lock import hold_directory
from poorwill.hosts.devices.nvml import load_nvml
from poorwill.hosts.processes.prctl import subreaper, undumpable
from poorwill.hosts.processes.process import EngineProcesses
from poorwill.hosts.processes.readiness import is_proven
from poorwill.remote.ray.calls import HostOffer
from poorwill.remote.ray.devices import GivenDevices, plain_devices
from poorwill.remote.ray.identity import tls_context
from poorwill.remote.ray.node import HostPlan, ray_head, raylet
from poorwill.remote.ray.offers import HostDisks, Kit
from poorwill.remote.ray.relay import relaying
from poorwill.remote.ray.service import HostService

CALLS = "calls.sock"


def hosting(
    *,
    join: Address | None,
    head: Address | None,
    name: str,
    relay: Address | None,
    key: str,
    directory: str,
    gpus: int | None,
    env: Mapping[str, str],
    log: Log,
) -> AbstractAsyncContextManager[object]:
    """Return what `poorwill host` serves while it lasts: Ray's head, or a host. Raises RequestFault."""
    here, key_file = Path(directory).absolute(), Path(key).absolute()
    if head:
        return ray_head(head, key_file, here, env=env, log=log)
    if not (join and relay and name):
        what = "a host needs --join, --name and --relay; --head stands alone"
        raise RequestFault(ErrorCode.INVALID_REQUEST, what, hint="docs/hosts.md")
    devices = None if gpus is None else plain_devices(gpus, host=name)
    plan = HostPlan(name=name, directory=here, key=key_file, relay=relay, join=join, devices=devices)
    return serving_host(plan, env=env, log=log, nvml=load_nvml())


def _prepared(stack: ExitStack, plan: HostPlan) -> Path:
    """Take the host's directory; return one that lasts as long as the service, with a short path."""
    stack.enter_context(hold_directory(plan.directory, what="poorwill host"))
    stack.enter_context(subreaper())
    stack.enter_context(undumpable())
    Path(plan.directory, "logs").mkdir(mode=0o700, exist_ok=True)
    temporary = tempfile.TemporaryDirectory(prefix="pw-", ignore_cleanup_errors=True)
    return Path(stack.enter_context(temporary))


@asynccontextmanager
async def serving_host(
    plan: HostPlan, *, env: Mapping[str, str], log: Log, nvml: ModuleType | None = None
) -> AsyncIterator[HostService]:
    """Serve a host until the context ends. Its engines run on; the next service finds them.

    Raises OperatorFault if another one holds the directory, the key cannot be used or the relay's address is
    taken.
    """
    tls = tls_context(plan.key, server=True)
    with ExitStack() as stack:
        temporary = _prepared(stack, plan)
        clock = SystemClock.started()
        settings = FleetSettings(directory=str(plan.directory), models=())
        processes = engine_processes(settings, clock, log)
        if plan.devices is None:
            states = await host_devices((), fleet=settings.directory, nvml=nvml).look()
            fit = tuple(replace(each, host=plan.name) for each in states if not each.unfit)
            plan = replace(plan, devices=fit)
        async with asyncio.TaskGroup() as tasks:
            service = HostService(
                name=plan.name,
                socket=temporary / CALLS,
                equip=partial(_kits, settings, processes, env=env, clock=clock, log=log),
                processes=processes,
                images=partial(images_of, plan.directory),
                clock=clock,
                log=log,
                tasks=tasks,
                devices=GivenDevices(devices=plan.devices or ()),
                disks=HostDisks(snapshots=plan.directory, weights=Path(hub_cache(env)), log=log),
                session=clock.now_us(),
            )
            service.find()
            proven = partial(is_proven, processes)
            relay = relaying(service, address=plan.relay, tls=tls, proven=proven, log=log)
            async with service.listening(), relay:
                ray = raylet(plan, service.socket, temporary, env=env, log=log)
                running = tasks.create_task(ray.run()) if ray is not None else None
                try:
                    yield service
                finally:
                    if running is not None:
                        running.cancel()
                        await asyncio.wait([running])
                    service.close()


async def _kits(
    here: FleetSettings,
    processes: EngineProcesses,
    fleet: FleetSettings,
    *,
    env: Mapping[str, str],
    clock: Clock,
    log: Log,
) -> Mapping[ModelName, Kit]:
    """Return what this host runs each model with; one that it cannot run says why."""
    fleet = replace(fleet, directory=here.directory)
    processes.confinement = engine_processes(fleet, clock, log).confinement
    drivers: FleetDrivers | None = None
    kits = {}
    for model in fleet.models:
        try:
            drivers = drivers or await open_drivers(fleet, env=env, clock=clock, log=log, processes=processes)
            kits[model.name] = _kit(model, fleet, drivers, env, clock)
        except (PoorwillError, OSError) as error:
            log.error("this host cannot run a model", model=model.name, why=str(error))
            kits[model.name] = Kit(drivers={}, offer=HostOffer(tiers=(), fault=str(error)))
    return kits


def _kit(
    model: ModelSettings, fleet: FleetSettings, drivers: FleetDrivers, env: Mapping[str, str], clock: Clock
) -> Kit:
    own = drivers.drivers_of(model.name)
    tiers, fallbacks = drivers.ladder(model)
    broken = {each.tier: (each.why, each.mend) for each in fallbacks}
    engine = make_engine(
        model, directory=fleet.directory, clock=clock, env=env, located=partial(on_disk, env=env)
    )
    return Kit(
        engine=engine,
        drivers={tier: own[tier] for tier in tiers},
        offer=HostOffer(tiers=tiers, broken=broken),
        fetch=fetch_first(model, env=env, clock=clock),
        needs=model.devices,
        weights=lambda: weights_of(model.engine.path, cache=hub_cache(env)).bytes,
    )
