"""Waiting until an engine's readiness path answers 200, while watching that its process lives.

Polling works with every engine. Its delay grows, and it has a deadline.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from poorwill.core.launch import Launch, Running
from poorwill.core.ports.driver import DriverError
from poorwill.core.settings import EngineUrl
from poorwill.hosts.files.reach import Reach, http_status
from poorwill.hosts.processes import procfs
from poorwill.hosts.processes.blocking import open_pidfd, process_end
from poorwill.hosts.processes.listeners import listeners, listening
from poorwill.hosts.processes.process import EngineProcesses
from poorwill.hosts.processes.procfs import TcpSocket

FIRST_DELAY_S = 0.004
LONGEST_DELAY_S = 0.1
LISTENER_LOOKS = 5
"""Looks without a proof before a listener counts as a stranger's: the kernel may leave a row out of
/proc/net/tcp if other sockets open and close while it is read."""


def refuse_taken_port(launch: Launch) -> None:
    """Raise DriverError if something listens on the replica's port already."""
    family = socket.AF_INET6 if ":" in launch.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Without this, a connection of the last engine in TIME_WAIT would count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((launch.host, launch.port))
        except OSError as error:
            holder = procfs.holder_of({row.inode for row in listeners(launch.port)})
            raise DriverError(
                f"port {launch.port} of replica {launch.replica} cannot be used: {error.strerror}"
                f"; held by {holder}; the key `port` of model {launch.model} chooses another"
            ) from error


def foreign_listener(processes: EngineProcesses, running: Running, launch: Launch) -> DriverError | None:
    """Return an error unless all that listens on the replica's port belongs to its engine's processes.

    A `command` may start its engine in a container, and an engine may hide its files: then a listener of our
    own user or root will do. Raises OSError, which says nothing about the listener.
    """
    rows = listeners(launch.port)
    if _is_engines(processes, running, rows, elsewhere=launch.engine == "command" or bool(launch.stop)):
        processes.proven[launch.port] = frozenset(row.inode for row in rows)
        return None
    holder = procfs.holder_of({row.inode for row in rows})
    return DriverError(
        f"what answers on port {launch.port} is not the engine of replica {launch.replica}: {holder}"
    )


async def is_proven(processes: EngineProcesses, host: str, port: int) -> bool:
    """Return whether a connection to an engine's address reaches that engine: asked of every new one.

    The socket that was proven when the engine became ready is known again by its inode, in some 20 us. Any
    other one, such as that of an adopted engine, is looked up once among the fleet's marked processes.
    Raises OSError. Cancelled: nothing happens.
    """
    row = listening(host, port)
    if row is None:
        return False
    if row.inode in processes.proven.get(port, ()):
        return True
    if await asyncio.to_thread(_belongs, processes, row):
        processes.proven[port] = frozenset({row.inode})
        return True
    return False


def _belongs(processes: EngineProcesses, row: TcpSocket) -> bool:
    runs = [found.running for found in processes.found() if found.running is not None]
    engines = [running for running in runs if running.port == row.local_port]
    return any(_is_engines(processes, running, [row], elsewhere=True) for running in engines)


def _is_engines(
    processes: EngineProcesses, running: Running, rows: Sequence[TcpSocket], *, elsewhere: bool
) -> bool:
    """Return whether there are listeners, all of an engine's processes or, `elsewhere`, of a trusted user."""
    inodes = {row.inode for row in rows}
    if inodes and inodes <= procfs.socket_inodes(running.pid):
        return True  # the usual case, without a look at all processes
    engine = processes.pids(running)
    held = set().union(*map(procfs.socket_inodes, engine))
    trusted = {os.geteuid(), 0} if elsewhere or any(map(procfs.hides_files, engine)) else set()
    return bool(rows) and all(row.inode in held or row.uid in trusted for row in rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """How to wait for an engine."""

    processes: EngineProcesses
    stranger: Callable[[EngineProcesses, Running, Launch], DriverError | None] = foreign_listener
    limit_s: float = 900.0
    """A deadline for callers without one; the wake's own bounds are shorter."""

    async def wait(self, running: Running, launch: Launch) -> None:
        """Return when the engine answers its readiness path with a 2xx status.

        Raises DriverError if its process ends first (with its last log lines), `limit_s` elapses, or somebody
        else answers on its port.
        Cancelled: the process is left as it is.
        """
        pidfd = open_pidfd(running.pid)
        if pidfd is None:
            raise await self._ended(running)
        last = "nothing"
        try:
            async with asyncio.timeout(self.limit_s):
                delay_s, unproven = FIRST_DELAY_S, 0
                here = Reach(url=EngineUrl(launch.host, launch.port))
                while True:
                    status = await http_status(here, launch.ready_path)
                    if status is not None and 200 <= status < 300 and self.processes.alive(running):
                        try:
                            stranger = self.stranger(self.processes, running, launch)
                        except OSError:
                            pass  # no descriptor, no memory: the machine's trouble, and no verdict
                        else:
                            if stranger is None:
                                return
                            unproven += 1
                            if unproven == LISTENER_LOOKS:
                                raise stranger
                    last = "nothing" if status is None else f"status {status}"
                    if await process_end(pidfd, within_s=delay_s):
                        raise await self._ended(running)
                    await asyncio.to_thread(self.processes.bound_log, running)
                    delay_s = min(delay_s * 1.5, LONGEST_DELAY_S)
        except TimeoutError:
            raise DriverError(
                f"replica {launch.replica} did not become ready within {self.limit_s:.0f} s: "
                f"{launch.ready_path} last answered {last}"
            ) from None
        finally:
            os.close(pidfd)

    async def _ended(self, running: Running) -> DriverError:
        why = await self.processes.exited(running)
        return DriverError(f"the engine of replica {running.replica} {why}")
