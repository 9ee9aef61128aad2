"""The tier `suspended`: a virtual machine's memory on disk, no process.

A park stops the guest, has QEMU write its device state beside the memory file it has run on all along
(x-ignore-shared), and ends QEMU; a wake maps the file again. Where the memory is in no file of its own, all
of it is written (mapped-ram). The order is what makes it safe:

1. everything that can fail while the guest could still serve on comes first, the sync to disk included;
2. QEMU ends before the snapshot gets its name, so that no guest can run on under a valid snapshot;
3. a wake spends its snapshot: from QEMU's start on the memory file belongs to the new run.
"""

import asyncio
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from poorwill.core.launch import Launch, Parked, PhaseMark, Running
from poorwill.core.ports.driver import DriverError, Found, Report, SnapshotRefused
from poorwill.core.ports.engine import EngineSleep
from poorwill.core.words import Phase, Tier
from poorwill.hosts.processes.blocking import in_thread
from poorwill.hosts.processes.readiness import refuse_taken_port
from poorwill.tiers.engine_sleep import wake_engine
from poorwill.tiers.exclusive import Exclusive
from poorwill.tiers.snapshots.image_files import Stopped
from poorwill.tiers.snapshots.manifest import HostFacts, Manifest, mismatches, start_hash_of
from poorwill.tiers.snapshots.space import Space
from poorwill.tiers.snapshots.store import Draft, SnapshotStore
from poorwill.tiers.suspended.qemu import program as qemu
from poorwill.tiers.suspended.qemu.program import Layout, Memory
from poorwill.tiers.suspended.qemu.runs import QemuRuns

_DEVICE_STATE_BYTES = 64 * 2**20
"""More than the state of a guest's devices takes; a minimal guest's is about 2 MB."""


@dataclass(slots=True, kw_only=True)
class SuspendedDriver:
    """Suspends guests and wakes them. Implements the port `Driver`."""

    runs: QemuRuns
    store: SnapshotStore
    space: Space
    in_file: bool = True
    """Whether a guest whose snapshot holds all its memory gets a memory file again as it wakes."""
    park_limit_s: float = 300.0
    load_limit_s: float = 300.0
    sleeps: Mapping[str, EngineSleep] = field(default_factory=dict)
    """How to wake an engine that was suspended in its sleep."""
    exclusive: Exclusive = field(default_factory=Exclusive)

    @property
    def name(self) -> str:
        """The driver's name."""
        return "suspended"

    @property
    def tier(self) -> Tier:
        """The tier it parks into."""
        return Tier.SUSPENDED

    # parking

    async def park(self, running: Running, launch: Launch, *, generation: int) -> Parked:
        """Suspend the guest; see `Driver.park`. Failed or cancelled before QEMU ends: the guest goes on."""
        return await self._suspend(running, launch, generation=generation, asleep=False)

    async def _suspend(self, running: Running, launch: Launch, *, generation: int, asleep: bool) -> Parked:
        with self.exclusive.during(running.replica, "park"):
            if not self.runs.processes.alive(running):
                await self.runs.stop(running)
                raise DriverError(f"the guest of replica {running.replica} is not running")
            layout = self._layout(running)
            try:
                await self._make_room(running, launch, layout)
                return await self._write(running, launch, layout, generation, asleep=asleep)
            finally:
                self.space.settle(running.replica)

    async def _write(
        self, running: Running, launch: Launch, layout: Layout, generation: int, *, asleep: bool
    ) -> Parked:
        draft = self._begin(running, generation=generation)
        try:
            await self.runs.save(running, draft.image, layout=layout, limit_s=self.park_limit_s)
            await self.runs.stop(running)
            manifest = self._manifest(running, launch, layout, generation, asleep=asleep)
            done = await in_thread(lambda stop: self.store.commit(draft, manifest, stop))
        except (OSError, Stopped) as error:
            raise DriverError(f"the snapshot could not be written: {error}") from error
        finally:
            self.store.abandon(draft)
        return Parked(
            replica=running.replica,
            generation=generation,
            tier=Tier.SUSPENDED,
            path=str(draft.final),
            image_bytes=done.image_bytes,
        )

    def _begin(self, running: Running, *, generation: int) -> Draft:
        try:
            return self.store.begin(running.replica, generation)
        except OSError as error:
            raise DriverError(f"cannot suspend: {error}", running=running) from error

    def _layout(self, running: Running) -> Layout:
        if self.runs.memory(running) is not Memory.SHARED:
            return self.runs.hypervisor.full_layout
        if self.store.sealer is not None:
            raise DriverError(
                "a guest whose memory is a file on disk cannot be parked encrypted: "
                "it is in the clear already",
                running=running,
            )
        return Layout.RAM_FILE

    async def _make_room(self, running: Running, launch: Launch, layout: Layout) -> None:
        """Make room for the snapshot; a memory file is on the disk already."""
        memory_bytes = self.runs.guest(launch).memory_mib * 2**20
        there_bytes = memory_bytes if layout is Layout.RAM_FILE else 0
        try:
            await in_thread(
                lambda stop: self.space.make_room(
                    self.store,
                    memory_bytes + _DEVICE_STATE_BYTES,
                    replica=running.replica,
                    there_bytes=there_bytes,
                )
            )
        except (DriverError, OSError) as error:
            raise DriverError(f"cannot suspend: {error}", running=running) from error

    def _manifest(
        self, running: Running, launch: Launch, layout: Layout, generation: int, *, asleep: bool
    ) -> Manifest:
        return Manifest(
            replica=running.replica,
            model=launch.model,
            generation=generation,
            driver=self.name,
            tier=self.tier,
            tool=self.runs.hypervisor.named,
            created_us=self.runs.clock.now_us(),
            engine=launch.engine,
            digest=launch.digest,
            start_hash=start_hash_of(launch),
            host=launch.host,
            port=launch.port,
            machine=HostFacts.read(),
            log_path=launch.log_path,
            asleep=asleep,
            extra={"layout": layout, "guest": self.runs.guest(launch).digest},
        )

    # waking

    async def wake(self, parked: Parked, launch: Launch, *, generation: int, report: Report) -> Running:
        """Restore the guest and wait until its engine is ready; see `Driver.wake`."""
        with self.exclusive.during(launch.replica, "wake"):
            manifest = self.store.manifest(parked)
            report(
                PhaseMark(
                    phase=Phase.READ_IMAGE,
                    at_us=self.runs.clock.now_us(),
                    bytes_read=manifest.image_bytes,
                )
            )
            self._refuse_mismatch(manifest, launch, parked)
            refuse_taken_port(launch)
            draft = self.store.begin_wake(manifest)
            spent = False
            try:
                self.store.claim(manifest)
            except BaseException:
                self.store.end_wake(manifest, draft, spent=False)
                raise
            try:
                await in_thread(lambda stop: self._fetch(manifest, draft, stop))
                memory = self._prepare(manifest, draft, launch, generation=generation)
                spent = True
                running = await self._restored(
                    manifest, draft, launch, generation=generation, memory=memory, report=report
                )
            except BaseException as error:
                spent = spent or isinstance(error, SnapshotRefused)
                if not spent:
                    self.store.release(manifest)
                self.store.end_wake(manifest, draft, spent=spent)
                raise
        # Unlinking takes a while and nothing waits for it; what a crash leaves of it is found by `recover`.
        asyncio.get_running_loop().run_in_executor(
            None, lambda: self.store.end_wake(manifest, draft, spent=True)
        )
        return running

    def _refuse_mismatch(self, manifest: Manifest, launch: Launch, parked: Parked) -> None:
        reasons = mismatches(
            manifest,
            launch,
            tool=self.runs.hypervisor.named,
            machine=HostFacts.read(),
            generation=parked.generation,
        )
        if manifest.extra.get("guest") != self.runs.guest(launch).digest:
            reasons.append("guest: it was built anew since the snapshot")
        if reasons:
            raise SnapshotRefused("the snapshot does not match: " + "; ".join(reasons))

    def _fetch(self, manifest: Manifest, draft: Draft, stop: threading.Event) -> None:
        self.store.verify(draft, manifest.files, stop)
        if manifest.sealed:
            self.store.unseal(manifest, draft, stop)

    def _prepare(self, manifest: Manifest, draft: Draft, launch: Launch, *, generation: int) -> Memory:
        """Make the run's directory with the memory file it will run on."""
        if manifest.extra["layout"] == Layout.RAM_FILE:
            path = self.runs.make(launch, generation=generation)
            os.link(draft.image / qemu.RAM, path / qemu.RAM)
            return Memory.SHARED
        if self.in_file and not manifest.sealed:
            memory_bytes = self.runs.guest(launch).memory_mib * 2**20
            self.runs.make(launch, generation=generation, ram_bytes=memory_bytes)
            return Memory.SHARED
        self.runs.make(launch, generation=generation)
        return Memory.ANONYMOUS

    async def _restored(
        self,
        manifest: Manifest,
        draft: Draft,
        launch: Launch,
        *,
        generation: int,
        memory: Memory,
        report: Report,
    ) -> Running:
        report(PhaseMark(phase=Phase.RESTORE_PROCESS, at_us=self.runs.clock.now_us()))
        running = self.runs.start(
            launch,
            generation=generation,
            driver=self.name,
            memory=memory,
            report=lambda mark: None,  # a restore begins no engine
            incoming=True,
        )
        try:
            state = self.runs.hypervisor.load_uri(str(draft.image / qemu.STATE))
            await self.runs.load(
                running, state, layout=Layout(manifest.extra["layout"]), limit_s=self.load_limit_s
            )
            await self.runs.greet(running, launch)
            if manifest.asleep:
                report(PhaseMark(phase=Phase.ENGINE_WAKE, at_us=self.runs.clock.now_us()))
                await wake_engine(self.sleeps, running, launch, limit_s=self.runs.ready_limit_s)
        except BaseException:
            await self.runs.abort(running)
            raise
        return running

    # the rest

    async def descend(self, parked: Parked, launch: Launch, *, generation: int) -> Parked:
        """Suspend a guest whose engine sleeps; from no other tier is there a way."""
        if parked.running is None:
            raise DriverError(f"there is no way from {parked.tier} to {self.tier}")
        return await self._suspend(parked.running, launch, generation=generation, asleep=True)

    async def discard(self, parked: Parked) -> None:
        """Remove the snapshot; see `Driver.discard`."""
        await in_thread(lambda stop: self.store.discard(parked))

    async def inventory(self) -> Sequence[Found]:
        """Return the snapshots; running guests are for the cold driver to list."""
        return await in_thread(lambda stop: self.store.found())

    async def recover(self) -> None:
        """Remove what a poorwill that was killed left half done, and let a guest it had stopped go on.

        Called once at start by the owner of the fleet directory, before any other call.
        """
        for directory in self.store.leftovers():
            self.store.remove_leftover(directory)
            self.runs.log.warning("removed an unfinished snapshot", path=str(directory))
        for found in self.runs.found():
            if found.running is not None:
                await self.runs.unpause(found.running)
        await in_thread(lambda stop: self.runs.remove_dead())
