"""Trials for the doctor of the tiers that need a fleet: `suspended` boots, suspends and wakes a guest;
`hibernated` asks the clouds for the state of their machines and changes nothing.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from poorwill.compose.clock import SystemClock
from poorwill.compose.drivers.rented import rented_machine
from poorwill.compose.drivers.snapshots import fleet_snapshots
from poorwill.compose.drivers.virtual_machines import current_guest, guest_home, machine_drivers
from poorwill.core.errors import OperatorFault
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.driver import DriverError
from poorwill.core.ports.log import Log
from poorwill.core.settings import FleetSettings, ModelSettings
from poorwill.core.words import ReplicaId, Tier
from poorwill.engines.kinds import make_engine
from poorwill.hosts.guests.directory import Guest
from poorwill.hosts.processes.prctl import subreaper
from poorwill.hosts.processes.process import EngineProcesses
from poorwill.remote.clouds.cloud import MachineState
from poorwill.tiers.frozen.criu import find_criu
from poorwill.tiers.frozen.proof import prove_frozen
from poorwill.tiers.proof import Proof, free_port, prove_by_trial, prove_cold
from poorwill.tiers.suspended.qemu.kvm import prove_kvm
from poorwill.tiers.suspended.qemu.program import find_hypervisor
from poorwill.tiers.suspended.qemu.runs import QemuRuns


async def prove_tiers(settings: FleetSettings | None, *, env: Mapping[str, str], log: Log) -> list[Proof]:
    """Use every tier on a tiny process; of a fleet's guests and rented machines, see what works."""
    clock = SystemClock.started()
    criu = await find_criu(env)
    with subreaper(), tempfile.TemporaryDirectory(prefix="poorwill-doctor-") as scratch:
        directory = Path(scratch)
        return [
            await prove_cold(directory=directory, clock=clock, log=log),
            await prove_frozen(criu=criu, directory=directory, clock=clock, log=log, fresh=True),
            await prove_suspended(settings, directory=directory, env=env, clock=clock, log=log),
            *await prove_hibernated(settings, env=env),
            Proof(
                tier=Tier.ASLEEP,
                works=False,
                tried=False,
                why="it is the engine's own sleep (vLLM, SGLang, Ollama, llama.cpp) and needs one running",
                mend="name `asleep` in a model's ladder; the first park proves it or falls back",
            ),
        ]


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


async def prove_hibernated(settings: FleetSettings | None, *, env: Mapping[str, str]) -> list[Proof]:
    """Ask for the state of each of the fleet's rented machines, if it has any. Changes nothing."""
    models = settings.models if settings else ()
    proofs = [await _looked_at(model, env) for model in models if model.cloud is not None]
    why, mend = "the fleet is on no rented machine", "[models.NAME.cloud]; see docs/hibernated.md"
    return proofs or [_untried(why, mend, tier=Tier.HIBERNATED)]


async def _looked_at(model: ModelSettings, env: Mapping[str, str]) -> Proof:
    assert model.cloud is not None
    named = f"{model.name} is on {model.cloud.named}"
    try:
        seen = await rented_machine(model.cloud, env).look()
    except OperatorFault as fault:
        mend = fault.hint or ""
        return Proof(tier=Tier.HIBERNATED, works=False, why=f"{named}: {fault.message}", mend=mend)
    except DriverError as error:
        return Proof(tier=Tier.HIBERNATED, works=False, why=f"{named}: {error}")
    return Proof(
        tier=Tier.HIBERNATED,
        works=seen.state is not MachineState.FAILED,
        why=f"{named}, which is {seen.word}",
        mend="see its console" if seen.state is MachineState.FAILED else "",
        caution="only looked at: the first park shows whether its cloud can hibernate it",
    )


def _untried(why: str, mend: str, *, tier: Tier = Tier.SUSPENDED) -> Proof:
    return Proof(tier=tier, works=False, tried=False, why=why, mend=mend)


def _first_guest(settings: FleetSettings) -> tuple[ModelSettings, Guest] | None:
    """Return a guest that can be tried. Raises OperatorFault if there are some, but none is of use."""
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
