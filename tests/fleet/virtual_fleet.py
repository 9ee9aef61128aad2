"""A real fleet on a virtual clock: a trace goes through it as through the planner, event by event."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count, cycle

from tests.kept_log import KeptLog

from poorwill.core.entries import Entry, SpanOpened
from poorwill.core.launch import Parked
from poorwill.core.machine.inputs import Tick
from poorwill.core.policy import FloorSchedule, Policy
from poorwill.core.ports.activator import Lease
from poorwill.core.ports.bridging import Bridged
from poorwill.core.settings import FleetSettings, HoldSettings, ParkSettings, ReplicaSettings, WakeSettings
from poorwill.core.spend import Verdict
from poorwill.core.words import ModelName, Tier
from poorwill.fleet.activator import Held
from poorwill.fleet.feeds import Feeds
from poorwill.fleet.fleet import Fleet, FleetParts, running_fleet
from poorwill.fleet.journal import Journal
from poorwill.fleet.recovery import LevelPlan, ModelPlan
from poorwill.fleet.spending import SpendGuard
from poorwill.fleet.unit import Equipment, Unit
from poorwill.planner.simulation.scenario import Scenario

from .fakes import START, FakeConnections, FakeDriver, FakeEngine, World

MODEL = ModelName("m")
NEVER = 2**62
UNBOUNDED = 2**61


@dataclass
class VirtualClock:
    """A clock that stands still until somebody moves it."""

    at_us: int = START

    def now_us(self) -> int:
        return self.at_us


@dataclass
class Alarm:
    """Where the wakes and parks under way wait for their ends."""

    clock: VirtualClock
    set: asyncio.Event = field(default_factory=asyncio.Event)
    """Whenever one more begins to wait."""
    waiting: list[tuple[int, int, asyncio.Event]] = field(default_factory=list)
    numbers: count = field(default_factory=count)

    @property
    def due_us(self) -> int:
        return self.waiting[0][0] if self.waiting else NEVER

    async def after(self, duration_us: int) -> None:
        ring = asyncio.Event()
        heappush(self.waiting, (self.clock.at_us + duration_us, next(self.numbers), ring))
        self.set.set()
        await ring.wait()

    def rings(self) -> None:
        _, _, ring = heappop(self.waiting)
        ring.set()


class TimedDoor:
    """A door of a fake driver that stays shut for the next of these durations."""

    def __init__(self, alarm: Alarm, durations_us: Sequence[int]) -> None:
        self._alarm = alarm
        self._durations = cycle(durations_us)

    async def go_through(self) -> None:
        await self._alarm.after(next(self._durations))


@dataclass
class TimedDriver(FakeDriver):
    """A fake driver that takes the scenario's time; what is discarded takes a park into `cold`."""

    cold_door: TimedDoor | None = None

    async def discard(self, parked: Parked) -> None:
        assert self.cold_door is not None
        await self.cold_door.go_through()
        await super().discard(parked)


class MemoryLedger:
    """A ledger that keeps what it is given."""

    unavailable = ""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def record(self, entries: Sequence[Entry]) -> asyncio.Future[None]:
        self.post(entries)
        committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        committed.set_result(None)
        return committed

    def post(self, entries: Sequence[Entry]) -> None:
        self.entries += entries

    def dropped_rows(self) -> int:
        return 0


@dataclass
class VirtualFleet:
    """The fleet, its clock, and the requests that are on their way."""

    fleet: Fleet
    clock: VirtualClock
    alarm: Alarm
    ledger: MemoryLedger
    bridges: bool
    running: list[tuple[int, int, Lease]] = field(default_factory=list)
    crossing: list[tuple[int, int, Bridged]] = field(default_factory=list)
    held: list[tuple[Held, int]] = field(default_factory=list)
    numbers: count = field(default_factory=count)

    @property
    def units(self) -> list[Unit]:
        return list(self.fleet.controller.units.values())

    async def replay(self, arrivals: Sequence[int], services: Sequence[int], *, span_us: int) -> None:
        for arrival, service in zip(arrivals, services, strict=True):
            await self.advance(START + arrival)
            self.clock.at_us = START + arrival
            self.request(service)
            await self.settle()
        await self.advance(START + span_us)
        self.clock.at_us = START + span_us

    def request(self, service: int) -> None:
        lease = self.fleet.activator.claim(MODEL)
        if lease is not None:
            self.serve(lease, service)
            return
        if self.bridges:
            bridged = self.fleet.bridging.bridge(MODEL, asked_by="trace", key="", most_nusd=0)
            if bridged is not None:
                heappush(self.crossing, (self.clock.at_us + service, next(self.numbers), bridged))
                return
        held = self.fleet.activator.hold(MODEL, size_bytes=0, asked_by="trace", request="r")
        self.held.append((held, service))

    def serve(self, lease: Lease, service: int) -> None:
        heappush(self.running, (self.clock.at_us + service, next(self.numbers), lease))

    async def advance(self, until: int) -> None:
        """Let everything happen that comes before a request at `until`, in the planner's order."""
        while True:
            done = self.running[0][0] if self.running else NEVER
            crossed = self.crossing[0][0] if self.crossing else NEVER
            if self.tick(min(until, done, self.alarm.due_us, crossed)):
                pass
            elif done <= min(until, self.alarm.due_us, crossed):
                self.clock.at_us, _, lease = heappop(self.running)
                self.fleet.activator.give_back(lease)
            elif self.alarm.due_us <= min(until, crossed):
                self.clock.at_us = self.alarm.due_us
                self.alarm.rings()
            elif crossed <= until:
                self.clock.at_us, _, bridged = heappop(self.crossing)
                self.fleet.bridging.bridge_over(bridged, cost_nusd=0)
            else:
                return
            await self.settle()

    def tick(self, until: int) -> bool:
        now, units = self.clock.at_us, self.units
        dues = [NEVER if (due := unit.cell.next_tick_us(now)) is None else due for unit in units]
        at_us = max(min(*dues, units[0].replicas.look_us or NEVER), now)
        if at_us >= until:
            return False
        self.clock.at_us = at_us
        self.fleet.controller.submit(units[dues.index(min(dues))], Tick())
        return True

    async def settle(self) -> None:
        """Return when every wake and park under way waits for its alarm."""
        while len(jobs := self.jobs()) > len(self.alarm.waiting):
            self.alarm.set.clear()
            alarmed = self.fleet.controller.tasks.create_task(self.alarm.set.wait())
            await asyncio.wait([*jobs, alarmed], return_when=asyncio.FIRST_COMPLETED)
            alarmed.cancel()
        for held, service in self.held:
            if held.future.done():
                self.serve(held.future.result(), service)
        self.held = [(held, service) for held, service in self.held if not held.future.done()]

    def jobs(self) -> list[asyncio.Task[None]]:
        return [unit.job for unit in self.units if unit.job is not None and not unit.job.done()]

    def spans(self) -> list[list[tuple[int, str]]]:
        """When each cause began, replica by replica."""
        opened = [entry for entry in self.ledger.entries if isinstance(entry, SpanOpened)]
        return [[(one.at_us, one.cause) for one in opened if one.replica == unit.id] for unit in self.units]


@asynccontextmanager
async def virtual_fleet(
    scenario: Scenario, levels: Sequence[tuple[Policy, FloorSchedule]], *, bridges: bool
) -> AsyncIterator[VirtualFleet]:
    """A fleet of one model, parked cold, whose wakes and parks take the scenario's times."""
    clock, world, ledger, log = VirtualClock(), World(), MemoryLedger(), KeptLog()
    alarm = Alarm(clock)

    def driver(tier: Tier) -> TimedDriver:
        times = scenario.times(tier)
        timed = TimedDriver(world, tier, clock)  # type: ignore[arg-type]
        timed.wake_door = TimedDoor(alarm, times.wake_us)  # type: ignore[assignment]
        timed.park_door = TimedDoor(alarm, [times.park_us])  # type: ignore[assignment]
        timed.cold_door = TimedDoor(alarm, [scenario.times(Tier.COLD).park_us])
        return timed

    plan = ModelPlan(
        settings=ReplicaSettings(
            model=MODEL,
            max_concurrency=scenario.max_concurrency,
            hold=HoldSettings(count=UNBOUNDED, bytes=UNBOUNDED, age_us=UNBOUNDED),
            wake=WakeSettings(
                budget_us=UNBOUNDED,
                cap_us=UNBOUNDED,
                expected_us={times.tier: times.median_wake_us for times in scenario.tiers},
            ),
            park=ParkSettings(ladder=scenario.ladder),
        ),
        levels=[LevelPlan(policy=policy, floor=floor) for policy, floor in levels],
        equipment=Equipment(
            engine=FakeEngine(world, clock, MODEL, 9000),  # type: ignore[arg-type]
            drivers={tier: driver(tier) for tier in scenario.ladder},
            processes=world,
        ),
        driver="fake-cold",
    )
    parts = FleetParts(
        settings=FleetSettings(directory="/nowhere", models=(), on_exit="leave", exit_us=0),
        plans=[plan],
        remembered={},
        last_seen_us=0,
        journal=Journal(ledger=ledger),
        feeds=Feeds(),
        connections=FakeConnections(),
        guard=SpendGuard(look=no_limits, find_jumps=no_jumps, every_s=3600),
        clock=clock,
        wall_step_us=lambda: 0,
        log=log,
        leave=lambda left: None,
        sweep_due=never,
    )
    async with running_fleet(parts) as fleet:
        virtual = VirtualFleet(fleet=fleet, clock=clock, alarm=alarm, ledger=ledger, bridges=bridges)
        await virtual.settle()
        yield virtual
        for held, _ in virtual.held:
            held.future.cancel()


async def no_limits() -> Verdict:
    return Verdict(at_us=0)


async def no_jumps() -> list:
    return []


async def never() -> None:
    await asyncio.get_running_loop().create_future()
