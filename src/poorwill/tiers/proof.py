"""Proving that a tier works on this machine, by really parking and waking a tiny listening process.

Nothing less counts: `criu check` is content on machines where every dump fails, and a file that exists
proves no feature. A success is kept in the fleet directory together with everything it depends on, so
that the next start need not repeat it; a failure is always tried again.
"""

import asyncio
import itertools
import json
import os
import random
import re
import socket
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from poorwill.core.launch import Launch, Parked, Running
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.driver import Driver, DriverError, Processes
from poorwill.core.ports.log import Log
from poorwill.core.words import SECOND_US, ModelName, ReplicaId, Tier
from poorwill.hosts.processes.process import EngineProcesses
from poorwill.tiers.cold.driver import ColdDriver
from poorwill.tiers.frozen.criu import Criu
from poorwill.tiers.frozen.driver import FrozenDriver
from poorwill.tiers.snapshots.space import Space
from poorwill.tiers.snapshots.store import SnapshotStore

PROVEN_FILE = "proven-frozen.json"
STEP_LIMIT_S = 15.0
"""For each of dump, restore and readiness: a broken CRIU may hang for ever."""

PROGRAM = """
import socket, sys
answers = 0
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    connection, _ = listener.accept()
    with connection:
        connection.recv(4096)
        answers += 1
        body = b"%d" % answers
        head = b"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body)
        connection.sendall(head + body)
"""
"""Counts its answers: one that starts anew says 1 again, one that was restored counts on."""

ENOUGH_PIDS = 2**18
MOST_PIDS = 2**22
"""The kernel's own limit on 64 bits, and what systemd sets (proc_sys_kernel(5))."""

INSTALL = "poorwill doctor --install-criu"
CAPABILITIES = "setcap cap_checkpoint_restore,cap_setpcap+eip"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """Whether a tier works here."""

    tier: Tier
    works: bool
    why: str
    """What was done and seen, or what failed, in one sentence."""
    mend: str = ""
    """What would make it work, where it does not."""
    caution: str = ""
    """What may go wrong although it works, and what would prevent it."""
    tried: bool = True
    """Whether it was tried at all; where it was not, `works` is False and proves nothing."""


async def prove_cold(*, directory: Path, clock: Clock, log: Log) -> Proof:
    """Start and stop a tiny process. `directory` is for scratch; nothing is left in it."""
    with tempfile.TemporaryDirectory(prefix=".proof-", dir=directory) as scratch:
        trial = _Trial(scratch=Path(scratch), clock=clock, log=log)
        try:
            began_us = clock.now_us()
            running = await trial.start()
            ready_us = clock.now_us()
            await trial.processes.kill(running)
        except (DriverError, OSError) as error:
            return Proof(tier=Tier.COLD, works=False, why=str(error))
    took_s = (ready_us - began_us) / SECOND_US
    return Proof(tier=Tier.COLD, works=True, why=f"started a process in {took_s:.2f} s and ended it")


async def prove_frozen(
    *, criu: Criu | None, directory: Path, clock: Clock, log: Log, fresh: bool = False
) -> Proof:
    """Freeze and thaw a tiny process, unless that is known to work; about 0.2 s.

    `directory` keeps the knowledge (`PROVEN_FILE`); `fresh` ignores it. Cancelled: nothing is left.
    """
    if criu is None:
        return Proof(tier=Tier.FROZEN, works=False, why="no CRIU was found", mend=INSTALL)
    circumstances = _circumstances(criu)
    caution = pid_caution(_pid_max())
    if not fresh and (known := _known(directory / PROVEN_FILE, circumstances)):
        return Proof(tier=Tier.FROZEN, works=True, why=known, caution=caution)
    with tempfile.TemporaryDirectory(prefix=".proof-", dir=directory) as scratch:
        trial = _Trial(scratch=Path(scratch), clock=clock, log=log)
        try:
            why = await trial.freeze_and_thaw(criu)
        except (DriverError, OSError) as error:
            why = f"criu {criu.version} ({criu.binary}) failed: {error}"
            return Proof(tier=Tier.FROZEN, works=False, why=why, mend=_mend(criu))
    _keep(directory / PROVEN_FILE, circumstances, why)
    return Proof(tier=Tier.FROZEN, works=True, why=why, caution=caution)


def pid_caution(pid_max: int) -> str:
    """Return a warning where process ids are so few that a parked engine's are likely taken at its wake."""
    if pid_max >= ENOUGH_PIDS:
        return ""
    return (
        f"only {pid_max} process ids: a wake falls back to a cold start when another process got one of "
        f"the engine's; sysctl kernel.pid_max={MOST_PIDS} makes that unlikely"
    )


async def prove_by_trial(
    *, cold: Driver, driver: Driver, launch: Launch, processes: Processes, clock: Clock
) -> Proof:
    """Start a replica with `cold`, park and wake it with `driver`, and end it again.

    Cancelled: nothing is left running.
    """
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
class _Trial:
    scratch: Path
    clock: Clock
    log: Log

    @property
    def processes(self) -> EngineProcesses:
        return EngineProcesses(fleet=str(self.scratch), clock=self.clock, log=self.log, grace_s=1.0)

    def launch(self, port: int) -> Launch:
        return Launch(
            replica=ReplicaId("proof"),
            model=ModelName("proof"),
            engine="proof",
            argv=(sys.executable, "-I", "-S", "-c", PROGRAM, str(port)),
            port=port,
            log_path=str(self.scratch / "proof.log"),
        )

    async def start(self) -> Running:
        driver = ColdDriver(
            processes=self.processes,
            clock=self.clock,
            log=self.log,
            ready_limit_s=STEP_LIMIT_S,
        )
        launch = self.launch(free_port())
        cold = Parked(replica=launch.replica, generation=0, tier=Tier.COLD)
        return await driver.wake(cold, launch, generation=1, report=lambda mark: None)

    async def freeze_and_thaw(self, criu: Criu) -> str:
        driver = FrozenDriver(
            criu=replace(criu, dump_limit_s=STEP_LIMIT_S, restore_limit_s=STEP_LIMIT_S),
            store=SnapshotStore(root=self.scratch / "snapshots", tier=Tier.FROZEN),
            space=Space(log=self.log),
            processes=self.processes,
            clock=self.clock,
            log=self.log,
            ready_limit_s=STEP_LIMIT_S,
        )
        running = await self.start()
        launch = self.launch(running.port)
        try:
            before = await _answer(running.port)
            began_us = self.clock.now_us()
            parked = await driver.park(running, launch, generation=1)
            parked_us = self.clock.now_us()
            running = await driver.wake(parked, launch, generation=2, report=lambda mark: None)
            woken_us = self.clock.now_us()
            if await _answer(running.port) <= before:
                raise DriverError("the restored process has forgotten what it knew")
        finally:
            await self.processes.kill(running)
        return (
            f"criu {criu.version} froze a listening process in "
            f"{(parked_us - began_us) / SECOND_US:.2f} s and restored it in "
            f"{(woken_us - parked_us) / SECOND_US:.2f} s"
        )


async def _answer(port: int) -> int:
    async with asyncio.timeout(STEP_LIMIT_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            answer = await reader.read()
        finally:
            writer.transport.abort()
    try:
        return int(answer.rpartition(b"\r\n\r\n")[2])
    except ValueError:
        raise DriverError("the process answers something else than a number") from None


def _mend(criu: Criu) -> str:
    ways = []
    if criu.unprivileged:
        ways.append(
            "run poorwill as root, or with two ambient capabilities (`poorwill deploy unit --run-as NAME` "
            f"writes such a unit), or give the binary the rights: {CAPABILITIES} {criu.binary}"
        )
    if _major_minor(criu.version) < (4, 2):
        ways.append(f"get CRIU 4.2 or later: {INSTALL}")
    return "; ".join(ways) or "see docs/parking.md"


def _major_minor(version: str) -> tuple[int, int]:
    numbers = [int(number) for number in re.findall(r"\d+", version)]
    major, minor, *_ = [*numbers, 0, 0]
    return major, minor


def _circumstances(criu: Criu) -> dict[str, object]:
    """Return what the proof depends on: the kernel, the binary, the rights."""
    status = os.stat(criu.binary)
    rights = "".join(
        line for line in Path("/proc/self/status").read_text().splitlines() if line[:6] == "CapEff"
    )
    return {
        "kernel": os.uname().release,
        "binary": criu.binary,
        "version": criu.version,
        "modified_ns": status.st_mtime_ns,
        "changed_ns": status.st_ctime_ns,
        "user": os.geteuid(),
        "rights": rights,
        "python": sys.executable,
    }


def _pid_max() -> int:
    return int(Path("/proc/sys/kernel/pid_max").read_text())


def _known(path: Path, circumstances: dict[str, object]) -> str:
    try:
        kept = json.loads(path.read_text())
        return str(kept["why"]) if kept["circumstances"] == circumstances else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _keep(path: Path, circumstances: dict[str, object], why: str) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps({"circumstances": circumstances, "why": why}))
    temporary.replace(path)


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
