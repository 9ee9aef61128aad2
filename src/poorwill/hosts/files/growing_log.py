"""A log that others write, read as it grows.

Bounded whatever is written: so many bytes a look, so many characters a line, and if the writer is faster than
that, the middle is skipped. A log that was cut short or replaced is read from its new beginning. It is opened
for each look, so that a deleted one is never kept alive.
"""

import os
from dataclasses import dataclass

from poorwill.hosts.files.opening import open_to_read

MOST_LOOK = 256 * 1024
MOST_BACKLOG = 4 * 1024 * 1024
MOST_LINE = 16 * 1024
CUT_MARK = b"[poorwill cut "
"""How a log begins that poorwill cut to its last part: what stands there now was read before."""


@dataclass(slots=True, kw_only=True)
class LogFile:
    """One log file and how far it was read. Opened at its present end: what was there is another wake's."""

    path: str
    offset: int = 0
    inode: int = 0
    rest: bytes = b""

    @classmethod
    def at_end(cls, path: str) -> "LogFile":
        """Return a log file read up to now. Never raises."""
        try:
            status = os.stat(path)
        except OSError:
            return cls(path=path)
        return cls(path=path, offset=status.st_size, inode=status.st_ino)

    def lines(self, most: int = MOST_LOOK) -> list[str]:
        """Return the complete lines written since the last call, of at most `most` bytes. Never raises."""
        try:
            with open(open_to_read(self.path), "rb", buffering=0) as file:
                status = os.fstat(file.fileno())
                self._find(status.st_ino, status.st_size, file.read(len(CUT_MARK)))
                file.seek(self.offset)
                data = file.read(most)
        except OSError:
            return []
        self.offset += len(data)
        *whole, self.rest = (self.rest + data).split(b"\n")
        if len(self.rest) > MOST_LINE:
            self.rest = self.rest[:MOST_LINE]
        return [line[:MOST_LINE].decode("utf-8", "replace") for line in whole if line]

    def _find(self, inode: int, size: int, beginning: bytes) -> None:
        if size < self.offset or (self.inode and inode != self.inode):
            self.offset, self.rest = (size if beginning == CUT_MARK else 0), b""
        self.inode = inode
        if size - self.offset > MOST_BACKLOG:
            self.offset, self.rest = size - MOST_LOOK, b""
