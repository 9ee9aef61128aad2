"""The outside world of one run of the command line."""

import asyncio
import json
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Self, TextIO, TypeVar

from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.core.format import printable

T = TypeVar("T")

MOST_TEXT = 256 * 2**20
"""Largest text file that is read as a whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """Environment, input and output."""

    env: Mapping[str, str]
    stdin: TextIO
    stdout: TextIO
    stderr: TextIO
    stop: threading.Event | None = None

    async def interruptible(self, work: Callable[[Self], T]) -> T:
        """Run long work in a thread, and clear its line of progress.

        Cancelled: `show_progress` ends the work, in a pipe too, and only then the cancellation goes on.
        """
        from poorwill.hosts.files.aside import in_thread  # few verbs take long

        try:
            return await in_thread(lambda stop: work(replace(self, stop=stop)))
        finally:
            self.show_progress("")

    def say(self, *lines: str) -> None:
        """Print lines of the result."""
        self.write("".join(f"{line}\n" for line in lines))

    def write(self, text: str) -> None:
        """Print a text. What would steer a terminal is escaped, here for all verbs."""
        self.stdout.write(printable(text))

    def tell(self, text: str) -> None:
        """Print one line about the work, not its result."""
        self.stderr.write(printable(text) + "\n")
        self.stderr.flush()

    def say_json(self, document: object) -> None:
        """Print the one JSON document of `--json`."""
        import msgspec  # slow to import; most runs print none

        self.say(json.dumps(msgspec.to_builtins(document), indent=2, ensure_ascii=False))

    def show_progress(self, text: str) -> None:
        """Replace the line of progress on a terminal; an empty text clears it. In a pipe, do nothing."""
        if self.stop is not None and self.stop.is_set():
            raise asyncio.CancelledError
        if self.progress:  # cut to one line of the terminal: a longer one could not be replaced
            self.stderr.write(f"\r\x1b[K{printable(text)[: (self.width or 80) - 1]}")
            self.stderr.flush()

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


def existing_file(path: str) -> str:
    """Read a text file named on the command line. Raises OperatorFault with the reason."""
    from poorwill.hosts.files.records import open_table  # few verbs read a file

    try:
        with open_table(path, most_bytes=MOST_TEXT) as file:
            return file.read()
    except OSError as error:
        what = f"cannot read {path}: {error.strerror}"
        raise OperatorFault(ErrorCode.CONFIG_INVALID, what, hint="check the path") from error
