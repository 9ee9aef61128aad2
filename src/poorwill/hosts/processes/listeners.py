"""Whose sockets listen on an engine's port: asked from the kernel (sock_diag(7)), else read from /proc.

Another user who takes the port before the engine does would read prompts and answer in the model's name.
"""

import os
import socket
import struct
from collections.abc import Iterator
from itertools import takewhile

from poorwill.hosts.processes.procfs import TCP_LISTEN, TcpSocket, tcp_table

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST, NLM_F_DUMP = 0x1, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
HEAD = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port id
REQUEST = struct.Struct("=BBBBIHH16s16sIQ")  # struct inet_diag_req_v2, of linux/inet_diag.h
UID_INODE = struct.Struct("=II")
UID_AT = 64  # idiag_uid in struct inet_diag_msg
ANY_COOKIE = 2**64 - 1


def listening(host: str, port: int) -> TcpSocket | None:
    """Return the socket that a connection to this address reaches; some 20 us. Raises OSError."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return next(_asked(family, port, socket.inet_pton(family, host)), None)
    except FileNotFoundError:  # nobody listens, or a kernel without inet_diag
        found = listeners(port)
        return found[0] if len(found) == 1 else None


def listeners(port: int) -> list[TcpSocket]:
    """Return every socket that listens on a port in our network namespace. Raises OSError."""
    try:
        return [row for family in (socket.AF_INET, socket.AF_INET6) for row in _asked(family, port)]
    except (FileNotFoundError, PermissionError, ValueError, socket.gaierror):
        pass
    tables = (tcp_table(f"/proc/self/net/{name}") for name in ("tcp", "tcp6"))
    # Those that listen come first: no need to read on to the connections.
    listening = (takewhile(lambda row: row.state == TCP_LISTEN, table) for table in tables)
    return [row for table in listening for row in table if row.local_port == port]


def _asked(family: int, port: int, address: bytes | None = None) -> Iterator[TcpSocket]:
    """Ask for all listeners of a port, or for the one that a connection to an address would reach."""
    flags = NLM_F_REQUEST | (NLM_F_DUMP if address is None else 0)
    here = (address or b"").ljust(16, b"\0")
    request = REQUEST.pack(
        family, socket.IPPROTO_TCP, 0, 0, 1 << TCP_LISTEN, socket.htons(port), 0, here, here, 0, ANY_COOKIE
    )
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as kernel:
        kernel.send(HEAD.pack(HEAD.size + len(request), SOCK_DIAG_BY_FAMILY, flags, 0, 0) + request)
        while True:
            answer = kernel.recv(2**16)
            while answer:
                length, kind, *_ = HEAD.unpack_from(answer)
                if kind == NLMSG_DONE:
                    return
                if kind == NLMSG_ERROR:
                    number = -struct.unpack_from("=i", answer, HEAD.size)[0]
                    raise OSError(number, os.strerror(number))
                uid, inode = UID_INODE.unpack_from(answer, HEAD.size + UID_AT)
                yield TcpSocket(local_port=port, peer_port=0, state=TCP_LISTEN, uid=uid, inode=inode)
                if address is not None:
                    return
                answer = answer[(length + 3) & ~3 :]
