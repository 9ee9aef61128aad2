"""Waking an engine that a deeper tier parked in its own sleep."""

import asyncio
from collections.abc import Mapping

from poorwill.core.launch import Launch, Running
from poorwill.core.ports.driver import DriverError
from poorwill.core.ports.engine_sleep import EngineSleep


async def wake_engine(
    sleeps: Mapping[str, EngineSleep], running: Running, launch: Launch, *, limit_s: float
) -> None:
    """Wake the engine of a process that was frozen or suspended in its sleep. Raises DriverError."""
    sleep = sleeps.get(launch.sleep or "")
    if sleep is None:
        raise DriverError(
            f"the engine of replica {launch.replica} was parked asleep, and its sleep is not known"
        )
    try:
        async with asyncio.timeout(limit_s):
            await sleep.wake(running, launch)
    except TimeoutError as error:
        raise DriverError(
            f"the engine of replica {launch.replica} did not wake within {limit_s:g} s"
        ) from error
