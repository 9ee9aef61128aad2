"""What only the frozen tier can get wrong: CRIU, connections, pids, disks, damage, copies, keys."""

# Files are looked at on purpose while nothing else is on the loop.
# ruff: noqa: ASYNC220, ASYNC240

import asyncio
import ctypes
import errno
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
from tests.waiting import until, wait_until

from poorwill.core.launch import Launch, Parked, Running
from poorwill.core.ports.driver import DriverError, SnapshotRefused
from poorwill.core.words import Phase, ReplicaId, Tier
from poorwill.hosts.files.user import may_freeze_others
from poorwill.hosts.processes import procfs, session
from poorwill.hosts.processes.session import members
from poorwill.tiers.frozen.criu import Criu
from poorwill.tiers.frozen.driver import FrozenDriver
from poorwill.tiers.frozen.freeze import OVERHEAD_BYTES
from poorwill.tiers.snapshots.attempt import NOTE, note_attempt
from poorwill.tiers.snapshots.image_files import CHUNK_BYTES, CheckedFiles, Chunk
from poorwill.tiers.snapshots.sealing import Sealer
from poorwill.tiers.snapshots.space import Space, Value
from poorwill.tiers.snapshots.store import MEMORY_DIRECTORY, Draft, SnapshotStore, store_root

from .cases import frozen_case, hurt, new_cold, new_frozen
from .conftest import TINY_ENGINE, Fleet, ask

BIG = str(120_000_000)
"""Bytes of engine memory that keep criu busy for a tenth of a second and more."""

MEMORY_GROUPS = next(Path("/sys/fs").glob("cgroup/memory"), Path("/sys/fs/cgroup"))
"""Of the first version of control groups, else of the second."""


@pytest.fixture
def driver(fleet: Fleet, criu: Criu) -> FrozenDriver:
    return new_frozen(fleet, criu)


async def start(fleet: Fleet, *switches: str, **changes: object) -> tuple[Launch, Running]:
    launch = fleet.launch(*switches, **changes)
    running = await new_cold(fleet).wake(fleet.cold(launch), launch, generation=1, report=fleet.report)
    return launch, running


def nothing_runs(fleet: Fleet) -> bool:
    return fleet.processes.found() == []


def scratch(fleet: Fleet) -> list[Path]:
    root = store_root(fleet.directory, Tier.FROZEN)
    return [*root.glob("*/.draft-*"), *root.glob("*/.wake-*")]


@pytest.mark.skipif(
    os.geteuid() != 0 or not may_freeze_others(), reason="needs root with CAP_SYS_RESOURCE (prlimit)"
)
async def test_a_user_of_its_own_is_kept(fleet: Fleet, driver: FrozenDriver):
    python = shutil.which("python3", path="/usr/bin:/bin")
    if python is None:
        pytest.skip("no Python that every user may run")
    argv = (python, "-I", "-S", "-c", TINY_ENGINE.read_text())
    launch = fleet.launch(user="nobody")
    launch = replace(launch, argv=(*argv, str(launch.port)))
    running = await new_cold(fleet).wake(fleet.cold(launch), launch, generation=1, report=fleet.report)
    assert ask(running) == "1" and procfs.user_ids(running.pid) == {65534}
    parked = await driver.park(running, launch, generation=2)
    assert parked.path and all(path.stat().st_uid == 0 for path in Path(parked.path).rglob("*"))
    woken = await driver.wake(parked, launch, generation=3, report=fleet.report)
    assert ask(woken) == "2" and procfs.user_ids(woken.pid) == {65534}
    assert woken.extra == running.extra and [each.running for each in fleet.again().processes.found()]
    await fleet.processes.kill(woken)
    assert nothing_runs(fleet)


async def test_an_open_connection_fails_the_park(fleet: Fleet, criu: Criu):
    driver = new_frozen(fleet, criu, quiet_limit_s=0.2)
    launch, running = await start(fleet)
    reader, writer = await asyncio.open_connection(launch.host, launch.port)
    writer.write(b"GET /count HTTP/1.1\r\n\r\n")
    assert await reader.readexactly(12) == b"HTTP/1.1 200"
    with pytest.raises(DriverError, match="close keep-alive connections") as caught:
        await driver.park(running, launch, generation=1)
    assert caught.value.running == running and ask(running) == "2"
    writer.close()
    await writer.wait_closed()
    parked = await driver.park(running, launch, generation=2)
    assert ask(await driver.wake(parked, launch, generation=3, report=fleet.report)) == "3"


async def test_criu_refuses_an_open_connection(
    fleet: Fleet, driver: FrozenDriver, monkeypatch: pytest.MonkeyPatch
):
    # A client that connects between our look and criu's: our look is switched off here.
    nothing = procfs.TcpConnections(outside=(), within=())
    monkeypatch.setattr(procfs, "connections", lambda pids: nothing)
    launch, running = await start(fleet)
    reader, writer = await asyncio.open_connection(launch.host, launch.port)
    writer.write(b"GET /count HTTP/1.1\r\n\r\n")
    assert await reader.readexactly(12) == b"HTTP/1.1 200"
    with pytest.raises(DriverError, match=r"Connected TCP socket.*close keep-alive") as caught:
        await driver.park(running, launch, generation=1)
    assert caught.value.running == running and scratch(fleet) == []
    writer.close()
    await writer.wait_closed()
    assert ask(running) == "2"
    assert await driver.inventory() == []


async def test_children_are_frozen_too(fleet: Fleet, driver: FrozenDriver):
    launch, running = await start(fleet, "--children", "3")
    before = [stat.pid for stat in members(running.pid)]
    parked = await driver.park(running, launch, generation=1)
    assert members(running.pid) == []
    woken = await driver.wake(parked, launch, generation=2, report=fleet.report)
    assert sorted(stat.pid for stat in members(woken.pid)) == sorted(before)
    assert ask(woken) == "1"


async def test_an_engine_with_a_lost_process_serves_on(fleet: Fleet, driver: FrozenDriver):
    launch, running = await start(fleet, "--daemon", "60")
    with pytest.raises(DriverError, match="have left its tree") as caught:
        await driver.park(running, launch, generation=1)
    assert caught.value.running == running and ask(running) == "1"
    await fleet.processes.kill(running)


async def test_inner_tcp_connections_are_frozen(fleet: Fleet, driver: FrozenDriver):
    launch, running = await start(fleet, "--worker")
    for cycle in range(5):
        assert ask(running) == str(cycle + 1)
        assert len(procfs.connections([s.pid for s in members(running.pid)]).within)
        parked = await driver.park(running, launch, generation=cycle + 1)
        assert members(running.pid) == []
        running = await driver.wake(parked, launch, generation=cycle + 2, report=fleet.report)


@asynccontextmanager
async def echo_server() -> AsyncIterator[int]:
    """Something an engine may be connected to, such as a model hub."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(100):
                writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def test_outgoing_connections_wake_up_closed(fleet: Fleet, driver: FrozenDriver):
    async with echo_server() as port:
        launch, running = await start(fleet, "--dials", str(port))
        assert await asyncio.to_thread(ask, running, "/echo") == "?"
        parked = await driver.park(running, launch, generation=1)
        woken = await driver.wake(parked, launch, generation=2, report=fleet.report)
        assert await asyncio.to_thread(ask, woken, "/echo") == "closed"
        assert await asyncio.to_thread(ask, woken) == "1"
        await fleet.processes.kill(woken)


async def test_a_client_during_the_dump_is_served(fleet: Fleet, criu: Criu, tmp_path: Path):
    dumped, connected = tmp_path / "dumped", tmp_path / "connected"
    slow = tmp_path / "criu"
    slow.write_text(
        f'#!/bin/sh\n{criu.binary} "$@" || exit 1\n: > {dumped}\n'
        f"while [ ! -e {connected} ]; do sleep 0.01; done\n"
    )
    slow.chmod(0o700)
    driver = new_frozen(fleet, replace(criu, binary=str(slow)))
    async with echo_server() as port, asyncio.TaskGroup() as group:
        launch, running = await start(fleet, "--dials", str(port))
        parking = group.create_task(failing(driver.park(running, launch, generation=1)))
        await until(dumped.exists)
        reader, writer = await asyncio.open_connection(launch.host, launch.port)
        writer.write(b"GET /count HTTP/1.1\r\n\r\n")
        assert await reader.readexactly(12) == b"HTTP/1.1 200"
        connected.touch()
        error = await parking
        assert error.running == running and "connected during the dump" in str(error)
        writer.write(b"GET /count HTTP/1.1\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n2")).endswith(b"2")
        writer.close()
        assert await asyncio.to_thread(ask, running, "/echo") == "?"
        await fleet.processes.kill(running)


async def failing(park: Coroutine[Any, Any, Parked]) -> DriverError:
    with pytest.raises(DriverError) as caught:
        await park
    return caught.value


async def test_a_failed_park_keeps_outgoing_connections(fleet: Fleet, criu: Criu):
    root = store_root(fleet.directory, Tier.FROZEN)
    driver = new_frozen(fleet, criu, store=Full(root=root, tier=Tier.FROZEN))
    async with echo_server() as port:
        launch, running = await start(fleet, "--dials", str(port))
        with pytest.raises(DriverError, match="No space left"):
            await driver.park(running, launch, generation=1)
        assert await asyncio.to_thread(ask, running, "/echo") == "?"
        await fleet.processes.kill(running)


class Full(SnapshotStore):
    """A store on a disk that is full once the image is written."""

    def commit(self, *args: object, **kwargs: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("when", ["during the dump", "after the dump"])
async def test_a_failed_park_keeps_inner_connections(fleet: Fleet, criu: Criu, when: str):
    root = store_root(fleet.directory, Tier.FROZEN)
    store = Full if when == "after the dump" else SnapshotStore
    driver = new_frozen(fleet, criu, space=Careless(log=fleet.log), store=store(root=root, tier=Tier.FROZEN))
    launch, running = await start(fleet, "--worker")
    assert ask(running) == "1"
    with small_disk(root, "1M" if when == "during the dump" else "64M"):
        with pytest.raises(DriverError) as caught:
            await driver.park(running, launch, generation=1)
        assert caught.value.running == running
        assert ask(running) == "2" and scratch(fleet) == []


@pytest.mark.parametrize("change", ["grown", "cut", "removed"])
async def test_the_log_may_change_meanwhile(fleet: Fleet, driver: FrozenDriver, change: str):
    launch, running = await start(fleet)
    parked = await driver.park(running, launch, generation=1)
    log = Path(launch.log_path)
    if change == "grown":
        log.write_bytes(log.read_bytes() + b"x" * 100_000 + b"\n")
    elif change == "cut":
        log.write_bytes(b"")
    else:
        log.unlink()
    woken = await driver.wake(parked, launch, generation=2, report=fleet.report)
    assert ask(woken) == "1"
    assert log.read_text().endswith("asked 1\n")


async def test_deleted_open_files_are_in_the_image(fleet: Fleet, driver: FrozenDriver):
    launch, running = await start(fleet, "--deleted", "5000000")
    total = ask(running, "/sum")
    parked = await driver.park(running, launch, generation=1)
    assert parked.image_bytes > 5_000_000
    woken = await driver.wake(parked, launch, generation=2, report=fleet.report)
    assert ask(woken, "/sum") == total


async def test_a_log_elsewhere_keeps_its_descriptors(fleet: Fleet, driver: FrozenDriver):
    launch, running = await start(fleet, "--silent")
    held = [procfs.open_file_path(running.pid, descriptor) for descriptor in range(3)]
    assert held == ["/dev/null"] * 3
    parked = await driver.park(running, launch, generation=1)
    woken = await driver.wake(parked, launch, generation=2, report=fleet.report)
    assert [procfs.open_file_path(woken.pid, descriptor) for descriptor in range(3)] == held
    assert ask(woken) == "1"


@pytest.mark.parametrize("fills", [True, False], ids=["filled by us", "filled by criu"])
async def test_memory_is_as_it_was(fleet: Fleet, criu: Criu, fills: bool):
    """Byte for byte, of processes and their children, before the engine has run again."""
    if fills and not criu.fills:
        pytest.skip("this kernel or user may not fill other processes' memory")
    driver = new_frozen(fleet, replace(criu, fills=fills))
    launch, running = await start(fleet, "--fill", "20000000", "--children", "1")
    pids = fleet.processes.pids(running)
    before = {pid: memory_of(pid) for pid in pids}
    parked = await driver.park(running, launch, generation=1)
    woken = await driver.wake(parked, launch, generation=2, report=fleet.report)
    assert fleet.processes.pids(woken) == pids and len(pids) > 1
    for pid in pids:
        after = memory_of(pid)
        same = [place for place in before[pid] if after.get(place) == before[pid][place]]
        # What it has done since changed a few pages; most of it has not run.
        assert len(same) > 0.9 * len(before[pid])
    assert ask(woken) == "1"


def memory_of(pid: int) -> dict[int, bytes]:
    """The private writable memory of a process, a page at a time."""
    pages: dict[int, bytes] = {}
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            first, last = (int(end, 16) for end in line.split()[0].split("-"))
            if " rw-p " in line:
                for at in range(first, last, 4096):
                    memory.seek(at)
                    with suppress(OSError):  # it runs, and has given that page back since
                        pages[at] = memory.read(4096)
    return pages


async def test_an_image_is_woken_only_once(fleet: Fleet, driver: FrozenDriver, tmp_path: Path):
    launch, running = await start(fleet)
    parked = await driver.park(running, launch, generation=1)
    assert parked.path is not None
    shutil.copytree(parked.path, tmp_path / "copy")
    woken = await driver.wake(parked, launch, generation=2, report=fleet.report)
    await fleet.processes.kill(woken)
    shutil.rmtree(parked.path, ignore_errors=True)
    shutil.copytree(tmp_path / "copy", parked.path)
    with pytest.raises(SnapshotRefused, match="already woken"):
        await driver.wake(parked, launch, generation=3, report=fleet.report)
    assert nothing_runs(fleet)
    assert await driver.inventory() == [], "a spent image is no snapshot"


async def test_a_taken_pid_is_named_and_spared(fleet: Fleet, driver: FrozenDriver):
    launch, running = await start(fleet)
    parked = await driver.park(running, launch, generation=1)
    with squatter(running.pid):
        with pytest.raises(DriverError, match=rf"pid {running.pid} .*in use by .*sleep"):
            await driver.wake(parked, launch, generation=2, report=fleet.report)
        assert procfs.command_line(running.pid).startswith("sleep")
    assert ask(await driver.wake(parked, launch, generation=3, report=fleet.report)) == "1"


async def test_a_pid_taken_late_is_spared(
    fleet: Fleet, driver: FrozenDriver, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("poorwill.tiers.frozen.thaw.refuse_taken_ids", lambda manifest: None)
    launch, running = await start(fleet)
    parked = await driver.park(running, launch, generation=1)
    with squatter(running.pid):
        with pytest.raises(DriverError, match="File exists"):
            await driver.wake(parked, launch, generation=2, report=fleet.report)
        assert procfs.command_line(running.pid).startswith("sleep")
    assert ask(await driver.wake(parked, launch, generation=3, report=fleet.report)) == "1"


@contextmanager
def squatter(pid: int) -> Iterator[None]:
    """Hold a pid with a session leader of our own, as any other engine might."""
    last = Path("/proc/sys/kernel/ns_last_pid")
    for _ in range(50):
        newest = last.read_text()
        try:
            last.write_text(str(pid - 1))
        except OSError as error:
            pytest.skip(f"cannot choose a pid here: {error}")
        child = subprocess.Popen(["sleep", "60"], start_new_session=True)
        last.write_text(newest)  # or the next processes would get the pids of engines other tests have parked
        if child.pid == pid:
            while not procfs.command_line(pid).startswith("sleep"):
                pass  # its exec is under way
            break
        child.kill()
        child.wait()
    else:
        pytest.skip("could not get the pid in 50 tries")
    try:
        yield
    finally:
        child.kill()
        child.wait()


async def test_a_port_taken_late_keeps_the_snapshot(
    fleet: Fleet, driver: FrozenDriver, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("poorwill.tiers.snapshots.image_driver.refuse_taken_port", lambda launch: None)
    launch, running = await start(fleet)
    parked = await driver.park(running, launch, generation=1)
    server = await asyncio.start_server(lambda r, w: w.close(), launch.host, launch.port)
    with pytest.raises(DriverError, match="Address already in use"):
        await driver.wake(parked, launch, generation=2, report=fleet.report)
    server.close()
    await server.wait_closed()
    assert nothing_runs(fleet) and scratch(fleet) == []
    assert ask(await driver.wake(parked, launch, generation=3, report=fleet.report)) == "1"


async def kill_criu_once(fleet: Fleet, begun: Callable[[], bool]) -> None:
    """SIGKILL criu as soon as `begun` says that it is in the middle of its work."""
    root = store_root(fleet.directory, Tier.FROZEN)

    def at_work() -> int:
        for note in [*root.glob(f"*/.draft-*/work/{NOTE}"), *root.glob(f"*/.wake-*/{NOTE}")]:
            criu_pid = int(json.loads(note.read_text())["criu_pid"])
            if criu_pid and begun():
                return criu_pid
        return 0

    os.kill(await until(at_work), signal.SIGKILL)


def pages_are_written(fleet: Fleet) -> bool:
    root = store_root(fleet.directory, Tier.FROZEN)
    return any(path.stat().st_size for path in root.glob("*/.draft-*/image/pages-*.img"))


async def test_criu_killed_in_a_dump_ends_the_engine(fleet: Fleet, driver: FrozenDriver):
    launch, running = await start(fleet, "--fill", BIG)
    async with asyncio.TaskGroup() as group:
        killer = group.create_task(kill_criu_once(fleet, lambda: pages_are_written(fleet)))
        with pytest.raises(DriverError, match=r"killed by signal 9.*ended with it") as caught:
            await driver.park(running, launch, generation=1)
        killer.cancel()
    assert caught.value.running is None
    assert nothing_runs(fleet) and scratch(fleet) == [] and await driver.inventory() == []


async def test_criu_killed_in_a_restore_keeps_the_image(fleet: Fleet, driver: FrozenDriver):
    launch, running = await start(fleet, "--fill", BIG)
    total = ask(running, "/sum")
    parked = await driver.park(running, launch, generation=1)
    async with asyncio.TaskGroup() as group:
        killer = group.create_task(kill_criu_once(fleet, lambda: procfs.read_stat(running.pid) is not None))
        with pytest.raises(DriverError, match="killed by signal 9"):
            await driver.wake(parked, launch, generation=2, report=fleet.report)
        killer.cancel()
    assert nothing_runs(fleet) and scratch(fleet) == []
    assert procfs.read_stat(running.pid) is None
    woken = await driver.wake(parked, launch, generation=3, report=fleet.report)
    assert ask(woken, "/sum") == total


@pytest.mark.parametrize("call", ["dump", "restore"])
async def test_a_hanging_criu_is_ended(
    fleet: Fleet, driver: FrozenDriver, criu: Criu, tmp_path: Path, call: str
):
    hanging = tmp_path / "criu"
    hanging.write_text(f'#!/bin/sh\n[ "$1" = {call} ] && exec sleep 600\nexec {criu.binary} "$@"\n')
    hanging.chmod(0o700)
    driver.criu = replace(
        criu,
        binary=str(hanging),
        **{f"{call}_limit_s": 0.3},  # type: ignore[arg-type]
    )
    launch, running = await start(fleet)
    if call == "dump":
        with pytest.raises(DriverError, match=r"did not end within \d s"):
            await driver.park(running, launch, generation=1)
    else:
        parked = await driver.park(running, launch, generation=1)
        with pytest.raises(DriverError, match=r"did not end within \d s"):
            await driver.wake(parked, launch, generation=2, report=fleet.report)
    assert nothing_runs(fleet) and scratch(fleet) == []


async def another_poorwill(
    fleet: Fleet, criu: Criu, call: str, *, killed_after: int = 10**6
) -> asyncio.subprocess.Process:
    """Run one call of the driver, `park(...)` or `wake(...)`, in a process that can be killed.

    It kills itself as it has read so many chunks of an image and the engine runs.
    """
    program = textwrap.dedent(f"""
        import asyncio, os, signal, sys
        sys.path.insert(0, {str(Path(__file__).parents[2])!r})
        from pathlib import Path
        from poorwill.core.launch import Launch, Parked, Running
        from poorwill.core.words import Tier
        from poorwill.tiers.frozen.criu import Criu
        from tests.tiers.cases import new_frozen
        from tests.tiers.conftest import new_fleet
        from tests.tiers.test_frozen import killed_after
        killed_after({killed_after})
        async def main():
            fleet = new_fleet(Path({str(fleet.directory)!r}))
            driver = new_frozen(fleet, Criu(**{asdict(criu)!r}))
            await driver.{call}
        asyncio.run(main())
    """)
    return await asyncio.create_subprocess_exec(sys.executable, "-c", program)


def killed_after(chunks: int) -> None:
    """Have this process killed by the reading of that many chunks while an engine runs."""
    read, left = CheckedFiles.read, iter(range(chunks))

    def reading(files: CheckedFiles, chunk: Chunk, buffer: memoryview) -> None:
        read(files, chunk, buffer)
        pid = next(files.directory.glob("pagemap-[0-9]*.img")).stem.removeprefix("pagemap-")
        if is_running(int(pid)) and next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    CheckedFiles.read = reading  # type: ignore[method-assign]


async def recovered(fleet: Fleet, driver: FrozenDriver, running: Running) -> None:
    """Recover, and see that nothing is left of what the other poorwill was doing; twice is once."""
    await driver.recover()
    # Not only what is marked: a process that is half restored has no environment yet.
    assert procfs.read_stat(running.pid) is None
    assert members(running.pid) == []
    assert nothing_runs(fleet) and scratch(fleet) == [] and await driver.inventory() == []
    assert not [stat for stat in procfs.all_processes() if _is_criu(stat.pid, fleet)]
    assert ("warning", "removed an unfinished snapshot") in [line[:2] for line in fleet.log.lines]
    fleet.log.lines.clear()
    await driver.recover()
    assert fleet.log.lines == []


async def test_recovery_clears_a_killed_park(fleet: Fleet, driver: FrozenDriver, criu: Criu):
    launch, running = await start(fleet, "--fill", BIG)
    call = f"park(Running(**{asdict(running)!r}), Launch(**{asdict(launch)!r}), generation=1)"
    child = await another_poorwill(fleet, criu, call)
    await until(lambda: pages_are_written(fleet))
    child.kill()
    await child.wait()
    assert len(scratch(fleet)) == 1
    await recovered(fleet, driver, running)


async def test_a_failed_filling_says_why(
    fleet: Fleet, driver: FrozenDriver, criu: Criu, monkeypatch: pytest.MonkeyPatch
):
    """An engine that is killed meanwhile, a disk that cannot be read: no defect, and nothing is left."""
    if not criu.fills:
        pytest.skip("memory is not filled by poorwill here")
    launch, running = await start(fleet, "--fill", BIG)
    parked = await driver.park(running, launch, generation=1)

    read = CheckedFiles.read

    def fails(files: CheckedFiles, chunk: Chunk, buffer: memoryview) -> None:
        if files.sizes[chunk.name] > CHUNK_BYTES:  # criu's own records are verified before
            raise OSError(errno.EIO, "Input/output error")
        read(files, chunk, buffer)

    monkeypatch.setattr(CheckedFiles, "read", fails)
    with pytest.raises(DriverError, match="memory cannot be filled"):
        await driver.wake(parked, launch, generation=2, report=fleet.report)
    assert nothing_runs(fleet)


async def test_recovery_goes_on_past_an_immortal(
    fleet: Fleet, driver: FrozenDriver, criu: Criu, monkeypatch: pytest.MonkeyPatch
):
    """A process that hangs inside the kernel costs its own replica, not the fleet its start."""
    launch, running = await start(fleet)
    parked = await driver.park(running, launch, generation=1)
    draft = Path(parked.path).parent / ".wake-1-x"
    draft.mkdir()
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as immortal:
        note_attempt(draft, criu_pid=immortal.pid, engine_pid=immortal.pid, engine_started=None)
        monkeypatch.setattr(session, "send", lambda processes, *numbers: None)
        monkeypatch.setattr(session, "GONE_LIMIT_S", 0.05)
        await driver.recover()
        assert draft.exists() and fleet.log.lines[-1][:2] == ("error", "an unfinished snapshot is left")
        monkeypatch.undo()
        await driver.recover()
        assert not draft.exists() and immortal.poll() is not None


@pytest.mark.skipif(not os.access(MEMORY_GROUPS, os.W_OK), reason="no control group may be made here")
async def test_a_group_of_the_past_is_not_made_again(fleet: Fleet, driver: FrozenDriver):
    group = MEMORY_GROUPS / f"poorwill-test-{os.getpid()}"
    group.mkdir()
    try:
        launch, running = await start(fleet)
        (group / "cgroup.procs").write_text(str(running.pid))
        parked = await driver.park(running, launch, generation=1)
        group.rmdir()
        woken = await driver.wake(parked, launch, generation=2, report=fleet.report)
        assert ask(woken) == "1" and not group.exists()
        groups = [Path(f"/proc/{who}/cgroup").read_text() for who in ("self", woken.pid)]
        assert groups[0] == groups[1]
        await fleet.processes.kill(woken)
    finally:
        with suppress(FileNotFoundError):
            group.rmdir()


async def test_recovery_clears_a_killed_wake(fleet: Fleet, driver: FrozenDriver, criu: Criu):
    launch, running = await start(fleet, "--fill", BIG)
    parked = await driver.park(running, launch, generation=1)
    kept, how = parked.as_json(), asdict(launch)
    call = f"wake(Parked.from_json({kept!r}), Launch(**{how!r}), generation=2, report=lambda m: None)"
    child = await another_poorwill(fleet, criu, call)
    await until(lambda: procfs.read_stat(running.pid) is not None)
    child.kill()
    await child.wait()
    assert len(scratch(fleet)) == 1
    await recovered(fleet, driver, running)
    with pytest.raises(SnapshotRefused, match="missing"):
        await driver.wake(parked, launch, generation=3, report=fleet.report)


async def test_an_engine_runs_before_it_is_full(
    fleet: Fleet, driver: FrozenDriver, criu: Criu, monkeypatch: pytest.MonkeyPatch
):
    if not criu.fills:
        pytest.skip("memory is not filled by poorwill here")
    launch, running = await start(fleet, "--fill", BIG)
    total = ask(running, "/sum")
    parked = await driver.park(running, launch, generation=1)
    read, held = CheckedFiles.read, []

    def late(files: CheckedFiles, chunk: Chunk, buffer: memoryview) -> None:
        if chunk.index and chunk.index == files.sizes[chunk.name] // CHUNK_BYTES // 2:
            held.append(wait_until(lambda: is_running(running.pid)))
        read(files, chunk, buffer)

    monkeypatch.setattr(CheckedFiles, "read", late)
    woken = await driver.wake(parked, launch, generation=2, report=fleet.report)
    assert held and ask(woken, "/sum") == total


def is_running(pid: int) -> bool:
    stat = procfs.read_stat(pid)
    return stat is not None and stat.state not in "TtZX"


async def test_damage_behind_it_ends_an_engine(fleet: Fleet, driver: FrozenDriver, criu: Criu):
    """In a chunk that the engine does not touch to become ready."""
    if not criu.fills:
        pytest.skip("memory is not filled by poorwill here")
    launch, running = await start(fleet, "--fill", BIG)
    parked = await driver.park(running, launch, generation=1)
    pages = max(Path(parked.path or "").rglob("pages-*.img"), key=lambda path: path.stat().st_size)
    assert hurt(pages, "flip")
    with pytest.raises(SnapshotRefused, match="damaged after byte"):
        await driver.wake(parked, launch, generation=2, report=fleet.report)
    assert Phase.READY not in [mark.phase for mark in fleet.marks[1:]]
    assert nothing_runs(fleet) and scratch(fleet) == [] and await driver.inventory() == []


LATER = [pytest.param(n, marks=pytest.mark.nightly) for n in (0, 1, 2, 5, 7, 8, 10, 11, 13, 14)]


@pytest.mark.parametrize("chunks", [3, 12, *LATER])
async def test_no_engine_is_left_half_full(fleet: Fleet, driver: FrozenDriver, criu: Criu, chunks: int):
    """A poorwill that is killed while an engine runs and is filled takes the engine along, unasked."""
    if not criu.fills:
        pytest.skip("memory is not filled by poorwill here")
    launch, running = await start(fleet, "--fill", BIG)
    total = ask(running, "/sum")
    parked = await driver.park(running, launch, generation=1)
    kept, how = parked.as_json(), asdict(launch)
    call = f"wake(Parked.from_json({kept!r}), Launch(**{how!r}), generation=2, report=lambda m: None)"
    child = await another_poorwill(fleet, criu, call, killed_after=chunks)
    await child.wait()
    await until(lambda: not guards(), within_s=10)
    with suppress(ConnectionError):  # it is being ended, or has been
        assert ask(running, "/sum") == total, "it runs on memory that nobody has filled"
    await driver.recover()
    assert not is_running(running.pid)


def guards() -> list[int]:
    """Those that have become ours by the death of the poorwill they belonged to."""
    orphans = [stat.pid for stat in procfs.all_processes() if stat.parent == os.getpid()]
    return [pid for pid in orphans if "watcher.py" in procfs.command_line(pid)]


def _is_criu(pid: int, fleet: Fleet) -> bool:
    command = procfs.command_line(pid)
    return str(fleet.directory) in command and ("dump" in command or "restore" in command)


# disks and quotas


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[None]:
    """Mount a tmpfs of a given size; skip where that is not permitted."""
    path.mkdir(parents=True, exist_ok=True)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"size={size}".encode()
    if libc.mount(b"tmpfs", bytes(path), b"tmpfs", 0, options) != 0:
        pytest.skip(f"cannot mount a small disk: {os.strerror(ctypes.get_errno())}")
    try:
        yield
    finally:
        assert libc.umount(bytes(path)) == 0


class Careless(Space):
    """Sees room everywhere, so that the disk itself says that it is full."""

    def make_room(self, *args: object, **kwargs: object) -> None:
        return


@pytest.mark.parametrize("when", ["during the dump", "after the dump"])
async def test_a_full_disk_fails_the_park(fleet: Fleet, criu: Criu, when: str):
    root = store_root(fleet.directory, Tier.FROZEN)
    store = Full if when == "after the dump" else SnapshotStore
    driver = new_frozen(fleet, criu, space=Careless(log=fleet.log), store=store(root=root, tier=Tier.FROZEN))
    launch, running = await start(fleet)
    with small_disk(root, "1M" if when == "during the dump" else "64M"):
        with pytest.raises(DriverError) as caught:
            await driver.park(running, launch, generation=1)
        assert caught.value.running == running
        assert ask(running) == "1"
        assert scratch(fleet) == [] and await driver.inventory() == []


async def test_a_wake_on_a_full_disk_is_clean(fleet: Fleet, driver: FrozenDriver):
    launch, running = await start(fleet)
    root = store_root(fleet.directory, Tier.FROZEN)
    with small_disk(root, "100M"):
        parked = await driver.park(running, launch, generation=1)
        fill_up(root / "ballast")
        try:
            woken = await driver.wake(parked, launch, generation=2, report=fleet.report)
        except DriverError:
            assert nothing_runs(fleet) and scratch(fleet) == []
        else:
            assert ask(woken) == "1"
            await fleet.processes.kill(woken)
        await until(lambda: not list(root.glob("*/[0-9]*")) or scratch(fleet) == [])
        await asyncio.get_running_loop().shutdown_default_executor()


def fill_up(path: Path) -> None:
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(b"x" * 2**16):
            pass
    with suppress(OSError), path.open("ab", buffering=0) as file:
        while file.write(b"x"):
            pass


async def test_a_small_disk_is_noticed_before_the_dump(fleet: Fleet, driver: FrozenDriver):
    launch, running = await start(fleet)
    with small_disk(store_root(fleet.directory, Tier.FROZEN), "1M"):
        with pytest.raises(DriverError, match=r"no room for a snapshot of \d+ MB") as caught:
            await driver.park(running, launch, generation=1)
    assert caught.value.running == running and ask(running) == "1"


async def test_the_quota_evicts_the_least_valuable(fleet: Fleet, criu: Criu):
    worth = {"a": 2.0, "b": 1.0, "c": 3.0}
    parked = {}
    quota_bytes = 0
    for name in worth:
        # For the third one: room for itself (with its overhead) and one and a half others.
        space = Space(
            log=fleet.log,
            quota_bytes=quota_bytes,
            value=lambda replica, tier: Value(worth=worth[replica]),
        )
        driver = new_frozen(fleet, criu, space=space)
        launch, running = await start(fleet, replica=name)
        parked[name] = (await driver.park(running, launch, generation=1), launch)
        if name == "b":
            quota_bytes = int(2.55 * parked[name][0].image_bytes) + OVERHEAD_BYTES
    left = {found.replica for found in await driver.inventory()}
    assert left == {"a", "c"}
    with pytest.raises(SnapshotRefused, match="missing"):
        await driver.wake(*parked["b"], generation=2, report=fleet.report)
    assert ask(await driver.wake(*parked["a"], generation=2, report=fleet.report)) == "1"


async def test_a_snapshot_beyond_the_quota_evicts_none(fleet: Fleet, criu: Criu):
    driver = new_frozen(fleet, criu, space=Space(log=fleet.log, quota_bytes=24_000_000))
    small, running = await start(fleet, replica="small")
    await driver.park(running, small, generation=1)
    launch, running = await start(fleet, "--fill", "40000000", replica="large")
    with pytest.raises(DriverError, match="exceeds the quota") as caught:
        await driver.park(running, launch, generation=1)
    assert caught.value.running == running and ask(running) == "1"
    assert [found.replica for found in await driver.inventory()] == ["small"]


async def test_a_snapshot_is_its_owners_alone(fleet: Fleet, driver: FrozenDriver):
    launch, running = await start(fleet)
    parked = await driver.park(running, launch, generation=1)
    assert parked.path is not None
    for path in [Path(parked.path), *Path(parked.path).rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path
    assert store_root(fleet.directory, Tier.FROZEN).stat().st_mode & 0o077 == 0


# keys


def sealed_driver(fleet: Fleet, criu: Criu, key: bytes | None) -> FrozenDriver:
    """A driver whose memory for clear images is a directory, which no other test's images are in."""
    root = store_root(fleet.directory, Tier.FROZEN)
    memory = fleet.directory / "memory"
    memory.mkdir(exist_ok=True)
    sealer = Sealer(key=key) if key else None
    return new_frozen(
        fleet, criu, store=SnapshotStore(root=root, tier=Tier.FROZEN, sealer=sealer, memory=memory)
    )


def in_memory(fleet: Fleet) -> list[Path]:
    return list((fleet.directory / "memory").iterdir())


async def test_a_sealed_snapshot_hides_its_secret(fleet: Fleet, criu: Criu):
    driver = sealed_driver(fleet, criu, secrets.token_bytes(32))
    secret = secrets.token_hex(16)
    launch, running = await start(fleet, "--secret", secret)
    parked = await driver.park(running, launch, generation=1)
    assert parked.path is not None
    for path in Path(parked.path).rglob("*"):
        assert path.is_dir() or secret.encode() not in path.read_bytes(), path
    assert in_memory(fleet) == []
    woken = await driver.wake(parked, launch, generation=2, report=fleet.report)
    assert ask(woken) == "1"
    # What is spent is removed behind the wake's back.
    await until(lambda: not in_memory(fleet))


async def test_a_sealed_image_needs_little_memory(fleet: Fleet, criu: Criu):
    """To wake: it is decrypted piece by piece into the engine's own."""
    if not criu.fills:
        pytest.skip("memory is not filled by poorwill here")
    driver = sealed_driver(fleet, criu, b"k" * 32)
    launch, running = await start(fleet, "--fill", BIG)
    total = ask(running, "/sum")
    parked = await driver.park(running, launch, generation=1)
    assert parked.image_bytes > 100_000_000
    with small_disk(fleet.directory / "memory", "30M"):
        woken = await driver.wake(parked, launch, generation=2, report=fleet.report)
        assert ask(woken, "/sum") == total
        await until(lambda: not in_memory(fleet))


class SlowToSeal(SnapshotStore):
    """A store on a disk that takes nothing before criu stands still."""

    def follow(self, draft: Draft, stop: threading.Event, *, behind: Callable[[int], None]) -> None:
        while not any(
            each.state == "T" and str(draft.work) in procfs.command_line(each.pid)
            for each in procfs.all_processes()
        ):
            assert not stop.wait(0.001), "criu has ended meanwhile"
            behind(65 * 2**20)
        SnapshotStore.follow(self, draft, stop, behind=behind)


async def test_criu_rests_while_much_is_unsealed(fleet: Fleet, criu: Criu):
    root, memory = store_root(fleet.directory, Tier.FROZEN), fleet.directory / "memory"
    memory.mkdir()
    store = SlowToSeal(root=root, tier=Tier.FROZEN, sealer=Sealer(key=b"k" * 32), memory=memory)
    driver = new_frozen(fleet, criu, store=store)
    launch, running = await start(fleet, "--fill", BIG)
    total = ask(running, "/sum")
    parked = await driver.park(running, launch, generation=1)
    woken = await driver.wake(parked, launch, generation=2, report=fleet.report)
    assert ask(woken, "/sum") == total


async def test_an_unsealed_snapshot_shows_its_secret(fleet: Fleet, driver: FrozenDriver):
    secret = secrets.token_hex(16)
    launch, running = await start(fleet, "--secret", secret)
    parked = await driver.park(running, launch, generation=1)
    pages = next(Path(parked.path or "").rglob("pages-*.img")).read_bytes()
    assert secret.encode() in pages


async def test_another_key_is_refused(fleet: Fleet, criu: Criu):
    launch, running = await start(fleet)
    parked = await sealed_driver(fleet, criu, b"k" * 32).park(running, launch, generation=1)
    with pytest.raises(SnapshotRefused, match="another key, or damage"):
        await sealed_driver(fleet, criu, b"x" * 32).wake(parked, launch, generation=2, report=fleet.report)
    assert nothing_runs(fleet) and scratch(fleet) == [] and in_memory(fleet) == []


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
async def test_a_damaged_sealed_snapshot_is_refused(fleet: Fleet, criu: Criu, tmp_path: Path, damage: str):
    driver = sealed_driver(fleet, criu, b"k" * 32)
    launch, running = await start(fleet)
    parked = await driver.park(running, launch, generation=1)
    place = Path(parked.path or "")
    shutil.copytree(place, tmp_path / "pristine")
    for name in sorted(path.name for path in (place / "image").iterdir()):
        shutil.rmtree(place, ignore_errors=True)
        for claim in place.parent.glob("woken-*"):
            claim.unlink()
        shutil.copytree(tmp_path / "pristine", place)
        assert hurt(place / "image" / name, damage)
        with pytest.raises(SnapshotRefused):
            await driver.wake(parked, launch, generation=2, report=fleet.report)
        assert nothing_runs(fleet) and scratch(fleet) == [] and in_memory(fleet) == []


async def test_recovery_clears_the_memory_directory(fleet: Fleet, criu: Criu):
    left = sealed_driver(fleet, criu, b"k" * 32).store.begin(ReplicaId("tiny"), 1)
    (left.image / "pages-1.img").write_bytes(b"a secret")
    assert in_memory(fleet) == [left.image] and Path("/dev/shm") == MEMORY_DIRECTORY
    await sealed_driver(fleet, criu, None).recover()  # without the key it goes all the same
    assert in_memory(fleet) == [] and scratch(fleet) == []


async def test_no_key_is_refused(fleet: Fleet, criu: Criu, driver: FrozenDriver):
    launch, running = await start(fleet)
    parked = await sealed_driver(fleet, criu, b"k" * 32).park(running, launch, generation=1)
    with pytest.raises(SnapshotRefused, match="there is no key"):
        await driver.wake(parked, launch, generation=2, report=fleet.report)


# descending


async def test_a_sleeping_engine_goes_down_without_a_wake(fleet: Fleet, driver: FrozenDriver):
    launch, running = await start(fleet)
    asleep = Parked(replica=ReplicaId("tiny"), generation=1, tier=Tier.ASLEEP, running=running)
    frozen = await driver.descend(asleep, launch, generation=2)
    assert frozen.tier is Tier.FROZEN and nothing_runs(fleet)
    cold = await new_cold(fleet).descend(frozen, launch, generation=3)
    await driver.discard(frozen)
    assert cold == Parked(replica=launch.replica, generation=3, tier=Tier.COLD)
    assert await driver.inventory() == []
    with pytest.raises(DriverError, match="no process to freeze"):
        await driver.descend(cold, launch, generation=4)


async def test_a_restarted_case_finds_its_snapshots(fleet: Fleet, criu: Criu):
    launch, running = await start(fleet)
    case = frozen_case(fleet, criu)
    parked = await case.driver.park(running, launch, generation=1)
    (found,) = await case.again(fleet.again()).driver.inventory()
    assert found.parked is not None
    assert (found.parked.replica, found.parked.generation, found.parked.path) == (
        parked.replica,
        parked.generation,
        parked.path,
    )
