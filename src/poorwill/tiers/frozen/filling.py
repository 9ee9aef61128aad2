"""Filling the memory of a restored process while it runs, by several threads, each piece checked before.

`criu restore --lazy-pages` restores a process without most of its memory, registers that with a userfaultfd
and hands the descriptor to whoever listens on `lazy-pages.socket` in its working directory: a 32-bit pid,
then a byte that carries the descriptor, for each process, and at the end a number that says the restore is
done (criu/uffd.c). criu's own daemon fills with one thread and checks nothing. Here the engine never runs on
a byte that was not verified: a chunk that it waits for is read and checked next, the others in the order of
the file.

`take_over` is for the stopped process, `fill` for the running one. The descriptors stay open until the block
of `listening` ends: an engine that is not full must be ended before, or the kernel would give it zeros.
"""

import ctypes
import mmap
import os
import selectors
import socket
import struct
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from poorwill.core.ports.driver import DriverError, SnapshotRefused
from poorwill.hosts.processes.userfault import PAGE_BYTES, FaultKind, Userfault
from poorwill.tiers.frozen.guard import guard
from poorwill.tiers.frozen.memory_map import MemoryRange, NotAnImage, eager_chunks, lazy_memory
from poorwill.tiers.snapshots.image_files import CHUNK_BYTES, WORKERS, Chunk, Pieces, Stopped, chunks_of

SOCKET = "lazy-pages.socket"
_FINISHED = 0x52535446
_LOOK_S = 0.05
"""How soon a filling that is told to stop does."""
_GIVEN = 4
"""Chunks kept while criu restores: every thread touches a page of its own, most of them in the same chunk."""
_TICK_S = 0.002
"""How often an idle thread looks whether there is work or an end."""


@dataclass(slots=True, eq=False)
class _Process:
    """A process that waits for its memory."""

    memory: Userfault
    pages: str
    """The file of its pages."""
    ranges: list[MemoryRange]
    """Where they belong by now, in the order of the file."""
    filled: set[int] = field(default_factory=set)
    """The chunks that are in their places."""

    def offset(self, address: int) -> int | None:
        """Return the offset in the file of what belongs to an address; None: zeros."""
        parts = (part for one in self.ranges for part in one.part(address, address + 1))
        return next((part.offset for part in parts), None)

    def places(self, chunk: Chunk) -> Iterator[tuple[int, int, int]]:
        """Yield where parts of a chunk belong: address, offset in the chunk, bytes."""
        first = bisect_right(self.ranges, chunk.offset, key=lambda one: one.offset + one.bytes)
        for one in self.ranges[first:]:
            begin = max(one.offset, chunk.offset)
            end = min(one.offset + one.bytes, chunk.offset + chunk.bytes)
            if begin >= end:
                return
            yield one.address + begin - one.offset, begin - chunk.offset, end - begin

    def heed(self, kind: FaultKind, first: int, second: int, length: int) -> None:
        """Keep up with a change of the process's layout."""
        moved = kind is FaultKind.REMAP
        last = first + length if moved else second
        self.ranges = [
            part
            for one in self.ranges
            for part in sorted(
                one.without(first, last)
                + [
                    MemoryRange(offset=part.offset, address=part.address - first + second, bytes=part.bytes)
                    for part in (one.part(first, last) if moved else ())
                ],
                key=lambda part: part.offset,
            )
        ]


@dataclass(slots=True)
class _Buffer:
    """What is copied from, and the lock that a worker holds while it copies."""

    bytes: mmap.mmap
    copying: threading.Lock = field(default_factory=threading.Lock)

    @property
    def address(self) -> int:
        return ctypes.addressof(ctypes.c_char.from_buffer(self.bytes))


_Job = tuple[_Process, Chunk]
_Wanted = Callable[[_Process, int, int], bool]
"""Called with an address that is waited for and what belongs there, an offset; False: ask again."""


@dataclass(slots=True, kw_only=True)
class Filling:
    """One restore's memory. Methods block."""

    image: Path
    """criu's own records, in the clear."""
    pieces: Pieces
    listener: socket.socket
    guarded: socket.socket
    open: ExitStack
    """The descriptors and their guard."""
    processes: list[_Process] = field(default_factory=list)
    waiting: deque[_Job] = field(default_factory=deque)
    left: int = 0
    """Chunks that are waiting or being filled."""
    faults: list[tuple[_Process, int]] = field(default_factory=list)
    """Not answered yet."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Of `waiting` and `left`."""
    given: dict[tuple[str, int], _Buffer] = field(default_factory=dict)
    """The last few chunks that single pages were given from, by file and number."""
    zeros: _Buffer = field(default_factory=lambda: _Buffer(mmap.mmap(-1, PAGE_BYTES)))
    buffers: list[_Buffer] = field(
        default_factory=lambda: [_Buffer(mmap.mmap(-1, CHUNK_BYTES)) for _ in range(WORKERS)]
    )

    @property
    def files(self) -> set[str]:
        """The files whose pages are verified as they are copied in."""
        return {process.pages for process in self.processes}

    def take_over(self, stop: threading.Event) -> bool:
        """Wait for criu's processes, and verify and fill the chunks that criu itself has read a part of.

        Return whether criu has restored them; otherwise it has failed, and says why. Raises SnapshotRefused
        if a page is damaged, DriverError if the kernel does not fill, Stopped.
        """
        with _told(), self._accepted(stop) as criu:
            if not self._restored(criu, stop):
                return False
            self.given.clear()
            for process in self.processes:
                eager = eager_chunks(process.ranges, self.pieces.sizes[process.pages])
                self._fill([job for job in self._jobs(process) if job[1].index in eager], stop)
            return True

    def fill(self, stop: threading.Event) -> None:
        """Fill the rest, of processes that run meanwhile, and let go of them. Errors as of `take_over`."""
        with _told():
            self._fill([job for process in self.processes for job in self._jobs(process)], stop)
        self.open.close()  # now: a change of the layout would wait for ever for somebody to read of it

    def _jobs(self, process: _Process) -> list[_Job]:
        chunks = chunks_of(process.pages, self.pieces.sizes[process.pages])
        return [(process, chunk) for chunk in chunks if chunk.index not in process.filled]

    def _accepted(self, stop: threading.Event) -> socket.socket:
        self.listener.settimeout(_LOOK_S)
        while not stop.is_set():
            with suppress(TimeoutError):
                return self.listener.accept()[0]
        raise Stopped

    def _restored(self, criu: socket.socket, stop: threading.Event) -> bool:
        """Take the processes from criu until it has restored them, and give it the pages that it touches."""
        with selectors.DefaultSelector() as ready:
            ready.register(criu, selectors.EVENT_READ)
            while True:
                if stop.is_set():
                    raise Stopped
                for key, _ in ready.select(_LOOK_S):
                    if key.data is not None:
                        self._heed(key.data, self._give_page)
                        continue
                    number = criu.recv(4, socket.MSG_WAITALL)
                    if len(number) < 4 or struct.unpack("=I", number)[0] == _FINISHED:
                        return len(number) == 4
                    (pid,) = struct.unpack("=i", number)
                    if pid > 0:  # a zombie has no memory
                        _, (descriptor,), _, _ = socket.recv_fds(criu, 1, 1)
                        process = self._held(descriptor, pid, *lazy_memory(self.image, pid))
                        ready.register(descriptor, selectors.EVENT_READ, process)

    def _held(self, descriptor: int, pid: int, pages: str, ranges: list[MemoryRange]) -> _Process:
        self.open.callback(os.close, descriptor)
        os.set_blocking(descriptor, False)
        socket.send_fds(self.guarded, [struct.pack("=i", pid)], [descriptor])
        process = _Process(Userfault(descriptor), pages, ranges)
        self.processes.append(process)
        return process

    def _fill(self, jobs: list[_Job], stop: threading.Event) -> None:
        """Fill chunks, and heed what the processes do meanwhile."""
        self.waiting.extend(jobs)
        self.left = len(jobs)
        halt = threading.Event()
        with ThreadPoolExecutor(WORKERS) as pool, selectors.DefaultSelector() as ready:
            try:
                workers = [pool.submit(self._work, buffer, halt) for buffer in self.buffers]
                ready.register(self.guarded, selectors.EVENT_READ)
                known = 0
                while self.left:
                    for process in self.processes[known:]:
                        ready.register(process.memory.descriptor, selectors.EVENT_READ, process)
                    known = len(self.processes)
                    for failed in (worker for worker in workers if worker.done()):
                        failed.result()
                    if stop.is_set():
                        raise Stopped
                    for key, _ in ready.select(_TICK_S):
                        if key.data is None:
                            raise DriverError("the guard of the wake was ended")
                        self._heed(key.data, self._next)
                    self._answer(self._next)
            finally:
                halt.set()

    def _work(self, buffer: _Buffer, halt: threading.Event) -> None:
        while not halt.is_set():
            with self.lock:
                job = self.waiting.popleft() if self.waiting else None
            if job is None:
                halt.wait(_TICK_S)
                continue
            self._fill_chunk(*job, buffer, halt)
            with self.lock:
                self.left -= 1

    def _fill_chunk(self, process: _Process, chunk: Chunk, buffer: _Buffer, halt: threading.Event) -> None:
        with memoryview(buffer.bytes) as view:
            self.pieces.read(chunk, view)
        with suppress(ProcessLookupError):  # it has ended by itself
            while not halt.is_set():
                with buffer.copying:
                    if all(
                        process.memory.copy(target, buffer.address + within, count)
                        for target, within, count in process.places(chunk)
                    ):
                        process.filled.add(chunk.index)
                        return
                halt.wait(_TICK_S)

    def _heed(self, process: _Process, wanted: _Wanted) -> None:
        """Read what a process waits for, with all copying at rest, and answer."""
        with ExitStack() as stack:
            for buffer in self.buffers:
                stack.enter_context(buffer.copying)
            for kind, first, second, third in process.memory.read():
                if kind is FaultKind.PAGE_FAULT:
                    self.faults.append((process, second // PAGE_BYTES * PAGE_BYTES))
                elif kind is FaultKind.FORK:
                    child = self._held(first & 0xFFFFFFFF, 0, process.pages, list(process.ranges))
                    child.filled |= process.filled
                    with self.lock:
                        jobs = self._jobs(child)
                        self.waiting.extend(jobs)
                        self.left += len(jobs)
                else:
                    process.heed(kind, first, second, third)
        self._answer(wanted)

    def _answer(self, wanted: _Wanted) -> None:
        """Answer faults: with zeros where nothing belongs."""
        open_, self.faults = self.faults, []
        for process, page in open_:
            offset = process.offset(page)
            with suppress(ProcessLookupError):
                if offset is None:
                    answered = process.memory.copy(page, self.zeros.address, PAGE_BYTES)
                else:
                    answered = wanted(process, page, offset)
                if not answered:
                    self.faults.append((process, page))

    def _next(self, process: _Process, page: int, offset: int) -> bool:
        """Have the chunk of a page filled next, unless it is being filled, or is."""
        del page
        with self.lock:
            for job in self.waiting:
                if job[0] is process and job[1].index == offset // CHUNK_BYTES:
                    self.waiting.remove(job)
                    self.waiting.appendleft(job)
                    break
        return True

    def _give_page(self, process: _Process, page: int, offset: int) -> bool:
        """Copy one page in; not all may be registered yet that its chunk belongs to."""
        key = process.pages, offset // CHUNK_BYTES
        buffer = self.given.pop(key, None)
        if buffer is None:
            buffer = _Buffer(mmap.mmap(-1, CHUNK_BYTES))
            with memoryview(buffer.bytes) as view:
                self.pieces.read(chunks_of(process.pages, self.pieces.sizes[process.pages])[key[1]], view)
        self.given[key] = buffer
        if len(self.given) > _GIVEN:
            del self.given[next(iter(self.given))]
        return process.memory.copy(page, buffer.address + offset % CHUNK_BYTES, PAGE_BYTES)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (NotAnImage, LookupError, struct.error, FileNotFoundError) as error:
        raise SnapshotRefused(f"the image cannot be read: {error}") from error
    except OSError as error:
        raise DriverError(f"the process's memory cannot be filled: {error}") from error


@contextmanager
def listening(image: Path, work: Path, pieces: Pieces) -> Iterator[Filling]:
    """Listen where criu will ask for memory. Raises OSError.

    The block has ended the processes when it ends, or `fill` has filled them.
    """
    with ExitStack() as stack:
        guarded = stack.enter_context(guard())
        directory = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, directory)
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        (work / SOCKET).unlink(missing_ok=True)
        # Through the descriptor, because a socket's path has 107 bytes at most (unix(7)).
        listener.bind(f"/proc/self/fd/{directory}/{SOCKET}")
        listener.listen(1)
        yield Filling(image=image, pieces=pieces, listener=listener, guarded=guarded, open=stack)
