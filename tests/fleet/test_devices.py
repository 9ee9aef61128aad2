"""Devices are places: nobody gets more than there is, who gives way is where it helps, nobody starves."""

import os
import random
from collections.abc import Sequence

import pytest
from tests.fake_nvml import GIB, FakeGpu, FakeNvml

from poorwill.core.entries import Noted, WakeEnded
from poorwill.core.errors import ErrorCode, TryLater
from poorwill.core.machine.lifecycle import State
from poorwill.core.settings import DeviceNeed, WakeSettings
from poorwill.core.words import ModelName, ReplicaId, Tier
from poorwill.hosts.devices.nvml import NvmlDevices
from poorwill.policies.placement.devices import DeviceState

from .house import A, B, C, House, S

ME = os.getpid()
"""A program that is no replica."""


class WorldGpus:
    """Devices on which the world's engines hold what they were given, or asleep what they keep."""

    def __init__(self, house: House, *gpus: FakeGpu) -> None:
        self.house = house
        self.gpus = gpus
        self.keeps = 0
        self.nvml = FakeNvml(*gpus)
        self.real = NvmlDevices(nvml=self.nvml, replica_of=self._replica_of)  # type: ignore[arg-type]
        self.foreign: dict[str, int] = {}
        house.devices = self

    @property
    def trouble(self) -> str:
        return self.real.trouble

    async def look(self) -> Sequence[DeviceState]:
        for gpu in self.gpus:
            gpu.holders = {ME: self.foreign[gpu.uuid]} if self.foreign.get(gpu.uuid) else {}
            gpu.holders |= self.held(gpu)
        return self.real.read()

    def held(self, gpu: FakeGpu) -> dict[int, int]:
        """What each engine really holds of a device."""
        world = self.house.world
        places = {pid: world.places[pid] for pid in world.processes if gpu.uuid in world.places[pid].devices}
        given = {pid: place.share_bytes or gpu.bytes for pid, place in places.items()}
        return {pid: min(self.keeps, n) if pid in world.asleep else n for pid, n in given.items()}

    def _replica_of(self, pid: int) -> ReplicaId | None:
        running = self.house.world.processes.get(pid)
        return running.replica if running is not None else None


def share(gib: int, **others: object) -> DeviceNeed:
    return DeviceNeed(gpu_memory_bytes=gib * GIB, **others)  # type: ignore[arg-type]


def where(house: House, name: ModelName) -> list[str]:
    running = house.unit(name).running
    assert running is not None and running.place is not None
    return list(running.place.devices)


@pytest.fixture
def two(house: House) -> WorldGpus:
    return WorldGpus(house, FakeGpu("GPU-0"), FakeGpu("GPU-1"))


def notes(house: House, kind: str) -> list[str]:
    return [each.text for each in house.entries if isinstance(each, Noted) and each.kind == kind]


async def test_each_replica_gets_its_own_place(house: House, two: WorldGpus):
    house.model(A, devices=share(50))
    house.model(B, devices=share(30))
    house.model(C, devices=DeviceNeed(gpus=1))
    async with house.open():
        for name in (A, B, C):
            await house.serve(name)
        assert [where(house, name) for name in (A, B, C)] == [["GPU-0"], ["GPU-0"], ["GPU-1"]]
        place = house.unit(A).running.place
        assert (place.share_bytes, place.total_bytes) == (50 * GIB, 80 * GIB)


async def test_status_shows_who_has_what(house: House, two: WorldGpus):
    two.keeps, two.foreign = 2 * GIB, {"GPU-1": 3 * GIB}
    house.model(A, devices=share(50, on=("0",)), idle_s=(60, 300))
    house.model(B, ladder=(Tier.ASLEEP, Tier.COLD), devices=share(60, on=("1",)))
    house.model(C, devices=share(79, on=("0",)))
    async with house.open():
        lease = await house.lease(A)
        await house.serve(B)
        await house.pass_time(31)
        house.start(_swallow(house.hold(C)))
        await house.settle()
        assert house.fleet is not None
        first, second = await house.fleet.view.devices()
        assert (first["free_bytes"], second["free_bytes"]) == (30 * GIB, 75 * GIB)
        assert second["foreign_bytes"] == 3 * GIB
        assert second["replicas"] == [{"replica": "b-0", "given_bytes": 60 * GIB, "holds_bytes": 2 * GIB}]
        assert {each.model: each.notes["devices"] for each in house.fleet.view.status()} == {
            A: "on GPU-0, 50 GiB of it",
            B: "asleep on GPU-1, of which it keeps 2 GiB",
            C: "it waits for a place on a device",
        }
        house.give_back(lease)
        await house.pass_time(11)


async def test_a_model_without_a_claim_sees_no_device(house: House, two: WorldGpus):
    house.model(A)
    async with house.open():
        await house.serve(A)
        assert where(house, A) == []


async def test_only_the_device_that_is_needed_is_cleared(house: House, two: WorldGpus):
    house.model(A, devices=share(50, on=("0",)), idle_s=(60, 300))
    house.model(B, devices=share(50, on=("1",)), idle_s=(60, 300))
    house.model(C, devices=share(50, on=("1",)))
    async with house.open():
        await house.serve(A)
        await house.serve(B)
        await house.pass_time(11)
        await house.serve(C)
        assert [house.state(name) for name in (A, B, C)] == [State.READY, State.PARKED, State.READY]


async def test_a_restart_knows_who_has_what(house: House, two: WorldGpus):
    house.model(A, devices=share(50))
    house.model(B, devices=share(50))
    async with house.open():
        await house.serve(A)
        first = where(house, A)
    async with house.open():
        await house.until(A, State.READY)
        assert where(house, A) == first
        await house.serve(B)
        assert where(house, B) != first


async def test_what_sleeps_keeps_some_and_that_counts(house: House, two: WorldGpus):
    two.keeps = 6 * GIB
    house.model(A, ladder=(Tier.ASLEEP, Tier.COLD), devices=share(60, on=("0",)))
    house.model(B, devices=share(74, on=("0",)))
    house.model(C, devices=share(75, on=("0",)))
    async with house.open():
        await house.serve(A)
        await house.pass_time(31)
        assert (house.state(A), house.tier(A)) == (State.PARKED, "asleep")
        await house.serve(B)
        assert house.tier(A) == "asleep", "80 - 6 is enough for 74"
        await house.pass_time(31)
        await house.serve(C)
        assert (house.state(A), house.tier(A)) == (State.PARKED, "cold"), "but not for 75"


async def test_an_eviction_counts_on_what_comes_free(house: House, two: WorldGpus):
    two.keeps = 6 * GIB
    house.model(A, ladder=(Tier.ASLEEP, Tier.COLD), devices=share(60, on=("0",)), idle_s=(20, 300))
    house.model(B, devices=DeviceNeed(gpus=2))
    async with house.open():
        await house.serve(A)
        await house.pass_time(11)
        await house.serve(B)
        assert (house.state(A), house.tier(A)) == (State.PARKED, "cold"), "asleep it would be in the way"
        assert where(house, B) == ["GPU-0", "GPU-1"]


async def test_a_sleeper_wakes_where_it_sleeps(house: House, two: WorldGpus):
    two.keeps = 2 * GIB
    house.model(A, ladder=(Tier.ASLEEP, Tier.COLD), devices=share(60))
    house.model(B, devices=share(30))
    async with house.open():
        await house.serve(A)
        await house.pass_time(31)
        await house.serve(B)
        assert where(house, B) == ["GPU-0"]
        await house.pass_time(11)
        await house.serve(A)
        assert where(house, A) == ["GPU-0"]
        assert house.state(B) is State.PARKED, "it gave way where A is bound to"


async def test_two_that_wake_where_both_sleep(house: House):
    gpus = WorldGpus(house, FakeGpu("GPU-0"))
    gpus.keeps = 2 * GIB
    for name in (A, B):
        house.model(name, ladder=(Tier.ASLEEP, Tier.COLD), devices=share(77), idle_s=(12, 300))
    async with house.open():
        for name in (A, B):
            await house.serve(name)
            await house.pass_time(13)
        assert [house.tier(name) for name in (A, B)] == ["asleep", "asleep"]
        gpus.keeps = 4 * GIB  # they keep more than it seemed, and neither fits beside the other
        one, other = house.hold(A), house.hold(B)
        house.give_back(await one.lease())
        await house.pass_time(13)
        house.give_back(await other.lease())


async def test_one_let_in_is_no_sleeper_any_more(house: House):
    WorldGpus(house, FakeGpu("GPU-0"))  # asleep they keep nothing, so that both sleep on the one device
    for name, need in ((A, DeviceNeed(gpus=1)), (B, share(40))):
        house.model(name, ladder=(Tier.ASLEEP, Tier.COLD), devices=need, idle_s=(12, 300))
    async with house.open():
        for name in (A, B):
            await house.serve(name)
            await house.pass_time(13)
        one, other = house.hold(A), house.hold(B)
        lease = await one.lease()
        await house.settle()
        assert house.state(B) is State.WAKING
        house.give_back(lease)
        await house.pass_time(13)
        house.give_back(await other.lease())


async def test_frozen_is_restored_to_its_device(house: House, two: WorldGpus):
    room = house.model(A, devices=share(50), idle_s=(12, 300))
    house.model(B, devices=share(70, on=("0",)))
    async with house.open():
        await house.serve(A)
        await house.pass_time(13)
        assert house.tier(A) == "frozen"
        await house.serve(B)
        await house.pass_time(11)
        await house.serve(A)
        assert (where(house, A), house.state(B)) == (["GPU-0"], State.PARKED)
        assert len(room.frozen.woken) == 1


async def test_frozen_starts_cold_elsewhere_in_time(house: House, two: WorldGpus):
    """Its device is busy for longer than a cold start takes, and another one is free."""
    room = house.model(A, devices=share(50), idle_s=(12, 300))
    house.model(B, devices=share(70, on=("0",)))
    async with house.open():
        room.cold.wake_door.shut()
        first = house.hold(A)
        await house.pass_time(12)
        room.cold.wake_door.open.set()
        house.give_back(await first.lease())
        await house.pass_time(13)
        lease = await house.lease(B)
        held = house.hold(A)
        await house.pass_time(5)
        assert house.state(A) is State.WAKING
        await house.pass_time(10)
        house.give_back(await held.lease())
        assert where(house, A) == ["GPU-1"]
        assert not house.world.snapshots
        house.give_back(lease)


async def test_frozen_starts_cold_before_the_budget_ends(house: House, two: WorldGpus):
    """Its device is busy, another is free, and a cold start is expected to take longer than the budget."""
    house.model(A, devices=share(50), idle_s=(12, 300), wake=WakeSettings(budget_us=8 * S))
    house.model(B, devices=share(70, on=("0",)))
    async with house.open():
        await house.serve(A)
        await house.pass_time(13)
        lease = await house.lease(B)
        held = house.hold(A)
        await house.pass_time(7.5)
        house.give_back(await held.lease())
        assert where(house, A) == ["GPU-1"]
        house.give_back(lease)


async def test_frozen_starts_cold_when_its_device_is_lost(house: House, two: WorldGpus):
    house.model(A, devices=share(50), idle_s=(12, 300))
    async with house.open():
        await house.serve(A)
        await house.pass_time(13)
        two.gpus[0].lost = 15
        await house.serve(A)
        assert where(house, A) == ["GPU-1"]


async def test_a_foreign_program_is_waited_for(house: House, two: WorldGpus):
    two.foreign = {"GPU-0": 40 * GIB, "GPU-1": 40 * GIB}
    house.model(A, devices=share(50))
    async with house.open():
        held = house.hold(A)
        await house.pass_time(20)
        assert house.state(A) is State.WAKING and not house.world.processes
        two.foreign["GPU-1"] = 0
        await house.pass_time(2)
        house.give_back(await held.lease())
        assert where(house, A) == ["GPU-1"]


async def test_a_foreign_program_that_stays_is_named(house: House, two: WorldGpus):
    two.foreign = {"GPU-0": 40 * GIB, "GPU-1": 45 * GIB}
    house.model(A, devices=share(50), wake=WakeSettings(budget_us=30 * S, cap_us=900 * S))
    async with house.open():
        held = house.hold(A)
        await house.pass_time(28)
        assert house.state(A) is State.WAKING
        await house.pass_time(1.5)
        with pytest.raises(TryLater) as caught:
            await held.lease()
        assert caught.value.code is ErrorCode.NO_CAPACITY, "half a second before the budget"
        assert "GPU" not in str(caught.value), "what runs here is not for clients"
        why = house.unit(A).replica.last_error
        assert "needs 50 GiB of one device; GPU-0 has 40 GiB free:" in why
        assert f"(pid {ME}) holds 40 GiB" in why


async def test_idle_ones_give_way_before_foreign_are_blamed(house: House, two: WorldGpus):
    two.foreign = {"GPU-0": 20 * GIB, "GPU-1": 70 * GIB}
    house.model(A, devices=share(50))
    house.model(B, devices=share(50))
    async with house.open():
        await house.serve(A)
        await house.pass_time(11)
        await house.serve(B)
        assert (house.state(A), where(house, B)) == (State.PARKED, ["GPU-0"])


async def test_a_leak_is_told_and_counts(house: House, two: WorldGpus):
    house.model(A, devices=share(50, on=("0",)), idle_s=(12, 300))
    house.model(B, devices=share(50))
    async with house.open():
        await house.serve(A)
        two.gpus[0].leaked = 45 * GIB
        await house.pass_time(13)
        await house.until(A, State.PARKED)
        assert notes(house, "device_memory_kept") == [
            "45 GiB of GPU-0 were not freed: nobody that NVML names holds them"
        ]
        await house.serve(B)
        assert where(house, B) == ["GPU-1"]


async def test_an_engine_that_sleeps_with_its_memory_is_told(house: House, two: WorldGpus):
    two.keeps = 50 * GIB
    house.model(A, ladder=(Tier.ASLEEP, Tier.COLD), devices=share(60), idle_s=(12, 300))
    async with house.open():
        await house.serve(A)
        await house.pass_time(13)
        await house.until(A, State.PARKED)
        assert notes(house, "device_memory_kept") == [
            "asleep, it keeps 50 GiB of the 60 GiB that it was given of GPU-0"
        ]


async def test_what_never_fits_is_refused_with_the_arithmetic(house: House, two: WorldGpus):
    house.model(A, devices=DeviceNeed(gpus=3))
    async with house.open():
        with pytest.raises(TryLater) as caught:
            await house.hold(A).lease()
        assert caught.value.code is ErrorCode.NO_CAPACITY
        assert "a needs 3 whole devices; 2 of 2 devices will do" in house.unit(A).replica.last_error


async def test_those_apart_never_share_a_device(house: House, two: WorldGpus):
    house.model(A, devices=share(10, apart=("b",)))
    house.model(B, devices=share(10))
    house.model(C, devices=share(10))
    async with house.open():
        for name in (A, B, C):
            await house.serve(name)
        assert [where(house, name) for name in (A, B, C)] == [["GPU-0"], ["GPU-1"], ["GPU-0"]]


async def test_small_ones_do_not_starve_a_large_one(house: House, two: WorldGpus):
    house.model(A, devices=share(20, on=("0",)))
    house.model(B, devices=DeviceNeed(gpus=2))
    house.model(C, devices=share(20))
    async with house.open():
        lease = await house.lease(A)
        await house.pass_time(11)
        large, small = house.hold(B), house.hold(C)
        await house.settle()
        assert (house.state(B), house.state(C)) == (State.WAKING, State.WAKING)
        house.give_back(lease)
        lease = await large.lease()
        assert not house.world.of("c-0"), "it would have fitted, but the large one came first"
        house.give_back(lease)
        await house.pass_time(11)
        house.give_back(await small.lease())


async def test_who_waits_for_one_device_holds_up_no_other(house: House, two: WorldGpus):
    house.model(A, devices=share(70, on=("0",)))
    house.model(B, devices=share(70, on=("0",)))
    house.model(C, devices=share(70))
    async with house.open():
        lease = await house.lease(A)
        held = house.hold(B)
        await house.settle()
        await house.serve(C)
        assert where(house, C) == ["GPU-1"]
        house.give_back(lease)
        await house.pass_time(11)
        house.give_back(await held.lease())


async def test_an_aborted_wait_leaves_the_line(house: House, two: WorldGpus):
    house.model(A, devices=share(70, on=("0",)))
    house.model(B, devices=share(70, on=("0",)))
    async with house.open():
        lease = await house.lease(A)
        house.start(_swallow(house.hold(B)))
        await house.pass_time(181)
        assert (house.state(B), house.world.of("b-0")) == (State.PARKED, [])
        house.give_back(lease)
        await house.pass_time(11)
        await house.serve(A)


async def _swallow(held) -> None:
    try:
        await held.lease()
    except TryLater:
        pass


SEEDS = [seed if seed in (1, 2, 5) else pytest.param(seed, marks=pytest.mark.nightly) for seed in range(20)]


@pytest.mark.parametrize("seed", SEEDS)
async def test_no_load_overcommits_a_device(house: House, seed: int):
    random_ = random.Random(seed)
    gpus = WorldGpus(
        house,
        *(FakeGpu(f"GPU-{n}", random_.choice([24, 40, 80]) * GIB) for n in range(random_.randint(1, 4))),
    )
    gpus.keeps = random_.choice([0, 2, 5]) * GIB
    largest = max(gpu.bytes for gpu in gpus.gpus) // GIB
    names = [ModelName(f"m{i}") for i in range(6)]
    for name in names:
        whole = random_.random() < 0.3
        house.model(
            name,
            ladder=random_.choice([(Tier.COLD,), (Tier.ASLEEP, Tier.COLD), (Tier.FROZEN, Tier.COLD)]),
            devices=DeviceNeed(gpus=random_.randint(1, len(gpus.gpus)))
            if whole
            else share(random_.randint(1, largest)),
            priority=random_.choice([0, 0, 1]),
            idle_s=(random_.choice([5, 20, 60]), 300),
            wake=WakeSettings(budget_us=3000 * S, cap_us=3600 * S),
        )
    served = 0

    async def client(name: ModelName, seconds: int) -> None:
        nonlocal served
        lease = house.claim(name) or await house.hold(name).lease()
        while house.clock.at_us < began + seconds * S:
            await house.unit(name).changed()
        house.give_back(lease)
        served += 1

    def check() -> None:
        for gpu in gpus.gpus:
            assert sum(gpus.held(gpu).values()) <= gpu.bytes, "a device is overcommitted"

    async with house.open():
        began, asked = house.clock.at_us, 0
        for second in range(30):
            for _ in range(random_.choice([0, 0, 1, 2])):
                house.start(client(random_.choice(names), second + random_.randint(0, 5)))
                asked += 1
            await house.pass_time(1)
            check()
        for _ in range(240):
            await house.pass_time(2)
            check()
            if served == asked:
                break
        assert served == asked, "somebody starved"
    failed = [each.why for each in house.entries if isinstance(each, WakeEnded) and not each.ok]
    assert all("it is bound to" in why or "what it kept" in why for why in failed), failed
