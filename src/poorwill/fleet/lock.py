"""One poorwill for each fleet directory: an advisory lock that names its holder.

The lock is of the open file description (F_OFD_SETLK, fcntl(2)): it goes with the last descriptor, on any
death, and others can ask for it without taking it for a moment.
"""

import errno
import fcntl
import json
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.hosts.files.opening import UnsafeFile, open_own, open_to_read, own_directory

LOCK_FILE = "poorwill.lock"

_MOST_LEFT = 3_000
"""With the rest it stays within the file's first block."""

_FLOCK = struct.Struct("hhqqi4x")
"""`struct flock` of 64-bit Linux: type, whence, start, length (0: all), pid (0 for these locks)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """A held fleet directory. What is published in the lock file tells others how to talk to us."""

    descriptor: int
    before: Mapping[str, str | int]
    """What the lock file said when it was taken: of the poorwill before this one."""
    left: list[str] = field(default_factory=list)
    """What did not end as it should, for people. Told by `leave`."""

    def leave(self, left: Sequence[str]) -> None:
        """Add what did not end as it should: an engine that runs on, entries that are not in the ledger.

        The file needs no new block on a full disk; the ledger may be what cannot be written. Never raises.
        """
        self.left.extend(left)
        with suppress(OSError):
            self.publish(left="; ".join(self.left)[:_MOST_LEFT])

    def told_before(self) -> str:
        """Return what the poorwill before this one left undone, for people; empty if nothing."""
        if left := self.before.get("left"):
            return str(left)
        if "address" in self.before:
            return f"pid {self.before.get('pid')} ended without a shutdown: its engines may run"
        return ""

    def publish(self, **fields: str | int) -> None:
        """Replace what the lock file says of its holder; the pid is always in it.

        One write, padded over what was there: a reader never sees a half of it.
        """
        text = json.dumps({"pid": os.getpid(), **fields}).encode()
        before = os.fstat(self.descriptor).st_size
        os.pwrite(self.descriptor, text.ljust(before), 0)
        os.ftruncate(self.descriptor, len(text))


@contextmanager
def hold_directory(directory: Path, *, what: str) -> Iterator[Holding]:
    """Hold a fleet directory for as long as the context lasts; the kernel lets go of it on any death.

    Raises OperatorFault: IN_USE, which says who holds it; CONFIG_INVALID if it cannot be written. The file
    stays; only its lock counts.
    """
    try:
        own_directory(directory)
        descriptor = open_own(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT)
    except UnsafeFile as error:
        what = f"{error.filename} is not safe to use: it {error.strerror}"
        hint = "others could read prompts, change the bill or exchange the engines that poorwill starts"
        raise OperatorFault(ErrorCode.CONFIG_INVALID, what, hint=hint) from error
    except OSError as error:
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            f"the fleet's directory {directory} cannot be written: {error.strerror}",
            hint="give the user who runs poorwill the right to, or name another as directory under [fleet]",
        ) from error
    try:
        if not _take(descriptor):
            raise OperatorFault(
                ErrorCode.IN_USE,
                f"{directory} is in use by {_holder(descriptor)}",
                hint="stop that one first, or use another fleet directory",
            )
        holding = Holding(descriptor=descriptor, before=_published(descriptor))
        holding.publish(what=what)
        try:
            yield holding
        finally:
            holding.leave([])
    finally:
        os.close(descriptor)


def holder_of(directory: Path) -> Mapping[str, str | int] | None:
    """Return what the poorwill that holds the directory published, None if nobody holds it.

    Raises OSError if the directory cannot be read.
    """
    try:
        descriptor = open_to_read(directory / LOCK_FILE)
    except FileNotFoundError:
        return None
    try:
        return _published(descriptor) if _taken(descriptor) else None
    finally:
        os.close(descriptor)


def _take(descriptor: int) -> bool:
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def _taken(descriptor: int) -> bool:
    wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, wanted)
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


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
