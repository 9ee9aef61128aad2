"""The tier `frozen`: the engine's processes dumped to disk by CRIU, gone from memory, and restored.

Park: wait until no TCP connection is open, make room, dump and leave the engine stopped, make the image
durable, and only then kill the engine; until there, any failure lets it run on. Wake: check the manifest,
port and pids, take the one right to the image, restore it stopped while its bytes are read and verified,
and only then let it run. From there on the image is spent: a second process from one image would repeat
the first one's state.

An engine whose dump was cut off in the middle carries foreign code and is killed, never resumed.
"""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from poorwill.core.launch import Launch, Parked, PhaseMark, Running
from poorwill.core.ports import Clock, DriverError, Found, Log, Report, SnapshotRefused
from poorwill.core.words import Phase, Tier
from poorwill.drivers import procfs
from poorwill.drivers.attempt import note_attempt, settle_leftover
from poorwill.drivers.blocking import in_thread
from poorwill.drivers.criu import Criu, CriuFailed, CriuFault
from poorwill.drivers.enginelog import open_log
from poorwill.drivers.exclusive import Exclusive
from poorwill.drivers.manifest import FileRecord, HostFacts, Manifest, mismatches, start_hash_of
from poorwill.drivers.process import EngineProcesses
from poorwill.drivers.readiness import Readiness, refuse_taken_port
from poorwill.drivers.snapshot import Draft, SnapshotStore
from poorwill.drivers.space import Space

QUIET_LIMIT_S = 3.0
"""How long the engine may take to notice that its clients have closed their connections."""

SMALL_BYTES = 2**20
"""Files up to this size (criu's own records) are verified before criu reads them; the memory pages, which
criu copies without looking, meanwhile."""

OVERHEAD = 1.05
OVERHEAD_BYTES = 4 * 2**20
"""What an image takes beyond the memory it carries."""


@dataclass(slots=True, kw_only=True)
class FrozenDriver:
    """Freezes engine processes with CRIU. Implements the port `Driver`."""

    criu: Criu
    store: SnapshotStore
    space: Space
    processes: EngineProcesses
    clock: Clock
    log: Log
    ready_limit_s: float = 60.0
    """A restored engine was ready before; it either answers soon or never."""
    exclusive: Exclusive = field(default_factory=Exclusive)

    @property
    def name(self) -> str:
        """The driver's name."""
        return "frozen"

    @property
    def tier(self) -> Tier:
        """The tier it parks into."""
        return Tier.FROZEN

    # park

    async def park(self, running: Running, launch: Launch, *, generation: int) -> Parked:
        """Dump the engine and end it; see `Driver.park`.

        The caller has closed its keep-alive connections; while one is open the park fails and the engine
        serves on. Cancelled during criu's dump: the engine is killed, since half of criu is in it.
        """
        with self.exclusive.during(running.replica, "park"):
            if not self.processes.alive(running):
                raise DriverError(f"the engine of replica {running.replica} is not running")
            await self._quiet(running)
            pids = [stat.pid for stat in procfs.session_members(running.pid)]
            need = sum(procfs.private_bytes(pid) for pid in pids)
            need_bytes = int(need * OVERHEAD) + OVERHEAD_BYTES
            try:
                await in_thread(
                    lambda stop: self.space.make_room(
                        self.store, need_bytes, replica=running.replica
                    )
                )
                draft = self.store.begin(running.replica, generation)
            except (DriverError, OSError) as error:
                raise DriverError(f"cannot freeze: {error}", running=running) from error
            manifest = self._manifest(running, launch, pids, generation)
            return await self._freeze(running, draft, manifest)

    async def _freeze(self, running: Running, draft: Draft, manifest: Manifest) -> Parked:
        parked = None
        try:
            await self._dump(running, draft)
            manifest = await in_thread(lambda stop: self.store.commit(draft, manifest, stop))
            parked = Parked(
                replica=running.replica,
                generation=manifest.generation,
                tier=Tier.FROZEN,
                path=str(draft.final),
                image_bytes=manifest.image_bytes,
            )
            self.processes.kill_now(running)
            await self.processes.gone(running)
            return parked
        except BaseException as error:
            # Whatever failed after the dump, the engine is only stopped: without its image it runs on.
            self.store.abandon(draft)
            self.store.discard(
                Parked(replica=running.replica, generation=manifest.generation, tier=Tier.FROZEN)
            )
            self.processes.resume(running)
            if isinstance(error, OSError):
                raise DriverError(f"cannot write the snapshot: {error}", running=running) from error
            raise

    async def _dump(self, running: Running, draft: Draft) -> None:
        def began(criu_pid: int) -> None:
            note_attempt(
                draft.work,
                criu_pid=criu_pid,
                engine_pid=running.pid,
                engine_started=running.pid_started,
            )

        try:
            await self.criu.dump(running.pid, image=draft.image, work=draft.work, began=began)
        except CriuFailed as error:
            if error.fault in (CriuFault.LIMIT, CriuFault.KILLED):
                await self._kill(running)
                raise DriverError(f"{error}; the engine was ended with it") from error
            if error.fault is CriuFault.CONNECTED:
                raise DriverError(
                    f"{error}; close keep-alive connections before parking", running=running
                ) from error
            raise DriverError(str(error), running=running) from error
        except BaseException:
            await self._kill(running)
            raise

    async def _kill(self, running: Running) -> None:
        self.processes.kill_now(running)
        await self.processes.gone(running)

    async def _quiet(self, running: Running) -> None:
        """Wait until the engine has no TCP connection. Raises DriverError with `.running` otherwise."""
        delay_s = 0.002
        try:
            async with asyncio.timeout(QUIET_LIMIT_S):
                while True:
                    pids = [stat.pid for stat in procfs.session_members(running.pid)]
                    connected = procfs.connected_ports(pids)
                    if not connected:
                        return
                    await asyncio.sleep(delay_s)
                    delay_s = min(delay_s * 2, 0.05)
        except TimeoutError:
            ports = ", ".join(f"{local}->{peer}" for local, peer in connected[:4])
            raise DriverError(
                f"replica {running.replica} has TCP connections open (ports {ports}); "
                "close keep-alive connections before parking",
                running=running,
            ) from None

    def _manifest(
        self, running: Running, launch: Launch, pids: Sequence[int], generation: int
    ) -> Manifest:
        ids = sorted(tid for pid in pids for tid in procfs.thread_ids(pid))
        return Manifest(
            replica=running.replica,
            model=launch.model,
            generation=generation,
            driver=self.name,
            tier=Tier.FROZEN,
            tool=f"criu {self.criu.version}",
            created_us=self.clock.now_us(),
            engine=launch.engine,
            digest=launch.digest,
            start_hash=start_hash_of(launch),
            host=launch.host,
            port=launch.port,
            machine=HostFacts.read(),
            pid=running.pid,
            ids=tuple(ids),
            log_path=procfs.open_file_path(running.pid, 1) or running.log_path,
        )

    # wake

    async def wake(
        self, parked: Parked, launch: Launch, *, generation: int, report: Report
    ) -> Running:
        """Restore the engine from its image; see `Driver.wake`.

        Phases: `read_image` until every byte is read and verified, `restore_process` from then until the
        processes exist again (criu works meanwhile, so this is only what reading did not hide).
        """
        with self.exclusive.during(launch.replica, "wake"):
            manifest = self.store.manifest(parked)
            report(
                PhaseMark(
                    phase=Phase.READ_IMAGE,
                    at_us=self.clock.now_us(),
                    bytes_read=manifest.image_bytes,
                )
            )
            self._refuse_mismatch(manifest, launch, parked)
            refuse_taken_port(launch)
            _refuse_taken_ids(manifest)
            draft = self.store.begin_wake(manifest)
            try:
                self.store.claim(manifest)
            except BaseException:
                self.store.end_wake(manifest, draft, spent=False)
                raise
            return await self._thaw(manifest, draft, launch, generation, report)

    def _refuse_mismatch(self, manifest: Manifest, launch: Launch, parked: Parked) -> None:
        reasons = mismatches(
            manifest,
            launch,
            tool=f"criu {self.criu.version}",
            machine=HostFacts.read(),
            generation=parked.generation,
        )
        if reasons:
            raise SnapshotRefused("the snapshot does not match: " + "; ".join(reasons))

    async def _thaw(
        self,
        manifest: Manifest,
        draft: Draft,
        launch: Launch,
        generation: int,
        report: Report,
    ) -> Running:
        spent = False
        try:
            running = await self._restore(manifest, draft, launch, generation, report)
            spent = True
            report(PhaseMark(phase=Phase.READY, at_us=self.clock.now_us()))
            await self._let_run(running, launch)
        except BaseException as error:
            spent = spent or isinstance(error, SnapshotRefused)
            if not spent:
                self.store.release(manifest)
            self.store.end_wake(manifest, draft, spent=spent)
            raise
        # Unlinking gigabytes takes a while, and the client waits; nothing waits for this. What a crash
        # leaves of it is found by `recover`.
        asyncio.get_running_loop().run_in_executor(
            None, lambda: self.store.end_wake(manifest, draft, spent=True)
        )
        return running

    async def _let_run(self, running: Running, launch: Launch) -> None:
        try:
            self.processes.resume(running)
            await Readiness(processes=self.processes, limit_s=self.ready_limit_s).wait(
                running, launch
            )
        except BaseException:
            await self._kill(running)
            raise

    async def _restore(
        self,
        manifest: Manifest,
        draft: Draft,
        launch: Launch,
        generation: int,
        report: Report,
    ) -> Running:
        """Restore and verify at once; the engine is then stopped. Leaves no process behind otherwise."""
        restored: list[Running] = []

        async def verify(records: Sequence[FileRecord]) -> None:
            await in_thread(lambda stop: self.store.verify(draft, records, stop))

        async def restore() -> None:
            await self._run_criu(manifest, draft, launch)
            restored.append(
                self.processes.running(
                    launch, pid=manifest.pid, generation=generation, driver=self.name, extra={}
                )
            )

        async def verify_pages() -> None:
            await verify([record for record in manifest.files if record.bytes > SMALL_BYTES])
            report(PhaseMark(phase=Phase.RESTORE_PROCESS, at_us=self.clock.now_us()))

        try:
            await verify([record for record in manifest.files if record.bytes <= SMALL_BYTES])
            if manifest.sealed:
                # The pages must be in the clear before criu can start; decrypting also verifies them.
                await in_thread(lambda stop: self.store.unseal(manifest, draft, stop))
            async with asyncio.TaskGroup() as group:
                group.create_task(verify_pages())
                group.create_task(restore())
        except BaseExceptionGroup as errors:
            for running in restored:
                await self._kill(running)
            raise _gravest(errors) from errors
        except BaseException:
            for running in restored:
                await self._kill(running)
            raise
        return restored[0]

    async def _run_criu(self, manifest: Manifest, draft: Draft, launch: Launch) -> None:
        def began(criu_pid: int) -> None:
            note_attempt(
                draft.work, criu_pid=criu_pid, engine_pid=manifest.pid, engine_started=None
            )

        try:
            log_fd = open_log(launch.log_path)
        except OSError as error:
            raise DriverError(f"cannot open the log {launch.log_path}: {error}") from error
        try:
            await self.criu.restore(
                image=draft.image,
                work=draft.work,
                log_fd=log_fd,
                log_path=manifest.log_path,
                root_pid=manifest.pid,
                began=began,
            )
        except CriuFailed as error:
            # The machine was in the way, not the image: it may be woken another time.
            if error.fault in (CriuFault.FAILED, CriuFault.CONNECTED):
                raise SnapshotRefused(str(error)) from error
            raise DriverError(str(error)) from error
        finally:
            os.close(log_fd)

    # the rest of the port

    async def descend(self, parked: Parked, launch: Launch, *, generation: int) -> Parked:
        """Freeze an engine that sleeps; a replica without a process cannot be frozen."""
        if parked.running is None:
            raise DriverError(f"replica {parked.replica} has no process to freeze ({parked.tier})")
        return await self.park(parked.running, launch, generation=generation)

    async def discard(self, parked: Parked) -> None:
        """Remove the snapshot. Idempotent."""
        await in_thread(lambda stop: self.store.discard(parked))

    async def inventory(self) -> Sequence[Found]:
        """Return the snapshots that can be woken. Engines that run are the cold driver's inventory."""
        return await in_thread(lambda stop: self.store.found())

    async def recover(self) -> None:
        """End and remove what a poorwill that was killed left half done.

        Called once at start by the owner of the fleet directory, before any other call.
        """
        for directory in self.store.leftovers():
            ended = await settle_leftover(directory)
            self.store.remove_leftover(directory)
            self.log.warning(
                "removed an unfinished snapshot", path=str(directory), ended=ended or "nothing"
            )


def _refuse_taken_ids(manifest: Manifest) -> None:
    """Raise DriverError where a pid or thread id of the image is in use: a restore needs them all."""
    for number in manifest.ids:
        if os.path.exists(f"/proc/{number}"):
            raise DriverError(
                f"pid {number} of replica {manifest.replica}'s snapshot is in use by "
                f"{procfs.command_line(number)}"
            )


def _gravest(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error that says most: a refused snapshot explains why criu failed on it, too."""
    for error in errors.exceptions:
        if isinstance(error, SnapshotRefused):
            return error
    return errors.exceptions[0]
