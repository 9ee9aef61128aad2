"""Chooses a replica's port once and keeps it: a process woken from a snapshot listens on its old port."""

import hashlib
import socket
from pathlib import Path

from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.files.names import file_name

_FIRST, _COUNT = 20_000, 12_000
"""Below Linux's default range for outgoing connections (32768 and up), which could take a parked
replica's port."""


def kept_port(directory: str, replica: str, host: str) -> int:
    """Return the replica's port: the one on record, else a free one, which is put on record.

    Blocks for a small file. Raises OperatorFault if no port is free or the directory cannot be written.
    """
    record = Path(directory, "ports", file_name(replica))
    try:
        if record.exists():
            return int(record.read_text())
        port = _free_port(f"{directory}/{replica}", host)
        record.parent.mkdir(parents=True, exist_ok=True)
        draft = record.with_name(f".{record.name}.new")
        draft.write_text(f"{port}\n")
        draft.replace(record)
    except (OSError, ValueError) as error:
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            f"cannot choose a port for {replica}: {error}",
            hint=f"make {record.parent} writable, or give the model a port",
        ) from error
    return port


def _free_port(key: str, host: str) -> int:
    start = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for step in range(200):
        port = _FIRST + (start + step * 37) % _COUNT
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise ValueError(f"200 ports tried on {host}, none is free")
