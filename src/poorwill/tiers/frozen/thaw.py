"""Thawing one engine: checked, claimed, restored, and let run while its memory is filled behind it.

From the moment it runs its image is spent: a second process from one image would repeat the first one's
state. Until then the image is untouched, and after a failure that the machine caused (a taken port or pid) it
may be woken again. The wake is over when the engine answers and every byte was verified, so nobody has been
answered from an engine that is ended for a damaged one.
"""

import os
import threading
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

from poorwill.core.launch import Launch, Parked, PhaseMark, Running
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.driver import DriverError, Report, SnapshotRefused
from poorwill.core.words import Phase
from poorwill.hosts.files.aside import aside, in_thread
from poorwill.hosts.processes import procfs
from poorwill.hosts.processes.engine_log import open_log
from poorwill.hosts.processes.readiness import Readiness
from poorwill.tiers.engine_sleep import wake_engine
from poorwill.tiers.frozen.criu import CriuFailed, CriuFault, Tcp
from poorwill.tiers.frozen.device import DeviceWake, device_image
from poorwill.tiers.frozen.filling import Filling, listening
from poorwill.tiers.frozen.freeze import TCP_KEY
from poorwill.tiers.frozen.memory_map import eager_chunks, lazy_memory
from poorwill.tiers.frozen.parts import FrozenParts
from poorwill.tiers.snapshots.attempt import forget_attempt, note_attempt
from poorwill.tiers.snapshots.image_driver import together
from poorwill.tiers.snapshots.image_files import CheckedFiles, Pieces
from poorwill.tiers.snapshots.manifest import FileRecord, Manifest
from poorwill.tiers.snapshots.store import Draft

SMALL_BYTES = 2**20
"""Files up to this size (criu's own records) are verified before criu reads them."""


@dataclass(slots=True)
class _Progress:
    """Tells the phases of a wake; `read_image` covers what happens while the memory is being read."""

    clock: Clock
    report: Report
    hidden: list[tuple[Phase, int | None]] | None = field(default_factory=list)

    def enter(self, phase: Phase, bytes_read: int | None = None) -> None:
        if self.hidden is not None:
            return self.hidden.append((phase, bytes_read))
        self.report(PhaseMark(phase=phase, at_us=self.clock.now_us(), bytes_read=bytes_read))

    def read(self) -> None:
        """All memory is read and verified."""
        hidden, self.hidden = self.hidden or [], None
        for phase, bytes_read in hidden:
            self.enter(phase, bytes_read)


@dataclass(frozen=True, slots=True)
class _Thawing:
    """One wake."""

    parts: FrozenParts
    manifest: Manifest
    draft: Draft
    launch: Launch
    progress: _Progress
    filling: Filling | None
    """None: criu fills, and nothing runs before all is verified."""

    async def restored(self, generation: int) -> Running:
        """Restore the engine, stopped, and verify what it may touch before it is filled.

        Leaves no process behind if it fails.
        """
        restored: list[Running] = []

        async def restore() -> None:
            await _run_criu(self.parts, self.manifest, self.draft, self.launch)
            processes, pid = self.parts.processes, self.manifest.pid
            describe = partial(processes.running, generation=generation, driver=self.parts.name)
            restored.append(await aside(lambda: describe(self.launch, pid=pid)))

        try:
            async with together() as group:
                group.create_task(self._verify_large())
                group.create_task(restore())
            if not restored:
                raise DriverError("criu ended without asking for the engine's memory")
        except BaseException:
            for running in restored:
                await self.parts.processes.end_now(running)
            raise
        return restored[0]

    async def _verify_large(self) -> None:
        filled: Collection[str] = ()
        if self.filling is not None:
            if not await in_thread(self.filling.take_over):
                return  # criu failed
            filled = self.filling.files
        if not self.manifest.sealed:
            large = (one for one in self.manifest.files if one.bytes > SMALL_BYTES)
            await _verify(self.parts, self.draft, [one for one in large if one.name not in filled])
        if self.filling is None:
            self.progress.read()

    async def run(self, running: Running, device: DeviceWake) -> None:
        """Let the engine run and wait until it answers and all its memory is verified."""
        parts, held = self.parts, device_image(self.manifest)
        async with together() as group:
            if self.filling is None:
                await aside(forget_attempt, self.draft.work)
            else:
                group.create_task(self._fill(self.filling))
            parts.processes.resume(running)
            if held.pids:
                self.progress.enter(Phase.RESTORE_DEVICE, held.bytes)
                await device.bring_back(held)
            if self.manifest.asleep:
                self.progress.enter(Phase.ENGINE_WAKE)
                await wake_engine(parts.sleeps, running, self.launch, limit_s=parts.ready_limit_s)
            self.progress.enter(Phase.READY)
            await Readiness(processes=parts.processes, limit_s=parts.ready_limit_s).wait(running, self.launch)

    async def _fill(self, filling: Filling) -> None:
        await in_thread(filling.fill)
        await aside(forget_attempt, self.draft.work)
        self.progress.read()


async def thaw(
    parts: FrozenParts, parked: Parked, launch: Launch, *, generation: int, report: Report
) -> Running:
    """Restore an engine; see `Driver.wake`."""
    now_us = parts.clock.now_us()
    manifest = await parts.fitting(parked, launch, report, tool=parts.criu.named, now_us=now_us)
    refuse_taken_ids(manifest)
    held = device_image(manifest)
    async with parts.device.waking(held) as device:
        await device.check_room(held)
        async with parts.waking(manifest) as wake, _filling(parts, manifest, wake.draft) as filling:
            progress = _Progress(parts.clock, report)
            progress.enter(Phase.RESTORE_PROCESS)
            thawing = _Thawing(parts, manifest, wake.draft, launch, progress, filling)
            running = await thawing.restored(generation)
            wake.spent = True
            async with parts.processes.ended_on_failure(running):
                await thawing.run(running, device)
    return running


@asynccontextmanager
async def _filling(parts: FrozenParts, manifest: Manifest, draft: Draft) -> AsyncIterator[Filling | None]:
    """Verify or decrypt what criu reads by itself, and get ready to fill the rest."""
    pieces: Pieces = CheckedFiles(draft.image, {record.name: record for record in manifest.files})
    await aside(parts.store.refuse_other_sizes, draft, manifest.files)
    if manifest.sealed:
        pieces = await in_thread(partial(_unsealed, parts, manifest, draft))
    else:
        await _verify(parts, draft, [one for one in manifest.files if one.bytes <= SMALL_BYTES])
    with ExitStack() as stack:
        there = listening(draft.image, draft.work, pieces)
        yield await aside(lambda: stack.enter_context(there)) if parts.criu.fills else None


def _unsealed(parts: FrozenParts, manifest: Manifest, draft: Draft, stop: threading.Event) -> Pieces:
    """Decrypt criu's own records, and of the memory what criu reads by itself; return the image."""
    need_bytes = 0 if parts.criu.fills else manifest.image_bytes
    with parts.store.opened(manifest, draft, need_bytes=need_bytes) as sealed:
        pages = [name for name in sealed.sizes if parts.criu.fills and name.startswith("pages-")]
        sealed.unseal(set(sealed.sizes) - set(pages), draft.image, stop)
        eager: dict[str, set[int]] = {}
        for process in draft.image.glob("pagemap-[0-9]*.img"):
            name, ranges = lazy_memory(draft.image, int(process.stem.removeprefix("pagemap-")))
            eager[name] = eager_chunks(ranges, sealed.sizes[name])
        for name in pages:
            sealed.unseal([name], draft.image, stop, only=eager.get(name))
        return sealed


async def _verify(parts: FrozenParts, draft: Draft, records: Sequence[FileRecord]) -> None:
    await in_thread(lambda stop: parts.store.verify(draft, records, stop))


async def _run_criu(parts: FrozenParts, manifest: Manifest, draft: Draft, launch: Launch) -> None:
    def note(criu_pid: int | None) -> None:
        note_attempt(draft.work, criu_pid=criu_pid, engine_pid=manifest.pid, engine_started=None)

    def begun() -> int:
        note(None)
        return open_log(launch.log_path)

    try:
        log_fd = await aside(begun)
    except OSError as error:
        raise DriverError(f"cannot prepare the wake: {error}") from error
    try:
        await parts.criu.restore(
            image=draft.image,
            work=draft.work,
            size_bytes=manifest.image_bytes,
            log_fd=log_fd,
            log_path=manifest.log_path,
            root_pid=manifest.pid,
            began=note,
            tcp=Tcp(manifest.extra.get(TCP_KEY, Tcp.NONE)),
        )
    except OSError as error:
        raise DriverError(f"cannot run criu: {error}") from error
    except CriuFailed as error:
        # A time limit, a port or a pid: the machine was in the way, not the image.
        if error.fault is CriuFault.FAILED:
            raise SnapshotRefused(str(error)) from error
        raise DriverError(str(error)) from error
    finally:
        os.close(log_fd)


def refuse_taken_ids(manifest: Manifest) -> None:
    """Raise DriverError if a pid or thread id of the image is in use: a restore needs them all."""
    for number in manifest.ids:
        if os.path.exists(f"/proc/{number}"):
            raise DriverError(
                f"pid {number} of replica {manifest.replica}'s snapshot is in use by "
                f"{procfs.command_line(number)}"
            )
