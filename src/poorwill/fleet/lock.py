"""One poorwill for each fleet directory: an advisory lock that names its holder."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from poorwill.core.errors import ErrorCode, OperatorFault

LOCK_FILE = "poorwill.lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """A held fleet directory. What is published in the lock file tells others how to talk to us."""

    descriptor: int

    def publish(self, **fields: str | int) -> None:
        """Replace what the lock file says of its holder; the pid is always in it."""
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, json.dumps({"pid": os.getpid(), **fields}).encode(), 0)


@contextmanager
def hold_directory(directory: Path, *, what: str) -> Iterator[Holding]:
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
        holding = Holding(descriptor=descriptor)
        holding.publish(what=what)
        yield holding
    finally:
        os.close(descriptor)


def holder_of(directory: Path) -> Mapping[str, str | int] | None:
    """Return what the poorwill that holds the directory published, None where nobody holds it.

    Raises OSError where the directory cannot be read.
    """
    try:
        descriptor = os.open(directory / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _published(descriptor)
    finally:
        os.close(descriptor)
    return None


def _published(descriptor: int) -> Mapping[str, str | int]:
    try:
        published = json.loads(os.pread(descriptor, 65_536, 0))
    except ValueError:
        return {}
    return published if isinstance(published, dict) else {}


def _holder(descriptor: int) -> str:
    published = _published(descriptor)
    if "pid" not in published:
        return "another process"
    return f"{published.get('what', 'poorwill')}, pid {published['pid']}"
