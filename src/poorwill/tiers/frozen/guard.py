"""Ends an engine whose memory nobody fills any more, because poorwill died in the middle of its wake.

With the last descriptor of a userfaultfd closed the kernel gives zeros for whatever is missing, and the
engine would compute with them. So a process beside poorwill holds the descriptors, too; if poorwill's end of
the conversation closes without a word, it ends the engine first and closes them by its own end. If the guard
dies instead, poorwill reads the end of the conversation and fails the wake.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_DONE = b"done"
_PROGRAM = "import sys; from poorwill.tiers.frozen.guard import watch; watch(int(sys.argv[1]))"


@contextmanager
def guard() -> Iterator[socket.socket]:
    """Run a guard for the block, which has ended the engine or filled it when it ends. Raises OSError.

    What is sent to it is a pid of four bytes with a descriptor (`socket.send_fds`).
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            argv = [sys.executable, "-I", "-c", _PROGRAM, str(theirs.fileno())]
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
                    ours.send(_DONE)


def watch(descriptor: int) -> None:
    """Wait for the end of the wake, or of poorwill; what the guard runs."""
    conversation = socket.socket(fileno=descriptor)
    pids, held = set[int](), list[int]()
    while True:
        said, descriptors, _, _ = socket.recv_fds(conversation, len(_DONE), 1)
        if said == _DONE:
            os._exit(0)
        if not said:
            break
        pids.add(int.from_bytes(said, sys.byteorder))  # 0: forked by one of the others
        held += descriptors
    _end(pids)
    os._exit(1)


def _end(pids: set[int]) -> None:
    """Kill processes and all others of their sessions: what they have forked lacks the same memory."""
    sessions = set[int]()
    pids.discard(0)
    for pid in pids:
        with suppress(ProcessLookupError):
            sessions.add(os.getsid(pid))
    for entry in [*os.listdir("/proc"), *os.listdir("/proc")]:  # again: forked meanwhile
        with suppress(ProcessLookupError):
            if entry.isdecimal() and (int(entry) in pids or os.getsid(int(entry)) in sessions):
                os.kill(int(entry), signal.SIGKILL)
