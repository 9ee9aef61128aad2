"""The Ray actor of a host: carries calls to the service there, and nothing else.

It starts no process: Ray ends what its workers have started (RAY_kill_child_processes_on_worker_exit), and an
engine must outlive every one of Ray's.
"""

import asyncio
import os

SOCKET = "POORWILL_HOST_SOCKET"
"""Where the service of the host listens: set for the raylet that the service starts, for its workers."""
_MOST_BYTES = 16 * 2**20


class Carrier:
    """Made by Ray on the host."""

    async def carry(self, call: bytes) -> bytes:
        """Return the service's answer to a call, as `carry`."""
        return await carry(os.environ[SOCKET], call)


async def carry(socket: str, call: bytes) -> bytes:
    """Return the answer to a call of the service at a socket. Cancelled: the service sees its caller leave.

    Raises OSError.
    """
    reader, writer = await asyncio.open_unix_connection(socket, limit=_MOST_BYTES)
    try:
        writer.write(call)
        await writer.drain()
        answer = await reader.readline()
    finally:
        writer.close()
    if not answer:
        raise ConnectionResetError("the host's service left the call")
    return answer
