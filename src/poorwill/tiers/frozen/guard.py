"""Ends an engine whose memory nobody fills any more, because poorwill died in the middle of its wake.

With the last descriptor of a userfaultfd closed the kernel gives zeros for whatever is missing, and the
engine would compute with them. So a process beside poorwill holds the descriptors, too (`watcher`); if
poorwill's end of the conversation closes without a word, it ends the engine first and closes them by its own
end. If the guard dies instead, poorwill reads the end of the conversation and fails the wake.
"""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from poorwill.tiers.frozen import watcher


@contextmanager
def guard() -> Iterator[socket.socket]:
    """Run a guard for the block, which has ended the engine or filled it when it ends. Raises OSError.

    What is sent to it is a pid of four bytes with a descriptor (`socket.send_fds`).
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            argv = [sys.executable, "-I", "-S", watcher.__file__, str(theirs.fileno())]
            # A session of its own, so that what ends poorwill's does not end the guard as well.
            child = subprocess.Popen(
                argv,
                env={},
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        with child:
            try:
                yield ours
            finally:
                with suppress(OSError):  # it was killed
                    ours.send(watcher.DONE)
