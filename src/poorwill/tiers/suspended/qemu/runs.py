"""Running guests: starting QEMU in a directory of its own, making it ready, finding it again, ending it.

The only place that makes and removes run directories. Both QEMU drivers use it: a guest started cold can
be suspended, and one that was woken can be stopped. The directory's name holds replica and generation, so
what poorwill needs to know of a run after its own death is the run's process and that name.
"""

import asyncio
import errno
import os
import secrets
import shutil
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from poorwill.core.launch import Launch, Running
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.driver import DriverError, Found, Report
from poorwill.core.ports.log import Log
from poorwill.core.words import ModelName, ReplicaId
from poorwill.hosts.files.aside import aside, in_thread
from poorwill.hosts.files.names import file_name
from poorwill.hosts.guests.directory import Guest
from poorwill.hosts.processes.engine_log import tail
from poorwill.hosts.processes.process import EngineProcesses
from poorwill.hosts.processes.readiness import Readiness, refuse_taken_port
from poorwill.tiers.snapshots.image_files import sync_file
from poorwill.tiers.suspended.qemu import monitor as qemu_monitor
from poorwill.tiers.suspended.qemu import program as qemu
from poorwill.tiers.suspended.qemu.monitor import Monitor
from poorwill.tiers.suspended.qemu.program import Hypervisor, Layout, Memory

DRIVERS = ("qemu", "suspended")
"""Names of the drivers whose processes these are."""

_SEED_BYTES = 32


@dataclass(slots=True, kw_only=True)
class QemuRuns:
    """The running guests of one fleet."""

    hypervisor: Hypervisor
    guests: Mapping[ModelName, Guest]
    """Which guest a model's replicas run in."""
    processes: EngineProcesses
    directory: Path
    """Where run directories are made; on the same file system as the snapshots, whose memory files move."""
    clock: Clock
    log: Log
    ready_limit_s: float = 900.0

    def guest(self, launch: Launch) -> Guest:
        """Return the model's guest. Raises DriverError if it has none."""
        guest = self.guests.get(launch.model)
        if guest is None:
            raise DriverError(f"model {launch.model} has no guest to run in")
        return guest

    def path(self, running: Running) -> Path:
        """Return a run's directory."""
        return self._directory(running.replica, running.generation)

    def _directory(self, replica: ReplicaId, generation: int) -> Path:
        return self.directory / f"{file_name(replica)}-{generation}"

    def memory(self, running: Running) -> Memory:
        """Return where the guest's memory is: with a file of its own it is shared. Blocks."""
        shared = (self.path(running) / qemu.RAM).exists()
        return Memory.SHARED if shared else Memory.ANONYMOUS

    def make(self, launch: Launch, *, generation: int, ram_bytes: int = 0) -> Path:
        """Make a run directory, with a memory file of `ram_bytes` if that is not 0. Blocks.

        What an earlier run of this replica left is removed first.

        Raises DriverError if the port is taken, such a run is still alive, or the disk refuses.
        """
        refuse_taken_port(launch)
        self._remove_leftovers(launch)
        path = self._directory(launch.replica, generation)
        try:
            path.mkdir(parents=True, mode=0o700)
        except OSError as error:
            raise DriverError(f"cannot make {path}: {error.strerror}") from error
        if ram_bytes:
            try:
                _reserve(path / qemu.RAM, size=ram_bytes)
            except DriverError:
                shutil.rmtree(path)
                raise
        return path

    async def start(
        self,
        launch: Launch,
        *,
        generation: int,
        driver: str,
        memory: Memory,
        report: Report,
        golden_ram: str | None = None,
        incoming: bool = False,
    ) -> Running:
        """Start QEMU in the run directory that `make` made; see `EngineProcesses.spawn`."""
        argv = qemu.command(
            self.hypervisor,
            self.guest(launch),
            host=launch.host,
            port=launch.port,
            log_path=launch.log_path,
            memory=memory,
            golden_ram=golden_ram,
            incoming=incoming,
        )
        path = self._directory(launch.replica, generation)
        machine = replace(launch, argv=argv, cwd=str(path), env={"PATH": os.defpath})
        return await self.processes.spawn(
            launch, generation=generation, driver=driver, report=report, machine=machine
        )

    async def greet(self, running: Running, launch: Launch) -> None:
        """Set the guest's clock, stir its random numbers and wait until its engine is ready."""
        try:
            behind_s = await qemu_monitor.set_guest_clock(
                self.path(running),
                now_us=self.clock.now_us,
                seed=secrets.token_bytes(_SEED_BYTES),
                alive=lambda: self.processes.alive(running),
                limit_s=self.ready_limit_s,
            )
        except DriverError as error:
            raise await _with_log(error, running) from error
        self.log.info("a guest's clock was set", replica=running.replica, behind_s=behind_s)
        ready = Readiness(processes=self.processes, limit_s=self.ready_limit_s)
        await ready.wait(running, launch)

    def monitor(self, running: Running) -> AbstractAsyncContextManager[Monitor]:
        """Open a conversation with the run's QEMU."""
        return qemu_monitor.open_monitor(self.path(running), alive=lambda: self.processes.alive(running))

    async def save(self, running: Running, image: Path, *, layout: Layout, limit_s: float) -> None:
        """Stop the guest and write it to the directory `image`, synced; QEMU still exists then.

        Raises DriverError, with `.running` set if the guest goes on. Cancelled: it goes on.
        """
        saved = False
        try:
            async with self.monitor(running) as monitor:
                await self._save(monitor, running, image, layout=layout, limit_s=limit_s)
                saved = True
        except BaseException:
            if saved:  # cancelled while the conversation ended
                await self.unpause(running)
            raise

    async def _save(
        self, monitor: Monitor, running: Running, image: Path, *, layout: Layout, limit_s: float
    ) -> None:
        try:
            async with asyncio.timeout(limit_s):
                await monitor("stop")
                uri = self.hypervisor.save_uri(str(image / qemu.STATE))
                await monitor.save(uri, layout=layout)
                if layout is Layout.RAM_FILE:
                    await aside(os.link, self.path(running) / qemu.RAM, image / qemu.RAM)
                await in_thread(lambda stop: _sync(image, stop))
        except (DriverError, OSError, TimeoutError) as error:
            still = await self._resumed(monitor, running)
            why = str(error) or f"not within {limit_s:g} s"
            raise DriverError(f"the guest was not saved: {why}", running=still) from error
        except BaseException:
            await self._resumed(monitor, running)
            raise

    async def _resumed(self, monitor: Monitor, running: Running) -> Running | None:
        """Let the guest go on; return it if it does, None if QEMU had to be ended."""
        try:
            await monitor("cont")
        except DriverError:
            await self.abort(running)
            return None
        return running

    async def load(self, running: Running, uri: str, *, layout: Layout, limit_s: float) -> None:
        """Fill a guest that was started with `incoming`, and let it run. Raises DriverError."""
        try:
            async with self.monitor(running) as monitor, asyncio.timeout(limit_s):
                await monitor.load(uri, layout=layout)
                await monitor("cont")
        except TimeoutError as error:
            raise DriverError(f"the guest was not restored within {limit_s:g} s") from error
        except DriverError as error:
            raise await _with_log(error, running) from error

    async def unpause(self, running: Running) -> None:
        """Let a guest go on that a poorwill stopped and then died; one that was never filled is ended."""
        try:
            async with self.monitor(running) as monitor:
                status = (await monitor("query-status"))["status"]
                if status == "running":
                    return
                if status != "inmigrate":
                    await monitor.stop_saving()
                    await monitor("cont")
                    self.log.warning("a stopped guest goes on", replica=running.replica)
                    return
        except DriverError as error:
            self.log.warning("a guest is beyond help", replica=running.replica, error=str(error))
        await self.abort(running)

    async def stop(self, running: Running) -> None:
        """End the run and remove its directory; idempotent. Cancelled: it is killed all the same."""
        try:
            await self.processes.kill(running)
        finally:
            await aside(shutil.rmtree, self.path(running), True)

    async def abort(self, running: Running) -> None:
        """End a run that failed at once, without a grace period, and remove its directory."""
        try:
            await self.processes.end_now(running)
        finally:
            await aside(shutil.rmtree, self.path(running), True)

    def found(self) -> Sequence[Found]:
        """Return every running guest of the fleet, whichever of the two drivers woke it last. Blocks."""
        return [
            item
            for item in self.processes.found()
            if item.running is not None and item.running.driver in DRIVERS
        ]

    def remove_dead(self) -> None:
        """Remove the directories of runs that have ended; called once at start, before any run is made."""
        alive = self._alive()
        for path in self.directory.glob("*"):
            if path not in alive:
                shutil.rmtree(path, ignore_errors=True)

    def _alive(self) -> set[Path]:
        return {self.path(item.running) for item in self.found() if item.running is not None}

    def _remove_leftovers(self, launch: Launch) -> None:
        alive = self._alive()
        name = file_name(launch.replica)
        for path in self.directory.glob(f"{name}-*"):
            if not path.name.removeprefix(f"{name}-").isdecimal():
                continue  # a replica whose name begins with this one's
            if path in alive:
                raise DriverError(f"replica {launch.replica} runs already, in {path}")
            shutil.rmtree(path, ignore_errors=True)


async def _with_log(error: DriverError, running: Running) -> DriverError:
    """Add what QEMU, or the guest's console that shares its log, said last."""
    return DriverError(f"{error}; the log ends: {await aside(tail, running.log_path)}")


def _sync(image: Path, stop: threading.Event) -> None:
    for name in sorted(os.listdir(image)):
        if stop.is_set():
            return
        sync_file(image / name)


def _reserve(path: Path, *, size: int) -> None:
    """Make a memory file whose blocks are all reserved, readable by its owner only.

    A guest that touches a page for which the disk has no block left is killed by SIGBUS while it serves;
    reserved, it is refused before it starts. Raises DriverError.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        need = f"{size // 2**20} MiB for a guest's memory"
        why = "the disk is full" if error.errno == errno.ENOSPC else error.strerror
        raise DriverError(f"cannot reserve {need} at {path}: {why}") from error
    finally:
        os.close(descriptor)
