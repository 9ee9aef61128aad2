"""How long placement takes: 100 models on 64 devices, as full as a fleet gets.

python bench/fleet/places.py [--models N] [--devices N] [--rounds N]

Prints, in milliseconds of CPU, the median and the worst of: making the house of what is known (done once a
pass), finding a place, choosing who gives way where nothing fits, and one whole pass over 20 that wait.
"""

import argparse
import random
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median

from poorwill.core.settings import DeviceNeed
from poorwill.core.words import ModelName, ReplicaId
from poorwill.policies.placement.devices import DeviceState, Holder
from poorwill.policies.placement.places import (
    House,
    Resident,
    Wanted,
    find_place,
    foreign_bytes,
    goal,
    make_way,
    newcomer,
)

GIB = 2**30
NOW = 10**12
WAITING = 20


def need(rng: random.Random) -> DeviceNeed:
    """One model in five needs one to four whole devices, the others a share."""
    if rng.random() < 0.2:
        return DeviceNeed(gpus=rng.choice((1, 1, 2, 4)))
    return DeviceNeed(gpu_memory_bytes=rng.randint(8, 70) * GIB)


def wanted(number: int, rng: random.Random) -> Wanted:
    model = ModelName(f"m{number}")
    return Wanted(
        replica=ReplicaId(f"{model}-0"), model=model, need=need(rng), priority=rng.choice((0, 0, 1))
    )


def full(devices: list[DeviceState], models: int, rng: random.Random) -> list[Resident]:
    """Return residents, as many as fit; a third are busy."""
    house = House(devices)
    for number in range(models):
        each = wanted(number, rng)
        place = find_place(each, house)
        if place is not None:
            new = newcomer(each, place, devices)
            busy = rng.random() < 0.33
            house.add(
                replace(new, occupant=replace(new.occupant, busy=busy, wake_us=rng.randint(10**6, 10**8)))
            )
    return house.tenants


def seen(devices: list[DeviceState], residents: list[Resident]) -> list[DeviceState]:
    """Return the devices as NVML would show them: every resident holds what it was given."""
    return [
        replace(
            device,
            used_bytes=sum(each.taken.get(device.id, 0) for each in residents),
            holders=tuple(
                Holder(pid=n, bytes=each.taken[device.id], program="engine", replica=each.occupant.replica)
                for n, each in enumerate(residents)
                if each.taken.get(device.id)
            ),
        )
        for device in devices
    ]


def made(devices: list[DeviceState], residents: list[Resident]) -> House:
    foreign = {
        device.id: foreign_bytes(
            device,
            {each.occupant.replica: each.taken[device.id] for each in residents if device.id in each.taken},
        )
        for device in devices
    }
    return House(devices, foreign=foreign, tenants=residents)


def one_pass(devices: list[DeviceState], residents: list[Resident], waiting: list[Wanted]) -> None:
    house = made(devices, residents)
    for each in waiting:
        place = find_place(each, house)
        if place is None:
            make_way(each, house, now_us=NOW)
            place = goal(each, house)
        if place is not None:
            house.add(newcomer(each, place, devices))


def timed(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return (time.process_time() - began) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--devices", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args()
    times: dict[str, list[float]] = {}
    for seed in range(options.rounds):
        rng = random.Random(seed)
        empty = [
            DeviceState(id=f"GPU-{n}", index=n, bytes=rng.choice((40, 80, 80, 141)) * GIB)
            for n in range(options.devices)
        ]
        residents = full(empty, options.models, rng)
        devices = seen(empty, residents)
        house = made(devices, residents)
        newcomers = [wanted(options.models + n, rng) for n in range(WAITING)]
        for name, work in (
            ("house", lambda d=devices, r=residents: made(d, r)),
            ("find_place", lambda h=house, w=newcomers[0]: find_place(w, h)),
            ("make_way", lambda h=house, w=newcomers[0]: make_way(w, h, now_us=NOW)),
            (f"pass over {WAITING}", lambda d=devices, r=residents, w=newcomers: one_pass(d, r, w)),
        ):
            times.setdefault(name, []).append(timed(work))
    print(f"{options.models} models, {options.devices} devices, {options.rounds} fleets: ms")
    for name, took in times.items():
        print(f"{name:<14} median {median(took):7.2f}   worst {max(took):7.2f}")


if __name__ == "__main__":
    main()
