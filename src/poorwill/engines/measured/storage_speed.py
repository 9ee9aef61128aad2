"""How fast storage really is: reads a file past the page cache and keeps the result beside the ledger.

The floor of a start is bytes over this figure, so it has to be honest: O_DIRECT, several readers, real
weights. A host that caches its guests' disks makes it look faster than the drive; it is then what a start
can get here.
"""

import json
import mmap
import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path

RECORD = "storage.json"
REMOTE = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "9p",
        "virtiofs",
        "ceph",
        "lustre",
        "glusterfs",
        "beegfs",
        "gpfs",
    }
)
"""File systems that are read over a network or from a host. Those of FUSE count as such, too."""
_OCTAL = re.compile(r"\\([0-7]{3})")
BLOCK = 4 * 2**20
READERS = 4
MOST_BYTES = 1 * 2**30
MOST_S = 1.0
LEAST_S = 0.25
"""A small file is read again and again for so long: one pass would measure the start of threads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSpeed:
    """One measurement."""

    path: str
    bytes_s: float
    read_bytes: int
    took_s: float
    direct: bool
    """Past the page cache; if a file system cannot do that, the figure may be the cache's."""
    at_us: int
    file_system: str = ""
    """Its type, as the kernel calls it; empty if unknown."""

    @property
    def remote(self) -> bool:
        """Return whether the file comes over a network: the machine's own drives are not what is measured."""
        return self.file_system.startswith("fuse.") or self.file_system in REMOTE


def measure_storage(path: str, *, at_us: int) -> StorageSpeed | None:
    """Read up to a gigabyte of a file for up to a second; None if it is too small to tell or unreadable.

    Blocks: call it in a thread.
    """
    try:
        size = os.stat(path).st_size // BLOCK * BLOCK
        if size == 0:
            return None
        descriptor, direct = _opened(path)
    except OSError:
        return None
    try:
        began = time.perf_counter()
        reading = _Reading(descriptor=descriptor, size=min(size, MOST_BYTES), began=began)
        threads = [threading.Thread(target=reading.run) for _ in range(READERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took_s = time.perf_counter() - began
    finally:
        os.close(descriptor)
    done = sum(reading.counts)
    if not done:
        return None
    return StorageSpeed(
        path=path,
        bytes_s=done / took_s,
        read_bytes=done,
        took_s=took_s,
        direct=direct,
        at_us=at_us,
        file_system=file_system(path),
    )


def file_system(path: str, *, mounts: str = "/proc/self/mountinfo") -> str:
    """Return the type of the file system that holds a path, empty if that cannot be told.

    From the mount table (proc_pid_mountinfo(5)); the last of several mounts on one place is the one seen.
    """
    try:
        with open(mounts, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.readlines()
    except OSError:
        return ""
    place, best, found = os.path.realpath(path), -1, ""
    for line in lines:
        before, _, after = line.partition(" - ")
        fields, kinds = before.split(" "), after.split(" ")
        if len(fields) < 5:
            continue
        root = _OCTAL.sub(lambda code: chr(int(code[1], 8)), fields[4])
        if len(root) >= best and (place + "/").startswith(root.rstrip("/") + "/"):
            best, found = len(root), kinds[0]
    return found


def kept_speed(directory: str) -> StorageSpeed | None:
    """Return the measurement on record, None if there is none that can be read."""
    try:
        return StorageSpeed(**json.loads(Path(directory, RECORD).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def keep_speed(directory: str, speed: StorageSpeed) -> None:
    """Put a measurement on record. Raises OSError."""
    draft = Path(directory, f".{RECORD}.new")
    draft.write_text(json.dumps(asdict(speed), indent=2), encoding="utf-8")
    draft.replace(Path(directory, RECORD))


@dataclass(slots=True, kw_only=True)
class _Reading:
    descriptor: int
    size: int
    began: float
    offsets: Iterator[int] = field(default_factory=lambda: count(0, BLOCK))
    counts: list[int] = field(default_factory=list)

    def run(self) -> None:
        """Read blocks until all are read and enough time has passed, or too much."""
        done = 0
        with mmap.mmap(-1, BLOCK) as buffer:
            while (passed := time.perf_counter() - self.began) < MOST_S:
                offset = next(self.offsets)
                if offset >= self.size and passed >= LEAST_S:
                    break
                try:
                    done += os.preadv(self.descriptor, [buffer], offset % self.size)
                except OSError:
                    break
        self.counts.append(done)


def _opened(path: str) -> tuple[int, bool]:
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC), True
    except OSError:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return descriptor, False
