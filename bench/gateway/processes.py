"""Processes of the benchmark: started pinned to a core, measured through /proc, always ended."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        assert isinstance(port, int)
        return port


@dataclass(slots=True)
class Process:
    """A process and all its children."""

    child: subprocess.Popen[bytes]
    began: float = field(default_factory=time.perf_counter)

    def members(self) -> list[int]:
        """Return the pids of the process group: a server's workers count."""
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError, ProcessLookupError):
                    if os.getpgid(int(entry)) == self.child.pid:
                        found.append(int(entry))
        return found

    def cpu_s(self) -> float:
        """Return seconds of CPU of all its threads so far."""
        total = 0
        for pid in self.members():
            with contextlib.suppress(OSError):
                for task in Path(f"/proc/{pid}/task").iterdir():
                    total += int((task / "schedstat").read_text().split()[0])
        return total / 1e9

    def memory_kb(self) -> int:
        """Return its proportional set size."""
        total = 0
        for pid in self.members():
            with contextlib.suppress(OSError, StopIteration):
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                total += int(next(line for line in lines if line.startswith("Pss:")).split()[1])
        return total

    def alive(self) -> bool:
        return self.child.poll() is None

    def end(self) -> None:
        """End the whole group: SIGTERM, five seconds, SIGKILL. Idempotent."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.child.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(5.0)


@contextlib.contextmanager
def started(
    argv: Sequence[str],
    *,
    core: int,
    log: Path,
    env: Mapping[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
) -> Iterator[Process]:
    """Run a program pinned to a core, in a process group of its own, and end the whole group."""
    with log.open("wb") as output:
        child = subprocess.Popen(
            ["taskset", "-c", str(core), *argv],
            stdin=stdin,
            stdout=subprocess.PIPE if stdin == subprocess.PIPE else output,
            stderr=output,
            env=None if env is None else {"PATH": os.environ["PATH"], **env},  # noqa: TID251
            start_new_session=True,
        )
        process = Process(child)
        try:
            yield process
        finally:
            process.end()
            for stream in (child.stdin, child.stdout):
                if stream is not None:
                    stream.close()


def until_answers(port: int, request: bytes, process: Process, *, limit_s: float) -> float | None:
    """Return seconds from the start of a process to its first 200, None where none comes in time."""
    while time.perf_counter() - process.began < limit_s and process.alive():
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", port), timeout=1) as sock,
        ):
            sock.sendall(request)
            if b" 200 " in sock.recv(4096).partition(b"\r\n")[0]:
                return time.perf_counter() - process.began
        time.sleep(0.005)  # noqa: TID251
    return None


def compiled(source: Path, folder: Path) -> Path:
    """Compile one C file."""
    target = folder / source.stem
    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler is not None, "a C compiler is needed: apt-get install gcc"
    subprocess.run([compiler, "-O2", "-o", target, source], check=True, timeout=60)
    return target


def busy_s() -> float:
    """Return seconds of CPU that the whole machine has been busy."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    ticks = [int(value) for value in fields]
    idle = ticks[3] + ticks[4]
    return (sum(ticks[:8]) - idle) / os.sysconf("SC_CLK_TCK")
