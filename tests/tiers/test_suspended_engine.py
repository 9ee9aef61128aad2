"""A real model in a real machine: llama.cpp with the 5m model, in a guest as `poorwill guest build` makes it.

Emulated, so nightly: a token takes a tenth of a second here.
"""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from poorwill.compose.drivers.snapshots import fleet_snapshots
from poorwill.compose.drivers.virtual_machines import current_guest, guest_plan, machine_drivers
from poorwill.core.errors import OperatorFault
from poorwill.core.settings import EngineSettings, FleetSettings, ModelSettings, ReplicaSettings
from poorwill.core.words import ModelName, ReplicaId
from poorwill.engines.kinds import make_engine
from poorwill.engines.weights.gguf_model import make_model
from poorwill.hosts.guests.build import build_guest
from poorwill.hosts.guests.kernel import Kernel
from poorwill.tiers.snapshots.sealing import Sealer
from poorwill.tiers.suspended.qemu.program import Hypervisor
from poorwill.tiers.suspended.qemu.runs import QemuRuns

from .conftest import Fleet
from .virtual import debian, hypervisor

__all__ = ["debian", "hypervisor"]  # fixtures

NAME = ModelName("tiny")


def model_settings(path: str, *, kind: str = "llama.cpp") -> ModelSettings:
    engine = EngineSettings(kind=kind, path=path, context=256, options={"parallel": 1})
    return ModelSettings(name=NAME, engine=engine, replica=ReplicaSettings(model=NAME))


@pytest.mark.nightly
async def test_llamacpp_in_a_guest_keeps_its_answer(
    fleet: Fleet, hypervisor: Hypervisor, debian: tuple[Kernel, Path], tmp_path: Path
):
    model = model_settings(str(make_model(tmp_path / "tiny.gguf", size="5m")))
    settings = FleetSettings(directory=str(fleet.directory), models=(model,))
    guest = build_guest(guest_plan(settings, model), kernel=debian[0], busybox=debian[1])
    runs = QemuRuns(
        hypervisor=hypervisor,
        guests={NAME: guest},
        processes=fleet.processes,
        directory=fleet.directory / "runs",
        clock=fleet.clock,
        log=fleet.log,
        ready_limit_s=120.0,
    )
    suspended, cold = machine_drivers(settings, runs, fleet_snapshots(settings, log=fleet.log))
    env = {"PATH": os.defpath}
    engine = make_engine(model, directory=str(fleet.directory), clock=fleet.clock, env=env)
    launch = engine.launch(replica=ReplicaId("tiny-0"), generation=1)
    running = await cold.wake(fleet.cold(launch), launch, generation=1, report=fleet.report)
    await engine.ready(running, launch)
    text = await engine.probe(running, launch)
    assert text
    for generation in (1, 2, 3):
        parked = await suspended.park(running, launch, generation=generation)
        assert not fleet.processes.alive(running)
        running = await suspended.wake(parked, launch, generation=generation + 1, report=fleet.report)
        assert await engine.probe(running, launch) == text
    await cold.park(running, launch, generation=4)


def test_a_guest_plan_follows_the_model(tmp_path: Path):
    path = str(make_model(tmp_path / "tiny.gguf", size="5m"))
    model = model_settings(path)
    plan = guest_plan(FleetSettings(directory=str(tmp_path), models=(model,)), model)
    assert plan.directory == tmp_path / "guests" / "tiny"
    assert plan.memory_mib == 512 + round(Path(path).stat().st_size // 2**20 * 2.5)
    words = list(plan.argv)
    assert words[words.index("--host") + 1] == "0.0.0.0"
    assert words[words.index("--context") + 1] == "256" and path in words
    assert "xllamacpp" in plan.packages


def test_a_guest_of_another_model_is_refused(tmp_path: Path, debian: tuple[Kernel, Path]):
    path = make_model(tmp_path / "tiny.gguf", size="5m")
    model = model_settings(str(path))
    settings = FleetSettings(directory=str(tmp_path), models=(model,))
    built = build_guest(guest_plan(settings, model), kernel=debian[0], busybox=debian[1])
    assert current_guest(settings, model) == built
    engine = replace(model.engine, context=512)
    with pytest.raises(OperatorFault, match="other options") as caught:
        current_guest(settings, replace(model, engine=engine))
    assert caught.value.hint == "poorwill guest build tiny --replace"
    assert guest_plan(settings, model, memory_mib=4096, cpus=8).identity() == built.plan
    os.utime(path, ns=(1, 1))
    with pytest.raises(OperatorFault, match="another model file"):
        current_guest(settings, model)
    path.unlink()
    with pytest.raises(OperatorFault):
        current_guest(settings, model)


def test_an_engine_unfit_for_guests_is_refused(tmp_path: Path):
    model = model_settings("/models/x", kind="vllm")
    with pytest.raises(OperatorFault, match=r"cannot hold the engine vllm .*llama\.cpp and toy"):
        guest_plan(FleetSettings(directory=str(tmp_path), models=(model,)), model)


@pytest.mark.parametrize(
    ("memory", "key", "in_file"),
    [("file", "", True), ("anonymous", "", False), ("file", "SECRET", False)],
)
async def test_guest_memory_follows_the_settings(fleet: Fleet, memory: str, key: str, in_file: bool):
    settings = FleetSettings(
        directory=str(fleet.directory), models=(), guest_memory=memory, encrypt_key_env=key
    )
    runs = QemuRuns(
        hypervisor=Hypervisor(binary="qemu", version=(10, 0, 0)),
        guests={},
        processes=fleet.processes,
        directory=fleet.directory / "runs",
        clock=fleet.clock,
        log=fleet.log,
    )
    sealer = Sealer(key=b"k" * 32) if key else None
    snapshots = fleet_snapshots(settings, log=fleet.log, sealer=sealer)
    suspended, cold = machine_drivers(settings, runs, snapshots)
    assert (suspended.in_file, cold.in_file) == (in_file, in_file)
    assert suspended.space is snapshots.space and suspended.store.sealer is sealer
