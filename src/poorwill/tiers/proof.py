"""Proving that a tier works on this machine, by really parking and waking a process: nothing less counts."""

import asyncio
import itertools
import random
import socket
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from poorwill.core.launch import Launch, Parked
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.driver import Driver, DriverError, Processes
from poorwill.core.ports.log import Log
from poorwill.core.words import SECOND_US, ModelName, ReplicaId, Tier
from poorwill.hosts.processes.process import EngineProcesses
from poorwill.tiers.cold.driver import ColdDriver

STEP_LIMIT_S = 15.0
"""For each of dump, restore and readiness: a broken CRIU may hang for ever."""

PROGRAM = """
import itertools, socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
for number in itertools.count(1):
    connection, _ = listener.accept()
    print(number, flush=True)
    with connection:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: 0\\r\\n\\r\\n")
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """Whether a tier works here."""

    tier: Tier
    works: bool
    why: str
    """What was done and seen, or what failed, in one sentence."""
    mend: str = ""
    """What would make it work."""
    caution: str = ""
    """What may still go wrong, and what prevents it."""
    tried: bool = True
    """False: it was not tried, and `works` says nothing."""


async def prove_cold(*, directory: Path, clock: Clock, log: Log) -> Proof:
    """Start and stop a tiny process. `directory` is for scratch; nothing is left in it."""
    with tempfile.TemporaryDirectory(prefix=".proof-", dir=directory) as scratch:
        trial = ProcessTrial(scratch=Path(scratch), clock=clock, log=log)
        return replace(await trial.prove(trial.cold), mend="")


async def prove_by_trial(
    *, cold: Driver, driver: Driver, launch: Launch, processes: Processes, clock: Clock
) -> Proof:
    """Start a replica with `cold`, park and wake it with `driver`, end it. Cancelled: nothing is left."""
    running = None
    times = [clock.now_us()]
    try:
        nothing = Parked(replica=launch.replica, generation=0, tier=Tier.COLD)
        running = await cold.wake(nothing, launch, generation=1, report=lambda mark: None)
        times.append(clock.now_us())
        parked = await driver.park(running, launch, generation=2)
        times.append(clock.now_us())
        running = await driver.wake(parked, launch, generation=3, report=lambda mark: None)
        times.append(clock.now_us())
    except (DriverError, OSError) as error:
        return Proof(tier=driver.tier, works=False, why=str(error), mend="see docs/parking.md")
    finally:
        if running is not None:
            await processes.kill(running)
    start, park, wake = ((after - before) / SECOND_US for before, after in itertools.pairwise(times))
    return Proof(
        tier=driver.tier,
        works=True,
        why=f"started in {start:.2f} s, parked in {park:.2f} s, woke in {wake:.2f} s",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessTrial:
    """Starts a tiny listening process in a scratch directory, which counts its visitors in its log."""

    scratch: Path
    clock: Clock
    log: Log

    @property
    def processes(self) -> EngineProcesses:
        """Return what starts and ends it."""
        return EngineProcesses(fleet=str(self.scratch), clock=self.clock, log=self.log, grace_s=1.0)

    async def prove(self, driver: Driver) -> Proof:
        """Prove a driver by it: parked to be kept, it must count on when it is woken, not begin anew."""
        port = free_port()
        launch = Launch(
            replica=ReplicaId("proof"),
            model=ModelName("proof"),
            engine="proof",
            argv=(sys.executable, "-I", "-S", "-c", PROGRAM, str(port)),
            port=port,
            log_path=str(self.scratch / "proof.log"),
        )
        proof = await prove_by_trial(
            cold=self.cold, driver=driver, launch=launch, processes=self.processes, clock=self.clock
        )
        if proof.works and driver.tier is not Tier.COLD:
            counted = (await asyncio.to_thread(Path(launch.log_path).read_text)).split()
            if len(set(counted)) < len(counted):
                return replace(proof, works=False, why="the restored process has forgotten what it knew")
        return proof

    @property
    def cold(self) -> ColdDriver:
        """Return what starts it."""
        limit_s = STEP_LIMIT_S
        return ColdDriver(processes=self.processes, clock=self.clock, log=self.log, ready_limit_s=limit_s)


def free_port() -> int:
    """Return a port of the loopback address that is free now, and likely stays so while nobody listens.

    Below Linux's default range for outgoing connections (32768 and up): one of those could take it before
    the engine of a trial has it, or while that engine is parked.
    """
    for port in random.sample(range(20_000, 32_000), 200):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("200 ports tried on 127.0.0.1, none is free")
