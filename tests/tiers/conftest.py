"""Parts the driver tests share: a quiet log, a real clock, a tiny engine, fleets in a temporary directory."""

# The test run is its own edge: where CRIU is, only the environment knows.
# ruff: noqa: TID251

import asyncio
import http.client
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.kept_log import KeptLog

from poorwill.compose.clock import SystemClock
from poorwill.compose.deployment.criu_install import install_criu
from poorwill.core.errors import OperatorFault
from poorwill.core.launch import Launch, Parked, PhaseMark, Running
from poorwill.core.words import ModelName, ReplicaId, Tier
from poorwill.hosts.processes import procfs
from poorwill.hosts.processes.prctl import subreaper
from poorwill.hosts.processes.process import EngineProcesses
from poorwill.hosts.processes.session import MARK_NAME, members, reap
from poorwill.tiers.frozen.criu import Criu, find_criu, private_prefix
from poorwill.tiers.frozen.proof import prove_frozen
from poorwill.tiers.proof import free_port

TINY_ENGINE = Path(__file__).with_name("tiny_engine.py")


GUEST_FIXTURES = {"debian", "hypervisor", "golden_guest"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests with a guest in one worker: QEMU is installed once, and the guest boots once."""
    for item in items:
        if isinstance(item, pytest.Function) and GUEST_FIXTURES & set(item.fixturenames):
            item.add_marker(pytest.mark.xdist_group("guest"))


@pytest.fixture(autouse=True)
def _subreaper() -> Iterator[None]:
    with subreaper():
        yield


SDK_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_PROFILE",
    "GOOGLE_APPLICATION_CREDENTIALS",
)


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep clouds' SDKs from whatever this machine has, and what tests give them from later tests."""
    for name in SDK_VARIABLES:
        monkeypatch.setenv(name, "to be put back")
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "CLOUDSDK_CONFIG"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_GCE_CHECK", "true")


@pytest.fixture(scope="session", autouse=True)
def _nothing_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fail the run where any test has left a process behind, however it came to be."""
    yield
    here = f"{tmp_path_factory.getbasetemp()}/"  # of this run, not of one whose number begins alike
    left = [
        f"{stat.pid}: {procfs.command_line(stat.pid)}"
        for stat in procfs.all_processes()
        if stat.state not in "ZX" and here.encode() in procfs.variable(stat.pid, MARK_NAME)
    ]
    assert not left, f"left behind: {left}"


@dataclass
class Fleet:
    """A fleet directory with its processes, as poorwill would compose them."""

    directory: Path
    clock: SystemClock
    log: KeptLog
    processes: EngineProcesses
    marks: list[PhaseMark] = field(default_factory=list)

    def launch(self, *switches: str, replica: str = "tiny", **changes: object) -> Launch:
        port = free_port()
        values: dict[str, object] = {
            "replica": ReplicaId(replica),
            "model": ModelName("tiny"),
            "engine": "tiny",
            "argv": (sys.executable, "-I", "-S", str(TINY_ENGINE), str(port), *switches),
            "port": port,
            "log_path": str(self.directory / "logs" / f"{replica}.log"),
            "digest": "sha256:tiny",
            **changes,
        }
        return Launch(**values)  # type: ignore[arg-type]

    def cold(self, launch: Launch) -> Parked:
        return Parked(replica=launch.replica, generation=0, tier=Tier.COLD)

    def report(self, mark: PhaseMark) -> None:
        self.marks.append(mark)

    def again(self) -> "Fleet":
        """The same fleet as a restarted poorwill sees it: nothing remembered but the directory."""
        return new_fleet(self.directory)


def new_fleet(directory: Path) -> Fleet:
    clock = SystemClock.started()
    log = KeptLog()
    processes = EngineProcesses(fleet=str(directory), clock=clock, log=log, grace_s=2.0)
    return Fleet(directory=directory, clock=clock, log=log, processes=processes)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A fleet whose processes are ended after the test; a test that forgets one still fails on it."""
    fleet = new_fleet(tmp_path)
    yield fleet
    for found in fleet.processes.found():
        assert found.running is not None
        fleet.processes.kill_now(found.running)
        reap(members(found.running.pid))


def ask(running: Running, path: str = "/count") -> str:
    """Ask a tiny engine something over a connection of its own."""
    connection = http.client.HTTPConnection(running.host, running.port, timeout=10)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        return connection.getresponse().read().decode()
    finally:
        connection.close()


@pytest.fixture(scope="session")
def criu(tmp_path_factory: pytest.TempPathFactory) -> Criu:
    """A CRIU proven to work here, installed where there is none; skips, with the reason, where it cannot."""

    async def find() -> Criu:
        found = await find_criu(os.environ)
        if found is None:
            try:
                found = await install_criu(private_prefix(os.environ), env=os.environ)
            except OperatorFault as fault:
                pytest.skip(f"no CRIU here: {fault}")
        proof = await prove_frozen(
            criu=found,
            directory=tmp_path_factory.mktemp("proof"),
            clock=SystemClock.started(),
            log=KeptLog(),
        )
        if not proof.works:
            pytest.skip(f"CRIU does not work here: {proof.why}; to fix it: {proof.mend}")
        return found

    return asyncio.run(find())
