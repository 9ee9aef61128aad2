"""Ray's own processes on a machine: the head, or the raylet of a host, started again whenever they end."""

import asyncio
import fcntl
import json
import os
import signal
import sys
import tempfile
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.core.extras import install_extra
from poorwill.core.ports.log import Log
from poorwill.core.settings import Address
from poorwill.hosts.processes import procfs
from poorwill.policies.placement.devices import DeviceState
from poorwill.remote.ray.carrier import SOCKET
from poorwill.remote.ray.identity import make_key, token

LABEL = "poorwill-host"
UNIT = "poorwill"
"""A resource that every host has plenty of: a lease takes one even if it needs no device."""
PLENTY = 10_000
OBJECTS_BYTES = 80_000_000
"""Ray's least object store: nothing of poorwill's goes through it."""
AGAIN_S = 2.0
END_S = 10.0
MARK = "POORWILL_RAY"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPlan:
    """One host."""

    name: str
    directory: Path
    """Of its logs, snapshots and marks: no two hosts share one."""
    key: Path
    relay: Address
    """Where its relay listens: an address that the gateway can reach."""
    join: Address | None = None
    """Ray's head; None: no raylet is started, and calls come by other means."""
    devices: tuple[DeviceState, ...] | None = None
    """Those it gives to replicas; None: what NVML says."""


def ray_environment(
    key: Path, env: Mapping[str, str] | None = None, more: Mapping[str, str] | None = None
) -> Mapping[str, str]:
    """Return the environment of a fleet's Ray processes. Raises OperatorFault if its key or Ray is missing.

    Ray's own switches in `env` hold: `RAY_gcs_storage` gives the head a store.
    """
    if find_spec("ray") is None:
        raise OperatorFault(ErrorCode.CONFIG_INVALID, "Ray is not here", hint=install_extra("ray"))
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # nothing of ours drains
        "RAY_gcs_rpc_server_reconnect_timeout_s": "10",  # of 60: what a lost head leaves is begun anew
        **{name: value for name, value in (env or {}).items() if name.startswith("RAY_")},
        "SPT_NOENV": "1",  # setproctitle would wipe out the mark
        "RAY_START_HOOK": f"{__name__}.without_client",
        "RAY_kill_child_processes_on_worker_exit": "1",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token(key),
        **(more or {}),
    }


def head_command(address: tuple[str, int], directory: Path) -> Sequence[str]:
    """Return what starts a head that runs nothing itself."""
    host, port = address
    return [
        *_start(directory, host),
        "--head",
        f"--port={port}",
        "--num-cpus=0",
        "--num-gpus=0",
        "--include-dashboard=false",
        "--no-monitor",
    ]


def host_command(head: tuple[str, int], directory: Path, *, name: str, ip: str, gpus: int) -> Sequence[str]:
    """Return what starts the raylet of a host."""
    return [
        *_start(directory, ip),
        f"--address={head[0]}:{head[1]}",
        "--num-cpus=0",
        f"--num-gpus={gpus}",
        f"--labels={LABEL}={name}",
        f"--resources={json.dumps({UNIT: PLENTY})}",
    ]


def _start(directory: Path, ip: str) -> list[str]:
    return [
        *(sys.executable, "-c", "from ray.scripts.scripts import main; main()"),
        *("start", "--block", "--disable-usage-stats", f"--node-ip-address={ip}"),
        f"--object-store-memory={OBJECTS_BYTES}",
        "--include-log-monitor=false",
        *("--min-worker-port=0", "--max-worker-port=0"),  # of 10002 to 19999, where a head's may be
        f"--temp-dir={directory}",
    ]


def without_client(ray_params: Any, head: bool) -> None:  # noqa: FBT001 - Ray calls it
    """Keep Ray's client server from starting, which would listen on a port that nobody needs."""
    ray_params.ray_client_server_port = None


@dataclass(slots=True, kw_only=True)
class Kept:
    """A program of Ray's that is kept running."""

    command: Sequence[str]
    environment: Mapping[str, str]
    mark: str
    """What tells everything that it starts: Ray's daemons leave its session, and outlive a kill."""
    log_path: Path
    log: Log

    async def run(self) -> None:
        """Run it, again and again, until cancelled; then end it and all that it has started."""
        self._end_all()  # of an earlier service
        while True:
            with self.log_path.open("ab") as output:
                child = await asyncio.create_subprocess_exec(
                    *self.command,
                    stdin=DEVNULL,
                    stdout=output,
                    stderr=output,
                    env={**self.environment, MARK: self.mark},
                    start_new_session=True,
                )
            try:
                status = await child.wait()
            finally:
                await self._end(child)
            self.log.warning("Ray ended and is started again", status=status, log=str(self.log_path))
            await asyncio.sleep(AGAIN_S)

    async def _end(self, child: Process) -> None:
        with suppress(ProcessLookupError, TimeoutError):
            child.send_signal(signal.SIGTERM)
            async with asyncio.timeout(END_S):
                await child.wait()
        self._end_all()
        await child.wait()

    def _end_all(self) -> None:
        """Kill whatever bears the mark. Engines do not: their environment is their own."""
        for stat in procfs.all_processes():
            if stat.state not in "ZX" and procfs.variable(stat.pid, MARK) == self.mark.encode():
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(stat.pid, signal.SIGKILL)


def raylet(plan: HostPlan, socket: Path, temporary: Path, *, env: Mapping[str, str], log: Log) -> Kept | None:
    """Return the raylet of a host, whose service takes calls at `socket`."""
    if plan.join is None:
        return None
    return Kept(
        command=host_command(
            plan.join,
            temporary / "ray",
            name=plan.name,
            ip=plan.relay.host,
            gpus=len(plan.devices or ()),
        ),
        environment=ray_environment(plan.key, env, {SOCKET: str(socket)}),
        mark=str(plan.directory),
        log_path=Path(plan.directory, "logs", "ray.log"),
        log=log,
    )


@contextmanager
def _alone(key: Path) -> Iterator[None]:
    """Hold a fleet's key meanwhile: a second head would take the first one's processes for its own leftovers.

    Raises OperatorFault if another head holds it.
    """
    with key.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            what = f"another `poorwill host --head` of {key} runs on this machine"
            raise OperatorFault(ErrorCode.IN_USE, what, hint="stop that one first") from None
        yield


@asynccontextmanager
async def ray_head(
    address: Address, key: Path, directory: Path, *, env: Mapping[str, str], log: Log
) -> AsyncIterator[None]:
    """Keep Ray's head until the context ends, and make the fleet's key if there is none.

    Raises OperatorFault if another one does.
    """
    make_key(key)
    with _alone(key), tempfile.TemporaryDirectory(prefix="pw-", ignore_cleanup_errors=True) as temporary:
        kept = Kept(
            command=head_command(address, Path(temporary, "ray")),
            environment=ray_environment(key, env),
            mark=f"head {key}",
            log_path=directory / "ray-head.log",
            log=log,
        )
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(kept.run())
            try:
                yield
            finally:
                running.cancel()
