"""Reads files into the page cache before somebody maps or reads them, in parallel, within free memory.

An engine's imports and device context take seconds in which the disk is idle, and a restored process faults
its mapped weights in page by page. Threads, because reading blocks. Nothing waits for them.
"""

import ctypes
import mmap
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from poorwill.hosts.files.opening import open_to_read

CHUNK_BYTES = 4 * 2**20
READERS = 4
"""A disk answers several readers better than one; `storage_speed` measures with as many."""
_MOST_READERS, _TRY_S, _WORTH = 16, 0.1, 1.2
"""Twice as many are tried, and kept if they bring a fifth more: a network keeps more of them busy."""
_PIECE_BYTES = 2**20
_CACHESTAT = 451


@dataclass(slots=True, kw_only=True)
class ReadAhead:
    """One reading ahead. Counts are bytes; they may be read at any time."""

    files: Callable[[], Iterable[str | Path]]
    """The files, called for in a thread; the one of which most is missing is read first."""
    room_bytes: Callable[[], int]
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
    _go: threading.Event = field(default_factory=threading.Event)
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self, *, rest: bool = False) -> None:
        """Begin, if need be with a rest, and return at once."""
        self.rest(rest=rest)
        self._begin(self._run)

    def _begin(self, work: Callable[..., None], *args: object) -> threading.Thread:
        self._threads.append(threading.Thread(target=work, args=args, name="read-ahead", daemon=True))
        self._threads[-1].start()
        return self._threads[-1]

    def rest(self, *, rest: bool) -> None:
        """Have the readers rest after their present chunk, as small reads of others go first, or go on."""
        (self._go.clear if rest else self._go.set)()

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
            while first.is_alive() and not self._go.is_set():
                self._wait_to_go()
                before = self._ended
                first.join(_TRY_S)
            if not first.is_alive():
                return
            if self._ended - before < least:
                self.readers = count
                return
            least, count = _WORTH * (self._ended - before), self.readers

    def _wait_to_go(self) -> None:
        while not self._stop.is_set() and not self._go.wait(_TRY_S):
            pass

    def _read(self, number: int, queue: "Iterator[tuple[Path, int, int]]", room: int) -> None:
        buffer = bytearray(CHUNK_BYTES)
        while number < self.readers and (chunk := self._claim(queue, room)):
            path, offset, length = chunk
            there = done = 0
            with suppress(OSError):  # a file that went away or cannot be read is the engine's to report
                there, done = self.bring_in(path, offset, memoryview(buffer)[:length])
                # A network file system may keep nothing once a file is closed: it would all be read twice.
                if done and not self._ended and 0 <= _cached(path, offset, done) < done:
                    self.stop()
            with self._lock:
                self.cached += there
                self.read += done - length
                self._ended += done

    def _claim(self, queue: "Iterator[tuple[Path, int, int]]", room: int) -> tuple[Path, int, int] | None:
        """Return the next chunk, counted as read already, so that readers together keep within the room."""
        self._wait_to_go()
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
        size = path.stat().st_size
        return size - (max(0, _cached(path, 0, size)) if size > CHUNK_BYTES else 0)
    return 0


def bring_in(path: Path, offset: int, buffer: memoryview) -> tuple[int, int]:
    """Return how much of a chunk was cached, and how much has been read now. Raises OSError.

    In small pieces, without the kernel's own reading ahead (8 MiB on some disks): what a starting program
    reads itself waits behind them, and Python took 1.9 s instead of 0.1 to get to its first line.
    """
    if _cached(path, offset, len(buffer)) == len(buffer):
        return len(buffer), 0
    done = 0
    with open(open_to_read(path), "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        while count := os.preadv(file.fileno(), [buffer[done : done + _PIECE_BYTES]], offset + done):
            done += count
    return 0, done


def _cached(path: Path, offset: int, length: int) -> int:
    """Return how many bytes of a stretch are in the page cache (cachestat(2), Linux 6.5); -1: not known.

    Of another user's file, and by an older kernel, that is not told. Then both its ends speak for all of it
    (preadv2(2), RWF_NOWAIT, for which the kernel reads a few pages of what it does not find).
    """
    counts, where, page = (ctypes.c_uint64 * 5)(), (ctypes.c_uint64 * 2)(offset, length), bytearray(1)
    with open(open_to_read(path), "rb", buffering=0) as file:
        if not ctypes.CDLL(None).syscall(_CACHESTAT, file.fileno(), where, counts, 0):
            return min(length, counts[0] * mmap.PAGESIZE)
        try:
            for at in (offset, offset + length - 1):
                os.preadv(file.fileno(), [page], at, os.RWF_NOWAIT)
        except OSError as error:
            return 0 if isinstance(error, BlockingIOError) else -1
    return length
