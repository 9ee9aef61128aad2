"""One poorwill for each fleet directory: an advisory lock that names its holder."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from poorwill.core.errors import ErrorCode, OperatorFault

LOCK_FILE = "poorwill.lock"


@contextmanager
def hold_directory(directory: Path, *, what: str) -> Iterator[Path]:
    """Hold a fleet directory for as long as the context lasts; the kernel lets go of it on any death.

    Raises OperatorFault(IN_USE) that says who holds it. The file stays; only its lock counts (flock(2)).
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = directory / LOCK_FILE
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OperatorFault(
                ErrorCode.IN_USE,
                f"{directory} is in use by {_holder(descriptor)}",
                hint="stop that one first, or use another fleet directory",
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "what": what}).encode(), 0)
        yield path
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return f"{holder['what']}, pid {holder['pid']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
