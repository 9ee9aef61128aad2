"""A trial of the tier `suspended` for the doctor: a guest of the fleet is booted, suspended and woken."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from poorwill.compose.machines import current_guest, guest_home, machine_drivers
from poorwill.compose.snapshots import fleet_snapshots
from poorwill.core.errors import OperatorFault
from poorwill.core.ports import Clock, Log
from poorwill.core.settings import FleetSettings, ModelSettings
from poorwill.core.words import ReplicaId, Tier
from poorwill.drivers.guest import Guest
from poorwill.drivers.process import EngineProcesses
from poorwill.drivers.proof import Proof, free_port, prove_by_trial
from poorwill.drivers.qemu import find_hypervisor
from poorwill.drivers.qemu_kvm import prove_kvm
from poorwill.drivers.qemu_runs import QemuRuns
from poorwill.engines.kinds import make_engine


async def prove_suspended(
    settings: FleetSettings | None,
    *,
    directory: Path,
    env: Mapping[str, str],
    clock: Clock,
    log: Log,
) -> Proof:
    """Boot, suspend and wake one of the fleet's guests, if it has any: seconds with KVM, else up to minutes.

    `directory` is for scratch; the fleet's own is only read. Cancelled: nothing is left running.
    """
    try:
        hypervisor = await find_hypervisor()
    except OperatorFault as fault:
        return _untried(fault.message, fault.hint or "")
    try:
        found = _first_guest(settings) if settings else None
    except OperatorFault as fault:
        return _untried(f"{hypervisor.named} is here, but {fault.message}", fault.hint or "")
    if settings is None or found is None:
        return _untried(
            f"{hypervisor.named} is here, a guest to suspend is not",
            "poorwill guest build MODEL, and `suspended` in the model's ladder",
        )
    model, guest = found
    hypervisor, why = await prove_kvm(hypervisor, guest)
    processes = EngineProcesses(fleet=str(directory), clock=clock, log=log)
    runs = QemuRuns(
        hypervisor=hypervisor,
        guests={model.name: guest},
        processes=processes,
        directory=directory / "runs",
        clock=clock,
        log=log,
    )
    suspended, cold = machine_drivers(
        settings, runs, fleet_snapshots(replace(settings, directory=str(directory)), log=log)
    )
    engine = make_engine(model, directory=str(directory), clock=clock, env=env)
    launch = engine.launch(replica=ReplicaId("proof"), generation=1)
    proof = await prove_by_trial(
        cold=cold,
        driver=suspended,
        launch=replace(launch, port=free_port()),
        processes=processes,
        clock=clock,
    )
    return replace(proof, why=f"{hypervisor.named}: {proof.why} ({why})")


def _untried(why: str, mend: str) -> Proof:
    return Proof(tier=Tier.SUSPENDED, works=False, tried=False, why=why, mend=mend)


def _first_guest(settings: FleetSettings) -> tuple[ModelSettings, Guest] | None:
    """Return a guest that can be tried. Raises OperatorFault where there are some, but none is of use."""
    faults = []
    for model in settings.models:
        if not guest_home(settings, model.name).exists():
            continue
        try:
            return model, current_guest(settings, model)
        except OperatorFault as fault:
            faults.append(fault)
    if faults:
        raise faults[0]
    return None
