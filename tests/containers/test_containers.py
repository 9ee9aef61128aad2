"""Engines in containers: ended, found again and followed, whatever becomes of their client."""

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from tests.tiers.cancelling import cancelled_at
from tests.tiers.conftest import Fleet, ask
from tests.waiting import until

from poorwill.core.launch import Launch, Running, StopCommand
from poorwill.core.ports.driver import DriverError
from poorwill.hosts.files.landlock import Confinement
from poorwill.hosts.processes import procfs
from poorwill.tiers.cold.driver import ColdDriver

from .conftest import Runtime


def driver(fleet: Fleet) -> ColdDriver:
    return ColdDriver(processes=fleet.processes, clock=fleet.clock, log=fleet.log, ready_limit_s=30)


async def woken(fleet: Fleet, launch: Launch) -> Running:
    return await driver(fleet).wake(fleet.cold(launch), launch, generation=1, report=fleet.report)


async def gone(runtime: Runtime, running: Running) -> bool:
    """Whether no container is left and its port is free."""
    assert runtime.names() == []
    with pytest.raises(OSError, match="refused"):
        await asyncio.open_connection(running.host, running.port)
    return True


def kill_client(running: Running) -> None:
    os.kill(running.pid, signal.SIGKILL)


async def test_a_park_ends_the_container(fleet: Fleet, runtime: Runtime) -> None:
    launch = runtime.launch(fleet)
    running = await woken(fleet, launch)
    assert ask(running) == "1"
    assert runtime.names() == [launch.stop.container]  # type: ignore[union-attr]
    await driver(fleet).park(running, launch, generation=1)
    assert await gone(runtime, running)
    assert fleet.processes.left_behind() == []


async def test_one_that_ignores_sigterm(fleet: Fleet, runtime: Runtime) -> None:
    fleet.processes.grace_s = 0.3
    launch = runtime.launch(fleet, "--ignore-term")
    running = await woken(fleet, launch)
    await fleet.processes.kill(running)
    assert await gone(runtime, running)


async def test_its_client_is_killed(fleet: Fleet, runtime: Runtime) -> None:
    running = await woken(fleet, runtime.launch(fleet))
    kill_client(running)
    assert "SIGKILL" in await fleet.processes.exited(running)
    assert runtime.names() != []  # it serves on, though nobody watches it
    await fleet.processes.kill(running)  # what the fleet does about an engine that is lost
    assert await gone(runtime, running)


async def test_the_next_poorwill_adopts_it(fleet: Fleet, runtime: Runtime) -> None:
    running = await woken(fleet, runtime.launch(fleet))
    again = fleet.again()
    (found,) = await driver(again).inventory()
    assert found.running is not None and found.running.key() == running.key() and not found.unfinished
    assert ask(found.running) == "1"
    await again.processes.kill(found.running)
    assert await gone(runtime, running)


async def test_poorwill_and_client_crash(fleet: Fleet, runtime: Runtime) -> None:
    running = await woken(fleet, runtime.launch(fleet))
    kill_client(running)
    await fleet.processes.exited(running)
    again = fleet.again()
    (found,) = await driver(again).inventory()
    assert found.unfinished and found.running is not None and "container poorwill-tiny" in found.what
    await again.processes.kill(found.running)  # the sweep's
    assert await gone(runtime, running)
    assert list(await driver(again).inventory()) == []


async def test_the_next_wake_ends_what_a_crash_left(fleet: Fleet, runtime: Runtime) -> None:
    launch = runtime.launch(fleet)
    running = await woken(fleet, launch)
    kill_client(running)
    await fleet.processes.exited(running)
    again = fleet.again()
    second = await woken(again, launch)
    assert second.pid != running.pid and ask(second) == "1"
    await again.processes.kill(second)
    assert await gone(runtime, second)


async def test_its_log_is_followed(fleet: Fleet, runtime: Runtime) -> None:
    launch = runtime.launch(fleet, "--exit", "4")
    with pytest.raises(DriverError, match=r"out of paper"):
        await woken(fleet, launch)
    assert runtime.names() == []


async def test_a_cancelled_wake_leaves_no_container(fleet: Fleet, runtime: Runtime) -> None:
    launch = runtime.launch(fleet, "--never-ready")
    async with asyncio.TaskGroup() as group:
        waking = group.create_task(woken(fleet, launch))
        await until(lambda: runtime.names() != [])
        waking.cancel()
    assert runtime.names() == [] and fleet.processes.left_behind() == []


async def test_a_kill_cancelled_anywhere(fleet: Fleet, docker: Runtime) -> None:
    fleet.processes.grace_s = 0.2
    for at in range(6):
        running = await woken(fleet, docker.launch(fleet, "--ignore-term"))
        await cancelled_at(at, fleet.processes.kill(running))
        for found in fleet.processes.left_behind():  # its record is there until it is gone
            assert found.running is not None
            await fleet.processes.kill(found.running)
        stat = procfs.read_stat(running.pid)
        assert stat is None or stat.state == "Z", "whoever watches it reaps it"
        assert await gone(docker, running)


async def test_no_daemon(fleet: Fleet, docker: Runtime) -> None:
    (docker.state / "down").touch()
    with pytest.raises(DriverError, match=r"Cannot connect.*start it: systemctl start docker"):
        await woken(fleet, docker.launch(fleet))


async def test_a_daemon_that_stops_meanwhile(fleet: Fleet, docker: Runtime) -> None:
    running = await woken(fleet, docker.launch(fleet))
    (docker.state / "down").touch()
    kill_client(running)
    await fleet.processes.exited(running)
    with pytest.raises(DriverError, match=r"may run on.*Cannot connect.*systemctl start docker"):
        await fleet.processes.kill(running)
    with pytest.raises(DriverError, match="may run on"):  # two of them would share a port and devices
        await woken(fleet, docker.launch(fleet))
    (docker.state / "down").unlink()
    (found,) = fleet.processes.left_behind()
    assert found.running is not None
    await fleet.processes.kill(found.running)
    assert await gone(docker, running)


async def test_confined_engines_stay_out_of_its_way(fleet: Fleet, runtime: Runtime) -> None:
    fleet.processes.confinement = Confinement(directory=fleet.directory, closed=("outside",))
    running = await woken(fleet, runtime.launch(fleet))  # Podman's client mounts, which Landlock denies
    assert ask(running) == "1"
    await fleet.processes.kill(running)
    assert await gone(runtime, running)


async def test_whether_it_computes_is_not_known(fleet: Fleet, docker: Runtime) -> None:
    running = await woken(fleet, docker.launch(fleet))
    assert fleet.processes.effort(running) is None
    await fleet.processes.kill(running)


async def test_variables_reach_the_container(fleet: Fleet, docker: Runtime) -> None:
    launch = docker.launch(fleet, env={"TOKEN": "s3cret"})
    assert "s3cret" not in " ".join(launch.argv)
    running = await woken(fleet, launch)
    pid = int((docker.state / launch.stop.container / "pid").read_text())  # type: ignore[union-attr]
    assert procfs.variable(pid, "TOKEN") == b"s3cret"
    await fleet.processes.kill(running)


@pytest.mark.parametrize("ends", ["exit 0", "echo No such container; exit 1"])
async def test_a_stop_command(fleet: Fleet, tmp_path: Path, ends: str) -> None:
    done = tmp_path / "done"
    stop = StopCommand(argv=("/bin/sh", "-c", f"echo $WHO >> {done}; {ends}"))
    launch = fleet.launch(stop=stop, env={"WHO": "engine"})
    running = await woken(fleet, launch)
    assert not done.exists()
    await fleet.processes.kill(running)
    assert done.read_text() == "engine\n"
    await fleet.processes.kill(running)
    assert done.read_text() == "engine\n"  # once for each start


async def test_a_stop_command_that_fails(fleet: Fleet) -> None:
    launch = fleet.launch(stop=StopCommand(argv=("/bin/sh", "-c", "echo not now; exit 3")))
    running = await woken(fleet, launch)
    with pytest.raises(DriverError, match="ended with status 3: not now"):
        await fleet.processes.kill(running)
    assert procfs.read_stat(running.pid) is None
    (found,) = fleet.again().processes.left_behind()
    assert found.unfinished


async def test_a_stop_command_that_hangs(fleet: Fleet) -> None:
    fleet.processes.stop_limit_s = 0.2
    launch = fleet.launch(stop=StopCommand(argv=("/bin/sleep", "1000")))
    running = await woken(fleet, launch)
    before = children()  # of the process that runs the tests: others' tests leave some
    with pytest.raises(DriverError, match=r"did not end within 0\.2 s"):
        await fleet.processes.kill(running)
    await until(lambda: children() <= before)


def children() -> set[int]:
    return {stat.pid for stat in procfs.all_processes() if stat.parent == os.getpid()}


async def test_another_start_is_not_ended(fleet: Fleet, docker: Runtime) -> None:
    running = await woken(fleet, docker.launch(fleet))
    earlier = replace(running, pid=0, extra={"mark": "another"})
    await fleet.processes.kill(earlier)
    assert ask(running) == "1"
    await fleet.processes.kill(running)
