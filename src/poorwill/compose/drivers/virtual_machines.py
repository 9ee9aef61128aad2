"""Virtual machines for a fleet: the directory of a model's guest, its build, and its drivers."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from poorwill.compose.clock import SystemClock
from poorwill.compose.drivers.snapshots import Snapshots
from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.driver import Driver, DriverError
from poorwill.core.ports.log import Log
from poorwill.core.settings import FleetSettings, ModelSettings
from poorwill.core.words import ModelName, ReplicaId, Tier
from poorwill.engines.kinds import ENGINE_KINDS, make_engine
from poorwill.engines.recipe import LaunchContext
from poorwill.engines.sleeping import engine_sleeps
from poorwill.engines.weights.files import gguf_parts
from poorwill.hosts.files.names import file_name
from poorwill.hosts.guests.build import PORT, GuestPlan
from poorwill.hosts.guests.directory import Guest, open_guest
from poorwill.hosts.processes.exclusive import Exclusive
from poorwill.hosts.processes.process import EngineProcesses
from poorwill.tiers.suspended.cold import QemuColdDriver
from poorwill.tiers.suspended.driver import SuspendedDriver
from poorwill.tiers.suspended.golden import make_golden
from poorwill.tiers.suspended.qemu.kvm import prove_kvm
from poorwill.tiers.suspended.qemu.program import find_hypervisor
from poorwill.tiers.suspended.qemu.runs import QemuRuns

PROGRAMS = "poorwill.engines.programs"
GUEST_PACKAGES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"llama.cpp": (PROGRAMS, "xllamacpp"), "toy": (PROGRAMS,)}
)
"""The engines that a guest can hold, and the packages that their programs import."""

_LEAST_MIB, _MODEL_COPIES = 512, 2.5
"""Default memory: a floor for system and engine, and room for the weights, a copy and the KV cache."""


def guest_home(settings: FleetSettings, model: ModelName) -> Path:
    """Return the directory of a model's guest, built or not."""
    return Path(settings.directory, "guests", file_name(model))


def guest_plan(
    fleet: FleetSettings, model: ModelSettings, *, memory_mib: int = 0, cpus: int = 2
) -> GuestPlan:
    """Return what `poorwill guest build` builds: the model's own engine, started as on this machine.

    A memory of 0 is chosen from the model file's size. Raises OperatorFault if a guest cannot hold the
    engine, or the engine cannot be started as configured.
    """
    packages = GUEST_PACKAGES.get(model.engine.kind)
    if packages is None:
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            f"a guest cannot hold the engine {model.engine.kind}",
            hint=f"it can hold {' and '.join(GUEST_PACKAGES)}",
        )
    context = LaunchContext(
        host="0.0.0.0", port=PORT, cache="/tmp", env={}
    )  # inside the guest, which only this machine reaches
    recipe = ENGINE_KINDS[model.engine.kind].prepare(model, context)
    weights = Path(model.engine.path) if model.engine.path else None
    if weights and len(gguf_parts(weights)) > 1:
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            f"a guest cannot hold the split model {weights}",
            hint="merge its parts into one file: llama-gguf-split --merge",
        )
    size_mib = weights.stat().st_size // 2**20 if weights else 0
    return GuestPlan(
        directory=guest_home(fleet, model.name),
        engine=model.engine.kind,
        argv=recipe.argv,
        packages=packages,
        model=weights,
        memory_mib=memory_mib or _LEAST_MIB + round(size_mib * _MODEL_COPIES),
        cpus=cpus,
        env=model.engine.env,
        mark=f"{recipe.version} {recipe.weights.mark}",
    )


def current_guest(fleet: FleetSettings, model: ModelSettings) -> Guest:
    """Return the model's guest. Raises OperatorFault if there is none, or what it holds has changed."""
    home = guest_home(fleet, model.name)
    build = f"poorwill guest build {model.name}"
    if not home.exists():
        raise OperatorFault(ErrorCode.CONFIG_INVALID, "no guest was built for it", hint=build)
    guest = open_guest(home)
    if guest.plan != guest_plan(fleet, model).identity():
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            "its guest was built for another engine version, other options or another model file",
            hint=f"{build} --replace",
        )
    return guest


async def open_machines(
    settings: FleetSettings,
    *,
    processes: EngineProcesses,
    clock: Clock,
    log: Log,
    snapshots: Snapshots,
) -> tuple[Mapping[ModelName, Mapping[Tier, Driver]], Mapping[ModelName, tuple[str, str]]]:
    """Return the drivers of each model whose ladder names `suspended`; for those of them that have no guest
    that works, why, and what would fix it.

    Boots one guest under KVM for at most twenty seconds to see whether that works.
    """
    guests: dict[ModelName, Guest] = {}
    broken: dict[ModelName, tuple[str, str]] = {}
    for model in settings.models:
        if Tier.SUSPENDED not in model.replica.park.ladder:
            continue
        try:
            guests[model.name] = current_guest(settings, model)
        except OperatorFault as fault:
            broken[model.name] = (fault.message, fault.hint or "")
    if not guests:
        return {}, broken
    try:
        hypervisor = await find_hypervisor()
    except OperatorFault as fault:
        return {}, broken | dict.fromkeys(guests, (fault.message, fault.hint or ""))
    hypervisor, why = await prove_kvm(hypervisor, next(iter(guests.values())))
    log.info("virtual machines", hypervisor=hypervisor.named, why=why)
    runs = QemuRuns(
        hypervisor=hypervisor,
        guests=guests,
        processes=processes,
        directory=Path(settings.directory, "runs"),
        clock=clock,
        log=log,
    )
    suspended, cold = machine_drivers(settings, runs, snapshots)
    await suspended.recover()
    drivers: Mapping[Tier, Driver] = {Tier.SUSPENDED: suspended, Tier.COLD: cold}
    return dict.fromkeys(guests, drivers), broken


def machine_drivers(
    settings: FleetSettings, runs: QemuRuns, snapshots: Snapshots
) -> tuple[SuspendedDriver, QemuColdDriver]:
    """Return the two drivers of replicas in virtual machines. Encrypted, memory is in no file."""
    exclusive = Exclusive()
    store = snapshots.stores[Tier.SUSPENDED]
    in_file = settings.guest_memory == "file" and store.sealer is None
    suspended = SuspendedDriver(
        runs=runs,
        store=store,
        space=snapshots.space,
        in_file=in_file,
        sleeps=engine_sleeps(),
        exclusive=exclusive,
    )
    return suspended, QemuColdDriver(runs=runs, in_file=in_file, exclusive=exclusive)


async def make_golden_guest(
    settings: FleetSettings,
    model: ModelSettings,
    guest: Guest,
    *,
    env: Mapping[str, str],
    log: Log,
    tell: Callable[[str], None],
) -> None:
    """Boot the guest in a directory of its own beside it and keep its state."""
    clock = SystemClock.started()
    hypervisor, why = await prove_kvm(await find_hypervisor(), guest)
    tell(f"booting it once, with {why}")
    with tempfile.TemporaryDirectory(dir=guest.directory, prefix=".boot-") as scratch:
        engine = make_engine(model, directory=scratch, clock=clock, env=env)
        launch = engine.launch(replica=ReplicaId("golden"), generation=1)
        runs = QemuRuns(
            hypervisor=hypervisor,
            guests={model.name: guest},
            processes=EngineProcesses(fleet=scratch, clock=clock, log=log),
            directory=Path(scratch),
            clock=clock,
            log=log,
        )
        try:
            await make_golden(runs, QemuColdDriver(runs=runs), launch, report=lambda mark: None)
        except DriverError as error:
            raise OperatorFault(
                ErrorCode.WAKE_FAILED,
                f"the guest does not boot: {error}",
                hint="give it more memory",
            ) from error
