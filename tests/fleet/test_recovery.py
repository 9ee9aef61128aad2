"""kill -9 at any moment: running engines are adopted or ended, snapshots found, nothing leaks."""

import asyncio
import errno
import random

import pytest

from poorwill.core.machine.lifecycle import State
from poorwill.core.ports.driver import DriverError
from poorwill.core.words import Tier

from .house import A, B, House

ALL = (Tier.ASLEEP, Tier.FROZEN, Tier.COLD)


async def killed(house: House, door=None) -> None:
    """Take the moment of the kill, once the door is reached."""
    if door is not None:
        await door.reached()
    await house.settle()
    house.taken = house.moment()  # type: ignore[attr-defined]


def go_back(house: House) -> None:
    house.go_back(house.taken)  # type: ignore[attr-defined]


async def test_a_running_engine_is_adopted_and_serves(house: House):
    house.model()
    async with house.open():
        await house.serve()
        pid = house.world.of("a-0")[0].pid
        await killed(house)
    go_back(house)
    async with house.open():
        assert house.state() is State.READY
        lease = house.claim()
        assert lease is not None
        house.give_back(lease)
        assert [running.pid for running in house.world.of("a-0")] == [pid]
        house.world.end(pid, "signal 9")
        await house.until(A, State.PARKED)
    causes = house.causes()
    assert causes[causes.index("unobserved") + 1] == "linger"


@pytest.mark.parametrize(("known_as", "asked_for"), [("", ""), ("a", ""), ("hub/a", "hub/a")])
async def test_a_lease_has_the_engines_model_name(house: House, known_as: str, asked_for: str):
    room = house.model()
    room.engine.engine_model = known_as
    async with house.open():
        await house.serve()
        await killed(house)
    go_back(house)
    async with house.open():
        lease = house.claim()
        assert lease is not None
        assert lease.engine_model == asked_for
        house.give_back(lease)


async def test_an_outdated_engine_is_parked_cold(house: House):
    room = house.model(ladder=(Tier.FROZEN, Tier.COLD))
    async with house.open():
        await house.serve()
        (old,) = house.world.of("a-0")
        await killed(house)
    go_back(house)
    room.engine.argv = ("fake", "--context", "8192")
    async with house.open():
        await house.serve()
        assert house.world.of("a-0") == [old]
        await house.pass_time(31)
        assert (house.state(), house.tier()) == (State.PARKED, Tier.COLD)
        assert not house.world.snapshots, "an image of it would carry the new launch's name"
        await house.serve()
        assert [each.launched for each in house.world.of("a-0")] != [old.launched]
        await house.pass_time(31)
        assert house.tier() is Tier.FROZEN
    (adopted,) = house.rows("SELECT text FROM notes WHERE kind = 'adopted'")
    assert "changed: it is parked cold next" in str(adopted)
    (why,) = house.rows("SELECT why FROM parks WHERE NOT ok")
    assert "started before its configuration" in str(why)


async def test_an_outdated_sleeper_is_ended(house: House):
    room = house.model(ladder=(Tier.ASLEEP, Tier.COLD))
    async with house.open():
        await house.serve()
        await house.pass_time(31)
        assert house.tier() is Tier.ASLEEP
        await killed(house)
    go_back(house)
    room.engine.argv = ("fake", "--context", "8192")
    async with house.open():
        assert (house.state(), house.tier()) == (State.PARKED, Tier.COLD)
        assert not house.world.processes
        await house.serve()


async def test_an_engine_that_no_longer_answers_is_ended(house: House):
    room = house.model()
    async with house.open():
        await house.serve()
        await killed(house)
    go_back(house)
    room.engine.ready_door.mistakes.append(DriverError("hangs"))
    async with house.open():
        assert (house.state(), house.tier()) == (State.PARKED, Tier.COLD)
        assert not house.world.processes
        await house.serve()


async def test_a_dead_engine_leaves_unobserved_time(house: House):
    house.model()
    async with house.open():
        await house.serve()
        await killed(house)
    go_back(house)
    house.world.processes.clear()
    async with house.open():
        assert (house.state(), house.tier()) == (State.PARKED, Tier.COLD)
        assert house.causes()[-2:] == ["unobserved", "parked.cold"]
        await house.serve()


async def test_a_found_snapshot_was_just_parked(house: House):
    room = house.model()
    async with house.open():
        await house.serve()
        await house.pass_time(31)
        await killed(house)
    go_back(house)
    async with house.open():
        assert (house.state(), house.tier()) == (State.PARKED, Tier.FROZEN)
        assert "unobserved" not in house.causes()
        await house.serve()
        assert room.frozen.wake_door.passed == 1
        assert room.frozen.woken[-1].probe == "42"


async def test_a_snapshot_that_is_gone_leaves_the_replica_cold(house: House):
    room = house.model()
    async with house.open():
        await house.serve()
        await house.pass_time(31)
        await killed(house)
    go_back(house)
    house.world.snapshots.clear()
    async with house.open():
        assert (house.state(), house.tier()) == (State.PARKED, Tier.COLD)
        await house.serve()
        assert room.frozen.wake_door.passed == 0


async def test_a_snapshot_that_cannot_be_looked_for_is_kept(house: House):
    """Too few descriptors at the start say nothing of the image."""
    room = house.model(ladder=(Tier.FROZEN, Tier.COLD))
    async with house.open():
        await house.serve()
        await house.pass_time(31)
        assert house.tier() is Tier.FROZEN
        await killed(house)
    go_back(house)
    house.expected_errors = ("cannot look for what is parked", "cannot look for what exists")
    room.frozen.look_mistakes.append(OSError(errno.EMFILE, "Too many open files"))
    async with house.open():
        assert house.tier() is Tier.FROZEN
        await house.serve()
        assert len(house.world.of("a-0")) == 1


async def test_a_sleeping_engine_goes_on_sleeping(house: House):
    house.model(ladder=(Tier.ASLEEP, Tier.COLD), idle_s=(10, 600))
    async with house.open():
        await house.serve()
        pid = house.world.of("a-0")[0].pid
        await house.pass_time(11)
        await killed(house)
    go_back(house)
    async with house.open():
        assert (house.state(), house.tier()) == (State.PARKED, Tier.ASLEEP)
        assert house.world.asleep == {pid}
        await house.serve()
        assert [running.pid for running in house.world.of("a-0")] == [pid]


@pytest.mark.parametrize("tier", [Tier.COLD, Tier.FROZEN])
async def test_a_wake_that_was_under_way_is_undone(house: House, tier: Tier):
    room = house.model()
    async with house.open():
        await house.serve()
        await house.pass_time(400 if tier is Tier.COLD else 31)
        assert house.tier() is tier
        door = room.drivers[tier].wake_door
        door.shut()
        held = house.hold()
        await killed(house, door)
        assert len(house.world.processes) == 1
        door.open.set()
        house.give_back(await held.lease())
    go_back(house)
    async with house.open():
        assert (house.state(), house.tier()) == (State.PARKED, Tier.COLD)
        assert not house.world.processes and not house.world.snapshots
        await house.serve()
    outcomes = house.rows("SELECT ok FROM wakes ORDER BY id")
    assert outcomes == [(1,), (0,), (1,)]


async def test_an_early_park_leaves_an_engine(house: House):
    room = house.model()
    async with house.open():
        await house.serve()
        room.frozen.park_door.shut()
        await house.pass_time(31)
        await killed(house, room.frozen.park_door)
        room.frozen.park_door.open.set()
    go_back(house)
    async with house.open():
        assert house.state() is State.READY
        await house.serve()


async def test_a_snapshot_that_was_not_told_of_is_swept(house: House):
    house.model()
    async with house.open():
        await house.serve()
        await killed(house)
        await house.pass_time(31)
        assert house.world.snapshots
        # Killed between the driver's success and the commit that tells of it.
        house.taken.snapshots = dict(house.world.snapshots)  # type: ignore[attr-defined]
        house.taken.processes = {}  # type: ignore[attr-defined]
    go_back(house)
    async with house.open():
        assert (house.state(), house.tier()) == (State.PARKED, Tier.COLD)
        assert not house.world.snapshots
    assert house.rows("SELECT kind FROM notes WHERE kind = 'swept'")


async def test_a_failed_wake_uses_its_generation(house: House):
    house.model()
    async with house.open():
        house.world.weights_exist = False
        try:
            await house.hold().lease()
        except Exception:
            pass
        house.world.weights_exist = True
        await killed(house)
    go_back(house)
    async with house.open():
        await house.serve()
    assert house.rows("SELECT wake, ok FROM wakes ORDER BY id") == [("a-0.1", 0), ("a-0.2", 1)]


async def test_a_removed_model_is_ended(house: House):
    house.model(A)
    house.model(B)
    async with house.open():
        await house.serve(A)
        await house.serve(B)
        await house.pass_time(10)
        await killed(house)
    go_back(house)
    del house.rooms[B]
    async with house.open():
        assert [running.replica for running in house.world.processes.values()] == ["a-0"]
    assert house.rows("SELECT model FROM lives WHERE ended_us IS NOT NULL") == [("b",)]


@pytest.mark.parametrize("reap", [False, True])
async def test_an_orphan_is_reported_and_reaped_only_if_asked(house: House, reap: bool):
    house.model(A)
    house.model(B)
    async with house.open():
        await house.serve(B)
    for path in house.directory.glob("ledger.sqlite*"):
        path.unlink()
    del house.rooms[B]
    house.reap_orphans = reap
    async with house.open():
        assert bool(house.world.processes) is not reap
    kinds = {kind for (kind,) in house.rows("SELECT kind FROM notes")}
    assert kinds == ({"swept"} if reap else {"orphan"})


async def test_a_blind_driver_stops_no_start(house: House):
    room = house.model()
    house.expected_errors = ("cannot look for what exists",)

    async def unreadable():
        raise OSError("permission denied")

    room.frozen.inventory = unreadable  # type: ignore[method-assign]
    async with house.open():
        await house.serve()


async def test_an_unkillable_engine_stops_no_start(house: House):
    room = house.model()
    house.expected_errors = ("cannot end an engine",)
    async with house.open():
        await house.serve()
        await killed(house)
    go_back(house)
    room.engine.ready_door.mistakes.append(DriverError("hangs"))
    house.world.kill_mistakes.extend([DriverError("hangs inside the kernel")] * 2)
    async with house.open():
        assert house.state() is State.PARKED
        house.world.processes.clear()


async def test_a_missed_prediction_is_not_made_up(house: House):
    room = house.model()
    room.policy.wake_after_us = 0
    async with house.open():
        await house.pass_time(100)
        assert house.state() is State.PARKED or not house.rows("SELECT * FROM wakes")


async def test_measured_wakes_survive_a_restart(house: House):
    house.model()
    async with house.open():
        await house.serve()
    async with house.open():
        assert house.fleet is not None
        assert house.fleet.view.status()[0].wake.count == 1


@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=pytest.mark.nightly if seed >= 12 else ()) for seed in range(200)]
)
async def test_a_kill_at_any_moment_leaks_nothing(house: House, seed: int):
    random_ = random.Random(seed)
    for name in (A, B):
        house.model(name, ladder=ALL, idle_s=(10, 40, 200))
    doors = house.doors()
    for _ in range(3):
        async with house.open():
            for _ in range(random_.randint(1, 25)):
                await _something(house, random_, doors)
            await asyncio.sleep(0)
            house.taken = house.moment()  # type: ignore[attr-defined]
            for door in doors:
                door.open.set()
        go_back(house)
        async with house.open():
            for name in (A, B):
                unit = house.unit(name)
                pids = {running.pid for running in house.world.of(unit.id)}
                assert pids == ({unit.running.pid} if unit.running else set())
                mine = [s for s in house.world.snapshots.values() if s.replica == unit.id]
                assert [s.path for s in mine] == (
                    [unit.parked.path] if unit.parked and unit.parked.path else []
                )
            for name in (A, B):
                await house.serve(name)


async def _something(house: House, random_: random.Random, doors) -> None:
    what = random_.choice(["serve", "hold", "time", "time", "shut", "open", "end", "tick", "fail"])
    name = random_.choice([A, B])
    if what == "serve":
        lease = house.claim(name)
        if lease is not None:
            house.give_back(lease)
    elif what == "hold":
        house.start(_client(house, name))
    elif what == "time":
        await house.pass_time(random_.choice([1, 15, 50, 250]))
    elif what == "shut":
        random_.choice(doors).shut()
    elif what == "open":
        random_.choice(doors).open.set()
    elif what == "fail":
        random_.choice(doors).mistakes.append(DriverError("as it happens"))
    elif what == "end" and house.world.processes:
        house.world.end(random_.choice(sorted(house.world.processes)), "signal 9")
    for _ in range(random_.randint(0, 5)):
        await asyncio.sleep(0)


async def _client(house: House, name) -> None:
    try:
        house.give_back(house.claim(name) or await house.hold(name).lease())
    except Exception:
        pass
