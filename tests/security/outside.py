"""Runs the command line as an outsider would, with bounds on time and memory."""

import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended."""

    status: int
    output: str
    peak_bytes: int


def poorwill(*args: str, cwd: Path, within_s: float = 60.0) -> Ended:
    """Run a verb to its end. Raises subprocess.TimeoutExpired if it hangs."""
    out = cwd / f".out-{os.getpid()}-{len(os.listdir(cwd))}"
    with open(out, "wb") as file:
        command = [sys.executable, "-m", "poorwill", *args]
        child = subprocess.Popen(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        try:
            child.wait(within_s)
        finally:
            child.kill()
            child.wait()
    output = out.read_text()
    out.unlink()
    return Ended(status=child.returncode, output=output, peak_bytes=peak_of_children())


def peak_of_children() -> int:
    """Return the largest memory of any child so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
