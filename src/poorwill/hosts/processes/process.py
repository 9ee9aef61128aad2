"""Engine processes: starting them, knowing them again, watching their end, ending them and reaping.

A process is named by its pid and its start time, never by its pid alone. Engines get their own session,
the log as an inherited descriptor and no pipe to poorwill, so that they live through poorwill's death and
the next poorwill finds them by a mark in their environment. Whether a process is our child makes no
difference to anything here but its exit status, which only a parent learns.
"""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

from poorwill.core.launch import Launch, PhaseMark, Running
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.driver import DriverError, Found, Report
from poorwill.core.ports.log import Log
from poorwill.core.words import SECOND_US, Phase
from poorwill.hosts.containers.run_line import mend_of
from poorwill.hosts.files.aside import aside
from poorwill.hosts.files.landlock import Confinement
from poorwill.hosts.files.user import engine_user
from poorwill.hosts.processes import procfs
from poorwill.hosts.processes.blocking import open_pidfd, process_end
from poorwill.hosts.processes.engine_log import bound_log, mark_start, open_log, tail
from poorwill.hosts.processes.groups import EngineGroups
from poorwill.hosts.processes.mark import (
    ID,
    EngineMark,
    marked_running,
    new_mark,
    read_mark,
    seal_key,
    variables,
)
from poorwill.hosts.processes.outside import Outside
from poorwill.hosts.processes.session import members, reap, send, session_gone

WATCH_S = 5.0
"""How often a watched process's log is bounded and, for all of them together, stray zombies are reaped."""


@dataclass(slots=True, kw_only=True)
class EngineProcesses:
    """The engine processes of one fleet. Implements the port `Processes`."""

    fleet: str
    """The fleet's directory, absolute, which tells its processes from those of other fleets."""
    clock: Clock
    log: Log
    groups: EngineGroups = field(default_factory=EngineGroups)
    confinement: Confinement | None = None
    """What the engines it starts are kept away from."""
    grace_s: float = 5.0
    """Between SIGTERM and SIGKILL."""
    log_cap_bytes: int = 64 * 2**20
    """A log that grows beyond this is cut to its end part."""
    kept_statuses: int = 256
    statuses: dict[int, int] = field(default_factory=dict)
    """Wait statuses of children already reaped, until `exited` reports them."""
    proven: dict[int, frozenset[int]] = field(default_factory=dict)
    """The sockets that were last proven to be an engine's, by port."""
    stray_s: float = 10.0
    strays: dict[tuple[int, int], int] = field(default_factory=dict)
    """Zombie children by pid and start time, and when each was first seen; reaped after `stray_s`."""
    looked_us: int = 0
    """When they were last looked for."""
    stop_limit_s: float = 60.0
    """For one stop command."""

    @property
    def outside(self) -> Outside:
        """What engines may leave outside of their processes."""
        return Outside(fleet=self.fleet, limit_s=self.stop_limit_s)

    async def spawn(
        self,
        launch: Launch,
        *,
        generation: int,
        driver: str,
        report: Report,
        machine: Launch | None = None,
    ) -> Running:
        """Start an engine.

        `machine`, if given, is executed instead: the virtual machine that the engine runs in.

        Raises DriverError if the command cannot be executed or the log cannot be opened. Cancelled: the
        engine is returned all the same, and the cancellation comes with the next await.
        """
        report(PhaseMark(phase=Phase.SPAWN, at_us=self.clock.now_us()))
        mark, pid = await aside(lambda: self._started(launch, machine or launch, generation, driver))
        return self.running(launch, pid=pid, generation=generation, driver=driver, mark=mark)

    def _started(self, launch: Launch, run: Launch, generation: int, driver: str) -> tuple[EngineMark, int]:
        """Start the program of `run`; return its mark and its pid. Blocks: log and program are files."""
        try:
            log_fd = open_log(launch.log_path)
        except OSError as error:
            raise DriverError(f"cannot open the log {launch.log_path}: {error.strerror}") from error
        mark_start(log_fd, launch.replica)
        try:
            user = engine_user(run.user)
            mark = new_mark(launch, fleet=self.fleet, generation=generation, driver=driver)
            popen = partial(
                subprocess.Popen[bytes],
                run.argv,
                stdin=subprocess.DEVNULL,
                stdout=log_fd,
                stderr=log_fd,
                cwd=run.cwd,
                env={**run.env, **variables(mark)},
                start_new_session=True,
                user=user.uid if user else None,
                group=user.gid if user else None,
                extra_groups=user.groups if user else None,
            )
            # Landlock denies its processes to mount, which Podman's client does; a container is confined.
            free = run is not launch or (launch.stop and launch.stop.container)
            confined = None if free else self.confinement
            self.outside.remember(launch, mark.id)
            child = confined.start(popen, also=[launch.log_path]) if confined else popen()
        except (OSError, ValueError) as error:
            raise DriverError(f"cannot start {run.argv[0]}: {error}") from error
        finally:
            os.close(log_fd)
        # The end of a child is seen through its pidfd and its status collected by `_reap`, the same way
        # as for an adopted process; Popen must neither wait for it nor warn that it did not.
        child.returncode = 0
        return mark, child.pid

    def running(
        self, launch: Launch, *, pid: int, generation: int, driver: str, mark: EngineMark | None = None
    ) -> Running:
        """Describe an existing process as this replica's. Raises DriverError if it does not exist.

        Its `mark` is read if it is not given, for which it blocks: one just started does not show it yet.
        """
        stat = procfs.read_stat(pid)
        if stat is None:
            raise DriverError(f"process {pid} of replica {launch.replica} does not exist")
        mark = mark or read_mark(pid, key=seal_key(self.fleet))
        self.groups.enclose(mark.id if mark else "", pid)
        return Running(
            replica=launch.replica,
            generation=generation,
            pid=pid,
            pid_started=stat.started,
            host=launch.host,
            port=launch.port,
            log_path=launch.log_path,
            driver=driver,
            extra={ID: mark.id} if mark else {},
            engine_model=launch.engine_model,
            launched=launch.identity(),
        )

    def members(self, running: Running) -> list[procfs.ProcessStat]:
        """Return every process of an engine that exists, also those that have left its session."""
        mark = running.extra.get(ID, "")
        return members(running.pid, mark=mark, started=running.pid_started, inside=self.groups.pids(mark))

    def pids(self, running: Running) -> list[int]:
        """Return their process ids."""
        return [stat.pid for stat in self.members(running)]

    def alive(self, running: Running) -> bool:
        """Return whether exactly this process exists and is not a zombie."""
        if running.machine:
            return False
        stat = procfs.read_stat(running.pid)
        return stat is not None and stat.started == running.pid_started and stat.state not in "ZX"

    def effort(self, running: Running) -> int | None:
        """Return the CPU time of all its processes in clock ticks, with their reads from storage.

        None of a container: its processes may be its daemon's. Blocks for a look at /proc.
        """
        left = self.outside.of(running.replica)
        return None if left and left.container else sum(procfs.effort(pid) for pid in self.pids(running))

    async def exited(self, running: Running) -> str:
        """Wait until the process has ended and return why, for people; meanwhile bound its log.

        If the machine lacks what it takes to look, descriptors above all, that says nothing about the engine:
        it is watched again after `WATCH_S`. Cancelled: the process is not touched.
        """
        while True:
            try:
                return await self._ended(running)
            except OSError as error:
                self.log.warning("cannot look at an engine", replica=running.replica, error=str(error))
                await asyncio.sleep(WATCH_S)

    async def _ended(self, running: Running) -> str:
        pidfd = open_pidfd(running.pid)
        if pidfd is not None:
            try:
                # A leader looks like a zombie while other threads of it still end; its pidfd knows better.
                stat = procfs.read_stat(running.pid)
                same = stat is not None and stat.started == running.pid_started
                while same and not await process_end(pidfd, within_s=WATCH_S):
                    await asyncio.to_thread(self._look_after, running)
            finally:
                os.close(pidfd)
        self._reap(running)
        return why_ended(self.statuses.pop(running.pid, None)) + await asyncio.to_thread(self._told, running)

    def _told(self, running: Running) -> str:
        """Return what its log tells of its end; blocks."""
        last = tail(running.log_path)
        mend = f"; {mend}" if (mend := mend_of(last)) and self.outside.of(running.replica) else ""
        return (f"; the log ends: {last}" if last else "") + mend

    def left_behind(self) -> Sequence[Found]:
        """Return what engines that are gone may have left outside of their processes. Blocks."""
        return self.outside.found({each.running.extra.get(ID, "") for each in self.found() if each.running})

    def bound_log(self, running: Running) -> None:
        """Cut the replica's log to its last part if it exceeds its cap. Never raises; blocks."""
        try:
            if bound_log(running.log_path, cap_bytes=self.log_cap_bytes):
                self.log.warning(
                    "an engine floods its log; cut to its end",
                    replica=running.replica,
                    path=running.log_path,
                    cap_bytes=self.log_cap_bytes,
                )
        except OSError as error:
            self.log.warning("cannot bound a log", path=running.log_path, error=str(error))

    async def kill(self, running: Running) -> None:
        """End all processes of the engine: SIGTERM, a grace period, SIGKILL. Returns when they are gone.

        Raises DriverError if it does not disappear (it hangs inside the kernel), and for an engine on a
        rented machine, which has no process here to end. Cancelled: the grace period ends at once.
        """
        if not (running.pid or running.machine):  # only what it left outside is there
            await self.outside.end(running.replica, id=running.extra.get(ID))
            return
        if running.machine:
            raise DriverError(f"{running.machine} is no longer configured: it may run on, and be billed")
        left = await aside(self.outside.of, running.replica)
        try:
            if self.alive(running):
                # A stopped process would never see SIGTERM alone. A container's client passes it on.
                first = [running.pid] if left and left.container else self.pids(running)
                send(first, signal.SIGTERM, signal.SIGCONT)
                pidfd = open_pidfd(running.pid)
                if pidfd is not None:
                    try:
                        await process_end(pidfd, within_s=self.grace_s)
                    finally:
                        os.close(pidfd)
            with suppress(DriverError):  # tried again once all is killed
                # Podman's state suits what runs only if its monitor sees the container's end.
                await self.outside.end(running.replica, id=running.extra.get(ID))
        finally:
            self.kill_now(running)
            await self.gone(running)

    def kill_now(self, running: Running) -> None:
        """Send SIGKILL to all processes of the engine and do not wait."""
        self.groups.kill(running.extra.get(ID, ""))
        send(self.pids(running), signal.SIGKILL)

    async def end_now(self, running: Running) -> None:
        """Kill the engine without a grace period; return when it is gone. Raises as `gone` does."""
        self.groups.kill(running.extra.get(ID, ""))
        await self.gone(running)  # kills what it finds before it waits

    @asynccontextmanager
    async def ended_on_failure(self, running: Running) -> AsyncIterator[None]:
        """End the engine at once if the block fails or is cancelled."""
        try:
            yield
        except BaseException:
            await self.end_now(running)
            raise

    def stop(self, running: Running) -> None:
        """Stop all processes of the engine (SIGSTOP)."""
        send(self.pids(running), signal.SIGSTOP)

    def resume(self, running: Running) -> None:
        """Let a stopped engine run on (SIGCONT)."""
        send(self.pids(running), signal.SIGCONT)

    async def gone(self, running: Running) -> None:
        """Wait until every process of a killed engine has disappeared, then have ended what it left outside.

        Those that are ours are reaped. Raises DriverError if one hangs inside the kernel, or a stop command
        fails. Cancelled: nothing more is waited for.
        """
        mark = running.extra.get(ID, "")
        await session_gone(
            running.pid,
            mark=mark,
            started=running.pid_started,
            inside=lambda: self.groups.pids(mark),
            reaped=lambda statuses: self._keep(running.pid, statuses),
        )
        self.groups.remove(mark)
        await self.outside.end(running.replica, id=mark)

    def found(self) -> Sequence[Found]:
        """Return the running engines of this fleet, found by their mark, whoever started them.

        The generation is the one they were started with: a restore does not change an environment. Blocks.
        """
        key = seal_key(self.fleet)
        return [
            Found(
                replica=running.replica,
                generation=running.generation,
                tier=None,
                what=f"pid {running.pid}: {procfs.command_line(running.pid)}",
                running=running,
            )
            for stat in procfs.all_processes()
            if stat.pid == stat.session and stat.state not in "ZX"
            if (mark := read_mark(stat.pid, key=key)) is not None and mark.fleet == self.fleet
            for running in (marked_running(mark, stat),)
        ]

    def _reap(self, running: Running) -> None:
        self._keep(running.pid, reap(self.members(running)))

    def _look_after(self, running: Running) -> None:
        """Bound an engine's log, and reap children that have been zombies since an earlier look. Blocks.

        A subreaper inherits what engines leave behind, and nobody else waits for that. A child that poorwill
        waits for itself is a zombie for a moment only. One look at /proc does for all engines.
        """
        self.bound_log(running)
        own, now_us = os.getpid(), self.clock.now_us()
        if now_us - self.looked_us < WATCH_S * SECOND_US:
            return
        self.looked_us = now_us
        zombies = {
            (stat.pid, stat.started): stat
            for stat in procfs.all_processes()
            if stat.state == "Z" and stat.parent == own
        }
        self.strays = {key: self.strays.get(key, now_us) for key in zombies}
        patience_us = round(self.stray_s * SECOND_US)
        reap(zombies[key] for key, since_us in self.strays.items() if now_us - since_us >= patience_us)

    def _keep(self, leader: int, statuses: Mapping[int, int]) -> None:
        """Keep how the session's leader ended, for `exited`; the latest few, should nobody ask."""
        if leader in statuses:
            self.statuses[leader] = statuses[leader]
            while len(self.statuses) > self.kept_statuses:
                del self.statuses[next(iter(self.statuses))]


def why_ended(status: int | None) -> str:
    """Describe a wait status for people; None is a process that was not our child."""
    if status is None:
        return "ended (exit status unknown: not started by this poorwill)"
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"ended with exit status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown"
    return f"killed by signal {-code} ({name})"
