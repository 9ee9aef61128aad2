"""The outside world of one run of the command line."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TextIO

from poorwill.core.errors import ErrorCode, OperatorFault


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """Environment, input and output."""

    env: Mapping[str, str]
    stdin: TextIO
    stdout: TextIO
    stderr: TextIO

    def say(self, *lines: str) -> None:
        """Print lines of the result."""
        self.stdout.writelines(f"{line}\n" for line in lines)

    def tell(self, text: str) -> None:
        """Print one line about the work, not its result."""
        self.stderr.write(text + "\n")
        self.stderr.flush()

    def say_json(self, document: object) -> None:
        """Print the one JSON document of `--json`."""
        import msgspec  # slow to import; most runs print none

        text = json.dumps(msgspec.to_builtins(document), indent=2, ensure_ascii=False)
        self.stdout.write(text + "\n")

    def show_progress(self, text: str) -> None:
        """Replace the line of progress on a terminal; an empty text clears it. In a pipe, do nothing."""
        if self.progress:
            self.stderr.write(f"\r\x1b[K{text}")
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
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID, f"cannot read {path}: {reason}", hint="check the path"
        ) from error
