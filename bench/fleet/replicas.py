"""What several replicas of a model cost: the dispatcher by request, and parked replicas by memory and start.

    python bench/fleet/replicas.py

No engine runs and nothing is measured of the gateway: these are the pure objects that the fleet runs.
"""

import time
import tracemalloc

from poorwill.core.machine.cell import Cell
from poorwill.core.machine.effects import StartWake
from poorwill.core.machine.holds import HoldQueue
from poorwill.core.machine.inputs import WakeAsked, WakeSucceeded
from poorwill.core.machine.replica import Replica
from poorwill.core.settings import ParkSettings, ReplicaSettings
from poorwill.core.words import ModelName, Tier, replica_id
from poorwill.policies import fixed_idle
from poorwill.policies.dispatch import Replicas

M = ModelName("m")
REQUESTS = 200_000
PARKED = 1_000


def model(count: int, limit: int) -> Replicas:
    """Return a model's replicas, parked cold."""
    known = ReplicaSettings(
        model=M, max_concurrency=limit, park=ParkSettings(ladder=(Tier.FROZEN, Tier.COLD))
    )
    queue = HoldQueue()
    policy = fixed_idle(((Tier.FROZEN, 300_000_000),))
    cells = [
        Cell(Replica(id=replica_id(M, number), settings=known, policy=policy), queue)
        for number in range(count)
    ]
    for cell in cells:
        cell.found_parked(Tier.COLD, 0)
    return Replicas(cells)


def wake(replicas: Replicas) -> None:
    """Have every replica ready."""
    for cell in replicas.cells:
        for effect in replicas.feed(cell, WakeAsked(), 1):
            if isinstance(effect, StartWake):
                replicas.feed(cell, WakeSucceeded(generation=effect.generation), 2)


def request_us(count: int, in_flight: int) -> float:
    """Return the microseconds of CPU that one lease costs, taken and given back, with others in flight."""
    replicas = model(count, 4)
    wake(replicas)
    out = []
    for _ in range(in_flight):
        claimed = replicas.claim(3)
        assert claimed is not None
        out.append(claimed[0])
    best = float("inf")
    for _ in range(50):
        began = time.process_time()
        for at_us in range(REQUESTS // 50):
            claimed = replicas.claim(at_us + 10)
            assert claimed is not None
            cell = claimed[0]
            replicas.give_back(cell, cell.generation, at_us + 10)
        best = min(best, (time.process_time() - began) / (REQUESTS // 50) * 1e6)
    return best


def main() -> None:
    """Print the figures."""
    for count in (1, 4, 16):
        idle, busy = request_us(count, 0), request_us(count, 2 * count + 1)
        print(f"{count:>2} replicas: {idle:.2f} us a request alone, {busy:.2f} us with half the places taken")
    tracemalloc.start()
    began = time.process_time()
    kept = [model(1, 4) for _ in range(PARKED)]
    took = time.process_time() - began
    print(
        f"{len(kept):,} parked replicas: {tracemalloc.get_traced_memory()[0] / PARKED / 1024:.1f} KiB each, "
        f"{took / PARKED * 1e6:.0f} us each to set up"
    )


if __name__ == "__main__":
    main()
