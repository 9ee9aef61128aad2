"""Runs the command line as an outsider would, with bounds on time and memory."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from threading import Timer

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
        stop = Timer(within_s, child.kill)
        stop.start()
        try:
            _, status, used = os.wait4(child.pid, 0)
        finally:
            hung = not stop.is_alive()
            stop.cancel()
            stop.join()
    child.returncode = os.waitstatus_to_exitcode(status)
    output = out.read_text()
    out.unlink()
    if hung:
        raise subprocess.TimeoutExpired(command, within_s, output.encode())
    return Ended(status=child.returncode, output=output, peak_bytes=used.ru_maxrss * 1024)
