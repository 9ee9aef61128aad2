"""One life of poorwill: from a start, over what is left of a history, to a shutdown, a kill or the end."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.kept_log import KeptLog

from poorwill.compose.plans import remembered_replicas
from poorwill.core.entries import Noted
from poorwill.core.policy import Floor
from poorwill.core.settings import FleetSettings, ReplicaSettings
from poorwill.core.spend import LimitState, Scope, Standing, Verdict, Window
from poorwill.core.words import HOUR_US, SECOND_US, ModelName, ReplicaId
from poorwill.fleet.feeds import Feeds
from poorwill.fleet.fleet import Fleet, FleetParts, running_fleet
from poorwill.fleet.journal import Journal
from poorwill.fleet.recovery import LevelPlan, ModelPlan
from poorwill.fleet.room.residents import Claim
from poorwill.fleet.spending import SpendGuard
from poorwill.fleet.unit import Equipment
from poorwill.policies import TierCosts, make_policy

from .account import ACTIVE, PARKED
from .clients import Clients
from .disk import SimulatedLedger
from .history import Event, Happening, History, SimulatedModel
from .laws import Broken, check_rest, check_states
from .loop import START_US, VirtualClock, VirtualLoop
from .weather import SimulatedEngine, SimulatedWorld, WeatherDoor, new_drivers

QUIET_US = 2 * HOUR_US
"""After the last event, in fair weather: by then everything must be at rest in its cheapest tier.
A park that failed is tried again after an hour at most, and no descent takes longer than the other one."""


SPEND_SEEN_US = 30 * SECOND_US
"""A limit is looked at every 10 s; a look takes a moment, and a start under way some more to be ended."""


@dataclass(frozen=True, slots=True)
class WindowFloor:
    """A floor that holds between two instants."""

    from_us: int
    until_us: int

    def at(self, now_us: int) -> Floor:
        if now_us < self.from_us:
            return Floor(required=False, until_us=self.from_us)
        if now_us < self.until_us:
            return Floor(required=True, until_us=self.until_us, name="window")
        return Floor(required=False, until_us=None)


@dataclass(kw_only=True)
class Life:
    """What one life needs, and what it leaves of the history."""

    history: History
    events: list[Event]
    """What is still to happen; a life takes its part off the front."""
    loop: VirtualLoop
    ledger: SimulatedLedger
    world: SimulatedWorld
    clients: Clients
    log: KeptLog
    random: random.Random
    limited_from_us: int = 0
    limited_until_us: int = 0

    @property
    def clock(self) -> VirtualClock:
        return VirtualClock(self.loop)

    async def live(self) -> None:
        """Serve what is left of the history until it asks for a restart. Raises Killed from the loop."""
        try:
            async with self._fleet() as fleet, asyncio.TaskGroup() as tasks:
                self.loop.on_turn = lambda: check_states(fleet)
                while self.events and (event := self.events[0]).what is not Happening.RESTART:
                    await self._wait_until(event.at_us)
                    self._happen(self.events.pop(0), fleet, tasks)
                if self.events:
                    self.events.pop(0)
                else:
                    await self._come_to_rest(fleet)
                self.clients.hang_up()
        finally:
            self.loop.on_turn = None
            self.ledger.close()

    async def _wait_until(self, at_us: int) -> None:
        left_us = START_US + at_us - self.loop.now_us
        await asyncio.sleep(max(left_us, 0) / 1e6)

    async def _come_to_rest(self, fleet: Fleet) -> None:
        """Fair weather, nobody asks: after a while everything is in its cheapest allowed state."""
        self.world.weather.calm = True
        self.ledger.recover()
        await asyncio.sleep(QUIET_US / 1e6)
        check_rest(self.world, fleet, self.history, self.ledger.account, self.loop.now_us)

    def _happen(self, event: Event, fleet: Fleet, tasks: asyncio.TaskGroup) -> None:
        number = event.number % len(self.history.models)
        name, model = ModelName(f"m{number}"), self.history.models[number]
        match event.what:
            case Happening.ASK:
                tasks.create_task(self.clients.ask(event, name, fleet, self.world, self.clock))
            case Happening.ENGINE_DIES:
                for running in self.world.of(f"{name}-{event.number % model.replicas}"):
                    self.world.end(running.pid)
            case Happening.IMAGE_ROTS:
                self.world.rotten.update(self.world.snapshots)
            case Happening.IMAGE_GARBLED:
                self.world.garbled.update(self.world.snapshots)
            case Happening.DISK_FILLS:
                self.ledger.full = True
                self.loop.call_later(event.lasts_us / 1e6, self.ledger.recover)
            case Happening.LIMIT_TRIPS:
                self.limited_from_us = self.loop.now_us
                self.limited_until_us = self.loop.now_us + event.lasts_us
            case Happening.WAKE_ASKED:
                tasks.create_task(self.clients.operate(fleet.view.wake(name)))
            case Happening.PARK_ASKED:
                tier = (None, *model.ladder)[event.number % (len(model.ladder) + 1)]
                tasks.create_task(self.clients.operate(fleet.view.park(name, tier)))
            case Happening.CLOCK_STEPS:
                self.loop.suspend(event.lasts_us)
            case Happening.KILL:
                self.loop.kill_after = 1 + event.lasts_us % 40

    def _may_spawn(self, replica: str, generation: int) -> None:
        """Laws: a start is on disk before it is done, and none begins under a limit that has been seen."""
        if self.ledger.account.begun.get(ReplicaId(replica)) != generation:
            raise Broken(f"{replica}.{generation} starts before its wake is on disk")
        limited_us = self.loop.now_us - self.limited_from_us
        if self.loop.now_us < self.limited_until_us and limited_us > SPEND_SEEN_US:
            raise Broken(f"{replica} starts {limited_us / 1e6} s after its spend limit was reached")

    @asynccontextmanager
    async def _fleet(self) -> AsyncIterator[Fleet]:
        recovered = self.ledger.recovered()
        self.world.may_spawn = self._may_spawn
        self.world.hang_up = lambda port: self.clients.cut("", port, "the engine is gone")
        self.world.now_us = lambda: self.loop.now_us

        async def look() -> Verdict:
            await asyncio.sleep(0.01)
            return _verdict(self.loop.now_us, self.limited_until_us)

        parts = FleetParts(
            settings=FleetSettings(
                directory="/nowhere",
                models=(),
                memory_bytes=self.history.memory_bytes,
                reap_orphans=self.history.reap_orphans,
                on_exit=self.random.choice(("park", "leave", "stop")),
                exit_us=20 * SECOND_US,
            ),
            plans=[self._plan(number, model) for number, model in enumerate(self.history.models)],
            remembered=remembered_replicas(recovered),
            last_seen_us=recovered.last_us,
            journal=Journal(ledger=self.ledger),
            feeds=Feeds(),
            connections=self.clients,
            guard=SpendGuard(look=look, find_jumps=_no_jumps, every_s=10),
            clock=self.clock,
            wall_step_us=lambda: 0,
            log=self.log,
            leave=lambda left: None,
        )
        async with running_fleet(parts) as fleet:
            yield fleet

    def _plan(self, number: int, model: SimulatedModel) -> ModelPlan:
        name, weather = ModelName(f"m{number}"), self.world.weather
        floor = WindowFloor(0, 0)
        if model.floor_s is not None:
            begin, end = model.floor_s
            floor = WindowFloor(START_US + begin * SECOND_US, START_US + end * SECOND_US)
        engine = SimulatedEngine(self.world, self.clock, name, 9000 + number, weather=weather)
        engine.ready_door = WeatherDoor(weather=weather, place=f"{name}/ready", usual_s=0.2)
        engine.probe_door = WeatherDoor(weather=weather, place=f"{name}/probe", usual_s=0.1)
        return ModelPlan(
            settings=ReplicaSettings(
                model=name,
                max_concurrency=model.concurrency,
                hold=model.hold,
                wake=model.wake,
                park=model.park,
            ),
            levels=[
                LevelPlan(
                    policy=make_policy(model.policy, ladder=model.ladder, costs=_costs(model)),
                    floor=WindowFloor(0, 0) if level else floor,
                )
                for level in range(model.replicas)
            ],
            equipment=Equipment(
                engine=engine,
                drivers=new_drivers(self.world, self.clock, name, model.ladder, self.clients.may_park),
                processes=self.world,
            ),
            driver="fake-cold",
            claim=Claim(memory_bytes=model.memory_bytes, priority=model.priority),
        )


def _costs(model: SimulatedModel) -> dict:
    return {
        tier: TierCosts(
            wake_us=5 * SECOND_US,
            park_us=SECOND_US,
            active_nusd_h=ACTIVE * HOUR_US,
            parked_nusd_h=PARKED[tier] * HOUR_US,
        )
        for tier in model.ladder
    }


def _verdict(now_us: int, limited_until_us: int) -> Verdict:
    if now_us >= limited_until_us:
        return Verdict(at_us=now_us)
    tripped = LimitState(
        scope=Scope.TOTAL,
        name="",
        window=Window.DAY,
        limit_nusd=1,
        spent_nusd=2,
        forecast_nusd=None,
        standing=Standing.TRIPPED,
        ends_us=limited_until_us,
    )
    return Verdict(at_us=now_us, limits=(tripped,))


async def _no_jumps() -> list[Noted]:
    return []
