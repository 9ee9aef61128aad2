"""A large form on its way through: kept in a file without a name, never in memory.

So a request is complete before it asks for a lease, however slow its client is, and can be sent again.
Threads read and write, because a disk may be slow; the file is gone when nobody uses it any more.
"""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from poorwill.core.errors import ErrorCode, TryLater

T = TypeVar("T")

SPOOL_FROM_BYTES = 2**20
"""A form up to this size stays in memory."""
PENDING_BYTES = 2**18
"""What may wait to be written before the client has to."""
_PIECE_BYTES = 2**18
_RETRY_AFTER_S = 10


class Spool:
    """One form. `add` and `close` are called on the event loop, which they never block."""

    def __init__(self, directory: str) -> None:
        self._file = tempfile.TemporaryFile(dir=directory, buffering=0)
        self._pending: list[bytes] = []
        self._turn = asyncio.Lock()
        self._users = 0
        self._closed = False
        self.pending_bytes = 0
        self.size = 0
        self.model_span = (0, 0)
        """Where the value of `model` is."""

    def add(self, data: bytes) -> None:
        """Take what arrived."""
        self._pending.append(data)
        self.pending_bytes += len(data)
        self.size += len(data)

    async def flush(self) -> None:
        """Write what waits; nothing once closed. Raises OSError. Cancelled: the file must not be used."""
        async with self._turn:
            while self._pending and not self._closed:
                pieces, self._pending = self._pending, []
                self.pending_bytes = 0
                await self.work(lambda pieces=pieces: self._write(b"".join(pieces)))  # type: ignore[misc]

    async def work(self, what: Callable[[], T]) -> T:
        """Do something with the file in a thread. Cancelled: the thread goes on, with the file."""
        self._users += 1
        done = asyncio.get_running_loop().run_in_executor(None, what)
        done.add_done_callback(self._left)
        return await asyncio.shield(done)

    def close(self) -> None:
        """Forget the file. Idempotent."""
        self._closed = True
        if not self._users:
            self._file.close()

    async def pieces(self, name: str) -> AsyncIterator[bytes]:
        """Yield the form, with another `model` if one is given. Raises OSError."""
        begin, end = self.model_span if name else (self.size, self.size)
        for first, last, after in ((0, begin, name.encode()), (end, self.size, b"")):
            for at in range(first, last, _PIECE_BYTES):
                until = min(at + _PIECE_BYTES, last)
                yield await self.work(lambda at=at, until=until: self[at:until])  # type: ignore[misc]
            if after:
                yield after

    def length(self, name: str) -> int:
        """Return how long it is with another `model`, if one is given."""
        begin, end = self.model_span
        return self.size + (len(name.encode()) - (end - begin) if name else 0)

    # -- as `bytes`, for whoever looks for fields in it; blocks

    def __getitem__(self, where: slice) -> bytes:
        """Return some of it."""
        return os.pread(self._file.fileno(), where.stop - where.start, where.start)

    def find(self, what: bytes, begin: int, end: int | None = None) -> int:
        """Return where something is, -1 if nowhere."""
        last = self.size if end is None else min(end, self.size)
        for at in range(begin, last, _PIECE_BYTES):
            piece = self[at : min(at + _PIECE_BYTES + len(what) - 1, last)]
            if (found := piece.find(what)) >= 0:
                return at + found
        return -1

    def _write(self, data: bytes) -> None:
        while data:
            data = data[self._file.write(data) :]

    def _left(self, done: "asyncio.Future[T]") -> None:
        self._users -= 1
        if not done.cancelled():
            done.exception()  # whoever waits has it; if nobody does, it is of no interest
        if self._closed and not self._users:
            self._file.close()


def no_disk(error: OSError) -> TryLater:
    """Return the error of a form that cannot be kept."""
    why = f"there is no room for so large a form now: {error.strerror}"
    return TryLater(ErrorCode.OVERLOADED, why, retry_after_s=_RETRY_AFTER_S)
