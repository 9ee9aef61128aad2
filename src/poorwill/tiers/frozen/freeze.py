"""Freezing one engine: quiet, off the device, dumped, durable, and only then ended.

Until its image is durable the engine is merely stopped, and any failure lets it run on. An engine whose dump
was cut off in the middle carries foreign code and is killed, never resumed.
"""

import asyncio
import os
import signal
from collections.abc import Sequence
from dataclasses import replace

from poorwill.core.launch import Launch, Parked, Running
from poorwill.core.ports.driver import DriverError
from poorwill.hosts.files.aside import aside, in_thread
from poorwill.hosts.processes import procfs
from poorwill.hosts.processes.session import send
from poorwill.tiers.frozen.criu import CriuFailed, CriuFault, Tcp
from poorwill.tiers.frozen.device import DeviceBroken, DeviceImage, with_device_image
from poorwill.tiers.frozen.parts import FrozenParts
from poorwill.tiers.snapshots.attempt import note_attempt
from poorwill.tiers.snapshots.image_driver import together
from poorwill.tiers.snapshots.store import Draft

TCP_KEY = "tcp"
"""Key in a manifest's `extra`: what became of the engine's TCP connections (`criu.Tcp`)."""

OVERHEAD = 1.05
OVERHEAD_BYTES = 4 * 2**20
"""What an image takes beyond the memory it carries."""

_MOST_BEHIND_BYTES = 64 * 2**20
"""criu rests while more than this waits to be sealed."""


async def freeze(
    parts: FrozenParts,
    running: Running,
    launch: Launch,
    *,
    generation: int,
    asleep: bool = False,
) -> Parked:
    """Freeze an engine; see `Driver.park`. The image remembers whether it was `asleep`."""
    if not parts.processes.alive(running):
        raise DriverError(f"the engine of replica {running.replica} is not running")
    try:
        pids = _refuse_lost_processes(parts, running)
        tcp = await _quiet(parts, running, pids)
    except OSError as error:  # the machine's trouble: the engine serves on
        raise DriverError(f"cannot look at the engine: {error}", running=running) from error
    try:
        held = await parts.device.take_down(pids)
    except DeviceBroken as error:
        await parts.processes.end_now(running)
        raise DriverError(f"{error}; the engine was ended with it") from error
    except DriverError as error:
        raise DriverError(f"cannot free the device: {error}", running=running) from error
    except BaseException:
        await parts.processes.end_now(running)
        raise
    try:
        return await _write_image(parts, running, launch, held, generation, asleep=asleep, tcp=tcp)
    except BaseException as error:
        await _give_device_back(parts, running, held, error)
        raise
    finally:
        parts.space.settle(running.replica)


def _refuse_lost_processes(parts: FrozenParts, running: Running) -> list[int]:
    """Return the engine's processes. Raises DriverError if one has left its tree: criu would not see it."""

    def look() -> tuple[list[int], set[int]]:
        members = parts.processes.members(running)
        pids = [stat.pid for stat in members]
        return pids, set(pids) - procfs.with_descendants([running.pid], members)

    pids, lost = look()
    if lost and (lost := lost & look()[1]):  # both times: one whose parent has just ended has not left
        raise DriverError(
            f"processes of replica {running.replica} have left its tree (pids {sorted(lost)[:4]}); "
            "a snapshot would not hold them",
            running=running,
        )
    return pids


async def _write_image(
    parts: FrozenParts,
    running: Running,
    launch: Launch,
    held: DeviceImage,
    generation: int,
    *,
    asleep: bool,
    tcp: Tcp,
) -> Parked:
    """Dump what is in the host's memory, the device's content included by now."""
    pids = parts.processes.pids(running)
    need_bytes = OVERHEAD_BYTES + int(OVERHEAD * sum(procfs.private_bytes(pid) for pid in pids))
    log_path = await aside(_log_name, running)
    draft = await parts.begin(running, generation=generation, need_bytes=need_bytes)
    manifest = parts.describe(
        running, launch, generation, tool=parts.criu.named, now_us=parts.clock.now_us(), asleep=asleep
    )
    manifest = with_device_image(manifest, held)
    manifest = replace(
        manifest,
        pid=running.pid,
        ids=tuple(sorted(thread for pid in pids for thread in procfs.thread_ids(pid))),
        log_path=log_path,
        extra={**manifest.extra, TCP_KEY: tcp},
    )
    try:
        await _dump(parts, running, draft, need_bytes=need_bytes, tcp=tcp)
        parked = await parts.commit(draft, manifest)
        await parts.processes.end_now(running)
        return parked
    except BaseException as error:
        # Whatever failed after the dump, the engine is only stopped: without its image it runs on.
        await aside(parts.store.abandon, draft)
        await aside(parts.store.discard, manifest.parked())
        parts.processes.resume(running)
        if isinstance(error, OSError):
            raise DriverError(f"cannot write the snapshot: {error}", running=running) from error
        raise


async def _dump(parts: FrozenParts, running: Running, draft: Draft, *, need_bytes: int, tcp: Tcp) -> None:
    writer: list[int] = []

    def note(criu_pid: int | None) -> None:
        writer.extend([criu_pid] if criu_pid else ())
        note_attempt(
            draft.work,
            criu_pid=criu_pid,
            engine_pid=running.pid,
            engine_started=running.pid_started,
        )

    await aside(note, None)
    try:
        async with together() as group:
            following = group.create_task(_follow(parts, draft, writer))
            try:
                await parts.criu.dump(
                    running.pid,
                    image=draft.image,
                    work=draft.work,
                    size_bytes=need_bytes,
                    began=note,
                    tcp=tcp,
                )
            finally:
                following.cancel()
    except CriuFailed as error:
        if error.fault in (CriuFault.LIMIT, CriuFault.KILLED):
            await parts.processes.end_now(running)
            raise DriverError(f"{error}; the engine was ended with it") from error
        if error.fault is CriuFault.CONNECTED:
            raise DriverError(
                f"{error}; close keep-alive connections before parking", running=running
            ) from error
        raise DriverError(str(error), running=running) from error
    except BaseException:
        await parts.processes.end_now(running)
        raise
    if tcp is not Tcp.NONE:  # then criu let them run on
        parts.processes.stop(running)
        if late := _clients(running, procfs.connections(parts.processes.pids(running))):
            raise DriverError(f"a client connected during the dump ({_ports(late)})", running=running)


async def _follow(parts: FrozenParts, draft: Draft, writer: list[int]) -> None:
    """Seal or record what criu writes while it does; a sealed image is in the clear only that far."""

    def behind(count: int) -> None:
        if draft.sealing and writer:
            send(writer, signal.SIGSTOP if count > _MOST_BEHIND_BYTES else signal.SIGCONT)

    await in_thread(lambda stop: parts.store.follow(draft, stop, behind=behind))


async def _quiet(parts: FrozenParts, running: Running, pids: list[int]) -> Tcp:
    """Wait until no client is connected to the engine; return what becomes of its other connections.

    Connections that the engine itself has made (to a model hub, for telemetry) are dropped: it finds them
    closed when it wakes, as after any longer pause. Raises DriverError with `.running` if a client stays.
    """
    delay_s, connected = 0.002, procfs.connections(pids)
    try:
        async with asyncio.timeout(parts.quiet_limit_s):
            while _clients(running, connected):
                await asyncio.sleep(delay_s)
                delay_s, connected = min(delay_s * 2, 0.05), procfs.connections(pids)
    except TimeoutError:
        raise DriverError(
            f"replica {running.replica} has TCP connections open ({_ports(_clients(running, connected))}); "
            "close keep-alive connections before parking",
            running=running,
        ) from None
    if connected.within:
        return Tcp.WITHIN
    return Tcp.DROPPED if connected.outside else Tcp.NONE


def _clients(running: Running, connected: procfs.TcpConnections) -> list[tuple[int, int]]:
    return [pair for pair in connected.outside if pair[0] == running.port]


def _ports(pairs: Sequence[tuple[int, int]]) -> str:
    return "ports " + ", ".join(f"{local}->{peer}" for local, peer in pairs[:4])


async def _give_device_back(
    parts: FrozenParts, running: Running, held: DeviceImage, error: BaseException
) -> None:
    """Return the device's content to an engine that was not frozen after all; else end it."""
    if not held.pids or not parts.processes.alive(running):
        return
    try:
        await parts.device.bring_back(held)
    except BaseException as failure:
        await parts.processes.end_now(running)
        if isinstance(error, DriverError) and isinstance(failure, DriverError):
            raise DriverError(
                f"{error}; the device could not be given back ({failure}), the engine was ended"
            ) from error
        raise


def _log_name(running: Running) -> str:
    """Return the log's name as the engine holds it open; empty if it writes somewhere else now."""
    log = os.path.realpath(running.log_path)
    held = [procfs.open_file_path(running.pid, descriptor) for descriptor in (1, 2)]
    return log if log in held else ""
