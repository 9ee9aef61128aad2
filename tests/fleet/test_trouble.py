"""The ledger cannot be written; something has a defect: nothing is started that is not accounted for."""

import asyncio
from dataclasses import replace

import pytest
from tests.waiting import until

from poorwill.core.entries import Noted
from poorwill.core.errors import ErrorCode, TryLater
from poorwill.core.machine.inputs import Tick, WakeFailed, WakeSucceeded
from poorwill.core.machine.lifecycle import State
from poorwill.core.ports.driver import DriverError
from poorwill.fleet.lost import watch

from .house import A, B, House


async def test_no_ledger_no_leases(house: House):
    room = house.model()
    house.model(B)
    house.expected_errors = ("the ledger cannot be written", "entries are not on disk")
    path = house.directory / "ledger.sqlite"
    away = house.directory / "away.sqlite"
    async with house.open():
        assert house.fleet is not None
        running = await house.lease()
        path.rename(away)
        with pytest.raises(Exception, match="moved or deleted"):
            await house.fleet.controller.journal.record([Noted(at_us=0, kind="x")])
        for model in (A, B):
            assert house.claim(model) is None
            with pytest.raises(TryLater) as caught:
                house.hold(model)
            assert caught.value.code is ErrorCode.LEDGER_UNAVAILABLE
        house.give_back(running)  # who was let in before is served to the end
        with pytest.raises(TryLater):
            await house.fleet.view.wake(B)
        assert room.cold.wake_door.passed == 1
        loop, again = asyncio.get_running_loop(), asyncio.Event()
        house.log.on_info = lambda message: loop.call_soon_threadsafe(again.set)
        away.rename(path)
        async with asyncio.timeout(10):
            await again.wait()
        await house.serve(A)
        await house.serve(B)


async def test_an_unwritten_wake_is_not_started(house: House):
    room = house.model()
    async with house.open():
        assert house.fleet is not None
        journal = house.fleet.controller.journal
        real = journal.ledger

        class Refusing:
            unavailable = ""

            def dropped_rows(self):
                return 0

            def record(self, entries):
                async def refuse():
                    await asyncio.sleep(0)
                    raise TryLater(ErrorCode.LEDGER_UNAVAILABLE, "disk full")

                real.post(entries)
                return refuse()

            def post(self, entries):
                real.post(entries)

        journal.ledger = Refusing()
        house.expected_errors = ("entries are not on disk",)
        with pytest.raises(TryLater) as caught:
            await house.hold().lease()
        assert caught.value.code is ErrorCode.LEDGER_UNAVAILABLE
        assert not house.world.processes and room.cold.wake_door.passed == 0
        journal.ledger = real
        await house.pass_time(6)
        await house.serve()


async def test_an_old_report_changes_nothing(house: House):
    house.model()
    async with house.open():
        await house.serve()
        assert house.fleet is not None
        unit = house.unit()
        before = unit.replica
        for report in (WakeSucceeded(generation=0), WakeFailed(generation=0, why="old")):
            house.fleet.controller.submit(unit, report)
        assert unit.replica == before


async def test_a_bug_ends_the_fleet_not_engines(house: House):
    room = house.model()
    house.expected_errors = ("a bug within a step", "engines run on and nobody serves them")

    def broken(idle_since_us: int):
        raise ZeroDivisionError("a defect in a policy")

    with pytest.raises(BaseExceptionGroup) as caught:
        async with house.open(on_exit="stop"):
            await house.serve()
            room.policy.descent = broken  # type: ignore[method-assign]
            assert house.fleet is not None
            house.fleet.controller.submit(house.unit(), Tick())
            await asyncio.get_running_loop().create_future()
    assert caught.group_contains(ZeroDivisionError)
    assert house.world.processes, "left as it is"
    assert house.left == ["a-0: pid 100"]
    del room.policy.descent  # type: ignore[attr-defined]
    async with house.open():
        assert house.state(A) is State.READY
        await house.serve()


async def test_a_bug_in_setting_a_timer_ends_it(house: House):
    room = house.model()
    house.expected_errors = ("a bug within a step", "engines run on and nobody serves them")

    def broken(idle_since_us: int):
        raise ZeroDivisionError("a defect in a policy")

    with pytest.raises(BaseExceptionGroup) as caught:
        async with house.open(on_exit="stop"):
            await house.serve()
            room.policy.descent = broken  # type: ignore[method-assign]
            async with asyncio.timeout(60):
                await asyncio.get_running_loop().create_future()
    assert caught.group_contains(ZeroDivisionError)
    assert house.world.processes, "left as it is"


@pytest.mark.parametrize("machine", ["", "hyperstack 7"])
async def test_a_lost_machine_cuts_its_requests(house: House, machine: str):
    house.model()
    async with house.open():
        await house.serve()
        unit = house.unit()
        assert unit.running is not None
        unit.running = replace(unit.running, machine=machine)
        assert house.fleet is not None
        watch(house.fleet.controller, unit, unit.running)
        await house.settle()
        house.world.end(unit.running.pid, "the cloud took it back")
        await house.until(A, State.PARKED)
        cuts = [(9000, "its engine is lost")]
        assert house.connections.cuts == (cuts if machine else [])


async def test_error_in_watching_is_no_verdict(house: House, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("poorwill.fleet.lost.WATCH_AGAIN_S", 0.001)
    house.model()
    house.expected_errors = ("cannot watch an engine",)
    house.world.watch_mistakes.extend([ValueError("a defect"), DriverError("it cannot look")])
    async with house.open():
        await house.serve()
        (running,) = house.world.of("a-0")
        await until(lambda: house.world.ends)  # it is watched after all
        assert house.state() is State.READY and house.world.of("a-0") == [running]
        house.world.end(running.pid, "out of memory")
        await house.until(A, State.PARKED)
        assert house.unit().replica.last_error == "out of memory"
