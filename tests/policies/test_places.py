"""Where a replica goes, and who gives way: by device, best fit, busy-safe, never more than there is."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poorwill.core.launch import Place
from poorwill.core.settings import DeviceNeed
from poorwill.core.words import ModelName, ReplicaId
from poorwill.policies.placement.devices import DeviceState, Holder
from poorwill.policies.placement.places import (
    House,
    Resident,
    Victim,
    Wanted,
    find_place,
    foreign_bytes,
    goal,
    make_way,
    newcomer,
    taken_by,
)
from poorwill.policies.placement.refusals import never_fits, short_of
from poorwill.policies.placement.victims import MIN_RESIDENCE_US, Occupant

NOW = 1_000_000_000
S = 1_000_000
GIB = 2**30


def device(name: str, gib: int = 80, **others: object) -> DeviceState:
    index = others.pop("index", int(name[-1]) if name[-1].isdecimal() else 0)
    return DeviceState(id=f"GPU-{name}", index=index, bytes=gib * GIB, **others)  # type: ignore[arg-type]


def share(gib: int, **others: object) -> DeviceNeed:
    return DeviceNeed(gpu_memory_bytes=gib * GIB, **others)  # type: ignore[arg-type]


def wants(need: DeviceNeed, model: str = "new", **others: object) -> Wanted:
    return Wanted(replica=ReplicaId(f"{model}-0"), model=ModelName(model), need=need, **others)  # type: ignore[arg-type]


def resident(
    name: str, on: dict[str, int], *, keeps: int = 0, ready: bool = True, **others: object
) -> Resident:
    fields: dict[str, object] = {
        "bytes": 0,
        "priority": 0,
        "busy": False,
        "leaving": False,
        "ready_since_us": 0,
        "idle_since_us": 0,
    }
    apart = others.pop("apart", ())
    return Resident(
        occupant=Occupant(replica=ReplicaId(f"{name}-0"), **{**fields, **others}),  # type: ignore[arg-type]
        model=ModelName(name),
        taken={f"GPU-{each}": count * GIB for each, count in on.items()},
        keeps=dict.fromkeys((f"GPU-{each}" for each in on), keeps * GIB),
        apart=apart,  # type: ignore[arg-type]
        ready=ready,
    )


def placed(need: DeviceNeed, devices, tenants=(), **others: object) -> list[str] | None:
    place = find_place(wants(need, **others), House(devices, tenants=tenants))
    return None if place is None else [each.removeprefix("GPU-") for each in place.devices]


def victims(need: DeviceNeed, devices, tenants, **others: object) -> list[str]:
    going = make_way(wants(need, **others), House(devices, tenants=tenants), now_us=NOW)
    return [f"{each.replica[:-2]}{'!' if each.deep else ''}" for each in going]


A, B, SMALL = device("a0"), device("b1"), device("c2", 24)


# where


def test_a_share_goes_where_the_least_is_left_over():
    there = [resident("x", {"b1": 50})]
    assert placed(share(20), [A, B], there) == ["b1"]
    assert placed(share(40), [A, B], there) == ["a0"]
    assert placed(share(20), [A, B, SMALL], there) == ["c2"]


def test_a_whole_device_is_the_smallest_that_will_do():
    assert placed(DeviceNeed(gpus=1), [A, SMALL]) == ["c2"]
    assert placed(DeviceNeed(gpus=1, gpu_memory_bytes=40 * GIB), [A, SMALL]) == ["a0"]


def test_whole_devices_are_alike_if_they_can_be():
    assert placed(DeviceNeed(gpus=2), [SMALL, A, B]) == ["a0", "b1"]
    assert placed(DeviceNeed(gpus=2), [SMALL, A]) == ["c2", "a0"]
    assert placed(DeviceNeed(gpus=3), [SMALL, A]) is None


def test_whole_means_that_nobody_else_is_there():
    asleep = resident("x", {"a0": 1}, ready=False)
    assert placed(DeviceNeed(gpus=1), [A], [asleep]) is None
    assert placed(share(70), [A], [asleep]) == ["a0"]


def test_pins_name_devices_in_each_of_their_ways():
    here = [replace(A, host="big"), replace(B, host="big")]
    for name in ("GPU-b1", "GPU-b", "1", "big:1"):
        assert placed(share(1, on=(name,)), here) == ["b1"]
    assert placed(share(1, on=("other:1",)), here) is None


def test_who_is_apart_shares_no_device_while_ready():
    image = resident("image", {"a0": 10}, apart=("new",))
    assert placed(share(1), [A, B], [image]) == ["b1"]
    assert placed(share(1, apart=("image",)), [A], [resident("image", {"a0": 10})]) is None
    assert placed(share(1), [A], [replace(image, ready=False)]) == ["a0"]


def test_a_lost_device_and_a_mig_instance_among_several():
    lost = replace(A, unfit="NVML: GPU is lost")
    part = replace(SMALL, id="MIG-c2", instance=True)
    assert placed(share(1), [lost]) is None
    assert placed(DeviceNeed(gpus=1), [part]) == ["MIG-c2"]
    assert placed(DeviceNeed(gpus=2), [part, replace(part, id="MIG-d3")]) is None


def test_foreign_memory_counts_as_taken():
    house = House([A], foreign={"GPU-a0": 30 * GIB})
    assert find_place(wants(share(60)), house) is None
    assert find_place(wants(share(50)), house) == Place(
        devices=("GPU-a0",), share_bytes=50 * GIB, total_bytes=80 * GIB
    )
    assert find_place(wants(DeviceNeed(gpus=1)), house) is None
    little = House([A], foreign={"GPU-a0": GIB})
    assert find_place(wants(DeviceNeed(gpus=1)), little) is not None, "a display server holds some memory"


# who gives way


def test_only_those_on_the_devices_needed_give_way():
    there = [resident("x", {"a0": 70}, wake_us=9 * S), resident("y", {"b1": 70}, wake_us=5 * S)]
    assert victims(share(40), [A, B], there) == ["y"]
    assert victims(share(40, on=("0",)), [A, B], there) == ["x"]


def test_the_cheapest_device_is_cleared():
    there = [
        resident("x", {"a0": 40}, wake_us=3 * S),
        resident("y", {"a0": 40}, wake_us=3 * S),
        resident("z", {"b1": 80}, wake_us=5 * S),
    ]
    assert victims(DeviceNeed(gpus=1), [A, B], there) == ["z!"]
    assert victims(share(30), [A, B], there) == ["x"]


def test_one_on_several_devices_is_parked_once():
    both = resident("x", {"a0": 80, "b1": 80}, wake_us=10 * S)
    other = resident("y", {"c3": 80}, wake_us=6 * S)
    more = [A, B, device("c3")]
    assert victims(DeviceNeed(gpus=2), more, [both, other]) == ["x!"]
    assert victims(DeviceNeed(gpus=1), more, [both, other]) == ["y!"]


def test_lower_priority_goes_whatever_it_is_worth():
    there = [resident("x", {"a0": 70}, priority=1, wake_us=S), resident("y", {"b1": 70}, wake_us=90 * S)]
    assert victims(share(40), [A, B], there, priority=1) == ["y"]
    assert victims(share(40, on=("0",)), [A, B], there) == [], "never one of higher priority"


def test_nobody_goes_who_is_busy_just_woken_or_in_vain():
    for kept in ({"busy": True}, {"ready_since_us": NOW - MIN_RESIDENCE_US + 1}):
        assert (
            victims(DeviceNeed(gpus=1), [A], [resident("x", {"a0": 10}, **kept), resident("y", {"a0": 9})])
            == []
        )
    assert victims(share(90), [A], [resident("x", {"a0": 10})]) == []
    leaving = resident("x", {"a0": 70}, leaving=True, busy=True)
    assert victims(share(40), [A, B], [leaving, resident("y", {"b1": 70})]) == [], "it is waited for"


def test_what_stays_asleep_on_the_device_counts():
    there = [resident("x", {"a0": 70}, keeps=5)]
    assert victims(share(70), [A], there) == ["x"]
    assert victims(share(78), [A], there) == ["x!"], "asleep it would still be in the way"


def test_a_sleeper_gives_up_the_rest():
    assert victims(share(79), [A], [resident("x", {"a0": 5}, ready=False)]) == ["x"]


def test_host_memory_and_devices_are_freed_together():
    there = [resident("x", {"a0": 70}, bytes=6), resident("y", {}, bytes=6)]
    going = make_way(wants(share(70), host_bytes=10), House([A], tenants=there, host_bytes=16), now_us=NOW)
    assert [each.replica for each in going] == ["x-0"]
    going = make_way(wants(share(70), host_bytes=10), House([A], tenants=there, host_bytes=12), now_us=NOW)
    assert [each.replica for each in going] == ["x-0", "y-0"]


# what is told


def test_what_never_fits_is_told_with_the_arithmetic():
    assert never_fits(wants(share(80)), [A]) == ""
    assert never_fits(wants(share(81)), [A, SMALL]) == (
        "needs 81 GiB of one device; none of 2 devices will do: GPU-a0 has 80 GiB, GPU-c2 has 24 GiB"
    )
    assert never_fits(wants(DeviceNeed(gpus=2, gpu_memory_bytes=40 * GIB)), [A, SMALL]).startswith(
        "needs 2 whole devices of at least 40 GiB; 1 of 2 devices will do: GPU-a0 has 80 GiB"
    )
    assert "GPU-a0 has 80 GiB but NVML: GPU is lost" in never_fits(
        wants(share(1)), [replace(A, unfit="NVML: GPU is lost")]
    )
    assert never_fits(wants(share(1)), []).endswith("none of 0 devices will do: none is there")


def test_a_foreign_program_is_named_with_its_bytes():
    holders = (
        Holder(pid=7, bytes=GIB, program="Xorg"),
        Holder(pid=4711, bytes=60 * GIB, program="python3 train.py"),
        Holder(pid=9, bytes=4 * GIB, program="ours", replica=ReplicaId("x-0")),
    )
    busy = replace(A, used_bytes=68 * GIB, holders=holders)
    foreign = {busy.id: foreign_bytes(busy, {ReplicaId("x-0"): 4 * GIB})}
    house = House([busy], foreign=foreign, tenants=[resident("x", {"a0": 4})])
    assert short_of(wants(share(40)), house) == (
        "needs 40 GiB of one device; GPU-a0 has 12 GiB free: python3 train.py (pid 4711) holds 60 GiB, "
        "Xorg (pid 7) holds 1 GiB, 3 GiB more is held by nobody that NVML names"
    )


def test_foreign_memory_is_what_no_replica_holds():
    ours = Holder(pid=1, bytes=20 * GIB, program="vllm", replica=ReplicaId("x-0"))
    other = Holder(pid=2, bytes=10 * GIB, program="train")
    seen = replace(A, used_bytes=30 * GIB, holders=(ours, other))
    assert foreign_bytes(seen, {ReplicaId("x-0"): 40 * GIB}) == 10 * GIB
    # One that was let in and shows nothing yet does not hide a program that is named.
    assert foreign_bytes(seen, {ReplicaId("x-0"): 40 * GIB, ReplicaId("y-0"): 40 * GIB}) == 10 * GIB
    leaked = replace(seen, used_bytes=50 * GIB)
    assert foreign_bytes(leaked, {ReplicaId("x-0"): 20 * GIB}) == 30 * GIB, "20 of them leaked"
    # A process that a park could not end belongs to a replica that has nothing there any more.
    assert foreign_bytes(seen, {}) == 30 * GIB
    # In a container NVML names nobody: what replicas were given is theirs.
    unseen = replace(A, used_bytes=30 * GIB)
    assert foreign_bytes(unseen, {ReplicaId("x-0"): 40 * GIB}) == 0
    assert foreign_bytes(unseen, {ReplicaId("x-0"): 20 * GIB}) == 10 * GIB
    assert foreign_bytes(A, {}) == 0, "nothing is known"


# properties

sizes = st.sampled_from([16, 24, 40, 80])
needs = st.one_of(
    st.builds(share, st.integers(1, 80)),
    st.builds(lambda n: DeviceNeed(gpus=n), st.integers(1, 3)),
    st.builds(lambda: DeviceNeed()),
)
actions = st.lists(
    st.tuples(needs, st.integers(0, 2), st.booleans(), st.integers(0, 9), st.integers(0, 8)), max_size=30
)


@given(st.lists(sizes, min_size=1, max_size=5), actions)
def test_no_load_ever_overcommits_a_device(gibs, load):
    """Replicas come, evict, sleep, keep some, fall busy: what they hold never exceeds what there is."""
    devices = [device(f"x{n}", gib) for n, gib in enumerate(gibs)]
    there: dict[ReplicaId, Resident] = {}
    for number, (need, priority, busy, cost, keeps) in enumerate(load):
        wanted = replace(wants(need, f"m{number}"), priority=priority)
        house = House(devices, tenants=there.values())
        place = find_place(wanted, house)
        if place is None:
            going = make_way(wanted, house, now_us=NOW)
            for victim in going:
                gone = there.pop(victim.replica)
                assert not gone.occupant.busy and gone.occupant.priority <= priority
                if not victim.deep and gone.ready:
                    there[victim.replica] = replace(gone, taken=gone.keeps, ready=False)
            place = find_place(wanted, House(devices, tenants=there.values()))
            assert bool(going) <= (place is not None), "nobody goes in vain"
        if place is None:
            assert goal(wanted, house) or never_fits(wanted, devices)
            continue
        assert len(place.devices) == (need.gpus or (1 if need.any else 0))
        new = newcomer(wanted, place, devices)
        kept = {each: min(keeps * GIB, count) for each, count in new.taken.items()}
        occupant = replace(new.occupant, busy=busy, wake_us=cost * S)
        there[wanted.replica] = replace(new, occupant=occupant, keeps=kept)
        for each in devices:
            held = [one.taken[each.id] for one in there.values() if one.taken.get(each.id)]
            assert sum(held) <= each.bytes
            assert each.bytes not in held or len(held) == 1, "a whole device is its own"


uuids = st.text("ab", min_size=1, max_size=3)
hosts = st.sampled_from(["", "east", "west"])
mixed = st.lists(
    st.tuples(uuids, hosts, sizes, st.integers(0, 20), st.sampled_from(["", "", "", "lost"])),
    min_size=3,
    max_size=6,
    unique_by=lambda one: one[0],
)
names = st.one_of(
    uuids.map("GPU-{}".format),
    st.integers(0, 3).map(str),
    st.builds("{}:{}".format, hosts, st.integers(0, 5)),
)
pinned = st.tuples(needs, st.lists(names, max_size=2), st.sampled_from([(), ("m0",), ("m1", "m2")]))


@given(mixed, st.lists(pinned, min_size=5, max_size=20))
def test_pins_hosts_and_foreign_memory_hold(fleet, load):
    """Names in each of their ways, also beginnings of several: nobody is anywhere else, or on too little."""
    devices = [
        DeviceState(id=f"GPU-{uuid}", index=index % 4, host=host, bytes=gib * GIB, unfit=unfit)
        for index, (uuid, host, gib, _, unfit) in enumerate(fleet)
    ]
    foreign = {f"GPU-{uuid}": count * GIB for uuid, _, _, count, _ in fleet}
    house = House(devices, foreign=foreign)
    tenants: dict[str, list[Wanted]] = {one.id: [] for one in devices}
    for number, (need, on, apart) in enumerate(load):
        wanted = wants(replace(need, on=tuple(on), apart=apart), f"m{number}")
        place = find_place(wanted, house)
        if place is None:
            continue
        house.add(replace(newcomer(wanted, place, devices), ready=True))
        assert len(set(place.devices)) == (need.gpus or (1 if need.any else 0))
        for one in devices:
            if one.id in place.devices:
                named = {str(one.index), f"{one.host}:{one.index}"}
                assert not on or any(name in named or one.id[: len(name)] == name for name in on)
                assert not one.unfit
                here = tenants[one.id]
                assert not any(each.model in apart or wanted.model in each.need.apart for each in here)
                here.append(wanted)
                taken = sum(each.need.gpu_memory_bytes for each in here)
                whole = any(each.need.gpus for each in here)
                assert len(here) == 1 if whole else taken + foreign[one.id] <= one.bytes


@given(st.lists(sizes, min_size=1, max_size=5), actions, needs, st.data())
def test_victims_may_go_suffice_and_are_all_needed(gibs, load, need, data):
    devices = [device(f"x{n}", gib) for n, gib in enumerate(gibs)]
    house = House(devices)
    for number, (theirs, priority, busy, cost, _) in enumerate(load):
        wanted = replace(wants(theirs, f"m{number}"), priority=priority)
        place = find_place(wanted, house)
        if place is not None:
            new = newcomer(wanted, place, devices)
            house.add(replace(new, occupant=replace(new.occupant, busy=busy, wake_us=cost * S)))
    wanted = replace(wants(need), priority=data.draw(st.integers(0, 2)))
    going = make_way(wanted, house, now_us=NOW)
    if not going:
        return
    assert find_place(wanted, house) is None
    by_id = {each.occupant.replica: each for each in house.tenants}
    for victim in going:
        assert not by_id[victim.replica].occupant.busy
        assert by_id[victim.replica].occupant.priority <= wanted.priority
    assert find_place(wanted, _without(house, devices, going)) is not None
    if not need.gpus:
        for spared in going:
            rest = [each for each in going if each != spared]
            assert find_place(wanted, _without(house, devices, rest)) is None, "nobody superfluous"


def _without(house: House, devices, going: list[Victim]) -> House:
    gone = {victim.replica for victim in going}
    return House(devices, tenants=[each for each in house.tenants if each.occupant.replica not in gone])


@given(st.lists(sizes, min_size=1, max_size=4), actions, needs)
def test_who_waits_keeps_its_goal_from_those_behind(gibs, load, need):
    """With the goal of the first in line taken, what it is short of there never grows."""
    devices = [device(f"x{n}", gib) for n, gib in enumerate(gibs)]
    house = House(devices)
    first = wants(need, "first")
    short: int | None = None
    for number, (theirs, *_rest) in enumerate(load):
        if find_place(first, house) is None:
            there = goal(first, house)
            if there is None:
                return
            missing = min(_short(first, one, house) for one in devices if one.id in there.devices)
            assert short is None or missing <= short
            short = missing
            house.add(newcomer(first, there, devices))
        wanted = wants(theirs, f"m{number}")
        place = find_place(wanted, house)
        house.drop(first.replica)
        if place is not None:
            house.add(newcomer(wanted, place, devices))


def _short(wanted: Wanted, one: DeviceState, house: House) -> int:
    need = taken_by(Place(devices=(one.id,), share_bytes=wanted.need.gpu_memory_bytes), [one])[one.id]
    return need - house.free(one)


@pytest.mark.parametrize("need", [share(8), DeviceNeed(gpus=2)])
def test_an_empty_house_gives_the_same_place_each_time(need):
    devices = [device(f"x{n}", 80) for n in range(4)]
    assert find_place(wants(need), House(devices)) == find_place(wants(need), House(list(reversed(devices))))
