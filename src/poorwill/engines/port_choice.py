"""Chooses a replica's port and keeps it: a process woken from a snapshot listens on its old port.

No two replicas of a fleet have the same one, and one that somebody else took is exchanged at a cold start.
"""

import fcntl
import hashlib
import os
import socket
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path

from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.hosts.files.names import file_name

_FIRST, _COUNT = 20_000, 12_000
"""Below Linux's default range for outgoing connections (32768 and up), which could take a parked
replica's port."""


def replica_port(directory: str, replica: str, host: str, *, anew: bool) -> int:
    """Return the replica's port: the one on record, else a free one, which is put on record.

    `anew`: for an engine that starts from nothing, so that a port which is in use is exchanged. Blocks for
    small files. Raises OperatorFault if no port is free or the directory cannot be written.
    """
    home = Path(directory, "ports")
    record = home / file_name(replica)
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(home):
            others = {_recorded(path) for path in home.iterdir() if path.name != record.name}
            port = _recorded(record)
            if port and not (anew and (port in others or not _free(host, port))):
                return port
            port = _free_port(f"{directory}/{replica}", host, others)
            draft = home / f".{record.name}.new"
            draft.write_text(f"{port}\n")
            draft.replace(record)
    except (OSError, ValueError) as error:
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            f"cannot choose a port for {replica}: {error}",
            hint=f"make {home} writable, or give the model a port (key `port`)",
        ) from error
    return port


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Keep all others out of the records: replicas of one fleet may start at the same time."""
    descriptor = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _recorded(path: Path) -> int:
    """Return the port in a record, 0 if it holds none."""
    try:
        port = int(path.read_text())
    except (FileNotFoundError, ValueError):
        return 0
    return port if 0 < port < 2**16 else 0


def _free_port(key: str, host: str, others: Container[int]) -> int:
    start = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")
    for step in range(_COUNT):
        port = _FIRST + (start + step * 37) % _COUNT
        if port not in others and _free(host, port):
            return port
    raise ValueError(f"no port from {_FIRST} to {_FIRST + _COUNT - 1} is free on {host}")


def _free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
