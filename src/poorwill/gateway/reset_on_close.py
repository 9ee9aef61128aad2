"""Ends a connection with an RST instead of a FIN. Callers decide when that is right."""

import asyncio
import socket
import struct

_NO_LINGER = struct.pack("ii", 1, 0)


def reset_on_close(transport: asyncio.BaseTransport) -> None:
    """Have the kernel send an RST when the transport closes, so that both ends drop it at once."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
