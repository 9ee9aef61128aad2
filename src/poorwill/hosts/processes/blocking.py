"""Waiting for what blocks - threads and processes - from the event loop, without losing cancellation."""

import asyncio
import os
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_thread(work: Callable[[threading.Event], T]) -> T:
    """Run `work(stop)` in a worker thread and return its result.

    Cancelled: `stop` is set, the thread's end is awaited (it must look at `stop` often), and only then
    the cancellation goes on, so that no thread writes behind the back of a caller who cleans up.
    """
    stop = threading.Event()
    future = asyncio.get_running_loop().run_in_executor(None, work, stop)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        stop.set()
        while not future.done():
            try:
                await asyncio.wait({future})
            except asyncio.CancelledError:
                continue  # already being cancelled; the thread ends first, then it goes on below
        if not future.cancelled():
            future.exception()  # retrieved: a failure of work nobody waits for any more is no news
        raise


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
