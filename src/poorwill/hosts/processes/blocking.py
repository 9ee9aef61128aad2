"""Waiting for the end of a process from the event loop, without losing cancellation."""

import asyncio
import os


async def process_end(pidfd: int, *, within_s: float | None) -> bool:
    """Wait until the process behind a pidfd has ended (pidfd_open(2)); return False after `within_s`.

    Works for any process, child or not. Cancelled: nothing is left registered.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        if not ended.done():
            ended.set_result(None)

    loop.add_reader(pidfd, tell)
    try:
        async with asyncio.timeout(within_s):
            await ended
        return True
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(pidfd)


def open_pidfd(pid: int) -> int | None:
    """Return a pidfd for a process, None if it does not exist. The caller closes it."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None
