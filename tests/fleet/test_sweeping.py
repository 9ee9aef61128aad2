"""The orphan sweep on a timer: told once, ended only if asked, and never what wakes, parks or is owned."""

import errno
from dataclasses import replace

import pytest

from poorwill.core.launch import Launch, Parked
from poorwill.core.machine.lifecycle import State
from poorwill.core.ports.driver import DriverError, Found
from poorwill.core.words import ModelName, ReplicaId, Tier
from poorwill.fleet.sweeps.judgement import may_exist

from .house import A, B, House, S

STRANGER = ReplicaId("stranger-0")


def stray_engine(house: House) -> int:
    launch = Launch(
        model=ModelName("stranger"),
        replica=STRANGER,
        argv=("engine",),
        engine="fake",
        port=7777,
        log_path="/dev/null",
    )
    return house.world.spawn(launch, 1, "fake-cold").pid


def stray_snapshot(house: House, replica: ReplicaId = STRANGER) -> str:
    path = f"/snap/{replica}.stray"
    house.world.snapshots[path] = Parked(
        replica=replica, generation=999, tier=Tier.FROZEN, path=path, image_bytes=1
    )
    return path


def notes(house: House) -> list[tuple[object, ...]]:
    return house.rows("SELECT kind, text FROM notes WHERE kind IN ('orphan', 'swept')")


async def test_a_new_orphan_is_noted_once(house: House):
    house.model()
    async with house.open():
        await house.serve()
        await house.sweeps.one()
        pid, path = stray_engine(house), stray_snapshot(house)
        for _ in range(3):
            await house.sweeps.one()
        assert pid in house.world.processes and path in house.world.snapshots
        house.world.end(pid)
    assert sorted(notes(house)) == [("orphan", f"/snap/{STRANGER}.stray"), ("orphan", f"pid {pid}")]


async def test_a_failed_look_ends_no_orphan(house: House):
    room = house.model()
    async with house.open():
        await house.serve()
        pid = stray_engine(house)
        await house.sweeps.one()
        house.expected_errors = ("cannot look for what exists",)
        room.cold.look_mistakes.append(OSError(errno.EMFILE, "Too many open files"))
        for _ in range(2):
            await house.sweeps.one()
        assert not room.cold.look_mistakes
        await house.settle()
        assert house.rows("SELECT ended_us FROM lives WHERE replica LIKE 'stranger%'") == [(None,)]
        house.world.end(pid)
    assert notes(house) == [("orphan", f"pid {pid}")]


async def test_a_returning_orphan_is_noted_again(house: House):
    house.model()
    path = stray_snapshot(house)
    async with house.open():
        await house.sweeps.one()
        await house.settle()
        assert len(notes(house)) == 1
        parked = house.world.snapshots.pop(path)
        await house.sweeps.one()
        house.world.snapshots[path] = parked
        await house.sweeps.one()
    assert notes(house) == [("orphan", path)] * 2


async def test_it_is_ended_where_the_operator_asked_for_that(house: House):
    house.model()
    house.reap_orphans = True
    async with house.open():
        await house.serve()
        pid, path = stray_engine(house), stray_snapshot(house)
        await house.sweeps.one()
        assert pid not in house.world.processes and path not in house.world.snapshots
        await house.serve()
        assert house.state() is State.READY and len(house.world.of("a-0")) == 1
    assert {kind for kind, _ in notes(house)} == {"swept"}


@pytest.mark.parametrize("tier", [Tier.ASLEEP, Tier.FROZEN])
async def test_what_is_owned_is_no_orphan(house: House, tier: Tier):
    house.model(ladder=(tier, Tier.COLD))
    house.reap_orphans = True
    async with house.open():
        await house.serve()
        await house.sweeps.one()
        assert house.state() is State.READY
        await house.pass_time(60)
        assert house.tier() is tier
        await house.sweeps.one()
        await house.serve()
    assert notes(house) == []


async def test_a_sweep_leaves_moving_replicas(house: House):
    room = house.model()
    house.reap_orphans = True
    async with house.open():
        room.cold.wake_door.shut()
        house.start(house.serve())
        await room.cold.wake_door.reached()
        await house.sweeps.one()
        assert house.world.of("a-0"), "an engine that is being started is no orphan"
        room.cold.wake_door.open.set()
        await house.until(A, State.READY)
        await house.settle()
        await house.sweeps.one()
        assert house.state() is State.READY
    assert notes(house) == []


async def test_a_parking_engine_is_no_orphan(house: House):
    room = house.model()
    house.reap_orphans = True
    async with house.open():
        await house.serve()
        look = room.cold.inventory

        async def park_meanwhile():
            found = await look()
            await house.pass_time(60)
            return found

        room.cold.inventory = park_meanwhile  # type: ignore[method-assign]
        await house.sweeps.one()
        assert house.tier() is Tier.FROZEN
    assert notes(house) == []


async def test_a_failed_discard_leaves_an_orphan(house: House):
    house.model()
    async with house.open():
        await house.serve()
        stray_snapshot(house, ReplicaId("a-0"))
        await house.sweeps.one()
        assert house.world.snapshots
        house.world.snapshots.clear()
    assert notes(house) == [("orphan", "/snap/a-0.stray")]


async def test_a_lost_image_makes_it_cold(house: House):
    room = house.model()
    async with house.open():
        await house.serve()
        await house.pass_time(31)
        assert house.tier() is Tier.FROZEN
        await house.sweeps.one()
        assert house.tier() is Tier.FROZEN, "it is there"
        house.world.snapshots.clear()
        await house.sweeps.one()
        assert (house.state(), house.tier()) == (State.PARKED, Tier.COLD)
        await house.serve()
        assert room.frozen.woken == []
    assert house.rows("SELECT count(*) FROM wakes WHERE NOT ok") == [(0,)]
    (note,) = house.rows("SELECT text FROM notes WHERE kind = 'image_lost'")
    assert "evicted or removed; the next wake is cold" in str(note)
    assert "parked.frozen parked.cold" in " ".join(house.causes())


async def test_an_evicted_image_is_noted_at_once(house: House):
    house.model(A)
    house.model(B)
    async with house.open():
        await house.serve(A)
        await house.pass_time(31)
        await house.serve(B)
        house.world.snapshots.clear()  # evicted for the one that comes now
        await house.pass_time(31)
        assert (house.tier(A), house.tier(B)) == (Tier.COLD, Tier.FROZEN)
    assert len(house.rows("SELECT * FROM notes WHERE kind = 'image_lost'")) == 1


async def test_a_driver_that_cannot_look_has_lost_nothing(house: House):
    room = house.model()
    async with house.open():
        await house.serve()
        await house.pass_time(31)

        async def broken():
            raise DriverError("no such directory")

        room.frozen.inventory = broken  # type: ignore[method-assign]
        house.expected_errors = ("cannot look for what exists",)
        await house.sweeps.one()
        assert house.tier() is Tier.FROZEN


async def test_a_waking_replica_lost_nothing(house: House):
    room = house.model()
    async with house.open():
        await house.serve()
        await house.pass_time(31)
        look = room.frozen.inventory

        async def wake_meanwhile():
            await house.serve()
            return await look()

        room.frozen.inventory = wake_meanwhile  # type: ignore[method-assign]
        await house.sweeps.one()
        assert house.state() is State.READY
    assert house.rows("SELECT * FROM notes WHERE kind = 'image_lost'") == []


async def test_an_orphan_is_paid_until_it_is_gone(house: House):
    house.model()
    async with house.open():
        await house.serve()
        pid = stray_engine(house)
        await house.sweeps.one()
        await house.pass_time(600)
        await house.sweeps.one()
    house.clock.at_us += 50 * S
    async with house.open():
        await house.pass_time(100)
        house.world.end(pid)
        await house.sweeps.one()
        await house.pass_time(100)
        await house.sweeps.one()
    paid = house.rows(
        "SELECT l.replica, l.model, l.driver, s.cause, round((s.ended_us - s.began_us) / 1e6)"
        " FROM spans s JOIN lives l ON l.id = s.life WHERE l.model = ? ORDER BY s.began_us",
        "stranger",
    )
    stray = (f"{STRANGER}:orphan-{pid}", "stranger", "fake-cold")
    assert paid == [(*stray, "orphan", 600), (*stray, "unobserved", 50), (*stray, "orphan", 100)]
    assert not house.rows("SELECT 1 FROM notes WHERE kind = 'model_removed'")


async def test_an_orphan_snapshot_costs_no_time(house: House):
    house.model()
    stray_snapshot(house)
    async with house.open():
        await house.sweeps.one()
        await house.pass_time(100)
    assert house.rows("SELECT DISTINCT model FROM lives") == [("a",)]


async def test_a_stubborn_orphan_is_tried_again(house: House):
    house.model()
    async with house.open():
        await house.serve()
    house.rooms.clear()
    house.model(B)  # a's engine is left over now
    house.world.kill_mistakes.append(DriverError("it hangs"))
    house.expected_errors = ("cannot end an engine",)
    async with house.open():
        await house.settle()
        assert house.world.processes, "it did not end"
        assert notes(house) == [("orphan", "pid 100")]
        await house.sweeps.one()
        assert not house.world.processes
        await house.sweeps.one()
    assert notes(house) == [("orphan", "pid 100"), ("swept", "pid 100")]


async def test_what_wakes_while_another_is_ended_is_not_ended(house: House):
    house.model()
    house.model(B)
    house.reap_orphans = True
    async with house.open():
        stray_engine(house)
        lost = Launch(model=A, replica=ReplicaId("a-0"), argv=("a",), engine="fake", port=7, log_path="")
        left = house.world.spawn(lost, 0, "fake-cold")

        async def kill(running, end=house.world.kill):  # type: ignore[no-untyped-def]
            if running.replica == STRANGER:
                await house.serve()  # a request for A wakes it meanwhile
            await end(running)

        house.world.kill = kill  # type: ignore[method-assign]
        await house.sweeps.one()
        assert house.state() is State.READY and len(house.world.of("a-0")) == 2
        await house.sweeps.one()
        assert left.pid not in house.world.processes and len(house.world.of("a-0")) == 1


@pytest.mark.parametrize(("place", "exists"), [("/snap/a", True), ("/elsewhere/a", False)])
def test_an_image_must_be_in_its_place(place, exists):
    kept = Parked(replica=ReplicaId("a-0"), generation=2, tier=Tier.FROZEN, path="/snap/a", image_bytes=1)
    found = Found(
        replica=kept.replica, generation=2, tier=kept.tier, what="", parked=replace(kept, path=place)
    )
    assert may_exist(kept, [found]) is exists
