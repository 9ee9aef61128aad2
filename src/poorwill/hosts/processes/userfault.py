"""userfaultfd(2): another process's memory, filled from outside while the process runs.

Events of the layout (a fork, memory that is moved, dropped or unmapped) hold the process up until they are
read, and until then the kernel copies nothing in (EAGAIN): who reads them under a lock that keeps copies out,
and heeds them before the next one, never copies to a place that has become something else.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum

PAGE_BYTES = 4096
_MESSAGE = struct.Struct("=B7xQQQ")
"""struct uffd_msg of linux/userfaultfd.h: the event, then up to three numbers."""
_MESSAGES_BYTES = 64 * _MESSAGE.size
_UFFDIO_COPY, _UFFDIO_API = 0xC028AA03, 0xC018AA3F
_SYS_USERFAULTFD = 323 if os.uname().machine == "x86_64" else 282
_FEATURES = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 6
"""UFFD_FEATURE_EVENT_FORK, _REMAP, _REMOVE and _UNMAP, without which criu does not restore lazily."""


class FaultKind(IntEnum):
    """UFFD_EVENT_*, with what its numbers are."""

    PAGE_FAULT = 0x12  # flags, address
    FORK = 0x13  # the descriptor for the child's memory
    REMAP = 0x14  # from, to, length
    REMOVE = 0x15  # first, last: zeros from now on
    UNMAP = 0x16  # first, last


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
class Userfault:
    """The descriptor of one process's memory, which the caller closes."""

    descriptor: int
    ioctl: Callable[..., int] = field(default_factory=lambda: ctypes.CDLL(None, use_errno=True).ioctl)

    def read(self) -> list[tuple[FaultKind, int, int, int]]:
        """Return the events that wait, with their numbers: those of the layout first, as they happened."""
        found: list[tuple[FaultKind, int, int, int]] = []
        try:
            while data := os.read(self.descriptor, _MESSAGES_BYTES):
                for kind, first, second, third in _MESSAGE.iter_unpack(data):
                    found.append((FaultKind(kind), first, second, third))
        except BlockingIOError:
            pass
        return sorted(found, key=lambda event: event[0] is FaultKind.PAGE_FAULT)

    def copy(self, target: int, source: int, count: int) -> bool:
        """Copy bytes in; pages that are there already stay as they are, what is unmapped is left out.

        False: the layout has changed, and its events come first; then call again. Raises OSError;
        ProcessLookupError if the process has ended.
        """
        done, step = 0, count
        while done < count:
            size = min(step, count - done)
            copy = _Copy(target + done, source + done, size, 0, 0)
            if self.ioctl(self.descriptor, ctypes.c_ulong(_UFFDIO_COPY), ctypes.byref(copy)) == 0:
                done += size
                continue
            number = ctypes.get_errno()
            done += max(0, copy.copy)
            if number == errno.EAGAIN and copy.copy <= 0:
                return False
            if number == errno.ENOENT and size > PAGE_BYTES:
                step = PAGE_BYTES  # one mapping became several, or a part of it is gone
            elif number in (errno.EEXIST, errno.ENOENT):
                done += PAGE_BYTES
            elif number != errno.EAGAIN:
                raise OSError(number, os.strerror(number))
        return True


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
