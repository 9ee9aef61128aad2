"""Work on files in worker threads, so that a disk that stalls blocks nobody else.

A disk may stall for minutes (NFS, a volume that was detached, a full write-back queue). So nothing touches a
file on the event loop's thread while a fleet is served; /proc and /sys are no disks.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


async def in_thread(work: Callable[[threading.Event], T]) -> T:
    """Run `work(stop)` in a thread of its own, since it may take long, and return its result.

    Cancelled: `stop` is set, the thread's end is awaited (it must look at `stop` often), and only then
    the cancellation goes on, so that no thread writes behind the back of a caller who cleans up.
    """
    stop = threading.Event()
    own = ThreadPoolExecutor(1, thread_name_prefix="poorwill")
    future = asyncio.get_running_loop().run_in_executor(own, work, stop)
    own.shutdown(wait=False)
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


async def aside(work: Callable[..., T], *args: object) -> T:
    """Return what `work(*args)` returns, run in a worker thread of the loop as if it had been called here.

    Cancelled: its end is awaited and its result returned all the same; the cancellation comes with the next
    await, where the caller can undo what was made.
    """
    future = asyncio.get_running_loop().run_in_executor(None, work, *args)
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait({future})
        except asyncio.CancelledError as error:
            cancelled = error
    task = asyncio.current_task()
    if cancelled is not None and task is not None:
        task.uncancel()  # the same one again, not a second: `asyncio.timeout` counts them
        task.cancel(*cancelled.args)
    return future.result()
