"""What an engine may leave outside of its processes - a container above all - and how that is ended.

A record in the fleet's directory says so from before the engine starts until its stop command has succeeded.
So the next poorwill ends what a crash of poorwill and a client left running, whatever is configured then.
"""

import os
import signal
import subprocess
import threading
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from poorwill.core.launch import Launch, Running
from poorwill.core.ports.driver import DriverError, Found
from poorwill.core.words import ReplicaId
from poorwill.hosts.containers.run_line import mend_of
from poorwill.hosts.files.aside import aside, in_thread
from poorwill.hosts.files.names import file_name
from poorwill.hosts.files.opening import read_whole
from poorwill.hosts.files.user import engine_user
from poorwill.hosts.processes.mark import ID

RECORDS = "outside"
MOST_BYTES = 2**20
LOOK_S = 0.1


class LeftBehind(msgspec.Struct, frozen=True, kw_only=True):
    """What one start may leave, and the command that ends it."""

    replica: ReplicaId
    id: str
    """Of the start, as in its mark."""
    host: str
    port: int
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    user: str = ""
    container: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """The records of one fleet. `limit_s` bounds one stop command."""

    fleet: str
    limit_s: float = 60.0

    def remember(self, launch: Launch, id: str) -> None:
        """Write down what a start may leave, before it starts. Raises OSError."""
        stop = launch.stop
        if stop is None:
            return
        left = LeftBehind(
            replica=launch.replica,
            id=id,
            host=launch.host,
            port=launch.port,
            argv=stop.argv,
            env=launch.env,
            cwd=launch.cwd,
            user=launch.user,
            container=stop.container,
        )
        path = self._path(launch.replica)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        draft = path.with_suffix(".new")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.json.encode(left))
        draft.replace(path)

    def of(self, replica: ReplicaId) -> LeftBehind | None:
        """Return what a replica may have left; blocks for a small file."""
        return self._read(self._path(replica))

    def found(self, alive: Collection[str]) -> list[Found]:
        """Return what may be left of starts that are not `alive`, by the ids of their marks."""
        records = map(self._read, sorted(Path(self.fleet, RECORDS).glob("*.json")))
        return [
            Found(
                replica=left.replica,
                generation=0,
                tier=None,
                what=f"container {left.container}" if left.container else f"to be ended by {left.argv[0]}",
                running=Running(
                    replica=left.replica,
                    generation=0,
                    host=left.host,
                    port=left.port,
                    log_path="",
                    driver="cold",
                    extra={ID: left.id},
                ),
                unfinished=True,
            )
            for left in records
            if left is not None and left.id not in alive
        ]

    async def end(self, replica: ReplicaId, *, id: str | None = None) -> None:
        """Run the stop command of a replica's last start, if it may have left anything.

        With an `id`, only if that was this start. Raises DriverError if it fails or takes longer than
        `limit_s`: what it should end may run on. Cancelled: it is killed, and the record stays.
        """
        left = await aside(self.of, replica)
        if left is None or (id is not None and left.id != id):
            return
        status, said = await in_thread(lambda stop: _run(left, stop, self.limit_s))
        if status != 0 and "no such container" not in said.lower():
            why = (
                f"did not end within {self.limit_s:g} s" if status is None else f"ended with status {status}"
            )
            mend = f"; {mend}" if (mend := mend_of(said)) else ""
            command = " ".join(left.argv)
            raise DriverError(f"what {replica} runs may run on: `{command}` {why}: {said or 'silent'}{mend}")
        await aside(self._path(replica).unlink, True)

    def _path(self, replica: ReplicaId) -> Path:
        return Path(self.fleet, RECORDS, f"{file_name(replica)}.json")

    def _read(self, path: Path) -> LeftBehind | None:
        try:
            return msgspec.json.decode(read_whole(path, most_bytes=MOST_BYTES, own=True), type=LeftBehind)
        except (OSError, msgspec.MsgspecError):
            return None


def _run(left: LeftBehind, stop: threading.Event, limit_s: float) -> tuple[int | None, str]:
    """Run a stop command; return its status, None if it took too long, and the end of what it said."""
    try:
        user = engine_user(left.user)
        child = subprocess.Popen(
            left.argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=left.cwd,
            env=dict(left.env),
            start_new_session=True,
            user=user.uid if user else None,
            group=user.gid if user else None,
            extra_groups=user.groups if user else None,
        )
    except (OSError, ValueError) as error:
        return 127, str(error)
    said = None
    with child:
        for _ in range(max(1, round(limit_s / LOOK_S))):
            if said is not None or stop.is_set():
                break
            with suppress(subprocess.TimeoutExpired):
                said = child.communicate(timeout=LOOK_S)[0]
        if said is None:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            return None, ""
    words = " ".join(said.decode("utf-8", "replace").split())
    return child.returncode, "".join(c for c in words if c.isprintable())[-400:]
