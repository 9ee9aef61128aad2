"""The program of `guard`: run by its path, so it imports nothing that an interpreter has not loaded anyway.

`import socket` alone would double its start, which every wake has to afford.
"""

import _socket
import os
import sys

DONE = b"done"
_SIGKILL = 9


def watch(descriptor: int) -> None:
    """Wait for the end of the wake, or of poorwill: then end the processes that it was told of."""
    conversation = _socket.socket(fileno=descriptor)
    pids = set[int]()
    while True:
        # The descriptors that come along are this process's from now on: nothing closes them but its end.
        said = conversation.recvmsg(len(DONE), _socket.CMSG_SPACE(4))[0]
        if said == DONE:
            os._exit(0)
        if not said:
            break
        pids.add(int.from_bytes(said, sys.byteorder))  # 0: forked by one of the others
    _end(pids - {0})
    os._exit(1)


def _end(pids: set[int]) -> None:
    """Kill processes and all others of their sessions: what they have forked lacks the same memory."""
    sessions = {_session(pid) for pid in pids} - {None}
    for entry in [*os.listdir("/proc"), *os.listdir("/proc")]:  # again: forked meanwhile
        if entry.isdecimal() and (int(entry) in pids or _session(int(entry)) in sessions):
            try:
                os.kill(int(entry), _SIGKILL)
            except ProcessLookupError:
                continue


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


if __name__ == "__main__":
    watch(int(sys.argv[1]))  # noqa: TID251 - a program of its own
