import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from poorwill.compose.clock import SystemClock
from poorwill.core.launch import Launch, PhaseMark, Running
from poorwill.core.settings import EngineSettings, ModelSettings, ParkSettings, ReplicaSettings
from poorwill.core.words import ModelName, Tier
from poorwill.engines.kinds import make_engine
from poorwill.engines.served import ServedEngine
from poorwill.engines.weights.gguf_model import make_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "tiny.gguf")


@dataclass
class Bench:
    """Makes engines in a fleet directory and starts them as a driver would."""

    directory: Path
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def engine(
        self,
        kind: str,
        *,
        max_concurrency: int = 0,
        ladder: tuple[Tier, ...] = (Tier.COLD,),
        **engine: object,
    ) -> ServedEngine:
        name = ModelName("tiny")
        settings = ModelSettings(
            name=name,
            engine=EngineSettings(kind=kind, **engine),
            replica=ReplicaSettings(
                model=name, max_concurrency=max_concurrency, park=ParkSettings(ladder=ladder)
            ),
        )
        return make_engine(
            settings,
            directory=str(self.directory),
            clock=SystemClock.started(),
            env={},
        )

    def start(self, launch: Launch) -> Running:
        with open(launch.log_path, "ab") as log:
            child = subprocess.Popen(
                launch.argv,
                env=dict(launch.env),
                cwd=launch.cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.started.append(child)
        return self.running(launch, pid=child.pid)

    def running(self, launch: Launch, *, pid: int) -> Running:
        return Running(
            replica=launch.replica,
            generation=1,
            pid=pid,
            pid_started=0,
            host=launch.host,
            port=launch.port,
            log_path=launch.log_path,
            driver="cold",
        )

    def stop(self) -> None:
        for child in self.started:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(directory=tmp_path)
    yield made
    made.stop()


@pytest.fixture
def marks() -> list[PhaseMark]:
    return []


@pytest.fixture
def report(marks: list[PhaseMark]) -> Callable[[PhaseMark], None]:
    return marks.append
