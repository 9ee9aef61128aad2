"""What the soak sees from outside: processes by the fleet's mark, descriptors, memory, files."""

import contextlib
import json
import os
import re
import sqlite3
from dataclasses import dataclass
from pathlib import Path


def engines(directory: Path) -> list[int]:
    """Return the pids of the fleet's engines, by the mark in their environment."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                told = Path("/proc", entry, "environ").read_bytes()
                marks = [e[17:] for e in told.split(b"\0") if e.startswith(b"POORWILL_REPLICA=")]
                if marks and json.loads(marks[0])["fleet"] == str(directory) and not ended(int(entry)):
                    found.append(int(entry))
    return found


def ended(pid: int) -> bool:
    """Whether a process is a zombie or gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] in "ZX"
    except (OSError, IndexError):
        return True


def children(pid: int) -> list[int]:
    """Return the children of all threads of a process."""
    found = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                found += Path(f"/proc/{pid}/task/{task}/children").read_text().split()
    return [int(child) for child in found]


def criu(poorwill: int, call: str) -> int | None:
    """Return the pid of the criu that poorwill has called for `dump` or `restore`."""
    for pid in children(poorwill):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if call.encode() in words[1:2]:
                return pid
    return None


def filling(poorwill: int) -> bool:
    """Whether it holds a userfaultfd: it is putting a restored engine's memory in place."""
    with contextlib.suppress(OSError):
        for entry in os.listdir(f"/proc/{poorwill}/fd"):
            with contextlib.suppress(OSError):
                if "userfaultfd" in os.readlink(f"/proc/{poorwill}/fd/{entry}"):
                    return True
    return False


def reap(session: int) -> None:
    """Reap what a killed poorwill has left to us, the nearest subreaper: it is in no session of ours."""
    for pid in children(os.getpid()):
        with contextlib.suppress(OSError):
            if os.getsid(pid) not in (os.getsid(0), session) and ended(pid):
                os.waitpid(pid, os.WNOHANG)


@dataclass(frozen=True, kw_only=True)
class Rest:
    """What is there while nobody asks and everything is parked."""

    wakes: int
    start: int
    """Which of poorwill's starts it was."""
    descriptors: int
    threads: int
    memory_kb: int
    children: int
    directories: tuple[str, ...]
    """Directories below the fleet's, with numbers left out."""
    files: int
    image_kb: int
    ledger_kb: int
    log_kb: int
    temporary: int


def look(poorwill: int, start: int, directory: Path, scratch: Path, wakes: int) -> Rest:
    status = Path(f"/proc/{poorwill}/status").read_text()
    entries = [path for path in directory.rglob("*") if path.name != "filler"]
    sizes = {path: path.stat().st_blocks // 2 for path in entries if path.is_file()}

    def size(*names: str) -> int:
        return sum(kb for path, kb in sizes.items() if path.relative_to(directory).parts[0].startswith(names))

    return Rest(
        wakes=wakes,
        start=start,
        descriptors=len(os.listdir(f"/proc/{poorwill}/fd")),
        threads=len(os.listdir(f"/proc/{poorwill}/task")),
        memory_kb=int(re.findall(r"VmRSS:\s+(\d+)", status)[0]),
        children=len(children(poorwill)),
        directories=tuple(
            sorted(re.sub(r"\d+", "N", str(path.relative_to(directory))) for path in entries if path.is_dir())
        ),
        files=len(sizes),
        image_kb=size("snapshots"),
        ledger_kb=size("ledger"),
        log_kb=size("logs"),
        temporary=len(os.listdir(scratch / "tmp")),
    )


def wakes(directory: Path) -> dict[str, int]:
    """Return how many wakes of each tier served, and how many failed, by the ledger."""
    db = sqlite3.connect(f"file:{directory / 'ledger.sqlite'}?mode=ro", uri=True, timeout=30)
    try:
        rows = db.execute("SELECT from_tier, ok, count(*) FROM wakes GROUP BY 1, 2").fetchall()
    finally:
        db.close()
    words = {1: "", 0: " failed"}
    return {tier + words.get(ok, " unfinished"): count for tier, ok, count in rows}
