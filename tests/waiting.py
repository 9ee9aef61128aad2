"""Waiting for what nothing signals: another process's file, its end, an answer behind a socket.

The one place in the tests that sleeps. What happens in the test's own process has an event to wait for.
"""

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

EVERY_S = 0.002


async def until(condition: Callable[[], T], *, within_s: float = 30.0) -> T:
    """Return the first true value of `condition`; fails after `within_s`."""
    async with asyncio.timeout(within_s):
        while not (value := condition()):  # noqa: ASYNC110 - nothing signals it
            await asyncio.sleep(EVERY_S)
    return value


def wait_until(condition: Callable[[], T], *, within_s: float = 30.0) -> T:
    """`until` for tests that have no event loop."""
    never = threading.Event()
    for _ in range(int(within_s / EVERY_S)):
        if value := condition():
            return value
        never.wait(EVERY_S)
    raise AssertionError(f"nothing true within {within_s} s")


async def pause(seconds: float) -> None:
    """A fake's own slowness; no test goes on because of it."""
    await asyncio.sleep(seconds)
