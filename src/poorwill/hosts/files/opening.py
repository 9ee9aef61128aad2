"""Opens files and directories and checks what was opened, so that nothing can be exchanged in between.

Two kinds. Files that an operator names (models, traces, invoices) may be links and belong to anybody, but
must be regular: opening a FIFO or a device never blocks. poorwill's own files must also be no links, have one
name, belong to its user or root, and be writable by nobody else. (CWE-59, CWE-362, CWE-377.)
"""

import errno
import grp
import os
import pwd
import stat
from pathlib import Path

_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class UnsafeFile(OSError):
    """A file or directory that poorwill does not use: `filename` says which and `strerror` why."""

    def __init__(self, path: str | Path, why: str, number: int = errno.EPERM) -> None:
        super().__init__(number, why, str(path))


def open_to_read(path: str | Path) -> int:
    """Open a file that an operator named, and return its descriptor. Never blocks on a FIFO.

    Raises OSError, UnsafeFile for anything but a regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    return _checked(path, descriptor, own=False)


def open_own(path: str | Path, flags: int, mode: int = 0o600) -> int:
    """Open or create one of poorwill's own files, and return its descriptor.

    Raises OSError, UnsafeFile for a link, for what is not regular, and for what others own or can write.
    """
    safe = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    try:
        descriptor = os.open(path, flags & ~os.O_TRUNC | safe, mode)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UnsafeFile(path, "is a link, which poorwill does not follow here", errno.ELOOP) from error
        raise
    _checked(path, descriptor, own=True)
    if flags & os.O_TRUNC:
        os.ftruncate(descriptor, 0)
    return descriptor


def _checked(path: str | Path, descriptor: int, *, own: bool) -> int:
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            kind = next((kind for test, kind in _KINDS if test(status.st_mode)), "no file")
            number = errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.EPERM
            raise UnsafeFile(path, f"is {kind}, not a regular file", number)
        if own:
            if status.st_nlink > 1:
                raise UnsafeFile(path, "has a second name, which may be another file's")
            _check_owner(path, status)
        os.set_blocking(descriptor, True)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_whole(path: str | Path, *, most_bytes: int, own: bool = False) -> bytes:
    """Return a file's content. Raises OSError, UnsafeFile also for a file larger than `most_bytes`."""
    descriptor = open_own(path, os.O_RDONLY) if own else open_to_read(path)
    with open(descriptor, "rb") as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise UnsafeFile(path, f"is larger than {most_bytes:,} bytes", errno.EFBIG)
    return data


def own_directory(path: str | Path) -> None:
    """Make a directory for poorwill's own files if there is none, and check it if there is.

    A link to a directory is followed: its owner and mode decide. Raises OSError, UnsafeFile for a directory
    that others own or can write.
    """
    Path(path).mkdir(mode=0o700, parents=True, exist_ok=True)
    check_own(path)


def check_own(path: str | Path) -> None:
    """Check that a file or directory belongs to this user or root, and that nobody else can write it.

    Raises OSError, UnsafeFile if not.
    """
    _check_owner(path, os.stat(path))


def _check_owner(path: str | Path, status: os.stat_result) -> None:
    what = "directory" if stat.S_ISDIR(status.st_mode) else "file"
    if status.st_uid not in (os.geteuid(), 0):
        owner, me = _user(status.st_uid), _user(os.geteuid())
        raise UnsafeFile(path, f"belongs to {owner}; run as {owner}, or give the {what} to {me}")
    others = status.st_mode & stat.S_IWOTH
    group = status.st_mode & stat.S_IWGRP and not _private_group(status.st_gid)
    if others or group:
        whom = "everybody" if others else "its group"
        raise UnsafeFile(path, f"can be written by {whom}; use another {what}, or chmod go-w")


def _private_group(gid: int) -> bool:
    """Return whether a group is this user's own, with no other member, as `useradd` makes them."""
    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    return group.gr_name == user.pw_name and not set(group.gr_mem) - {user.pw_name}


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
