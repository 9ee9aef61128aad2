"""What asyncio does not offer of TCP: ending a connection with an RST, and what the peer has acknowledged."""

import asyncio
import socket
import struct
import sys

_NO_LINGER = struct.pack("ii", 1, 0)
# struct tcp_info of linux/tcp.h: bytes acknowledged (the SYN counts as one), sent, and sent again.
_COUNTERS_AT = (120, 200, 208)
_TCP_INFO_BYTES = 216


def reset_on_close(transport: asyncio.BaseTransport) -> None:
    """Have the kernel send an RST when the transport closes, so that both ends drop it at once.

    Callers decide when that is right.
    """
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)


def unacknowledged_bytes(transport: asyncio.BaseTransport) -> int:
    """Return how many of the bytes sent the peer's kernel has not acknowledged; 0 if that cannot be told."""
    sock = transport.get_extra_info("socket")
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    except (OSError, AttributeError):
        return 0
    if len(info) < _TCP_INFO_BYTES:
        return 0
    acked, sent, again = (int.from_bytes(info[at : at + 8], sys.byteorder) for at in _COUNTERS_AT)
    return max(sent - again - (acked - 1), 0)
