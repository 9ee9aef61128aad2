"""What the controller costs: a wake and a park with 1, 10 and 100 models, and 1,000 parked replicas.

    python bench/fleet/wakes.py [--models 1 10 100] [--parked 1000] [--rounds 20]

The whole fleet runs over a real ledger, with drivers that do nothing (tests/fleet), so that all time is the
controller's and the ledger's. CPU is of the process, all threads; the least of the rounds, which alternate.
"""

import argparse
import asyncio
import resource
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from tests.fleet.house import House  # noqa: E402

from poorwill.core.machine.inputs import ParkAsked  # noqa: E402
from poorwill.core.machine.lifecycle import State  # noqa: E402
from poorwill.core.words import ModelName, Tier  # noqa: E402

BATCH = 20
"""Wakes a round."""


def memory_mb() -> float:
    """Return the most memory this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def housed(folder: Path, models: int, replicas: int = 1) -> House:
    """Return a fleet of so many models."""
    folder.mkdir()
    house = House(directory=folder)
    for number in range(models):
        house.model(
            ModelName(f"m{number}"), ladder=(Tier.COLD,), idle_s=(3_600,), concurrency=4, replicas=replicas
        )
    return house


async def cycle(house: House, model: ModelName) -> None:
    """Wake a model for a request, serve it, and park it again."""
    house.give_back(await house.hold(model).lease())
    unit = house.unit(model)
    assert house.fleet is not None
    house.fleet.controller.submit(unit, ParkAsked(tier=Tier.COLD))
    while unit.replica.state is not State.PARKED:
        await unit.changed()


async def wakes(options: argparse.Namespace, folder: Path) -> None:
    """Measure wakes in fleets of several sizes, a round of each in turn."""
    least = dict.fromkeys(options.models, float("inf"))
    async with AsyncExitStack() as exits:
        houses = {count: housed(folder / str(count), count) for count in options.models}
        for house in houses.values():
            await exits.enter_async_context(house.open())
        for _ in range(options.rounds):
            for count, house in houses.items():
                began = time.process_time()
                for number in range(BATCH):
                    await cycle(house, ModelName(f"m{number % count}"))
                least[count] = min(least[count], time.process_time() - began)
    for count, took_s in least.items():
        print(f"{count:>4} models: {took_s / BATCH * 1e3:.2f} ms a wake, a request and a park")


async def parked(options: argparse.Namespace, folder: Path) -> None:
    """Measure the start of a fleet of parked replicas, for the first time and again."""
    house = housed(folder / "parked", options.parked)
    before = memory_mb()
    for word in ("first", "again"):
        began = time.process_time()
        async with house.open():
            took_s = time.process_time() - began
            print(
                f"{options.parked:,} parked replicas, {word}: {took_s:.2f} s of CPU to start,"
                f" {(memory_mb() - before) * 1024 / options.parked:.1f} KiB each"
            )


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--models", type=int, nargs="*", default=[1, 10, 100])
    parser.add_argument("--parked", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wakes-") as name:
        asyncio.run(parked(options, Path(name)))
        asyncio.run(wakes(options, Path(name)))


if __name__ == "__main__":
    main()
