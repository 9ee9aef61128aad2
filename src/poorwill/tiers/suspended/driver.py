"""The tier `suspended`: a virtual machine's memory on disk, no process.

A park stops the guest, has QEMU write its device state beside the memory file it has run on all along
(x-ignore-shared), and ends QEMU; a wake maps the file again. Where the memory is in no file of its own, all
of it is written (mapped-ram). The order is what makes it safe:

1. everything that can fail while the guest could still serve on comes first, the sync to disk included;
2. QEMU ends before the snapshot gets its name, so that no guest can run on under a valid snapshot;
3. a wake spends its snapshot: from QEMU's start on the memory file belongs to the new run.
"""

import os
import threading
from dataclasses import dataclass, replace

from poorwill.core.launch import Launch, Parked, PhaseMark, Running
from poorwill.core.ports.driver import DriverError, Report, SnapshotRefused
from poorwill.core.words import Phase
from poorwill.hosts.files.aside import aside, in_thread
from poorwill.tiers.engine_sleep import wake_engine
from poorwill.tiers.snapshots.image_driver import ImageDriver
from poorwill.tiers.snapshots.image_files import Stopped
from poorwill.tiers.snapshots.manifest import Manifest
from poorwill.tiers.snapshots.store import Draft
from poorwill.tiers.suspended.qemu import program as qemu
from poorwill.tiers.suspended.qemu.program import Layout, Memory
from poorwill.tiers.suspended.qemu.runs import QemuRuns

_DEVICE_STATE_BYTES = 64 * 2**20
"""More than the state of a guest's devices takes; a minimal guest's is about 2 MB."""


@dataclass(slots=True, kw_only=True)
class SuspendedDriver(ImageDriver):
    """Suspends guests and wakes them. Implements the port `Driver`."""

    runs: QemuRuns
    in_file: bool = True
    """Whether a guest whose snapshot holds all its memory gets a memory file again as it wakes."""
    park_limit_s: float = 300.0
    load_limit_s: float = 300.0

    # parking

    async def park(self, running: Running, launch: Launch, *, generation: int) -> Parked:
        """Suspend the guest; see `Driver.park`. Failed or cancelled before QEMU ends: the guest goes on."""
        return await self._suspend(running, launch, generation=generation, asleep=False)

    async def _suspend(self, running: Running, launch: Launch, *, generation: int, asleep: bool) -> Parked:
        with self.exclusive.during(running.replica, "park"):
            if not self.runs.processes.alive(running):
                await self.runs.stop(running)
                raise DriverError(f"the guest of replica {running.replica} is not running")
            layout = await aside(self._layout, running)
            try:
                return await self._write(running, launch, layout, generation, asleep=asleep)
            finally:
                self.space.settle(running.replica)

    async def _write(
        self, running: Running, launch: Launch, layout: Layout, generation: int, *, asleep: bool
    ) -> Parked:
        memory_bytes = self.runs.guest(launch).memory_mib * 2**20
        draft = await self.begin(
            running,
            generation=generation,
            need_bytes=memory_bytes + _DEVICE_STATE_BYTES,
            there_bytes=memory_bytes if layout is Layout.RAM_FILE else 0,  # its memory file is there already
        )
        try:
            await self.runs.save(running, draft.image, layout=layout, limit_s=self.park_limit_s)
            await self.runs.stop(running)
            manifest = self.describe(
                running, launch, generation, tool=self._tool, now_us=self.runs.clock.now_us(), asleep=asleep
            )
            extra = {"layout": layout, "guest": self.runs.guest(launch).digest}
            return await self.commit(draft, replace(manifest, log_path=launch.log_path, extra=extra))
        except (OSError, Stopped) as error:
            raise DriverError(f"the snapshot could not be written: {error}") from error
        finally:
            await aside(self.store.abandon, draft)

    @property
    def _tool(self) -> str:
        return self.runs.hypervisor.named

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

    # waking

    async def wake(self, parked: Parked, launch: Launch, *, generation: int, report: Report) -> Running:
        """Restore the guest and wait until its engine is ready; see `Driver.wake`."""
        with self.exclusive.during(launch.replica, "wake"):
            now_us = self.runs.clock.now_us()
            manifest = await self.fitting(parked, launch, report, tool=self._tool, now_us=now_us)
            if manifest.extra.get("guest") != self.runs.guest(launch).digest:
                raise SnapshotRefused("the snapshot does not match: its guest was built anew since")
            async with self.waking(manifest) as wake:
                await in_thread(lambda stop: self._fetch(manifest, wake.draft, stop))
                memory = await aside(self._prepare, manifest, wake.draft, launch, generation)
                wake.spent = True
                return await self._restored(
                    manifest, wake.draft, launch, generation=generation, memory=memory, report=report
                )

    def _fetch(self, manifest: Manifest, draft: Draft, stop: threading.Event) -> None:
        self.store.verify(draft, manifest.files, stop)
        if manifest.sealed:
            with self.store.opened(manifest, draft, need_bytes=manifest.image_bytes) as sealed:
                sealed.unseal(sealed.sizes, draft.image, stop)

    def _prepare(self, manifest: Manifest, draft: Draft, launch: Launch, generation: int) -> Memory:
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
        running = await self.runs.start(
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
