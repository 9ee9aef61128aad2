"""A text stream whose writes never wait: a stopped terminal or a full journal must not stop what is logged.

Lines go into a bounded buffer; a thread of its own writes them to the file descriptor. When the buffer is
full, lines are dropped and counted, and the count is written as soon as there is room.
"""

import io
import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO, cast

_MOST_BYTES = 2**20
_LAST_WORDS_S = 1.0


class BackgroundStream(io.TextIOBase):
    """A text stream to write to, over another one that has a file descriptor."""

    def __init__(self, descriptor: int, *, most_bytes: int = _MOST_BYTES) -> None:
        self._descriptor = descriptor
        self._most = most_bytes
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._dropped = 0
        self._over = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._write_all, name="log writer", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def finish(self) -> None:
        """Write what is left, for `_LAST_WORDS_S` at most."""
        with self._changed:
            self._over = True
            self._changed.notify()
        self._thread.join(_LAST_WORDS_S)

    def fileno(self) -> int:
        """Return the descriptor that is written to."""
        return self._descriptor

    def writable(self) -> bool:
        """Return True."""
        return True

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return os.isatty(self._descriptor)

    def write(self, text: str) -> int:
        """Put text into the buffer, or drop it. Never waits."""
        data = text.encode("utf-8", "backslashreplace")
        with self._changed:
            if self._bytes + len(data) > self._most:
                self._dropped += 1
            else:
                self._lines.append(data)
                self._bytes += len(data)
                self._changed.notify()
        return len(text)

    def flush(self) -> None:
        """Do nothing: the thread writes as soon as it can."""

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._over)
                if not self._lines and not self._dropped:
                    return
                data = b"".join(self._lines)
                self._lines.clear()
                dropped, self._dropped = self._dropped, 0
            if dropped:
                data += b"%d log lines were dropped: nobody read them\n" % dropped
            try:
                while data:
                    data = data[os.write(self._descriptor, data) :]
            except OSError:
                pass  # a log that cannot be written must not stop what is logged
            with self._changed:
                self._bytes = sum(map(len, self._lines))


@contextmanager
def written_in_background(stream: TextIO) -> Iterator[TextIO]:
    """Return a stream over another whose writes never wait; the other itself if it has no descriptor."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):  # a stream of a test
        yield stream
        return
    stream.flush()
    background = BackgroundStream(descriptor)
    background.start()
    try:
        yield cast("TextIO", background)
    finally:
        background.finish()
