"""The fleet over real engines, processes and timers: the toy engine, started and stopped, put to sleep."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from tests.kept_log import KeptLog

from poorwill.compose.clock import SystemClock
from poorwill.compose.drivers.tiers import open_drivers
from poorwill.compose.plans import remembered_replicas
from poorwill.core.errors import ErrorCode, TryLater
from poorwill.core.machine.lifecycle import State
from poorwill.core.policy import NoFloor
from poorwill.core.settings import (
    EngineSettings,
    FleetSettings,
    ModelSettings,
    ParkSettings,
    ReplicaSettings,
    WakeSettings,
)
from poorwill.core.spend import Verdict
from poorwill.core.words import Tier, replica_id
from poorwill.engines.kinds import make_engine
from poorwill.fleet.feeds import Feeds
from poorwill.fleet.fleet import Fleet, FleetParts, running_fleet
from poorwill.fleet.journal import Journal
from poorwill.fleet.recovery import LevelPlan, ModelPlan
from poorwill.fleet.spending import SpendGuard
from poorwill.fleet.unit import Equipment
from poorwill.hosts.processes.process import EngineProcesses
from poorwill.ledger.ledger import last_instant_us, open_ledger
from poorwill.policies import fixed_idle

from .fakes import FakeConnections
from .house import A, S, no_jumps


async def no_limits() -> Verdict:
    return Verdict(at_us=0)


@dataclass
class RealHouse:
    """One model with the toy engine, on this machine."""

    directory: Path
    options: dict[str, float | bool] = field(default_factory=dict)
    engine: EngineSettings | None = None
    wake: WakeSettings = field(
        default_factory=lambda: WakeSettings(budget_us=20 * S, cap_us=20 * S, stable_us=0)
    )
    ladder: tuple[Tier, ...] = (Tier.COLD,)
    idle_us: int = 3600 * S
    log: KeptLog = field(default_factory=KeptLog)

    @asynccontextmanager
    async def open(self, *, on_exit: str = "stop") -> AsyncIterator[Fleet]:
        model = ModelSettings(
            name=A,
            engine=self.engine or EngineSettings(kind="toy", options=self.options),
            replica=ReplicaSettings(model=A, wake=self.wake, park=ParkSettings(ladder=self.ladder)),
        )
        settings = FleetSettings(
            directory=str(self.directory), models=(model,), on_exit=on_exit, exit_us=20 * S
        )
        path = str(self.directory / "ledger.sqlite")
        clock = SystemClock.started(not_before_us=last_instant_us(path))
        env = {"PATH": os.defpath, "PYTHONPATH": os.pathsep.join(sys.path)}
        fleet_drivers = await open_drivers(settings, env=env, clock=clock, log=self.log)
        async with open_ledger(path, clock=clock, log=self.log) as ledger:
            recovered = ledger.recovered()
            plan = ModelPlan(
                settings=model.replica,
                levels=[
                    LevelPlan(
                        policy=fixed_idle(tuple((tier, self.idle_us) for tier in self.ladder[:1])),
                        floor=NoFloor(),
                    )
                ],
                equipment=Equipment(
                    engine=make_engine(model, directory=str(self.directory), clock=clock, env=env),
                    drivers=fleet_drivers.drivers,
                    processes=fleet_drivers.processes,
                ),
                driver="cold",
            )
            parts = FleetParts(
                settings=settings,
                plans=[plan],
                remembered=remembered_replicas(recovered),
                last_seen_us=recovered.last_us,
                journal=Journal(ledger=ledger),
                feeds=Feeds(),
                connections=FakeConnections(),
                guard=SpendGuard(look=no_limits, find_jumps=no_jumps, every_s=3600),
                clock=clock,
                wall_step_us=clock.wall_step_us,
                log=self.log,
                leave=lambda left: None,
            )
            async with running_fleet(parts) as fleet:
                yield fleet
        assert not self.log.errors()

    def processes(self) -> list[int]:
        """Pids of the engines that exist on this machine for this fleet."""
        clock = SystemClock.started()
        looking = EngineProcesses(fleet=str(self.directory), clock=clock, log=self.log)
        return [found.running.pid for found in looking.found() if found.running]


@pytest.fixture
def real(tmp_path: Path):
    house = RealHouse(tmp_path)
    yield house
    for pid in house.processes():
        os.kill(pid, signal.SIGKILL)


async def reaches(fleet: Fleet, *states: State) -> None:
    unit = fleet.controller.units[replica_id(A)]
    async with asyncio.timeout(20):
        while unit.replica.state not in states:
            await unit.changed()


async def one_request(fleet: Fleet) -> int:
    async with asyncio.timeout(20):
        held = fleet.activator.hold(A, size_bytes=1, asked_by="key", request="r")
        lease = await held.lease()
    fleet.activator.give_back(lease)
    return lease.port


async def test_the_timer_parks_a_real_engine(real: RealHouse):
    real.idle_us = S // 5
    async with real.open() as fleet:
        port = await one_request(fleet)
        (pid,) = real.processes()
        await reaches(fleet, State.PARKED)
        assert real.processes() == []
        assert await one_request(fleet) == port
        assert real.processes() != [pid]
        status = fleet.view.status()[0]
        assert status.wake.count == 2 and status.wake.max_s is not None
    assert real.processes() == []


async def test_sleep_survives_a_restart(real: RealHouse):
    weights = real.directory / "weights"
    weights.mkdir()
    (weights / "config.json").write_text("{}")
    program = Path(__file__).parents[1] / "sleeping_engines" / "sglang.py"
    real.engine = EngineSettings(
        kind="sglang",
        path=str(weights),
        command=(sys.executable, "-P", str(program)),
        options={"sleep": True},
    )
    real.ladder, real.idle_us = (Tier.ASLEEP, Tier.COLD), S // 5
    async with real.open(on_exit="leave") as fleet:
        await one_request(fleet)
        (pid,) = real.processes()
        await reaches(fleet, State.PARKED)
        assert fleet.controller.units[replica_id(A)].replica.tier is Tier.ASLEEP
        assert real.processes() == [pid]
    async with real.open(on_exit="stop") as fleet:
        assert fleet.controller.units[replica_id(A)].replica.tier is Tier.ASLEEP, "found asleep"
        await one_request(fleet)
        assert real.processes() == [pid]
    assert real.processes() == []


async def test_a_killed_engine_is_replaced(real: RealHouse):
    async with real.open() as fleet:
        await one_request(fleet)
        (pid,) = real.processes()
        os.kill(pid, signal.SIGKILL)
        await reaches(fleet, State.PARKED)
        await one_request(fleet)
        assert real.processes() != [pid]


async def test_an_engine_that_is_left_is_adopted(real: RealHouse):
    async with real.open(on_exit="leave") as fleet:
        await one_request(fleet)
        (pid,) = real.processes()
    assert real.processes() == [pid]
    async with real.open() as fleet:
        assert fleet.controller.units[replica_id(A)].replica.state is State.READY
        await one_request(fleet)
        assert real.processes() == [pid]
        os.kill(pid, signal.SIGKILL)
        await reaches(fleet, State.PARKED)


async def test_the_cap_ends_a_hanging_engine(real: RealHouse):
    real.options = {"never_ready": True}
    real.wake = replace(real.wake, budget_us=S // 2, cap_us=S)
    async with real.open() as fleet:
        with pytest.raises(TryLater) as caught:
            await one_request(fleet)
        assert caught.value.code is ErrorCode.WAKE_TIMEOUT
        assert len(real.processes()) == 1, "the wake goes on"
        await reaches(fleet, State.PARKED)
        assert real.processes() == []


async def test_an_early_exit_shows_its_last_words(real: RealHouse):
    real.options = {"fail_start": True}
    async with real.open() as fleet:
        with pytest.raises(TryLater) as caught:
            await one_request(fleet)
        assert caught.value.code is ErrorCode.WAKE_FAILED
    assert real.processes() == []


async def test_a_shutdown_mid_wake_leaves_nothing(real: RealHouse):
    real.options = {"load_seconds": 60}
    async with real.open() as fleet:
        held = fleet.activator.hold(A, size_bytes=1, asked_by="key", request="r")
        async with asyncio.timeout(20):
            while not real.processes():
                await fleet.controller.units[replica_id(A)].changed()
    assert real.processes() == []
    with pytest.raises(TryLater):
        await held.lease()
