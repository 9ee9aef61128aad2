"""Thawing one engine: checked, claimed, restored stopped while its bytes are verified, and only then let run.

From the moment it runs its image is spent: a second process from one image would repeat the first one's
state. Until then the image is untouched, and after a failure that the
machine caused (a taken port or pid) it may be woken again.
"""

import asyncio
import os
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

from poorwill.core.launch import Launch, Parked, PhaseMark, Running
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
from poorwill.tiers.frozen.parts import FrozenParts
from poorwill.tiers.snapshots.attempt import forget_attempt, note_attempt
from poorwill.tiers.snapshots.manifest import FileRecord, Manifest
from poorwill.tiers.snapshots.store import Draft

SMALL_BYTES = 2**20
"""Files up to this size (criu's own records) are verified before criu reads them; the memory pages, which
criu copies without looking, meanwhile."""


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
        async with parts.waking(manifest) as wake:
            running = await _restore(parts, manifest, wake.draft, launch, generation, report)
            wake.spent = True
            await _let_run(parts, manifest, wake.draft, running, launch, report, device)
    return running


async def _let_run(
    parts: FrozenParts,
    manifest: Manifest,
    draft: Draft,
    running: Running,
    launch: Launch,
    report: Report,
    device: DeviceWake,
) -> None:
    held = device_image(manifest)
    async with parts.processes.ended_on_failure(running):
        await aside(forget_attempt, draft.work)
        parts.processes.resume(running)
        if held.pids:
            _mark(parts, report, Phase.RESTORE_DEVICE, held.bytes)
            await device.bring_back(held)
        if manifest.asleep:
            _mark(parts, report, Phase.ENGINE_WAKE)
            await wake_engine(parts.sleeps, running, launch, limit_s=parts.ready_limit_s)
        _mark(parts, report, Phase.READY)
        await Readiness(processes=parts.processes, limit_s=parts.ready_limit_s).wait(running, launch)


async def _restore(
    parts: FrozenParts,
    manifest: Manifest,
    draft: Draft,
    launch: Launch,
    generation: int,
    report: Report,
) -> Running:
    """Restore and verify at once; the engine is then stopped. Leaves no process behind otherwise."""
    restored: list[Running] = []

    async def verify(records: Sequence[FileRecord]) -> None:
        await in_thread(lambda stop: parts.store.verify(draft, records, stop))

    async def restore() -> None:
        await _run_criu(parts, manifest, draft, launch)
        describe = partial(parts.processes.running, generation=generation, driver=parts.name)
        restored.append(await aside(lambda: describe(launch, pid=manifest.pid)))

    small = [record for record in manifest.files if record.bytes <= SMALL_BYTES]
    large = [record for record in manifest.files if record.bytes > SMALL_BYTES]

    async def verify_pages(filling: Filling | None) -> None:
        verified: set[str] = set()
        if filling is not None:
            await in_thread(filling.run)
            if not filling.done:
                return  # criu failed
            verified = filling.verified
        await verify([record for record in large if record.name not in verified])
        _mark(parts, report, Phase.RESTORE_PROCESS)

    try:
        await verify(small)
        if manifest.sealed:
            # All must be in the clear before criu can start; decrypting verifies it, too.
            await in_thread(lambda stop: parts.store.unseal(manifest, draft, stop))
            large = []
        checked = () if manifest.sealed else manifest.files
        with ExitStack() as stack:
            there = listening(draft.image, draft.work, checked)
            filling = await aside(lambda: stack.enter_context(there)) if parts.criu.fills else None
            async with asyncio.TaskGroup() as group:
                group.create_task(verify_pages(filling))
                group.create_task(restore())
        if filling is not None and not filling.done:
            raise DriverError("criu ended without asking for the engine's memory")
    except BaseException as error:
        for running in restored:
            await parts.processes.end_now(running)
        if isinstance(error, BaseExceptionGroup):
            raise _gravest(error) from error
        raise
    return restored[0]


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


def _mark(parts: FrozenParts, report: Report, phase: Phase, bytes_read: int | None = None) -> None:
    report(PhaseMark(phase=phase, at_us=parts.clock.now_us(), bytes_read=bytes_read))


def _gravest(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the most telling error: a refused snapshot also explains why criu failed on it."""
    for error in errors.exceptions:
        if isinstance(error, SnapshotRefused):
            return error
    return errors.exceptions[0]
