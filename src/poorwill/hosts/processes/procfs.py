"""Processes and sockets as /proc shows them. Reads only; never signals a process.

Every function answers "nothing there" for a process that ends while it is looked at: a reader of /proc
always races with the process.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

GONE = (FileNotFoundError, ProcessLookupError, PermissionError)
"""What a process that has ended, or is not ours to look at, is told by. Any other error, a shortage of
descriptors above all, says nothing about the process, and is raised."""

TCP_LISTEN = 0x0A
"""State number in /proc/net/tcp (include/net/tcp_states.h)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStat:
    """The part of /proc/PID/stat that identifies a process (proc_pid_stat(5))."""

    pid: int
    state: str
    parent: int
    session: int
    started: int
    """Clock ticks since boot: with the pid it names one process for ever."""


def _content(pid: int, name: str) -> bytes:
    """Return one of a process's files; empty if it has ended or is not ours to look at."""
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except GONE:
        return b""


def read_stat(pid: int) -> ProcessStat | None:
    """Return the process's identity, or None if it does not exist."""
    # The command name is in parentheses and may itself hold parentheses and blanks.
    fields = _content(pid, "stat").rpartition(b")")[2].split()
    if not fields:
        return None
    return ProcessStat(
        pid=pid,
        state=fields[0].decode(),
        parent=int(fields[1]),
        session=int(fields[3]),
        started=int(fields[19]),
    )


def all_processes() -> Iterator[ProcessStat]:
    """Yield every process of the machine, zombies included."""
    for name in os.listdir("/proc"):
        if name.isdecimal() and (stat := read_stat(int(name))):
            yield stat


def with_descendants(pids: Iterable[int], processes: Iterable[ProcessStat]) -> set[int]:
    """Return processes and, of those given, all that descend from them."""
    children: dict[int, list[int]] = {}
    for stat in processes:
        children.setdefault(stat.parent, []).append(stat.pid)
    found = set(pids)
    waiting = list(found)
    while waiting:
        new = [pid for pid in children.get(waiting.pop(), ()) if pid not in found]
        found.update(new)
        waiting += new
    return found


def tree(pid: int) -> set[int]:
    """Return a process and all its descendants."""
    return with_descendants([pid], all_processes())


def thread_ids(pid: int) -> list[int]:
    """Return the ids of a process's threads; they share one number space with process ids."""
    try:
        return sorted(int(name) for name in os.listdir(f"/proc/{pid}/task"))
    except (FileNotFoundError, ProcessLookupError):
        return []


def variable(pid: int, name: str) -> bytes:
    """Return a variable of the environment a process was started with; empty if it has none to read."""
    _, found, rest = (b"\0" + _content(pid, "environ")).partition(f"\0{name}=".encode())
    return rest.partition(b"\0")[0] if found else b""


def user_ids(pid: int) -> set[int]:
    """Return a process's real, effective, saved and file system user ids; empty if it does not exist."""
    lines = _content(pid, "status").splitlines()
    return {int(word) for line in lines if line.startswith(b"Uid:") for word in line.split()[1:]}


def command_line(pid: int) -> str:
    """Return a process's command line for people, or `unknown`."""
    words = _content(pid, "cmdline")[:400].split(b"\0")
    return " ".join(word.decode("utf-8", "replace") for word in words if word) or "unknown"


def open_file_path(pid: int, descriptor: int) -> str | None:
    """Return what a process's descriptor points to, or None."""
    try:
        return os.readlink(f"/proc/{pid}/fd/{descriptor}")
    except OSError:
        return None


def private_bytes(pid: int) -> int:
    """Return the bytes of a process's memory that a snapshot must carry: anonymous and shared pages."""
    counted = (b"RssAnon:", b"RssShmem:", b"VmSwap:")
    lines = _content(pid, "status").splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(counted))


def effort(pid: int) -> int:
    """Return what a process has used so far: clock ticks of CPU time, major page faults and MiB read."""
    fields = _content(pid, "stat").rpartition(b")")[2].split()
    counters = dict(line.split(b": ") for line in _content(pid, "io").splitlines())
    if not fields or not counters:
        return 0
    faults, user, system = (int(fields[place]) for place in (9, 11, 12))
    return faults + user + system + (int(counters[b"rchar"]) >> 20)


def socket_inodes(pid: int) -> set[int]:
    """Return the inodes of the sockets a process holds open."""
    try:
        descriptors = os.listdir(f"/proc/{pid}/fd")
    except GONE:
        return set()
    targets = [open_file_path(pid, int(descriptor)) or "" for descriptor in descriptors]
    return {int(target[8:-1]) for target in targets if target.startswith("socket:[")}


def hides_files(pid: int) -> bool:
    """Return whether a process's open files may not be looked at: it is another user's, or not dumpable."""
    try:
        os.listdir(f"/proc/{pid}/fd")
    except GONE as error:
        return isinstance(error, PermissionError)
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpSocket:
    """One row of /proc/net/tcp (proc_pid_net(5)), without its addresses."""

    local_port: int
    peer_port: int
    state: int
    uid: int
    inode: int


def tcp_sockets(pid: int) -> Iterator[TcpSocket]:
    """Yield the TCP sockets of the process's network namespace, those that listen first."""
    for name in ("tcp", "tcp6"):
        yield from tcp_table(f"/proc/{pid}/net/{name}")


def tcp_table(path: str) -> Iterator[TcpSocket]:
    """Yield the rows of one of the kernel's tables. Raises OSError, but for one that does not exist."""
    try:
        with open(path, encoding="ascii") as file:
            next(file, None)
            for line in file:
                fields = line.split()
                yield TcpSocket(
                    local_port=int(fields[1].rpartition(":")[2], 16),
                    peer_port=int(fields[2].rpartition(":")[2], 16),
                    state=int(fields[3], 16),
                    uid=int(fields[7]),
                    inode=int(fields[9]),
                )
    except GONE:
        return


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpConnections:
    """TCP connections of a group of processes, as (local port, peer port)."""

    outside: tuple[tuple[int, int], ...]
    """With somebody else."""
    within: tuple[tuple[int, int], ...]
    """Among themselves: both ends are theirs."""


def connections(pids: list[int]) -> TcpConnections:
    """Return the TCP connections that these processes hold; what merely listens is none."""
    held: set[int] = set()
    for pid in pids:
        held |= socket_inodes(pid)
    # Twice: the kernel may leave a row out if other sockets close while its table is read, and half of a pair
    # within would look like one with somebody else.
    rows = {row for _ in range(2) for row in tcp_sockets(pids[0])} if pids else set()
    pairs = [(row.local_port, row.peer_port) for row in rows if row.inode in held and row.state != TCP_LISTEN]
    both = set(pairs)
    return TcpConnections(
        outside=tuple(pair for pair in pairs if pair[::-1] not in both),
        within=tuple(pair for pair in pairs if pair[::-1] in both),
    )


def holder_of(inodes: set[int]) -> str:
    """Return which process holds one of these sockets, for people."""
    for stat in all_processes():
        if inodes & socket_inodes(stat.pid):
            return f"pid {stat.pid} ({command_line(stat.pid)})"
    return "an unknown process"
