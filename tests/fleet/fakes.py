"""A scripted outside world for the real fleet: processes, snapshots, an engine, and doors to stop it at."""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from poorwill.core.launch import Launch, Parked, PhaseMark, Place, Running
from poorwill.core.policy import Descent, Floor, Rung
from poorwill.core.ports.driver import DriverError, Found, SnapshotRefused
from poorwill.core.ports.silence import HostSilent
from poorwill.core.words import ModelName, Phase, ReplicaId, Tier
from poorwill.hosts.processes.exclusive import Exclusive

START = 1_800_000_000 * 1_000_000


@dataclass
class HandClock:
    """A clock that a test sets. It never tells the same instant twice, as a real one."""

    at_us: int = START

    def now_us(self) -> int:
        self.at_us += 1
        return self.at_us


class Door:
    """A place where a call can be made to wait, to fail, and where a test waits for a call to arrive."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.arrived = asyncio.Event()
        self.mistakes: deque[Exception] = deque()
        self.passed = 0
        self.cancelled = 0

    def shut(self) -> None:
        self.open.clear()
        self.arrived.clear()

    async def go_through(self) -> None:
        self.arrived.set()
        try:
            await self.open.wait()
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.mistakes:
            raise self.mistakes.popleft()
        self.passed += 1

    async def reached(self) -> None:
        async with asyncio.timeout(5):
            await self.arrived.wait()


@dataclass
class World:
    """What exists on the machine, and survives a poorwill that ends."""

    pids: "itertools.count[int]" = field(default_factory=lambda: itertools.count(100))
    processes: dict[int, Running] = field(default_factory=dict)
    ends: dict[int, asyncio.Future[str]] = field(default_factory=dict)
    snapshots: dict[str, Parked] = field(default_factory=dict)
    asleep: set[int] = field(default_factory=set)
    places: dict[int, Place] = field(default_factory=dict)
    """The devices that each process was started on."""
    weights_exist: bool = True
    killed: list[int] = field(default_factory=list)
    kill_mistakes: deque[Exception] = field(default_factory=deque)
    watch_mistakes: deque[Exception] = field(default_factory=deque)
    kill_door: Door = field(default_factory=Door)
    silent: dict[int, HostSilent] = field(default_factory=dict)
    """The processes whose host answers nobody."""
    images_on: str = ""
    """The host that images are on."""
    unseen: bool = False
    """Whether that host cannot be looked at."""
    uses: int = 0
    """CPU time that passes between two looks at the processes."""
    used: int = 0

    def spawn(self, launch: Launch, generation: int, driver: str) -> Running:
        assert launch.port not in {p.port for p in self.processes.values()}, "the port is taken"
        running = Running(
            replica=launch.replica,
            generation=generation,
            pid=next(self.pids),
            pid_started=1,
            host=launch.host,
            port=launch.port,
            log_path=launch.log_path,
            driver=driver,
            engine_model=launch.engine_model,
            launched=launch.identity(),
        )
        self.processes[running.pid] = running
        self.places[running.pid] = launch.place or Place()
        return running

    def end(self, pid: int, why: str = "signal 9") -> None:
        if self.processes.pop(pid, None) is None:
            return
        self.asleep.discard(pid)
        future = self.ends.pop(pid, None)
        if future is not None and not future.done():
            future.set_result(why)

    def fall_silent(self, running: Running) -> Callable[[], None]:
        """Have a process's host answer nobody; return what ends that."""
        back = asyncio.Event()

        async def is_back() -> None:
            await back.wait()

        def speak() -> None:
            del self.silent[running.pid]
            back.set()

        self.silent[running.pid] = silence = HostSilent("the host x is silent", back=is_back)
        if (end := self.ends.pop(running.pid, None)) is not None and not end.done():
            end.set_exception(silence)
            end.exception()  # who watched may have left
        return speak

    def see(self, running: Running) -> None:
        if (silence := self.silent.get(running.pid)) is not None:
            raise silence

    def of(self, replica: str) -> list[Running]:
        return [running for running in self.processes.values() if running.replica == replica]

    # core.ports.driver.Processes

    async def kill(self, running: Running) -> None:
        self.see(running)
        self.killed.append(running.pid)
        if self.kill_mistakes:
            raise self.kill_mistakes.popleft()
        await self.kill_door.go_through()
        self.end(running.pid, "killed")

    async def exited(self, running: Running) -> str:
        if self.watch_mistakes:
            raise self.watch_mistakes.popleft()
        self.see(running)
        if running.pid not in self.processes:
            return "gone"
        future = self.ends.get(running.pid)
        if future is None or future.done():
            future = self.ends[running.pid] = asyncio.get_running_loop().create_future()
        return await asyncio.shield(future)

    def alive(self, running: Running) -> bool:
        self.see(running)
        return running.pid in self.processes

    def effort(self, running: Running) -> int:
        self.used += self.uses
        return self.used


@dataclass
class FakeEngine:
    """An engine that answers as told."""

    world: World
    clock: HandClock
    model: str
    port: int
    answers: deque[str] = field(default_factory=deque)
    """What the next probes get; afterwards always the same."""
    ready_door: Door = field(default_factory=Door)
    probe_door: Door = field(default_factory=Door)
    refine_mistakes: deque[Exception] = field(default_factory=deque)
    follow_mistakes: deque[Exception] = field(default_factory=deque)
    argv: tuple[str, ...] = ("fake",)
    engine_model: str = ""
    on_refine: Callable[[], object] | None = None
    """Called in the very tick in which the wake reports that it succeeded."""
    following: int = 0
    tells: Callable[[], str | None] = lambda: ""
    """What its counters say."""

    name = "fake"

    def launch(
        self, *, replica: ReplicaId, generation: int, anew: bool = False, place: Place | None = None
    ) -> Launch:
        if not self.world.weights_exist:
            raise OSError("no such model file")
        return Launch(
            replica=replica,
            model=ModelName(self.model),
            engine=self.name,
            argv=self.argv,
            port=self.port + 100 * int(replica.rpartition("-")[2]),
            log_path=f"/nowhere/{replica}.log",
            engine_model=self.engine_model,
            place=place,
        )

    async def follow(self, launch, report):
        if self.follow_mistakes:
            raise self.follow_mistakes.popleft()
        self.following += 1
        try:
            report(PhaseMark(phase=Phase.WEIGHTS, at_us=self.clock.now_us()))
            await asyncio.get_running_loop().create_future()
        finally:
            self.following -= 1

    async def ready(self, running, launch):
        await self.ready_door.go_through()
        if running.pid in self.world.asleep or not self.world.alive(running):
            raise DriverError("the engine does not answer")

    async def probe(self, running, launch):
        await self.probe_door.go_through()
        if running.pid in self.world.asleep or not self.world.alive(running):
            raise DriverError("the engine does not answer")
        return self.answers.popleft() if self.answers else "42"

    async def vital_signs(self, running, launch):
        return self.tells()

    def refine(self, launch, marks, began_us, ended_us):
        if self.on_refine is not None:
            self.on_refine()
        if self.refine_mistakes:
            raise self.refine_mistakes.popleft()
        return marks


@dataclass
class FakeDriver:
    """A tier over the world: cold (start and stop), frozen (a snapshot), or asleep (the process stays)."""

    world: World
    tier: Tier
    clock: HandClock
    wake_door: Door = field(default_factory=Door)
    park_door: Door = field(default_factory=Door)
    discard_mistakes: deque[Exception] = field(default_factory=deque)
    look_mistakes: deque[Exception] = field(default_factory=deque)
    discarded: list[Parked] = field(default_factory=list)
    woken: list[Parked] = field(default_factory=list)
    no_way_down: bool = False
    exclusive: Exclusive = field(default_factory=Exclusive)

    @property
    def name(self) -> str:
        return f"fake-{self.tier}"

    async def park(self, running: Running, launch: Launch, *, generation: int) -> Parked:
        with self.exclusive.during(running.replica, "park"):
            await self.park_door.go_through()
        if not self.world.alive(running):
            raise DriverError("there is nothing to park")
        parked = Parked(replica=running.replica, generation=generation, tier=self.tier)
        if self.tier is Tier.ASLEEP:
            self.world.asleep.add(running.pid)
            return replace(parked, running=running)
        self.world.end(running.pid, "parked")
        if self.tier is Tier.COLD:
            return parked
        parked = replace(parked, path=f"/snap/{running.replica}.{generation}", image_bytes=1000)
        parked = replace(parked, machine=self.world.images_on)
        self.world.snapshots[parked.path or ""] = parked
        return parked

    async def wake(self, parked, launch, *, generation, report):
        self.woken.append(parked)
        with self.exclusive.during(launch.replica, "wake"):
            if self.tier is Tier.ASLEEP:
                return await self._roused(parked, generation, report)
            if self.tier is not Tier.COLD and parked.path not in self.world.snapshots:
                raise SnapshotRefused("the snapshot is missing")
            report(PhaseMark(phase=Phase.SPAWN, at_us=self.clock.now_us()))
            running = self.world.spawn(launch, generation, self.name)
            try:
                await self.wake_door.go_through()
            except BaseException:
                self.world.end(running.pid, "the wake failed")
                raise
            self.world.snapshots.pop(parked.path or "", None)
            return running

    async def _roused(self, parked, generation, report):
        running = parked.running
        if running is None or not self.world.alive(running):
            raise SnapshotRefused("the sleeping engine is gone")
        report(PhaseMark(phase=Phase.ENGINE_WAKE, at_us=self.clock.now_us()))
        try:
            await self.wake_door.go_through()
        except BaseException:
            self.world.end(running.pid, "the wake failed")
            raise
        self.world.asleep.discard(running.pid)
        return replace(running, generation=generation, driver=self.name)

    async def descend(self, parked: Parked, launch: Launch, *, generation: int) -> Parked:
        await self.park_door.go_through()
        if self.no_way_down:
            raise DriverError("there is no way from there")
        if parked.running is not None:
            self.world.end(parked.running.pid, "deeper")
        deeper = Parked(
            replica=parked.replica,
            generation=generation,
            tier=self.tier,
            path=f"/snap/{parked.replica}.{generation}",
        )
        self.world.snapshots[deeper.path or ""] = deeper
        return deeper

    async def discard(self, parked: Parked) -> None:
        self.discarded.append(parked)
        if self.discard_mistakes:
            raise self.discard_mistakes.popleft()
        self.world.snapshots.pop(parked.path or "", None)
        if parked.running is not None:
            self.world.end(parked.running.pid, "discarded")

    async def inventory(self) -> list[Found]:
        if self.look_mistakes:
            raise self.look_mistakes.popleft()
        if self.tier is Tier.COLD:
            return [
                Found(
                    replica=running.replica,
                    generation=running.generation,
                    tier=None,
                    what=f"pid {running.pid}",
                    running=running,
                )
                for running in self.world.processes.values()
            ]
        if self.world.unseen:
            host = self.world.images_on
            return [Found(replica=ReplicaId(""), generation=0, tier=None, what="", silent=host)]
        return [
            Found(
                replica=parked.replica,
                generation=parked.generation,
                tier=self.tier,
                what=str(parked.path),
                image_bytes=parked.image_bytes,
                parked=parked,
            )
            for parked in self.world.snapshots.values()
            if parked.tier is self.tier
        ]


@dataclass
class FakeConnections:
    """The gateway's pool: remembers what was closed and what was cut."""

    cuts: list[tuple[int, str]] = field(default_factory=list)
    sent_back: list[int] = field(default_factory=list)
    """Where those without an answer were sent to another replica."""
    closed: list[int] = field(default_factory=list)

    async def close(self, host: str, port: int) -> None:
        await asyncio.sleep(0)
        self.closed.append(port)

    def cut(self, host: str, port: int, why: str, *, again: bool = False) -> None:
        self.cuts.append((port, why))
        self.sent_back += [port] if again else []


@dataclass
class Watcher:
    """A policy that keeps what it was told, with fixed idle times and, on demand, a wake ahead."""

    after_us: tuple[tuple[Tier, int], ...] = ()
    wake_after_us: int | None = None
    observed: list[tuple[int, int]] = field(default_factory=list)

    name = "watcher"

    def observe(self, idle_since_us: int, demand_at_us: int, *, others: int = 0) -> None:
        self.observed.append((idle_since_us, demand_at_us))

    def descent(self, idle_since_us: int) -> Descent:
        wake_at = None if self.wake_after_us is None else idle_since_us + self.wake_after_us
        rungs = tuple(Rung(tier, idle_since_us + after) for tier, after in self.after_us)
        return Descent(rungs, wake_at, why="as told")


@dataclass
class Until:
    """A floor that holds until an instant, and again from another one."""

    ends_us: int
    begins_us: int | None = None

    def at(self, now_us: int) -> Floor:
        if now_us < self.ends_us:
            return Floor(required=True, until_us=self.ends_us, name="morning")
        if self.begins_us is not None and now_us >= self.begins_us:
            return Floor(required=True, until_us=None, name="evening")
        return Floor(required=False, until_us=self.begins_us)
