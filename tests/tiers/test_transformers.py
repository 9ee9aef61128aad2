"""`transformers serve` through the frozen tier: a second real engine, slow to start and quick to thaw.

Runs where `transformers` is on PATH (1.2 GB with torch, so nobody gets it for the tests alone).
"""

# The test run is its own edge: where programs are, only the environment knows.
# ruff: noqa: TID251

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from poorwill.core.errors import OperatorFault
from poorwill.core.settings import EngineSettings, ModelSettings, ReplicaSettings
from poorwill.core.words import ModelName, ReplicaId
from poorwill.engines.kinds import make_engine
from poorwill.engines.weights.transformers_model import make_transformers_model, transformers_python
from poorwill.tiers.frozen.criu import Criu

from .cases import new_cold, new_frozen
from .conftest import Fleet

NAME = ModelName("second")


def test_without_transformers_the_error_helps(tmp_path: Path):
    with pytest.raises(OperatorFault, match=r"no program 'transformers' .*pip install") as caught:
        make_transformers_model(tmp_path / "model", env={"PATH": str(tmp_path)})
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_the_interpreter_is_the_programs(tmp_path: Path):
    program = tmp_path / "transformers"
    program.write_text("#!/opt/some/bin/python3\n")
    program.chmod(0o755)
    assert transformers_python({"PATH": str(tmp_path)}) == "/opt/some/bin/python3"
    program.write_bytes(b"\x7fELF")
    with pytest.raises(OperatorFault, match="is no Python script"):
        transformers_python({"PATH": str(tmp_path)})


@pytest.mark.nightly
@pytest.mark.skipif(shutil.which("transformers") is None, reason="transformers is not on PATH")
@pytest.mark.parametrize("batching", [False, True])
async def test_transformers_thaws_fast_and_the_same(fleet: Fleet, criu: Criu, tmp_path: Path, batching: bool):
    env = dict(os.environ)
    model = await asyncio.to_thread(make_transformers_model, tmp_path / "model", env=env)
    options = {"continuous_batching": True, "cb_num_blocks": 64} if batching else {}
    settings = ModelSettings(
        name=NAME,
        engine=EngineSettings(
            kind="transformers",
            path=str(model),
            env={"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            options=options,
        ),
        replica=ReplicaSettings(model=NAME),
    )
    engine = make_engine(settings, directory=str(fleet.directory), clock=fleet.clock, env=env)
    launch = engine.launch(replica=ReplicaId("second-0"), generation=1)
    cold, frozen = new_cold(fleet), new_frozen(fleet, criu)
    cold.ready_limit_s = 120.0
    began_us = fleet.clock.now_us()
    running = await cold.wake(fleet.cold(launch), launch, generation=1, report=fleet.report)
    await engine.ready(running, launch)
    start_us = fleet.clock.now_us() - began_us
    text = await engine.probe(running, launch)
    thaws = []
    for generation in (1, 3, 5):
        parked = await frozen.park(running, launch, generation=generation)
        began_us = fleet.clock.now_us()
        running = await frozen.wake(parked, launch, generation=generation + 1, report=fleet.report)
        thaws.append(fleet.clock.now_us() - began_us)
        assert await engine.probe(running, launch) == text
    await fleet.processes.kill(running)
    assert min(thaws) < start_us / 3, (thaws, start_us)
