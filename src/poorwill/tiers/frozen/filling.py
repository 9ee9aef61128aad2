"""Filling the memory of a restored process by several threads, each piece checked before it is copied in.

`criu restore --lazy-pages` restores a process without most of its memory, registers that with a userfaultfd
(userfaultfd(2)) and hands the descriptor to whoever listens on `lazy-pages.socket` in its working directory:
a 32-bit pid, then a byte that carries the descriptor, for each process, and at the end a number that says the
restore is done (criu/uffd.c). criu's own daemon fills with one thread and checks nothing. This one fills
while the process is still stopped: it never runs on a byte that was not verified, and never waits for one.
"""

import ctypes
import errno
import mmap
import os
import selectors
import socket
import struct
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from poorwill.core.ports.driver import DriverError, SnapshotRefused
from poorwill.tiers.frozen.memory_map import PAGE_BYTES, MemoryRange, NotAnImage, lazy_memory
from poorwill.tiers.snapshots.image_files import WORKERS, Chunk, Stopped, chunks_of
from poorwill.tiers.snapshots.manifest import FileRecord

SOCKET = "lazy-pages.socket"
READ_BYTES = 4 * 2**20
"""At once: large, because each piece costs a few hand-overs between Python's threads."""
_FINISHED = 0x52535446
_LOOK_S = 0.05
"""How soon a filling that is told to stop does."""
_PAGE_FAULT = 0x12  # UFFD_EVENT_PAGEFAULT, linux/userfaultfd.h
_MESSAGE_BYTES = 32
_UFFDIO_COPY = 0xC028AA03
_UFFDIO_API = 0xC018AA3F
_SYS_USERFAULTFD = 323 if os.uname().machine == "x86_64" else 282
_FEATURES = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 6
"""UFFD_FEATURE_EVENT_FORK, _REMAP, _REMOVE and _UNMAP, without which criu does not restore lazily."""


class _Copy(ctypes.Structure):
    """struct uffdio_copy of linux/userfaultfd.h."""

    _fields_ = (
        ("dst", ctypes.c_uint64),
        ("src", ctypes.c_uint64),
        ("len", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("copy", ctypes.c_int64),
    )


@dataclass(frozen=True, slots=True)
class _Process:
    """A process that waits for its memory."""

    descriptor: int
    pages: str
    ranges: list[MemoryRange]

    def at(self, address: int) -> tuple[int, int] | None:
        """Return the address of the page that holds an address, and its offset in the file; None: zeros."""
        page = address // PAGE_BYTES * PAGE_BYTES
        for one in self.ranges:
            if one.address <= page < one.address + one.bytes:
                return page, one.offset + page - one.address
        return None


@dataclass(slots=True, kw_only=True)
class Filling:
    """One restore's memory."""

    image: Path
    files: Mapping[str, FileRecord]
    """The records of the image's files; empty for an image that was verified when it was unsealed."""
    listener: socket.socket
    processes: list[_Process] = field(default_factory=list)
    done: bool = False
    _ioctl: ctypes.CDLL = field(default_factory=lambda: ctypes.CDLL(None, use_errno=True))

    @property
    def verified(self) -> set[str]:
        """The files whose pages were verified as they were copied in."""
        return {process.pages for process in self.processes} if self.done else set()

    def run(self, stop: threading.Event) -> None:
        """Wait for criu's processes and fill them; blocks until all pages are verified and in their places.

        Not `done` afterwards: criu failed, and says why. Raises SnapshotRefused if a page is damaged,
        DriverError if the kernel does not fill, Stopped.
        """
        with ExitStack() as stack:
            criu = stack.enter_context(self._accepted(stop))
            try:
                if self._restored(criu, stack, stop):
                    self._fill_all(stop)
                    self.done = True
            except (NotAnImage, LookupError, struct.error, FileNotFoundError) as error:
                raise SnapshotRefused(f"the image cannot be read: {error}") from error
            except OSError as error:
                raise DriverError(f"the process's memory cannot be filled: {error}") from error

    @contextmanager
    def _accepted(self, stop: threading.Event) -> Iterator[socket.socket]:
        self.listener.settimeout(_LOOK_S)
        while True:
            if stop.is_set():
                raise Stopped
            try:
                criu, _ = self.listener.accept()
            except TimeoutError:
                continue
            with criu:
                yield criu
            return

    def _restored(self, criu: socket.socket, stack: ExitStack, stop: threading.Event) -> bool:
        """Take the processes from criu until it has restored them, and give it the pages that it touches.

        Return whether it has.
        """
        with selectors.DefaultSelector() as ready:
            ready.register(criu, selectors.EVENT_READ)
            while True:
                if stop.is_set():
                    raise Stopped
                for key, _ in ready.select(_LOOK_S):
                    if key.data is not None:
                        self._answer_faults(key.data)
                        continue
                    number = criu.recv(4, socket.MSG_WAITALL)
                    if len(number) < 4 or struct.unpack("=I", number)[0] == _FINISHED:
                        return len(number) == 4
                    (pid,) = struct.unpack("=i", number)
                    if pid > 0:  # a zombie has no memory
                        process = self._received(criu, pid, stack)
                        ready.register(process.descriptor, selectors.EVENT_READ, process)

    def _received(self, criu: socket.socket, pid: int, stack: ExitStack) -> _Process:
        _, descriptors, _, _ = socket.recv_fds(criu, 1, 1)
        (descriptor,) = descriptors
        stack.callback(os.close, descriptor)
        os.set_blocking(descriptor, False)
        process = _Process(descriptor, *lazy_memory(self.image, pid))
        self.processes.append(process)
        return process

    def _answer_faults(self, process: _Process) -> None:
        """Copy the pages in that the process waits for: criu's own last steps touch a few."""
        with mmap.mmap(-1, PAGE_BYTES) as page:
            while True:
                try:
                    message = os.read(process.descriptor, _MESSAGE_BYTES)
                except BlockingIOError:
                    return
                if message[0] != _PAGE_FAULT:
                    continue
                (address,) = struct.unpack_from("=Q", message, 16)
                place = process.at(address)
                page[:] = bytes(PAGE_BYTES)
                if place is not None:
                    with open(self.image / process.pages, "rb", buffering=0) as file:
                        os.preadv(file.fileno(), [page], place[1])
                self._copy(process, address // PAGE_BYTES * PAGE_BYTES, _address(page), PAGE_BYTES)

    def _fill_all(self, stop: threading.Event) -> None:
        work: list[tuple[_Process, Chunk, int | None]] = []
        for process in self.processes:
            size = (self.image / process.pages).stat().st_size
            chunks = chunks_of(process.pages, size)
            checks = self.files[process.pages].checks if self.files else [None] * len(chunks)
            if len(chunks) != len(checks):
                raise SnapshotRefused(f"{process.pages} has {size} bytes: not what was recorded")
            work += [(process, chunk, check) for chunk, check in zip(chunks, checks, strict=True)]
        with ThreadPoolExecutor(WORKERS) as pool:
            try:
                for filled in [pool.submit(self._fill, *one, stop) for one in work]:
                    filled.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # what is damaged is not read to its end
                raise

    def _fill(self, process: _Process, chunk: Chunk, check: int | None, stop: threading.Event) -> None:
        """Read a chunk and copy its pages in. Raises SnapshotRefused if its check sum is wrong."""
        crc, at, end = 0, chunk.offset, chunk.offset + chunk.bytes
        with (
            open(self.image / chunk.name, "rb", buffering=0) as file,
            mmap.mmap(-1, READ_BYTES) as buffer,
            memoryview(buffer) as view,  # released before the buffer closes, whatever fails
        ):
            while at < end:
                if stop.is_set():
                    raise Stopped
                count = os.preadv(file.fileno(), [view[: min(READ_BYTES, end - at)]], at)
                if count == 0:
                    break
                crc = zlib.crc32(view[:count], crc)
                self._copy_block(process, at, _address(buffer), count)
                at += count
        if at < end or check not in (None, crc):
            raise SnapshotRefused(f"{chunk.name} is damaged after byte {chunk.offset}")

    def _copy_block(self, process: _Process, offset: int, source: int, count: int) -> None:
        """Copy a block of the file's bytes, read from `offset`, to wherever they belong."""
        for one in process.ranges:
            first, last = max(offset, one.offset), min(offset + count, one.offset + one.bytes)
            if first < last:
                target = one.address + first - one.offset
                self._copy(process, target, source + first - offset, last - first)

    def _copy(self, process: _Process, target: int, source: int, count: int) -> None:
        """UFFDIO_COPY, over pages that are there already: what was faulted in is left as it is."""
        done = 0
        while done < count:
            copy = _Copy(target + done, source + done, count - done, 0, 0)
            if self._ioctl.ioctl(process.descriptor, ctypes.c_ulong(_UFFDIO_COPY), ctypes.byref(copy)) == 0:
                break
            number = ctypes.get_errno()
            done += max(0, copy.copy)
            if number == errno.EEXIST:
                done += PAGE_BYTES
            elif number != errno.EAGAIN:
                raise OSError(number, os.strerror(number))


def _address(buffer: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


@contextmanager
def listening(image: Path, work: Path, records: Iterable[FileRecord]) -> Iterator[Filling]:
    """Listen where criu will ask for memory.

    Raises OSError, SnapshotRefused if a file has another size: criu may wait for ever for what is missing.
    """
    files = {one.name: one for one in records}
    for one in files.values():
        size = (image / one.name).stat().st_size if (image / one.name).exists() else None
        if size != one.bytes:
            raise SnapshotRefused(f"{one.name} has {size} bytes instead of {one.bytes}")
    with ExitStack() as stack:
        directory = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, directory)
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        (work / SOCKET).unlink(missing_ok=True)
        # Through the descriptor, because a socket's path has 107 bytes at most (unix(7)).
        listener.bind(f"/proc/self/fd/{directory}/{SOCKET}")
        listener.listen(1)
        yield Filling(image=image, files=files, listener=listener)


def can_fill() -> bool:
    """Return whether the kernel lets us fill other processes' memory as criu needs it: mostly root may."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.syscall(_SYS_USERFAULTFD, os.O_CLOEXEC | os.O_NONBLOCK)
    if descriptor < 0:
        return False
    try:
        api = (ctypes.c_uint64 * 3)(0xAA, _FEATURES, 0)
        return bool(libc.ioctl(descriptor, ctypes.c_ulong(_UFFDIO_API), ctypes.byref(api)) == 0)
    finally:
        os.close(descriptor)
