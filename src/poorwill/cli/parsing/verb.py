"""What a verb of the command line is, and the streams it may use."""

import argparse
import errno
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TextIO

from poorwill.core.errors import ErrorCode, OperatorFault


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """The outside world of one run of the command line."""

    env: Mapping[str, str]
    stdin: TextIO
    stdout: TextIO
    stderr: TextIO

    def say(self, text: str = "") -> None:
        """Print one line of result."""
        self.stdout.write(text + "\n")

    def tell(self, text: str) -> None:
        """Print one line that is about the work, not its result."""
        self.stderr.write(text + "\n")
        self.stderr.flush()

    def say_json(self, value: object) -> None:
        """Print one JSON document, for `--json`."""
        json.dump(value, self.stdout, indent=2, ensure_ascii=False)
        self.stdout.write("\n")

    @property
    def width(self) -> int | None:
        """Return the columns of the terminal that results go to, None in a pipe."""
        try:
            return os.get_terminal_size(self.stdout.fileno()).columns
        except (OSError, ValueError):
            return None

    @property
    def progress(self) -> bool:
        """Whether to show progress: on a terminal only, never in a pipe."""
        return self.stderr.isatty()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """One verb: its name, a sentence for `--help`, its options and what it does."""

    name: str
    help: str
    options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Streams], Awaitable[int]]
    epilog: str = ""


EXIT_STATUS: Mapping[ErrorCode, int] = {
    ErrorCode.CONFIG_INVALID: 2,
    ErrorCode.INVALID_REQUEST: 2,
    ErrorCode.PAYLOAD_TOO_LARGE: 2,
    ErrorCode.ROUTE_NOT_FOUND: 2,
    ErrorCode.METHOD_NOT_ALLOWED: 2,
    ErrorCode.MODEL_NOT_FOUND: 2,
    ErrorCode.IN_USE: 3,
    ErrorCode.NOT_RUNNING: 4,
    ErrorCode.UNAUTHENTICATED: 5,
    ErrorCode.FORBIDDEN: 5,
    ErrorCode.HOLD_QUEUE_FULL: 6,
    ErrorCode.RATE_LIMITED: 6,
    ErrorCode.OVERLOADED: 6,
    ErrorCode.SPEND_LIMIT: 6,
    ErrorCode.WAKE_FAILED: 7,
    ErrorCode.NO_CAPACITY: 7,
    ErrorCode.DRAINING: 7,
    ErrorCode.WAKE_TIMEOUT: 7,
    ErrorCode.UPSTREAM_CONNECT: 7,
    ErrorCode.UPSTREAM_PROTOCOL: 7,
    ErrorCode.REPLICA_LOST: 7,
    ErrorCode.UPSTREAM_TIMEOUT: 7,
    ErrorCode.LEDGER_UNAVAILABLE: 8,
    ErrorCode.CLIENT_GONE: 130,
    ErrorCode.INTERNAL: 70,
}
"""The exit status of every error code: total, checked by a test. 0 is success, 1 is a finding (a check that
found something), 130 is an interrupt."""


THE_MACHINES = frozenset(
    {
        *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO),
        *(errno.EMFILE, errno.ENFILE, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR),
    }
)
"""Errors that a person mends on the machine: no defect, wherever they come from."""


def existing_file(path: str) -> str:
    """Read a text file named on the command line. Raises OperatorFault with the reason."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID, f"cannot read {path}: {reason}", hint="check the path"
        ) from error
