"""A whole fleet in a test: the real controller, activator, view, journal and ledger over a fake world."""

import asyncio
import contextlib
import itertools
import sqlite3
from collections.abc import AsyncIterator, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.kept_log import KeptLog

from poorwill.compose.plans import remembered_replicas
from poorwill.core.entries import Entry, Noted
from poorwill.core.launch import Parked, Running
from poorwill.core.machine.inputs import Tick
from poorwill.core.machine.lifecycle import State
from poorwill.core.policy import FloorSchedule, NoFloor
from poorwill.core.ports.activator import Lease
from poorwill.core.settings import (
    DeviceNeed,
    FleetSettings,
    HoldSettings,
    ParkSettings,
    ReplicaSettings,
    SpendSettings,
    WakeSettings,
)
from poorwill.core.spend import LimitState, Scope, Standing, Verdict, Window
from poorwill.core.words import ModelName, Tier, replica_id
from poorwill.fleet.activator import Held
from poorwill.fleet.feeds import Feeds
from poorwill.fleet.fleet import Fleet, FleetParts, running_fleet
from poorwill.fleet.journal import Journal
from poorwill.fleet.recovery import LevelPlan, ModelPlan
from poorwill.fleet.reshaping import Reshaping
from poorwill.fleet.room.residents import Claim
from poorwill.fleet.spending import SpendGuard
from poorwill.fleet.unit import Equipment, Unit
from poorwill.ledger.history.spending import SpendWatch
from poorwill.ledger.ledger import Ledger, open_ledger
from poorwill.ledger.schema import reading
from poorwill.policies.placement.devices import Devices

from .fakes import Door, FakeConnections, FakeDriver, FakeEngine, HandClock, Watcher, World

S = 1_000_000
A = ModelName("a")
B = ModelName("b")
C = ModelName("c")


@dataclass
class Room:
    """One model of the house: its parts, for the test to script."""

    settings: ReplicaSettings
    policy: Watcher
    engine: FakeEngine
    drivers: dict[Tier, FakeDriver]
    floor: FloorSchedule = field(default_factory=NoFloor)
    floors: int = 2**31
    """How many replicas it keeps ready."""
    memory_bytes: int = 0
    devices: DeviceNeed = field(default_factory=DeviceNeed)
    priority: int = 0
    replicas: int = 1

    @property
    def cold(self) -> FakeDriver:
        return self.drivers[Tier.COLD]

    @property
    def frozen(self) -> FakeDriver:
        return self.drivers[Tier.FROZEN]


class Sweeps:
    """Says when the orphan sweep is due: when a test asks for one."""

    def __init__(self) -> None:
        self._asked = asyncio.Queue[None]()
        self._waiting = asyncio.Event()

    async def due(self) -> None:
        self._waiting.set()
        await self._asked.get()

    async def one(self) -> None:
        """Have one sweep done, and return when it is."""
        await self._waiting.wait()
        self._waiting.clear()
        self._asked.put_nowait(None)
        await self._waiting.wait()


@dataclass
class House:
    """Models by name, and a world that outlives each run of the fleet."""

    directory: Path
    clock: HandClock = field(default_factory=HandClock)
    world: World = field(default_factory=World)
    log: KeptLog = field(default_factory=KeptLog)
    rooms: dict[ModelName, Room] = field(default_factory=dict)
    connections: FakeConnections = field(default_factory=FakeConnections)
    entries: list[Entry] = field(default_factory=list)
    memory_bytes: int = 0
    devices: Devices | None = None
    reap_orphans: bool = False
    sweeps: "Sweeps" = field(default_factory=lambda: Sweeps())
    fleet: Fleet | None = None
    left: list[str] = field(default_factory=list)
    """What the fleet told to run on at its end."""
    verdict: Verdict | None = None
    limits: SpendSettings = field(default_factory=SpendSettings)
    guard: SpendGuard | None = None
    expected_errors: tuple[str, ...] = ()

    def model(
        self,
        name: ModelName = A,
        *,
        ladder: Sequence[Tier] = (Tier.FROZEN, Tier.COLD),
        idle_s: Sequence[int] = (30, 300),
        concurrency: int = 0,
        target: int = 0,
        hold: HoldSettings | None = None,
        wake: WakeSettings | None = None,
        park: ParkSettings | None = None,
        **others: object,
    ) -> Room:
        settings = ReplicaSettings(
            model=name,
            max_concurrency=concurrency,
            target_concurrency=target,
            hold=hold or HoldSettings(),
            wake=wake or WakeSettings(budget_us=60 * S, cap_us=180 * S),
            park=replace(park or ParkSettings(drain_us=20 * S), ladder=tuple(ladder)),
        )
        tiers = {*ladder, Tier.COLD}
        room = Room(
            settings=settings,
            policy=Watcher(tuple((t, s * S) for t, s in zip(ladder, idle_s, strict=False))),
            engine=FakeEngine(self.world, self.clock, name, 9000 + len(self.rooms)),
            drivers={tier: FakeDriver(self.world, tier, self.clock) for tier in tiers},
            **others,  # type: ignore[arg-type]
        )
        self.rooms[name] = room
        return room

    @asynccontextmanager
    async def open(self, *, on_exit: str = "leave", exit_us: int = 5 * S) -> AsyncIterator["House"]:
        """Run the fleet over the real ledger; at the end the ledger must have taken everything."""
        path = str(self.directory / "ledger.sqlite")
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))  # `settle` relies on its order
        async with open_ledger(path, clock=self.clock, log=self.log) as ledger:
            recovered = ledger.recovered()
            feeds = Feeds()
            journal = Journal(ledger=ledger, listeners=(self.entries.append, feeds.put))
            parts = FleetParts(
                settings=FleetSettings(
                    directory=str(self.directory),
                    models=(),
                    memory_bytes=self.memory_bytes,
                    reap_orphans=self.reap_orphans,
                    on_exit=on_exit,
                    exit_us=exit_us,
                ),
                plans=[self.plan(room) for room in self.rooms.values()],
                remembered=remembered_replicas(recovered),
                last_seen_us=recovered.last_us,
                journal=journal,
                feeds=feeds,
                connections=self.connections,
                guard=self._guard(ledger),
                clock=self.clock,
                wall_step_us=lambda: 0,
                log=self.log,
                leave=self.left.extend,
                devices=self.devices,
                freed_s=0.05,
                sweep_due=self.sweeps.due,
            )
            async with running_fleet(parts) as fleet:
                self.fleet = fleet
                yield self
        unexpected = [
            line for line in self.log.lines if line[0] == "error" and line[1] not in self.expected_errors
        ]
        assert not unexpected, unexpected
        self.check_tiling()

    def _guard(self, ledger: Ledger) -> SpendGuard:
        """A breaker that looks when a test asks it to: at the ledger where there are limits."""
        watch = SpendWatch(ledger=ledger, limits=self.limits)

        async def look() -> Verdict:
            return self.verdict or await watch.look()

        self.guard = SpendGuard(look=look, find_jumps=no_jumps, every_s=3600)
        return self.guard

    def plan(self, room: Room) -> ModelPlan:
        return ModelPlan(
            settings=room.settings,
            levels=[
                LevelPlan(
                    policy=replace(room.policy, observed=[]) if level else room.policy,
                    floor=room.floor if level < room.floors else NoFloor(),
                )
                for level in range(room.replicas)
            ],
            equipment=Equipment(engine=room.engine, drivers=room.drivers, processes=self.world),
            driver="fake-cold",
            claim=Claim(memory_bytes=room.memory_bytes, devices=room.devices, priority=room.priority),
        )

    # what a test does

    def unit(self, name: ModelName = A) -> Unit:
        assert self.fleet is not None
        return self.fleet.controller.units[replica_id(name)]

    def state(self, name: ModelName = A) -> State:
        return self.unit(name).replica.state

    def tier(self, name: ModelName = A) -> Tier:
        return self.unit(name).replica.tier

    def claim(self, name: ModelName = A) -> Lease | None:
        assert self.fleet is not None
        return self.fleet.activator.claim(name)

    def hold(self, name: ModelName = A, request: str = "r", size: int = 1) -> Held:
        assert self.fleet is not None
        return self.fleet.activator.hold(name, size_bytes=size, asked_by="key", request=request)

    def give_back(self, lease: Lease) -> None:
        assert self.fleet is not None
        self.fleet.activator.give_back(lease)

    def start(self, work: Coroutine[object, object, object]) -> asyncio.Task[object]:
        """Run something beside the test; an error in it ends the fleet."""
        assert self.fleet is not None
        return self.fleet.controller.tasks.create_task(work)

    async def reshape(self, **what: Sequence[ModelName]) -> None:
        """Have the fleet follow: added=, removed=, adjusted=, renewed= name models of the house."""
        assert self.fleet is not None
        plans = {kind: [self.plan(self.rooms[name]) for name in names] for kind, names in what.items()}
        removed = what.get("removed", ())
        plans.pop("removed", None)
        reshaper = self.fleet.reshaper
        async with asyncio.timeout(5):
            await reshaper.reshape(Reshaping(settings=reshaper.settings, removed=removed, **plans))

    async def lease(self, name: ModelName = A, request: str = "r") -> Lease:
        """Take a lease, held or not."""
        async with asyncio.timeout(5):
            return self.claim(name) or await self.hold(name, request).lease()

    async def serve(self, name: ModelName = A) -> None:
        """One request from beginning to end."""
        self.give_back(await self.lease(name))

    async def until(self, name: ModelName, *states: State) -> None:
        unit = self.unit(name)
        async with asyncio.timeout(5):
            while unit.replica.state not in states:
                await unit.changed()

    async def pass_time(self, seconds: float) -> None:
        """Let time pass: every Tick that falls due is given at its instant, and work gets its turns."""
        assert self.fleet is not None
        controller = self.fleet.controller
        target = self.clock.at_us + int(seconds * S)
        for _ in range(200):
            await self.settle()
            due = [
                (at, number, unit)
                for number, unit in enumerate(controller.units.values())
                if (at := unit.cell.next_tick_us(self.clock.at_us)) is not None and at <= target
            ]
            if not due:
                break
            at, _, unit = min(due)
            self.clock.at_us = max(self.clock.at_us, at)
            controller.submit(unit, Tick())
        else:
            raise AssertionError("a Tick that is due changes nothing, for ever")
        self.clock.at_us = max(self.clock.at_us, target)
        for unit in controller.units.values():
            unit.notify_waiters()  # who waits for room looks again every second
        await self.settle()

    async def settle(self) -> None:
        """Let every task run until it waits for a door, and the ledger commit what it was given."""
        assert self.fleet is not None
        for _ in range(3):
            await self.fleet.controller.journal.record([])
            await asyncio.to_thread(int)  # after whatever the fleet does in a thread
            for _ in range(10):
                await asyncio.sleep(0)

    def moment(self) -> "Moment":
        """What a kill -9 at this moment would leave: what is committed, and what exists on the machine."""
        kept = self.directory / f"kept-{self.clock.at_us}.sqlite"
        with sqlite3.connect(self.directory / "ledger.sqlite") as db:
            with contextlib.closing(sqlite3.connect(kept)) as copy:
                db.backup(copy)
        db.close()
        return Moment(
            ledger=kept,
            processes=dict(self.world.processes),
            snapshots=dict(self.world.snapshots),
            asleep=set(self.world.asleep),
        )

    def go_back(self, moment: "Moment") -> None:
        """Make it so that the fleet was killed at that moment."""
        for old in self.directory.glob("ledger.sqlite*"):
            old.unlink()
        moment.ledger.rename(self.directory / "ledger.sqlite")
        self.world.processes = moment.processes
        self.world.snapshots = moment.snapshots
        self.world.asleep = moment.asleep
        self.world.ends.clear()
        for door in self.doors():
            door.open.set()
            door.mistakes.clear()

    def doors(self) -> list[Door]:
        """Every door of every model, in a fixed order."""
        return [
            door
            for room in self.rooms.values()
            for door in (
                room.engine.ready_door,
                room.engine.probe_door,
                *(each.wake_door for _, each in sorted(room.drivers.items())),
                *(each.park_door for _, each in sorted(room.drivers.items())),
            )
        ]

    def rows(self, question: str, *values: object) -> list[tuple[object, ...]]:
        with reading(str(self.directory / "ledger.sqlite")) as db:
            return db.execute(question, values).fetchall()

    def causes(self, name: ModelName = A) -> list[str]:
        """The causes of the replica's spans, in order."""
        return [
            str(cause)
            for (cause,) in self.rows(
                "SELECT s.cause FROM spans s JOIN lives l ON l.id = s.life"
                " WHERE l.model = ? ORDER BY s.began_us",
                name,
            )
        ]

    def check_tiling(self) -> None:
        """Each life's spans follow one another without gap or overlap; a wake that ended has an outcome."""
        for (life,) in self.rows("SELECT id FROM lives"):
            spans = self.rows("SELECT began_us, ended_us FROM spans WHERE life = ? ORDER BY began_us", life)
            for (_, end), (begin, _) in itertools.pairwise(spans):
                assert end == begin, f"{end} is followed by {begin}"


@dataclass
class Moment:
    """What a kill -9 leaves."""

    ledger: Path
    processes: dict[int, Running]
    snapshots: dict[str, Parked]
    asleep: set[int]


def stopped(*, until_us: int) -> Verdict:
    """A day's limit that is used up."""
    day = LimitState(
        scope=Scope.TOTAL,
        name="",
        window=Window.DAY,
        limit_nusd=1,
        spent_nusd=2,
        forecast_nusd=None,
        standing=Standing.TRIPPED,
        ends_us=until_us,
    )
    return Verdict(at_us=0, limits=(day,))


async def no_jumps() -> list[Noted]:
    return []


__all__ = ["A", "B", "C", "House", "Room", "S", "no_jumps", "stopped"]
