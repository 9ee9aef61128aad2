"""What a process asks of the kernel about itself (prctl(2)): whose children it gets, who may look into it."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PR_GET_DUMPABLE = 3
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
PR_GET_CHILD_SUBREAPER = 37


@contextmanager
def subreaper() -> Iterator[None]:
    """Make orphaned descendants of this process its children for as long as the context lasts.

    (PR_SET_CHILD_SUBREAPER, prctl(2).) For whoever composes a program that restores processes: a restored
    engine is the child of the restorer, which exits; without this, init inherits it and its zombie may hold
    the pid for seconds, so that the next restore to the same pid fails. Afterwards the process is what it
    was before: one that reaps nobody must not inherit anybody. Raises OSError.
    """
    before = ctypes.c_int()
    _prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(before))
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        _prctl(PR_SET_CHILD_SUBREAPER, before.value)


@contextmanager
def undumpable() -> Iterator[None]:
    """Keep other processes of this user out of this one's memory and environment while the context lasts.

    (PR_SET_DUMPABLE, prctl(2): /proc/PID/environ and ptrace.) Engines run as the same user and could read API
    and snapshot keys there. What poorwill starts is not affected; of poorwill there is no core dump. Root's
    engines can read it all the same. Raises OSError.
    """
    before = _libc().prctl(PR_GET_DUMPABLE, 0, 0, 0, 0)
    _prctl(PR_SET_DUMPABLE, 0)
    try:
        yield
    finally:
        _prctl(PR_SET_DUMPABLE, 1 if before == 1 else 0)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, argument: Any) -> None:
    if _libc().prctl(option, argument, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")
