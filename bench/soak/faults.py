"""What goes wrong in a soak: drawn from the seed, aimed at a moment, made from outside."""

import contextlib
import os
import random
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import looks
from fleet import Program

MOMENTS = ("any", "dump", "restore", "filling")
LOOK_S = 5.0
"""How long a moment is waited for; then the fault comes anyway."""
MEMORY_GROUPS = Path("/sys/fs/cgroup/memory")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault: what, when, and how much of it (0 to 1)."""

    name: str
    moment: str
    after_s: float
    size: float


def draw(chance: random.Random, names: list[str]) -> Fault:
    return Fault(
        name=chance.choice(names),
        moment=chance.choice(MOMENTS),
        after_s=chance.choice((0.0, 0.01, 0.05, 0.2, 1.0)) * chance.random(),
        size=chance.random(),
    )


@dataclass
class Weather:
    """Makes faults, and undoes what does not end by itself."""

    program: Program
    full: bool
    """The fleet's directory is a small file system of its own, which may be filled."""
    restart: Callable[[], None]

    def kinds(self) -> dict[str, Callable[[float], None]]:
        kinds = {
            "kill poorwill": self._kill_poorwill,
            "kill engine": self._kill_engine,
            "kill criu": self._kill_criu,
            "stop engine": self._stop_engine,
            "stop poorwill": self._stop_poorwill,
            "stop criu": self._stop_criu,
            "flip a byte": self._flip,
            "cut a file": self._cut,
            "no descriptors": self._no_descriptors,
        }
        if self.full:
            kinds["full disk"] = self._full_disk
        if os.access(MEMORY_GROUPS, os.W_OK):
            kinds["engine out of memory"] = self._engine_out_of_memory
            kinds["poorwill out of memory"] = self._poorwill_out_of_memory
        return kinds

    def make(self, fault: Fault, over: Callable[[], bool]) -> bool:
        """Wait for the fault's moment and make it; return whether the moment came."""
        came = self._await(fault.moment, over)
        time.sleep(fault.after_s)  # noqa: TID251
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            self.kinds()[fault.name](fault.size)
        return came

    def _await(self, moment: str, over: Callable[[], bool]) -> bool:
        pid, until = self.program.pid, time.monotonic() + LOOK_S  # noqa: TID251
        seen = {
            "any": lambda: True,
            "dump": lambda: looks.criu(pid, "dump") is not None,
            "restore": lambda: looks.criu(pid, "restore") is not None,
            "filling": lambda: looks.filling(pid),
        }[moment]
        while time.monotonic() < until and not over():  # noqa: TID251
            if seen():
                return True
            time.sleep(0.001)  # noqa: TID251
        return False

    def _kill_poorwill(self, size: float) -> None:
        self.program.kill()
        time.sleep(size if size > 0.5 else 0)  # noqa: TID251
        self.restart()

    def _kill_engine(self, size: float) -> None:
        for pid in looks.engines(self.program.directory)[: 1 + int(2 * size)]:
            os.kill(pid, signal.SIGKILL)

    def _criu(self) -> int | None:
        return looks.criu(self.program.pid, "dump") or looks.criu(self.program.pid, "restore")

    def _kill_criu(self, size: float) -> None:
        if (pid := self._criu()) is not None:
            os.kill(pid, signal.SIGKILL)

    def _stopped(self, pid: int | None, seconds: float) -> None:
        if pid is None:
            return
        os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)  # noqa: TID251
        os.kill(pid, signal.SIGCONT)

    def _stop_engine(self, size: float) -> None:
        pids = looks.engines(self.program.directory)
        self._stopped(pids[0] if pids else None, 3 * size)

    def _stop_poorwill(self, size: float) -> None:
        self._stopped(self.program.pid, 3 * size)

    def _stop_criu(self, size: float) -> None:
        self._stopped(self._criu(), 2 * size)

    def _image_file(self, size: float) -> Path | None:
        found = sorted(self.program.directory.glob("snapshots/frozen/*/[0-9]*/image/*"))
        return found[int(size * len(found))] if found else None

    def _flip(self, size: float) -> None:
        if (path := self._image_file(size)) is None:
            return
        with path.open("r+b") as file:
            at = int(size * path.stat().st_size)
            file.seek(at)
            byte = file.read(1)
            file.seek(at)
            file.write(bytes([(byte or b"\0")[0] ^ 1]))

    def _cut(self, size: float) -> None:
        if (path := self._image_file(size)) is not None:
            os.truncate(path, int(size * path.stat().st_size))

    def _no_descriptors(self, size: float) -> None:
        pid = self.program.pid
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        used = len(os.listdir(f"/proc/{pid}/fd"))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + int(size * 12), hard))
        try:
            time.sleep(2 * size)  # noqa: TID251
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))

    def _full_disk(self, size: float) -> None:
        filler = self.program.directory / "filler"
        space = os.statvfs(self.program.directory)
        left = (0, 64 * 2**10, 2**20, 20 * 2**20)[int(4 * size)]
        try:
            with filler.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, max(1, space.f_bavail * space.f_frsize - left))
            time.sleep(3 * size)  # noqa: TID251
        except OSError:
            pass  # somebody else took the last of it first
        finally:
            filler.unlink(missing_ok=True)

    def _out_of_memory(self, pid: int) -> bool:
        """Move a process where it may have nothing more; return whether the kernel then ended it."""
        group = MEMORY_GROUPS / f"soak-{os.getpid()}"
        group.mkdir(exist_ok=True)
        try:
            (group / "memory.limit_in_bytes").write_text("65536")
            (group / "cgroup.procs").write_text(str(pid))
            until = time.monotonic() + 3  # noqa: TID251
            while time.monotonic() < until and not looks.ended(pid):  # noqa: TID251
                time.sleep(0.01)  # noqa: TID251
            return looks.ended(pid)
        finally:
            with contextlib.suppress(OSError):
                (group / "memory.limit_in_bytes").write_text("-1")
            for _ in range(100):
                with contextlib.suppress(OSError):
                    for left in (group / "cgroup.procs").read_text().split():
                        with contextlib.suppress(OSError):
                            (MEMORY_GROUPS / "cgroup.procs").write_text(left)
                    group.rmdir()
                    break
                time.sleep(0.01)  # noqa: TID251

    def _engine_out_of_memory(self, size: float) -> None:
        if pids := looks.engines(self.program.directory):
            self._out_of_memory(pids[int(size * len(pids))])

    def _poorwill_out_of_memory(self, size: float) -> None:
        self.program.going_down()
        gone = self._out_of_memory(self.program.pid)
        if not gone:
            self.program.kill()
        assert self.program.child is not None
        self.program.child.wait()
        self.restart()
