"""What asyncio lacks of TCP: long silences, an end with an RST, and whether the peer read what was sent."""

import asyncio
import socket
import struct
import sys

_NO_LINGER = struct.pack("ii", 1, 0)
# struct tcp_info of linux/tcp.h: bytes acknowledged (the SYN counts as one), sent, and sent again.
_COUNTERS_AT = (120, 200, 208)
_TCP_INFO_BYTES = 216
_RESET = 7  # TCP_CLOSE, while our own side has not closed


def stay_alive(listener: socket.socket) -> None:
    """Have the kernel look after the connections that a listener accepts, however silent they are.

    What is between (NAT, load balancers that pass TCP on) forgets a silent connection after some minutes, and
    a client whose machine has gone sends nothing. Accepted sockets have the listener's options (tcp(7)).
    """
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_NODELAY, 1),
        (socket.TCP_KEEPIDLE, 30),
        (socket.TCP_KEEPINTVL, 15),
        (socket.TCP_KEEPCNT, 4),
    ):
        listener.setsockopt(socket.IPPROTO_TCP, option, value)


def reset_on_close(transport: asyncio.BaseTransport) -> None:
    """Have the kernel send an RST when the transport closes, so that both ends drop it at once.

    Callers decide when that is right.
    """
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)


def closed_unread(transport: asyncio.BaseTransport) -> bool:
    """Return whether the peer ended the connection without having read all that was sent.

    Either its kernel has not acknowledged all of it, or it closed with some unread, which resets the
    connection, if need be after a FIN. False if that cannot be told.
    """
    sock = transport.get_extra_info("socket")
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    except (OSError, AttributeError):
        return False
    if len(info) < _TCP_INFO_BYTES:
        return False
    acked, sent, again = (int.from_bytes(info[at : at + 8], sys.byteorder) for at in _COUNTERS_AT)
    return info[0] == _RESET or sent - again > acked - 1
