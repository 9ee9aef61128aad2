"""Runs the command line as an outsider would, with bounds on time and memory."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

MIB = 2**20
MEASURED = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[2:])
with open(sys.argv[1], "w") as file:
    file.write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(status if status >= 0 else 128 - status)
"""
"""Runs a command for a parent whose own memory does not count: a process begins with the peak of what forked
it, and pytest has grown by then."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended."""

    status: int
    output: str
    peak_bytes: int


def poorwill(*args: str, cwd: Path, within_s: float = 60.0) -> Ended:
    """Run a verb to its end. Raises subprocess.TimeoutExpired if it hangs."""
    out, peak = (cwd / f".{name}-{os.getpid()}-{len(os.listdir(cwd))}" for name in ("out", "peak"))
    command = [sys.executable, "-m", "poorwill", *args]
    with open(out, "wb") as file:
        child = subprocess.Popen(
            [sys.executable, "-SEc", MEASURED, peak, *command],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        status = child.wait(within_s)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        raise
    output, peak_bytes = out.read_text(), int(peak.read_text()) * 1024
    out.unlink()
    peak.unlink()
    return Ended(status=status, output=output, peak_bytes=peak_bytes)
