"""The real engine through park and wake: llama.cpp answers the same greedy text after every one of them."""

import asyncio
import os
from pathlib import Path

import pytest

from poorwill.core.launch import Launch, Running
from poorwill.core.settings import EngineSettings, ModelSettings, ReplicaSettings
from poorwill.core.words import ModelName, ReplicaId
from poorwill.engines.kinds import make_engine
from poorwill.engines.served import ServedEngine
from poorwill.engines.weights.gguf_model import make_model
from poorwill.hosts.processes.session import members

from .cases import CASES, Case
from .conftest import Fleet

CYCLES = 20


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "tiny.gguf", size="5m", seed=1)


@pytest.fixture(params=["cold", "frozen"])
def case(request: pytest.FixtureRequest, fleet: Fleet) -> Case:
    return CASES[request.param](request, fleet)


def llamacpp(fleet: Fleet, model_file: Path) -> ServedEngine:
    settings = ModelSettings(
        name=ModelName("tiny"),
        engine=EngineSettings(kind="llama.cpp", path=str(model_file), context=512, options={"threads": 1}),
        replica=ReplicaSettings(model=ModelName("tiny")),
    )
    env = {"PATH": os.defpath}
    return make_engine(settings, directory=str(fleet.directory), clock=fleet.clock, env=env)


async def started(case: Case, engine: ServedEngine) -> tuple[Launch, Running]:
    launch = engine.launch(replica=ReplicaId("tiny-0"), generation=1)
    running = await case.start(launch)
    await engine.ready(running, launch)
    return launch, running


async def test_twenty_cycles_keep_the_greedy_text(case: Case, fleet: Fleet, model_file: Path):
    engine = llamacpp(fleet, model_file)
    launch, running = await started(case, engine)
    text = await engine.probe(running, launch)
    assert text
    for cycle in range(CYCLES):
        parked = await case.driver.park(running, launch, generation=cycle + 1)
        assert members(running.pid) == []
        running = await case.wake(parked, launch, generation=cycle + 2)
        assert await engine.probe(running, launch) == text, f"cycle {cycle}"
    await fleet.processes.kill(running)
    assert fleet.processes.found() == []


async def test_six_clients_are_served_after_a_wake(case: Case, fleet: Fleet, model_file: Path):
    engine = llamacpp(fleet, model_file)
    launch, running = await started(case, engine)
    text = await engine.probe(running, launch)
    parked = await case.driver.park(running, launch, generation=1)
    running = await case.wake(parked, launch, generation=2)
    answers = await asyncio.gather(*(engine.probe(running, launch) for _ in range(6)))
    assert len(answers) == 6 and all(answers)
    assert await engine.probe(running, launch) == text
