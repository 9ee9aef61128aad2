"""One life of poorwill: from a start, over what is left of a history, to a shutdown, a kill or the end."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from tests.kept_log import KeptLog

from poorwill.compose.plans import remembered_replicas
from poorwill.core.entries import Noted
from poorwill.core.launch import Running
from poorwill.core.policy import Floor
from poorwill.core.settings import FleetSettings, ReplicaSettings
from poorwill.core.spend import LimitState, Scope, Standing, Verdict, Window
from poorwill.core.words import FLOOR, HOUR_US, LINGER, SECOND_US, SERVING, ModelName, ReplicaId, replica_id
from poorwill.fleet.feeds import Feeds
from poorwill.fleet.fleet import Fleet, FleetParts, running_fleet
from poorwill.fleet.journal import Journal
from poorwill.fleet.recovery import LevelPlan, ModelPlan
from poorwill.fleet.reshaping import Reshaping
from poorwill.fleet.room.residents import Claim
from poorwill.fleet.spending import SpendGuard
from poorwill.fleet.unit import Equipment
from poorwill.policies import TierCosts, make_policy

from .account import ACTIVE, PARKED
from .clients import Clients
from .disk import SimulatedLedger
from .gateway import SimulatedPool, WatchedActivator, WatchedPolicy, new_policy
from .history import Event, Happening, History, SimulatedModel
from .laws import Broken, Leases, States, check_rest
from .loop import START_US, VirtualClock, VirtualLoop
from .weather import SimulatedEngine, SimulatedWorld, WeatherDoor, new_drivers

QUIET_US = 2 * HOUR_US
"""After the last event, in fair weather: by then everything must be at rest in its cheapest tier.
A park that failed is tried again after an hour at most, and no descent takes longer than the other one."""


LOOK_S = 60
"""Between two looks at the spend limits. As often as in production, they would be most turns of the loop."""

SHORTEST_SILENCE_US = 5 * SECOND_US
"""A host is called silent only after some seconds."""

SPEND_SEEN_US = (LOOK_S + 20) * SECOND_US
"""A look takes a moment, and a start under way some more to be ended."""


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


@dataclass(slots=True)
class Configured:
    """One model as `fleet.toml` has it now: reloads change it, and restarts keep it."""

    model: SimulatedModel
    number: int
    version: int = 0
    """Of its engine: another one is started in another way."""
    listed: bool = True

    @property
    def name(self) -> ModelName:
        return ModelName(f"m{self.number}")


@dataclass(kw_only=True)
class Life:
    """What one life needs, and what it leaves of the history."""

    history: History
    events: list[Event]
    """What is still to happen; a life takes its part off the front."""
    configured: list[Configured]
    loop: VirtualLoop
    ledger: SimulatedLedger
    world: SimulatedWorld
    clients: Clients
    log: KeptLog
    random: random.Random
    limited_from_us: int = 0
    limited_until_us: int = 0
    leases: Leases = field(default_factory=Leases)
    reloading: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self.clock = VirtualClock(self.loop)
        self.pool = SimulatedPool(self.world, self.loop, self.clients.work_us)

    async def live(self) -> None:
        """Serve what is left of the history until it asks for a restart. Raises Killed from the loop."""
        weather = self.world.weather
        calm, serving = weather.calm, self._serving()
        weather.calm = calm or self.random.random() < 0.5
        fair = weather.calm
        try:
            async with self._fleet() as fleet, asyncio.TaskGroup() as tasks:
                if fair:
                    self._check_adopted(serving)
                weather.calm = calm
                self.loop.on_turn = States(fleet, self.world, self.leases, self.clock).check
                policy = self._policy(fleet, tasks)
                while self.events and (event := self.events[0]).what is not Happening.RESTART:
                    await self._wait_until(event.at_us)
                    self._happen(self.events.pop(0), fleet, policy, tasks)
                if self.events:
                    self.events.pop(0)
                else:
                    await self._come_to_rest(fleet)
                self.clients.hang_up()
        finally:
            weather.calm = calm
            self.loop.on_turn = None
            self.ledger.close()

    def _serving(self) -> list[Running]:
        """Return the engines that the ledger has as serving and that do: a start must find them."""
        causes = self.ledger.account.causes
        identities = {
            each.name: self._engine(each).launch(replica=replica_id(each.name), generation=0).identity()
            for each in self.configured
            if each.listed
        }
        return [
            each
            for each in self.world.processes.values()
            if causes.get(each.replica) in (SERVING, LINGER, FLOOR)
            and each.generation == self.ledger.account.begun.get(each.replica)
            and each.launched in identities.values()
            and not {each.pid} & (self.world.asleep | self.world.stubborn | self.world.strays)
            and not self.world.is_silent(each.pid)
            and each.replica in {replica for model in self.configured for replica in _replicas(model)}
        ]

    def _check_adopted(self, serving: Sequence[Running]) -> None:
        """Law: an engine that runs, answers and is as configured outlives a restart."""
        for running in serving:
            if running.pid not in self.world.processes:
                raise Broken(f"{running.replica} served before the start, which ended its engine")

    def _policy(self, fleet: Fleet, tasks: asyncio.TaskGroup) -> WatchedPolicy:
        activator = WatchedActivator(fleet, self.world, self.leases, self.clock)
        return new_policy(
            fleet=fleet,
            activator=activator,
            pool=self.pool,
            tasks=tasks,
            ledger=self.ledger,
            log=self.log,
            told=self.clients.told,
        )

    async def _wait_until(self, at_us: int) -> None:
        left_us = START_US + at_us - self.loop.now_us
        await asyncio.sleep(max(left_us, 0) / 1e6)

    async def _come_to_rest(self, fleet: Fleet) -> None:
        """Fair weather, nobody asks: after a while everything is in its cheapest allowed state."""
        self.world.weather.calm = True
        self.world.foreign.clear()
        self.ledger.recover()
        await asyncio.sleep(QUIET_US / 1e6)
        self.ledger.settle()
        check_rest(self.world, fleet, self.history, self.ledger.account, self.loop.now_us)

    def _happen(self, event: Event, fleet: Fleet, policy: WatchedPolicy, tasks: asyncio.TaskGroup) -> None:
        configured = self.configured[event.number % len(self.configured)]
        name, model = configured.name, configured.model
        match event.what:
            case Happening.ASK:
                tasks.create_task(self.clients.ask(event, name, fleet, policy, self.clock))
            case Happening.ENGINE_DIES:
                for running in self.world.of(replica_id(name, event.number % model.replicas)):
                    self.world.end(running.pid)
            case Happening.IMAGE_ROTS:
                self.world.rotten.update(self.world.snapshots)
            case Happening.IMAGE_GARBLED:
                self.world.garbled.update(self.world.snapshots)
            case Happening.DISK_FILLS:
                self.ledger.fill()
                self.loop.call_later(event.lasts_us / 1e6, self.ledger.recover)
            case Happening.LIMIT_TRIPS:
                self.limited_from_us = self.loop.now_us
                self.limited_until_us = self.loop.now_us + event.lasts_us
            case Happening.WAKE_ASKED:
                tasks.create_task(self.clients.operate(_asked(fleet.view.wake, name)))
            case Happening.PARK_ASKED:
                tier = (None, *model.ladder)[event.number % (len(model.ladder) + 1)]
                tasks.create_task(self.clients.operate(_asked(fleet.view.park, name, tier)))
            case Happening.CLOCK_STEPS:
                self.loop.suspend(event.lasts_us)
            case Happening.RELOAD:
                tasks.create_task(self.clients.operate(self._reload(event, configured, fleet)))
            case Happening.SILENCE:
                self._fall_silent(event)
            case Happening.FOREIGN if self.history.gpus:
                device = f"GPU-{event.number % len(self.history.gpus)}"
                self.world.foreign[device] = self.history.gpus[event.number % len(self.history.gpus)] // 2
                self.loop.call_later(event.lasts_us / 1e6, self.world.foreign.pop, device, None)
            case Happening.KILL:
                self.loop.kill_after = 1 + event.lasts_us % 40

    def _fall_silent(self, event: Event) -> None:
        """Have the host of an engine answer nobody. Not of one on a device: it would be the other host's."""
        world = self.world
        there = [each for pid, each in world.processes.items() if not world.places[pid].devices]
        for running in there[event.number % max(len(there), 1) :][:1]:
            self.pool.forget(running.pid)
            lasts_us = max(event.lasts_us, SHORTEST_SILENCE_US)
            world.fall_silent_until(running, self.loop.now_us + lasts_us)

    async def _reload(self, event: Event, configured: Configured, fleet: Fleet) -> None:
        """Change one model in `fleet.toml`; reloads come one after another."""
        async with self.reloading:
            name, model, change = configured.name, configured.model, event.lasts_us % 4
            added, removed, adjusted, renewed = [], [], [], []
            if not configured.listed:
                configured.listed = True
                added.append(self._plan(configured))
            elif change == 0:
                configured.listed = False
                removed.append(name)
            elif change == 1:
                configured.version += 1
                renewed.append(self._plan(configured))
            else:
                more = {"replicas": 1 + event.number % 3} if change == 2 else {}
                configured.model = replace(model, concurrency=event.number % 5, **more)
                adjusted.append(self._plan(configured))
            self.leases.reloaded_us = self.loop.now_us
            settings = self._settings(fleet.reshaper.settings.on_exit)
            await fleet.reshaper.reshape(
                Reshaping(settings=settings, added=added, removed=removed, adjusted=adjusted, renewed=renewed)
            )

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
        self.world.hang_up = self.pool.reset
        self.world.now_us = lambda: self.loop.now_us

        async def look() -> Verdict:
            await asyncio.sleep(0.01)
            return _verdict(self.loop.now_us, self.limited_until_us)

        parts = FleetParts(
            settings=self._settings(self.random.choice(("park", "leave", "stop"))),
            plans=[self._plan(each) for each in self.configured if each.listed],
            remembered=remembered_replicas(recovered),
            last_seen_us=recovered.last_us,
            journal=Journal(ledger=self.ledger),
            feeds=Feeds(),
            connections=self.pool,
            guard=SpendGuard(look=look, find_jumps=_no_jumps, every_s=LOOK_S),
            clock=self.clock,
            wall_step_us=lambda: 0,
            log=self.log,
            leave=lambda left: None,
            devices=self.world if self.history.gpus else None,
            alive_s=self.history.alive_s,
        )
        async with running_fleet(parts) as fleet:
            yield fleet

    def _settings(self, on_exit: str) -> FleetSettings:
        return FleetSettings(
            directory="/nowhere",
            models=(),
            memory_bytes=self.history.memory_bytes,
            reap_orphans=self.history.reap_orphans,
            on_exit=on_exit,
            exit_us=20 * SECOND_US,
        )

    def _engine(self, configured: Configured) -> SimulatedEngine:
        name, weather = configured.name, self.world.weather
        engine = SimulatedEngine(self.world, self.clock, name, 9000 + configured.number, weather=weather)
        engine.ready_door = WeatherDoor(weather=weather, place=f"{name}/ready", usual_s=0.2)
        engine.probe_door = WeatherDoor(weather=weather, place=f"{name}/probe", usual_s=0.1)
        engine.argv = ("fake", str(configured.version))
        return engine

    def _may_park(self, replica: str) -> None:
        """Laws: nothing is parked while a lease on it is out, or a connection to it open."""
        if out := self.leases.on(replica):
            raise Broken(f"{replica} is parked with {out} leases out")
        pids = {each.pid for each in self.world.of(replica)} - self.world.strays
        if to := [each for each in self.pool.open if each.pid in pids]:
            raise Broken(f"{replica} is parked with {len(to)} connections open")

    def _plan(self, configured: Configured) -> ModelPlan:
        name, model = configured.name, configured.model
        floor = WindowFloor(0, 0)
        if model.floor_s is not None:
            begin, end = model.floor_s
            floor = WindowFloor(START_US + begin * SECOND_US, START_US + end * SECOND_US)
        levels = [
            LevelPlan(
                policy=make_policy(model.policy, ladder=model.ladder, costs=_costs(model)),
                floor=floor if level == 0 else WindowFloor(0, 0),
            )
            for level in range(model.replicas)
        ]
        return ModelPlan(
            settings=ReplicaSettings(
                model=name,
                max_concurrency=model.concurrency,
                hold=model.hold,
                wake=model.wake,
                park=model.park,
            ),
            levels=levels,
            equipment=Equipment(
                engine=self._engine(configured),
                drivers=new_drivers(self.world, self.clock, name, model.ladder, self._may_park),
                processes=self.world,
            ),
            driver="fake-cold",
            claim=Claim(memory_bytes=model.memory_bytes, devices=model.devices, priority=model.priority),
        )


def _replicas(configured: Configured) -> list[ReplicaId]:
    count = configured.model.replicas if configured.listed else 0
    return [replica_id(configured.name, number) for number in range(count)]


async def _asked(ask: Callable[..., Awaitable[object]], *what: object) -> None:
    """Ask as an operator does: the model may have left meanwhile."""
    await ask(*what)


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
