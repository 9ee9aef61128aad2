"""One benchmark: rising concurrency through the gateway and directly, and what the gateway adds."""

import asyncio
from collections.abc import Callable

from poorwill.policies.coldstart.steady_state import Level
from poorwill.telemetry.loadtest.client import Caller, Target, shoot
from poorwill.telemetry.loadtest.load import (
    ClientLoad,
    kv_capacity,
    measure_overhead,
    run_level,
    stay_awake,
)
from poorwill.telemetry.loadtest.report import BenchResult


async def warm_up(gateway: Target, load: ClientLoad) -> None:
    """Wake the model as a client does, and let a few requests warm it up."""
    for number in range(3):
        caller = Caller(target=gateway)
        try:
            await shoot(caller, load.prompt(700_000 + number), tokens=load.tokens)
        finally:
            caller.close()


async def measure(
    gateway: Target,
    direct: Target | None,
    load: ClientLoad,
    *,
    most: int,
    pairs: int,
    progress: Callable[[str], None],
) -> BenchResult:
    """Measure a warm model up to `most` clients at once; without wakes. Raises BenchError."""
    levels: list[Level] = []
    async with asyncio.TaskGroup() as tasks:
        awake = tasks.create_task(stay_awake(gateway, load))
        added = await measure_overhead(direct, gateway, load, pairs=pairs) if direct else None
        number = 0
        for concurrency in _concurrencies(most):
            for target in (direct, gateway) if direct else (gateway,):
                progress(f"{concurrency} at once, {target.route}")
                number += 1_000_000
                levels.append(await run_level(target, load, concurrency=concurrency, first=number))
        capacity = await kv_capacity(direct) if direct else {}
        awake.cancel()
    progress("")
    return BenchResult(model=gateway.model, levels=levels, overhead=added, capacity=capacity, wakes=())


def _concurrencies(most: int) -> list[int]:
    found = [1]
    while found[-1] * 2 <= most:
        found.append(found[-1] * 2)
    return found if found[-1] == most else [*found, most]
