"""Ending a connection with an RST instead of a FIN. When that is right is its callers' to decide."""

import asyncio
import socket
import struct

_NO_LINGER = struct.pack("ii", 1, 0)


def reset_on_close(transport: asyncio.BaseTransport) -> None:
    """Have the kernel send an RST when the transport closes, so that both ends are rid of it at once."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
