"""Engine processes: started, known again, watched, ended, reaped."""

# The tests look at files and run programs on purpose while nothing else is on the loop.
# ruff: noqa: ASYNC221, ASYNC240

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from poorwill.core.ports.driver import DriverError
from poorwill.hosts.processes import procfs
from poorwill.hosts.processes.readiness import Readiness
from poorwill.tiers.cold.driver import ColdDriver

from .cancelling import cancelled_at
from .conftest import Fleet, ask, until


async def start(fleet: Fleet, *switches: str, ready: bool = True):
    launch = fleet.launch(*switches)
    running = fleet.processes.spawn(launch, generation=1, driver="cold", report=fleet.report)
    if ready:
        await Readiness(processes=fleet.processes, limit_s=20).wait(running, launch)
    return launch, running


async def test_an_engine_gets_its_own_session_its_log_and_no_environment_but_its_own(fleet: Fleet):
    launch, running = await start(fleet)
    stat = procfs.read_stat(running.pid)
    assert stat is not None and stat.session == running.pid
    assert procfs.open_file_path(running.pid, 0) == "/dev/null"
    assert procfs.open_file_path(running.pid, 1) == launch.log_path
    assert procfs.open_file_path(running.pid, 2) == launch.log_path
    assert set(procfs.environment(running.pid)) == {"POORWILL_REPLICA", "SPT_NOENV"}
    assert Path(launch.log_path).stat().st_mode & 0o777 == 0o600
    await fleet.processes.kill(running)
    assert procfs.read_stat(running.pid) is None


async def test_a_later_process_with_the_same_pid_is_not_taken_for_the_engine(fleet: Fleet):
    _, running = await start(fleet)
    other = replace(running, pid_started=running.pid_started - 1)
    assert fleet.processes.alive(running)
    assert not fleet.processes.alive(other)
    fleet.processes.kill_now(other)
    assert ask(running, "/count") == "1"
    await fleet.processes.kill(running)


async def test_kill_ends_an_engine_that_ignores_sigterm_with_all_its_children(fleet: Fleet):
    fleet.processes.grace_s = 0.1
    _, running = await start(fleet, "--ignore-term", "--children", "3")
    members = procfs.session_members(running.pid)
    assert len(members) == 4
    await fleet.processes.kill(running)
    assert procfs.session_members(running.pid) == []


async def test_kill_ends_a_stopped_engine(fleet: Fleet):
    _, running = await start(fleet)
    os.kill(running.pid, signal.SIGSTOP)
    await fleet.processes.kill(running)
    assert procfs.read_stat(running.pid) is None


async def test_a_cancelled_kill_has_sent_sigkill(fleet: Fleet):
    fleet.processes.grace_s = 60
    _, running = await start(fleet, "--ignore-term")
    assert await cancelled_at(0, fleet.processes.kill(running))
    await fleet.processes.gone(running)
    assert procfs.read_stat(running.pid) is None


async def test_exited_says_how_a_child_ended_and_shows_its_last_lines(fleet: Fleet):
    _, running = await start(fleet, "--exit", "3", ready=False)
    why = await fleet.processes.exited(running)
    assert "exit status 3" in why and "out of paper" in why
    _, running = await start(fleet)
    os.kill(running.pid, signal.SIGSEGV)
    assert "killed by signal 11 (SIGSEGV)" in await fleet.processes.exited(running)


async def test_exited_works_for_a_process_that_is_not_our_child(fleet: Fleet):
    # A process of its own starts the engine and is killed: the engine must live on, be found, adopted,
    # watched and ended by another poorwill.
    launch = fleet.launch()
    program = textwrap.dedent(f"""
        import os, signal, sys
        sys.path.insert(0, {str(Path(__file__).parents[2])!r})
        from pathlib import Path
        from poorwill.core.launch import Launch
        from tests.tiers.conftest import new_fleet
        fleet = new_fleet(Path({str(fleet.directory)!r}))
        launch = Launch(**eval({repr(_fields(launch))!r}))
        running = fleet.processes.spawn(launch, generation=7, driver="cold", report=fleet.report)
        print(running.as_json(), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (found,) = fleet.processes.found()
    running = found.running
    assert running is not None and running.as_json() == done.stdout.strip()
    assert found.generation == 7 and found.tier is None
    await Readiness(processes=fleet.processes, limit_s=20).wait(running, launch)
    assert ask(running) == "1"
    async with asyncio.TaskGroup() as group:
        watch = group.create_task(fleet.processes.exited(running))
        await asyncio.sleep(0)
        assert not watch.done()
        await fleet.processes.kill(running)
    assert "exit status unknown" in watch.result() or "SIGTERM" in watch.result()
    assert fleet.processes.found() == []


def _fields(launch):
    from dataclasses import asdict

    return asdict(launch)


async def test_an_engine_that_exits_at_once_is_a_clear_error_with_its_last_lines(fleet: Fleet):
    driver = ColdDriver(processes=fleet.processes, clock=fleet.clock, log=fleet.log)
    launch = fleet.launch("--exit", "4")
    with pytest.raises(DriverError, match=r"exit status 4.*out of paper"):
        await driver.wake(fleet.cold(launch), launch, generation=1, report=fleet.report)


async def test_an_engine_that_never_becomes_ready_is_given_up_at_the_limit(fleet: Fleet):
    driver = ColdDriver(processes=fleet.processes, clock=fleet.clock, log=fleet.log, ready_limit_s=0.4)
    launch = fleet.launch("--never-ready")
    with pytest.raises(DriverError, match=r"did not become ready.*last answered status 503"):
        await driver.wake(fleet.cold(launch), launch, generation=1, report=fleet.report)
    assert fleet.processes.found() == []


@pytest.mark.parametrize("argv", [("/nonexistent/engine",), ("/etc/passwd",)])
async def test_a_command_that_cannot_be_executed_is_a_clear_error(fleet: Fleet, argv: tuple[str, ...]):
    driver = ColdDriver(processes=fleet.processes, clock=fleet.clock, log=fleet.log)
    launch = fleet.launch(argv=argv)
    with pytest.raises(DriverError, match=f"cannot start {argv[0]}"):
        await driver.wake(fleet.cold(launch), launch, generation=1, report=fleet.report)


async def test_a_flood_of_log_is_cut_and_the_engine_serves_on(fleet: Fleet):
    fleet.processes.log_cap_bytes = 2**21
    launch, running = await start(fleet, "--flood", str(2**24))
    fleet.processes.bound_log(running)
    assert Path(launch.log_path).stat().st_size < 2**21 + 2**20
    assert ask(running) == "1"
    assert "asked 1" in Path(launch.log_path).read_text().splitlines()[-1]
    assert ("warning", "an engine floods its log; cut to its end") in [line[:2] for line in fleet.log.lines]
    await fleet.processes.kill(running)


async def test_what_a_dying_engine_forks_is_killed_and_reaped_too(fleet: Fleet):
    fleet.processes.grace_s = 0.2
    _, running = await start(fleet, "--forks-on-term")
    await fleet.processes.kill(running)
    assert procfs.session_members(running.pid) == []


async def test_orphans_of_an_engine_do_not_stay_as_zombies(fleet: Fleet, monkeypatch):
    monkeypatch.setattr("poorwill.hosts.processes.process.WATCH_S", 0.05)
    _, running = await start(fleet, "--orphan")

    def zombies() -> list[procfs.ProcessStat]:
        members = procfs.session_members(running.pid)
        return [stat for stat in members if stat.state == "Z" and stat.parent == os.getpid()]

    await until(lambda: len(zombies()) == 1)
    async with asyncio.TaskGroup() as group:
        watch = group.create_task(fleet.processes.exited(running))
        await until(lambda: not zombies())
        assert fleet.processes.alive(running)
        await fleet.processes.kill(running)
    assert "SIGTERM" in watch.result()


async def test_statuses_that_nobody_asks_for_do_not_pile_up(fleet: Fleet):
    for pid in range(1000):
        fleet.processes._keep(pid, {pid: 0, 5000: 9})
    assert len(fleet.processes.statuses) == 256 and 999 in fleet.processes.statuses


async def test_no_descriptor_stays_open_over_many_starts_and_ends(fleet: Fleet):
    counts = []
    for _ in range(5):
        _, running = await start(fleet)
        await fleet.processes.kill(running)
        await fleet.processes.exited(running)
        counts.append(len(os.listdir("/proc/self/fd")))
    assert counts[-1] == counts[0]


async def test_an_engine_on_a_rented_machine_is_no_process_of_this_one(fleet: Fleet):
    # With the pid of an engine here, not the 0 that such a record has: session 0 is other people's.
    _, running = await start(fleet)
    elsewhere = replace(running, machine="hyperstack 77")
    assert not fleet.processes.alive(elsewhere)
    with pytest.raises(DriverError, match=r"hyperstack 77 .* may run on"):
        await fleet.processes.kill(elsewhere)
    assert fleet.processes.alive(running)
    await fleet.processes.kill(running)
