"""The engine's log file: opened for the engine, read from its end, kept from growing for ever.

What the lines mean is the engines' business, not this module's.
"""

import contextlib
import os

from poorwill.hosts.files.opening import open_own, open_to_read

MARKER = "poorwill-engine "
START_MARK = "[poorwill starts "
TAIL_BYTES = 4096
TAIL_LINES = 5
KEEP_BYTES = 2**20


def open_log(path: str) -> int:
    """Open a log for appending and return the descriptor, which the caller closes. Raises OSError.

    O_APPEND lets it be cut while an engine writes: the next write goes to the new end.
    """
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    return open_own(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def mark_start(log: int, replica: str) -> None:
    """Write a line between what an earlier start wrote and what the next one will. Never raises."""
    with contextlib.suppress(OSError):
        os.write(log, f"\n{START_MARK}{replica}]\n".encode())


def tail(path: str) -> str:
    """Return the last lines that the latest start wrote, in one line of printable text.

    Without the marker lines of poorwill's own engine programs, which tell people nothing.
    """
    try:
        with open(open_to_read(path), "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            text = file.read(TAIL_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
    _, marked, text = text.rpartition(f"\n{START_MARK}")
    if marked:
        text = text.partition("\n")[2]
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith(MARKER)]
    joined = " | ".join(lines[-TAIL_LINES:])
    return "".join(character if character.isprintable() else " " for character in joined)


def bound_log(path: str, *, cap_bytes: int) -> bool:
    """Cut a log larger than `cap_bytes` to its last megabyte; return whether it was cut. Raises OSError.

    What an engine writes between the reading and the cutting is lost.
    """
    try:
        descriptor = open_own(path, os.O_RDWR | os.O_APPEND)
    except FileNotFoundError:
        return False
    try:
        size = os.fstat(descriptor).st_size
        if size <= cap_bytes:
            return False
        keep = os.pread(descriptor, KEEP_BYTES, max(0, size - KEEP_BYTES))
        os.ftruncate(descriptor, 0)
        os.write(descriptor, b"[poorwill cut the beginning of this log]\n" + keep)
        return True
    finally:
        os.close(descriptor)
