"""Keeps an engine away from the fleet's own files, whoever both run as (landlock(7)).

Landlock knows what is allowed, not what is not: everything beside the way to the fleet's directory is, as it
stands when the engine starts. What appears beside that way later stays closed to the engine.
"""

import ctypes
import os
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # on every architecture
VERSION_FLAG = 1
PATH_BENEATH = 1
PR_SET_NO_NEW_PRIVS = 38

WRITE_FILE, READ_FILE = 1 << 1, 1 << 2  # linux/landlock.h
ALL = sum(1 << bit for bit in range(1, 13))
"""To write, read, list, remove and make anything; executing is not restricted."""
REFER, TRUNCATE = 1 << 13, 1 << 14
"""Since versions 2 and 3. Unless it is allowed, REFER (to rename into another directory) is denied."""
OF_FILES = WRITE_FILE | READ_FILE | TRUNCATE


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """What engines are kept away from."""

    directory: Path
    """The fleet's."""
    closed: Sequence[str]
    """The beginnings of the names in it that engines get nothing of."""

    def start(self, start: Callable[[], T], *, also: Sequence[str] = ()) -> T:
        """Run `start` where what it starts is confined, but for the files `also`. Blocks for milliseconds.

        A thread of its own restricts itself and starts the process, which inherits that; this one stays free.
        Raises OSError, and what `start` raises.
        """
        results: list[T] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                self._restrict(also)
                results.append(start())
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def _restrict(self, also: Sequence[str]) -> None:
        version = landlock_version()
        handled = ALL | (REFER if version >= 2 else 0) | (TRUNCATE if version >= 3 else 0)
        ruleset = _call(CREATE_RULESET, ctypes.create_string_buffer(struct.pack("=Q", handled), 8), 8, 0)
        try:
            for path in (*self._open_paths(), *also):
                _allow(ruleset, path, handled)
            if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
                raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS)")
            _call(RESTRICT_SELF, ruleset, 0)
        finally:
            os.close(ruleset)

    def _open_paths(self) -> Iterator[str]:
        """Yield all that lies beside the way to the directory, and what is open in it."""
        inside = self.directory.resolve()
        for place in (*reversed(inside.parents), inside):
            for entry in os.scandir(place):
                leads_on = Path(entry.path) in (inside, *inside.parents)
                closed = place == inside and entry.name.startswith(tuple(self.closed))
                if not (leads_on or closed or entry.is_symlink()):
                    yield entry.path


def landlock_version() -> int:
    """Return the version of Landlock that this kernel has; 0: none."""
    try:
        return _call(CREATE_RULESET, None, 0, VERSION_FLAG)
    except OSError:
        return 0


def _allow(ruleset: int, path: str, handled: int) -> None:
    try:
        # Not followed: a link may lead back into the directory; anywhere else has a rule of its own.
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return  # gone meanwhile, or not to be opened at all: it stays closed
    try:
        access = handled if os.path.isdir(f"/proc/self/fd/{opened}") else handled & OF_FILES
        rule = ctypes.create_string_buffer(struct.pack("=Qi", access, opened), 12)
        _call(ADD_RULE, ruleset, PATH_BENEATH, rule, 0)
    finally:
        os.close(opened)


def _call(number: int, *arguments: object) -> int:
    result = int(ctypes.CDLL(None, use_errno=True).syscall(number, *arguments))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"landlock: {os.strerror(error)}")
    return result
