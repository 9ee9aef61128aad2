"""Engine processes: started, known again, watched, ended, reaped."""

# The tests look at files and run programs on purpose while nothing else is on the loop.
# ruff: noqa: ASYNC220, ASYNC221, ASYNC240

import asyncio
import errno
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from tests.waiting import until

from poorwill.core.ports.driver import DriverError
from poorwill.hosts.processes import procfs
from poorwill.hosts.processes.groups import engine_groups
from poorwill.hosts.processes.listeners import listeners, listening
from poorwill.hosts.processes.mark import ID
from poorwill.hosts.processes.readiness import LISTENER_LOOKS, Readiness, foreign_listener, is_proven
from poorwill.hosts.processes.session import end_session, members
from poorwill.tiers.cold.driver import ColdDriver

from .cancelling import cancelled_at
from .conftest import Fleet, ask


async def start(fleet: Fleet, *switches: str, ready: bool = True):
    launch = fleet.launch(*switches)
    running = await fleet.processes.spawn(launch, generation=1, driver="cold", report=fleet.report)
    if ready:
        await Readiness(processes=fleet.processes, limit_s=20).wait(running, launch)
    return launch, running


async def test_what_an_engine_is_started_with(fleet: Fleet):
    launch, running = await start(fleet)
    stat = procfs.read_stat(running.pid)
    assert stat is not None and stat.session == running.pid
    assert procfs.open_file_path(running.pid, 0) == "/dev/null"
    assert procfs.open_file_path(running.pid, 1) == launch.log_path
    assert procfs.open_file_path(running.pid, 2) == launch.log_path
    variables = Path(f"/proc/{running.pid}/environ").read_bytes().split(b"\0")
    assert {each.partition(b"=")[0] for each in variables if each} == {b"POORWILL_REPLICA", b"SPT_NOENV"}
    assert Path(launch.log_path).stat().st_mode & 0o777 == 0o600
    await fleet.processes.kill(running)
    assert procfs.read_stat(running.pid) is None


async def test_a_reused_pid_is_another_process(fleet: Fleet):
    _, running = await start(fleet)
    other = replace(running, pid_started=running.pid_started - 1, extra={})
    assert fleet.processes.alive(running)
    assert not fleet.processes.alive(other)
    fleet.processes.kill_now(other)
    assert ask(running, "/count") == "1"
    await fleet.processes.kill(running)


async def test_kill_ends_children_that_ignore_sigterm(fleet: Fleet):
    fleet.processes.grace_s = 0.1
    _, running = await start(fleet, "--ignore-term", "--children", "3")
    assert len(members(running.pid)) == 4
    await fleet.processes.kill(running)
    assert members(running.pid) == []


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


async def test_exited_says_how_a_child_ended(fleet: Fleet):
    _, running = await start(fleet, "--exit", "3", ready=False)
    why = await fleet.processes.exited(running)
    assert "exit status 3" in why and "out of paper" in why
    _, running = await start(fleet)
    os.kill(running.pid, signal.SIGSEGV)
    assert "killed by signal 11 (SIGSEGV)" in await fleet.processes.exited(running)


async def test_exited_works_for_an_adopted_process(fleet: Fleet):
    # A process of its own starts the engine and is killed: the engine must live on, be found, adopted,
    # watched and ended by another poorwill.
    launch = fleet.launch()
    program = textwrap.dedent(f"""
        import asyncio, os, signal, sys
        sys.path.insert(0, {str(Path(__file__).parents[2])!r})
        from pathlib import Path
        from poorwill.core.launch import Launch
        from tests.tiers.conftest import new_fleet
        fleet = new_fleet(Path({str(fleet.directory)!r}))
        launch = Launch(**eval({repr(_fields(launch))!r}))
        running = asyncio.run(
            fleet.processes.spawn(launch, generation=7, driver="cold", report=fleet.report)
        )
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


async def test_an_early_exit_shows_the_last_lines(fleet: Fleet):
    driver = ColdDriver(processes=fleet.processes, clock=fleet.clock, log=fleet.log)
    launch = fleet.launch("--exit", "4")
    with pytest.raises(DriverError, match=r"exit status 4.*out of paper"):
        await driver.wake(fleet.cold(launch), launch, generation=1, report=fleet.report)


async def test_an_engine_never_ready_is_given_up(fleet: Fleet):
    driver = ColdDriver(processes=fleet.processes, clock=fleet.clock, log=fleet.log, ready_limit_s=4)
    launch = fleet.launch("--never-ready")
    with pytest.raises(DriverError, match=r"did not become ready.*last answered status 503"):
        await driver.wake(fleet.cold(launch), launch, generation=1, report=fleet.report)
    assert fleet.processes.found() == []


@pytest.mark.parametrize("argv", [("/nonexistent/engine",), ("/etc/passwd",)])
async def test_a_bad_command_is_a_clear_error(fleet: Fleet, argv: tuple[str, ...]):
    driver = ColdDriver(processes=fleet.processes, clock=fleet.clock, log=fleet.log)
    launch = fleet.launch(argv=argv)
    with pytest.raises(DriverError, match=f"cannot start {argv[0]}"):
        await driver.wake(fleet.cold(launch), launch, generation=1, report=fleet.report)


async def test_a_flooded_log_is_cut(fleet: Fleet):
    fleet.processes.log_cap_bytes = 2**21
    launch, running = await start(fleet, "--flood", str(2**24))
    fleet.processes.bound_log(running)
    assert Path(launch.log_path).stat().st_size < 2**21 + 2**20
    assert ask(running) == "1"
    assert "asked 1" in Path(launch.log_path).read_text().splitlines()[-1]
    assert ("warning", "an engine floods its log; cut to its end") in [line[:2] for line in fleet.log.lines]
    await fleet.processes.kill(running)


async def test_forks_of_a_dying_engine_are_killed(fleet: Fleet):
    fleet.processes.grace_s = 0.2
    _, running = await start(fleet, "--forks-on-term")
    await fleet.processes.kill(running)
    assert members(running.pid) == []


async def test_orphans_of_an_engine_are_reaped(fleet: Fleet, monkeypatch):
    monkeypatch.setattr("poorwill.hosts.processes.process.WATCH_S", 0.05)
    _, running = await start(fleet, "--orphan")

    def zombies() -> list[procfs.ProcessStat]:
        return [stat for stat in members(running.pid) if stat.state == "Z" and stat.parent == os.getpid()]

    await until(lambda: len(zombies()) == 1)
    async with asyncio.TaskGroup() as group:
        watch = group.create_task(fleet.processes.exited(running))
        await until(lambda: not zombies())
        assert fleet.processes.alive(running)
        await fleet.processes.kill(running)
    assert "SIGTERM" in watch.result()


async def test_exit_statuses_do_not_pile_up(fleet: Fleet):
    fleet.processes.kept_statuses = 2
    pids = []
    for _ in range(4):
        _, running = await start(fleet, "--children", "1")
        await fleet.processes.kill(running)
        pids.append(running.pid)
    assert list(fleet.processes.statuses) == pids[-2:]


async def test_starts_and_ends_leak_no_descriptor(fleet: Fleet):
    counts = []
    for _ in range(5):
        _, running = await start(fleet)
        await fleet.processes.kill(running)
        await fleet.processes.exited(running)
        counts.append(len(os.listdir("/proc/self/fd")))
    assert counts[-1] < counts[0] + 4  # what other tests have left may be closed meanwhile, or opened


async def test_a_rented_engine_is_no_local_process(fleet: Fleet):
    # With the pid of an engine here, not the 0 that such a record has: session 0 is other people's.
    _, running = await start(fleet)
    elsewhere = replace(running, machine="hyperstack 77")
    assert not fleet.processes.alive(elsewhere)
    with pytest.raises(DriverError, match=r"hyperstack 77 .* may run on"):
        await fleet.processes.kill(elsewhere)
    assert fleet.processes.alive(running)
    await fleet.processes.kill(running)


# whose port it is


IMPOSTOR = """
import socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    connection, _ = listener.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n")
"""


@contextmanager
def impostor(port: int, *wrap: str) -> Iterator[None]:
    """A process that is no engine, and answers on an engine's port."""
    python = "/usr/bin/python3" if wrap else sys.executable  # what another user may run
    process = subprocess.Popen([*wrap, python, "-I", "-S", "-c", IMPOSTOR, str(port)], cwd="/")
    try:
        yield
    finally:
        process.kill()
        process.wait()


async def test_an_impostor_is_not_taken_for_the_engine(fleet: Fleet):
    launch = fleet.launch("--never-listen")
    driver = ColdDriver(processes=fleet.processes, clock=fleet.clock, log=fleet.log, ready_limit_s=20.0)
    wake = driver.wake(fleet.cold(launch), launch, generation=1, report=fleet.report)
    waking = asyncio.get_running_loop().create_task(wake)
    await until(lambda: fleet.processes.found() != [])
    with impostor(launch.port):
        with pytest.raises(DriverError, match=r"is not the engine of replica tiny: pid \d+ "):
            await waking
    assert fleet.processes.found() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")
async def test_only_a_command_may_listen_elsewhere(fleet: Fleet):
    _, running = await start(fleet)
    launch = fleet.launch("--never-listen", engine="command")
    with impostor(launch.port):
        await until(lambda: listens(launch.port))
        assert foreign_listener(fleet.processes, running, launch) is None
        assert foreign_listener(fleet.processes, running, replace(launch, engine="vllm")) is not None
    with impostor(launch.port, "/usr/bin/setpriv", "--reuid=65534", "--clear-groups"):
        await until(lambda: listens(launch.port))
        assert foreign_listener(fleet.processes, running, launch) is not None
    await fleet.processes.kill(running)


@pytest.mark.parametrize("unproven", [LISTENER_LOOKS - 1, LISTENER_LOOKS])
async def test_a_listener_is_looked_at_again(fleet: Fleet, unproven: int):
    """A look at /proc/net/tcp can miss a row while other sockets open and close."""
    launch, running = await start(fleet, ready=False)
    looks = iter([DriverError("missed")] * unproven)
    readiness = Readiness(processes=fleet.processes, stranger=lambda *_: next(looks, None))
    with pytest.raises(DriverError, match="missed") if unproven == LISTENER_LOOKS else nullcontext():
        await readiness.wait(running, launch)
    await fleet.processes.kill(running)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")
async def test_each_connection_proves_its_listener(fleet: Fleet):
    launch, running = await start(fleet)
    assert await is_proven(fleet.processes, launch.host, launch.port)
    known = dict(fleet.processes.proven)
    again = fleet.again().processes
    assert await is_proven(again, launch.host, launch.port), "an adopted engine is found by its mark"
    assert again.proven == known
    os.kill(running.pid, signal.SIGKILL)
    await until(lambda: not listens(launch.port))
    assert not await is_proven(fleet.processes, launch.host, launch.port)
    with impostor(launch.port, "/usr/bin/setpriv", "--reuid=65534", "--clear-groups"):
        await until(lambda: listens(launch.port))
        assert not await is_proven(fleet.processes, launch.host, launch.port)
        assert not await is_proven(again, launch.host, launch.port)
    await fleet.processes.kill(running)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_the_kernel_tells_whose_listener(family: int):
    everywhere = "::" if family == socket.AF_INET6 else "0.0.0.0"
    with socket.create_server((everywhere, 0), family=family, dualstack_ipv6=everywhere == "::") as listener:
        port = listener.getsockname()[1]
        (row,) = listeners(port)
        assert row == listening("127.0.0.1", port)
        assert (row.inode, row.uid) == (os.fstat(listener.fileno()).st_ino, os.geteuid())
    assert listening("127.0.0.1", port) is None and listeners(port) == []


@contextmanager
def no_descriptors() -> Iterator[None]:
    """This process can open nothing more."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    filled = [os.dup(0) for _ in range(highest - len(os.listdir("/proc/self/fd")) + 2)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max([highest, *filled]) + 1, before[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                filled.append(os.dup(0))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for descriptor in filled:
            os.close(descriptor)


async def test_want_of_descriptors_loses_no_engine(fleet: Fleet, monkeypatch):
    monkeypatch.setattr("poorwill.hosts.processes.process.WATCH_S", 0.05)
    _, running = await start(fleet)
    async with asyncio.TaskGroup() as group:
        watch = group.create_task(fleet.processes.exited(running))
        with no_descriptors():
            await until(lambda: any("cannot look at an engine" in line[1] for line in fleet.log.lines))
        assert fleet.processes.alive(running) and not watch.done()
        await fleet.processes.kill(running)
    assert "SIGTERM" in watch.result()


async def test_want_of_descriptors_is_no_stranger(fleet: Fleet):
    launch, running = await start(fleet, ready=False)
    looks = iter([OSError(errno.EMFILE, "Too many open files")] * (LISTENER_LOOKS + 1))

    def look(*_: object) -> None:
        for error in looks:
            raise error

    await Readiness(processes=fleet.processes, stranger=look, limit_s=20).wait(running, launch)
    await fleet.processes.kill(running)


def listens(port: int) -> bool:
    return listeners(port) != []


# processes that leave, and processes that pretend


async def test_kill_ends_a_daemon_that_left(fleet: Fleet):
    fleet.processes.grace_s = 0.1
    _, running = await start(fleet, "--daemon", "60")
    assert len(members(running.pid)) == 1, "it has left the session"
    assert len(fleet.processes.pids(running)) == 2
    await fleet.processes.kill(running)
    assert fleet.processes.pids(running) == []


@pytest.mark.parametrize("switches", [("--children", "2"), ("--daemon", "60")], ids=str)
async def test_workers_without_their_leader_are_ended(fleet: Fleet, switches: tuple[str, str]):
    _, running = await start(fleet, *switches)
    os.kill(running.pid, signal.SIGKILL)
    assert "SIGKILL" in await fleet.processes.exited(running)
    assert fleet.processes.pids(running) != [], "they outlive it"
    await fleet.processes.kill(running)
    assert fleet.processes.pids(running) == []


IDLE_PARENT = """
import subprocess, sys
child = subprocess.Popen(["sleep", "60"], start_new_session=True)
print(child.pid, flush=True)
sys.stdin.read()
"""


async def test_a_foreign_zombie_holds_nothing_up():
    """As in a container whose first process reaps nobody: an adopted engine leaves a zombie for good."""
    with subprocess.Popen(
        [sys.executable, "-c", IDLE_PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert await end_session(pid) is True
        stat = procfs.read_stat(pid)
        assert stat is not None and stat.state == "Z"


async def test_group_holds_a_daemon_without_a_mark(fleet: Fleet):
    """It has left the session, its parent is gone and its environment is empty."""
    fleet.processes.groups, fleet.processes.grace_s = engine_groups(), 0.1
    if fleet.processes.groups.parent is None:
        pytest.skip("no control group may be made here")
    _, running = await start(fleet, "--daemon", "60", "--forgets")
    (daemon,) = set(fleet.processes.pids(running)) - {running.pid}
    group = next(fleet.processes.groups.parent.glob(f"*{running.extra[ID]}"))
    await until(lambda: procfs.command_line(daemon) == "sleep 60.0")
    os.kill(running.pid, signal.SIGKILL)
    await fleet.processes.exited(running)
    assert fleet.processes.pids(running) == [daemon]
    await fleet.processes.kill(running)
    assert not group.exists()


@pytest.mark.parametrize("cgroup", ["", "0::/system.slice/other.service\n", "1:cpu:/\n"])
def test_no_group_without_delegation(tmp_path: Path, cgroup: str):
    (tmp_path / "cgroup").write_text(cgroup)
    (tmp_path / "mountinfo").write_text(f"24 23 0:22 / {tmp_path} rw - cgroup2 cgroup2 rw\n")
    (tmp_path / "system.slice/other.service").mkdir(parents=True)
    groups = engine_groups(tmp_path)
    groups.enclose("a mark", os.getpid())
    groups.kill("a mark")
    assert groups.parent is None and groups.pids("a mark") == []


async def test_another_start_keeps_its_daemon(fleet: Fleet):
    _, first = await start(fleet, "--daemon", "60")
    _, second = await start(fleet, "--daemon", "60")
    await fleet.processes.kill(first)
    assert len(fleet.processes.pids(second)) == 2
    await fleet.processes.kill(second)


async def test_a_daemons_zombie_is_reaped(fleet: Fleet, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("poorwill.hosts.processes.process.WATCH_S", 0.01)
    fleet.processes.stray_s = 0.05
    _, running = await start(fleet, "--daemon", "0.2")
    (daemon,) = set(fleet.processes.pids(running)) - {running.pid}
    watch = asyncio.get_running_loop().create_task(fleet.processes.exited(running))
    await until(lambda: procfs.read_stat(daemon) is None)
    await fleet.processes.kill(running)
    await watch


async def test_one_look_does_for_all_engines(fleet: Fleet, monkeypatch: pytest.MonkeyPatch):
    """At all processes of the machine, and not on the thread that serves."""
    monkeypatch.setattr("poorwill.hosts.processes.process.WATCH_S", 0.1)
    running = [(await start(fleet))[1] for _ in range(3)]
    clock, looks = fleet.processes.clock, list[tuple[int, int]]()
    awake = threading.Event()

    def heard(event: str, arguments: tuple[object, ...]) -> None:
        if event == "os.listdir" and awake.is_set() and arguments == ("/proc",):
            looks.append((clock.now_us(), threading.get_ident()))

    sys.addaudithook(heard)  # for good
    awake.set()
    watches = [asyncio.get_running_loop().create_task(fleet.processes.exited(each)) for each in running]
    await until(lambda: len(looks) > 4)
    awake.clear()
    assert threading.get_ident() not in {thread for _, thread in looks}
    assert all(later - earlier > 90_000 for (earlier, _), (later, _) in pairwise(looks))
    await asyncio.gather(*map(fleet.processes.kill, running))
    await asyncio.gather(*watches)


def forged(fleet: Fleet, **changes: object) -> bytes:
    mark = {
        "fleet": str(fleet.directory), "replica": "toy-0", "generation": 7, "host": "127.0.0.1",
        "port": 24990, "log_path": "/etc/shadow", "driver": "cold", **changes,
    }  # fmt: skip
    return json.dumps(mark).encode()


@contextmanager
def marked(mark: bytes, *wrap: str) -> Iterator[int]:
    """A process of its own session with a mark that no poorwill has made."""
    process = subprocess.Popen(
        [*wrap, "/bin/sleep", "60"], env={b"POORWILL_REPLICA": mark}, start_new_session=True
    )
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


HOSTILE = {
    "infinite generation": {"generation": float("inf")},
    "negative generation": {"generation": -1},
    "replica is a list": {"replica": ["a"]},
    "replica is a number": {"replica": 5},
    "replica is empty": {"replica": ""},
    "escape sequences": {"replica": "x\x1b[2J\x1b]0;owned\x07-0"},
    "host is a list": {"host": ["a"]},
    "port is no port": {"port": 70_000},
    "a long log path": {"log_path": "a" * 10_000},
}


@pytest.mark.parametrize("changes", HOSTILE.values(), ids=HOSTILE)
async def test_a_hostile_mark_is_no_engine(fleet: Fleet, changes: dict[str, object]):
    with marked(forged(fleet, **changes)):
        assert fleet.processes.found() == []


@pytest.mark.parametrize("raw", [b"[" * 60_000, b"\xff\xfe", b"", b"null", b"{}"], ids=lambda raw: raw[:2])
async def test_a_mark_of_no_json_is_no_engine(fleet: Fleet, raw: bytes):
    with marked(raw):
        assert fleet.processes.found() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")
@pytest.mark.parametrize("ids", [("--reuid=65534",), ("--ruid=65534",), ("--euid=65534",)], ids=str)
async def test_another_users_mark_does_not_count(fleet: Fleet, ids: tuple[str]):
    with marked(forged(fleet), "/usr/bin/setpriv", *ids, "--clear-groups") as pid:
        await until(lambda: procfs.command_line(pid).startswith("/bin/sleep"))
        assert fleet.processes.found() == []
    with marked(forged(fleet)):
        (found,) = fleet.processes.found()
        assert found.replica == "toy-0"


SPIES = """
import os
from poorwill.hosts.processes.prctl import undumpable

def spied():
    \"\"\"What another process of this user reads of our environment.\"\"\"
    target, (ours, theirs) = os.getpid(), os.pipe()
    if os.fork() == 0:
        try:
            found = open(f"/proc/{target}/environ", "rb").read()
        except OSError as error:
            found = error.strerror.encode()
        os.write(theirs, found)
        os._exit(0)
    os.close(theirs)
    os.wait()
    return os.read(ours, 2**16)

os.setgroups([])
os.setuid(65534)
import ctypes
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # as for a program that was started by this user
assert b"a-secret" in spied()
with undumpable():
    assert spied() == b"Permission denied"
    assert os.readlink("/proc/self/fd/0") and open("/proc/self/net/tcp").read()
assert b"a-secret" in spied()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_engines_cannot_read_poorwills_secrets() -> None:
    env = {"PYTHONPATH": os.pathsep.join(sys.path), "GROQ_API_KEY": "a-secret"}
    done = subprocess.run([sys.executable, "-c", SPIES], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
