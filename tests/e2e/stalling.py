"""A disk that stalls: whoever opens or reads a file in these directories waits (fanotify(7), root only)."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FAN_CLOEXEC, FAN_CLASS_CONTENT = 0x1, 0x4
FAN_MARK_ADD = 0x1
FAN_OPEN_PERM, FAN_ACCESS_PERM, FAN_EVENT_ON_CHILD = 0x1_0000, 0x2_0000, 0x800_0000
AT_FDCWD = -100


@contextmanager
def stalling(*directories: Path) -> Iterator[int]:
    """Let everybody wait who opens or reads a file in one of the directories; yield a descriptor that is
    readable once somebody waits. Raises PermissionError, OSError if the kernel has no such thing."""
    libc = ctypes.CDLL(None, use_errno=True)
    group = libc.fanotify_init(FAN_CLASS_CONTENT | FAN_CLOEXEC, os.O_RDONLY)
    if group < 0:
        raise OSError(number := ctypes.get_errno(), os.strerror(number))
    try:
        events = ctypes.c_uint64(FAN_OPEN_PERM | FAN_ACCESS_PERM | FAN_EVENT_ON_CHILD)
        for directory in directories:
            if libc.fanotify_mark(group, FAN_MARK_ADD, events, AT_FDCWD, os.fsencode(directory)) < 0:
                raise OSError(number := ctypes.get_errno(), os.strerror(number))
        yield group
    finally:
        os.close(group)  # which lets all go on
