"""Reads files into the page cache before somebody maps or reads them, in parallel, within free memory.

An engine's imports and device context take seconds in which the disk is idle, and a restored process faults
its mapped weights in page by page. Threads, because reading blocks. Nothing waits for them.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

CHUNK_BYTES = 4 * 2**20
READERS = 4
"""A disk answers several readers better than one; `storage_speed` measures with as many."""
_MOST_READERS, _TRY_S, _WORTH = 16, 0.1, 1.2
"""Twice as many are tried, and kept if they bring a fifth more: a network keeps more of them busy."""
_PROBES = 4
"""Pages of a chunk that are looked for in the page cache before it is read."""
_LARGEST_RESERVE = 2**30


@dataclass(slots=True, kw_only=True)
class ReadAhead:
    """One reading ahead. Counts are bytes; they may be read at any time."""

    files: Callable[[], Iterable[str | Path]]
    """The files, called for in a thread; the one of which most is missing is read first."""
    room_bytes: Callable[[], int] = lambda: free_for_cache()
    """How much may be read before something in use would have to give way."""
    bring_in: Callable[[Path, int, memoryview], tuple[int, int]] = lambda *where: bring_in(*where)
    wanted: int = 0
    cached: int = 0
    """Found in the page cache."""
    read: int = 0
    short_of_room: bool = False
    readers: int = 0
    """What was found to be best for the storage."""
    _ended: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Begin, and return at once."""
        self._begin(self._run)

    def _begin(self, work: Callable[..., None], *args: object) -> threading.Thread:
        self._threads.append(threading.Thread(target=work, args=args, name="read-ahead", daemon=True))
        self._threads[-1].start()
        return self._threads[-1]

    def stop(self) -> None:
        """Have the readers end after their present chunk, and return at once."""
        self._stop.set()

    def wait(self) -> None:
        """Return when the readers have ended."""
        for thread in self._threads:
            thread.join()

    @property
    def missed(self) -> int:
        """What was neither cached nor read."""
        return self.wanted - self.cached - self.read

    def _run(self) -> None:
        files = dict.fromkeys(map(Path, self.files()))  # a start maps what it was told to load as well
        chunks = list(_chunks(sorted(files, key=_missing, reverse=True)))
        self.wanted = sum(length for _, _, length in chunks)
        room, queue, least, count = self.room_bytes(), iter(chunks), 0.0, 0
        while count < _MOST_READERS:
            self.readers, before = max(READERS, 2 * count), self._ended
            first, *_ = [self._begin(self._read, n, queue, room) for n in range(count, self.readers)]
            first.join(_TRY_S)
            if not first.is_alive():
                return
            if self._ended - before < least:
                self.readers = count
                return
            least, count = _WORTH * (self._ended - before), self.readers

    def _read(self, number: int, queue: "Iterator[tuple[Path, int, int]]", room: int) -> None:
        buffer = bytearray(CHUNK_BYTES)
        while number < self.readers and (chunk := self._claim(queue, room)):
            path, offset, length = chunk
            there = done = 0
            with suppress(OSError):  # a file that went away or cannot be read is the engine's to report
                there, done = self.bring_in(path, offset, memoryview(buffer)[:length])
            with self._lock:
                self.cached += there
                self.read += done - length
                self._ended += done

    def _claim(self, queue: "Iterator[tuple[Path, int, int]]", room: int) -> tuple[Path, int, int] | None:
        """Return the next chunk, counted as read already, so that readers together keep within the room."""
        with self._lock:
            chunk = None if self.short_of_room or self._stop.is_set() else next(queue, None)
            if chunk is None:
                return None
            # What was read counts as room again, because it is cache: so the first figure is a bound, too.
            self.short_of_room = min(room - self.read, self.room_bytes()) < chunk[2]
            if self.short_of_room:
                return None
            self.read += chunk[2]
            return chunk


def _chunks(files: Iterable[Path]) -> Iterator[tuple[Path, int, int]]:
    """Yield path, offset and length of every chunk of the regular files among these."""
    for path in files:
        with suppress(OSError):
            if path.is_file():
                size_bytes = path.stat().st_size
                for offset in range(0, size_bytes, CHUNK_BYTES):
                    yield path, offset, min(CHUNK_BYTES, size_bytes - offset)


def _missing(path: Path) -> int:
    """Return about how many bytes of a file are not in the page cache."""
    with suppress(OSError):
        size = path.stat().st_size if path.is_file() else 0
        if size <= CHUNK_BYTES:
            return size
        with path.open("rb", buffering=0) as file:
            places = range(0, size, size // 16)
            return size * sum(not _is_cached(file.fileno(), at, 1) for at in places) // len(places)
    return 0


def bring_in(path: Path, offset: int, buffer: memoryview) -> tuple[int, int]:
    """Return how much of a chunk was cached, and how much has been read now. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if _is_cached(descriptor, offset, len(buffer)):
            return len(buffer), 0
        return 0, os.preadv(descriptor, [buffer], offset)
    finally:
        os.close(descriptor)


def _is_cached(descriptor: int, offset: int, length: int) -> bool:
    """Return whether some pages spread over a chunk are all in the page cache (preadv2(2), RWF_NOWAIT).

    Unlike mincore(2) and cachestat(2) it may be asked of other users' files. A file system that does not
    know the flag counts as not cached.
    """
    page = bytearray(1)
    try:
        for number in range(_PROBES):
            os.preadv(descriptor, [page], offset + number * (length - 1) // (_PROBES - 1), os.RWF_NOWAIT)
    except OSError:
        return False
    return True


def free_for_cache(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes that can be cached without evicting what is in use: free, or unused for a while.

    A reserve is left (a twentieth of the memory, at most 1 GiB). Limits of our control groups count, of
    either version, and of those above them. 0 if the kernel does not tell.
    """
    try:
        lines = (proc / "meminfo").read_text().splitlines()
        known = {
            name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)
        }
        free = known["MemFree"] + known["Inactive(file)"]
        room = free - min(known["MemTotal"] // 20, _LARGEST_RESERVE)
    except (OSError, KeyError, ValueError, IndexError):
        return 0
    return max(0, min([room, *_group_rooms(proc, cgroups)]))


def _group_rooms(proc: Path, cgroups: Path) -> Iterator[int]:
    lines: list[str] = []
    with suppress(OSError):
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    for number, controllers, place in (line.split(":", 2) for line in lines if line.count(":") > 1):
        first = controllers == "memory"  # of the first version of control groups
        if not first and number != "0":
            continue
        root = cgroups / "memory" if first else cgroups
        limits, used_by = ("limit_in_bytes", "usage_in_bytes") if first else ("max", "current")
        # In a container the group that its path names is often what is mounted as the root.
        for group in (root / place.strip("/"), *(root / place.strip("/")).parents):
            with suppress(OSError, ValueError, LookupError):  # no limit, or without the controller
                limit = int((group / f"memory.{limits}").read_text())
                used = int((group / f"memory.{used_by}").read_text())
                stat = (group / "memory.stat").read_text().splitlines()
                inactive = [line.split()[1] for line in stat if "inactive_file " in line]
                yield limit - used + int(inactive[-1])  # with `total_`, later, the groups below count too
            if group == root:
                break
