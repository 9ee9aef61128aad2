"""The service of a host: runs the drivers there for a controller elsewhere, and owns what they start.

Engines are children of this process, in sessions of their own: they outlive it, and the next one finds them.
A call lasts as long as its connection: whoever leaves has it cancelled, and a wake leaves nothing behind.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import msgspec

from poorwill.core.errors import PoorwillError
from poorwill.core.launch import Launch, Parked, PhaseMark, Place, Running
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.driver import Driver, DriverError, Found, Report
from poorwill.core.ports.engine import Engine
from poorwill.core.ports.log import Log
from poorwill.core.settings import FleetSettings
from poorwill.core.words import ModelName, ReplicaId, Tier
from poorwill.hosts.files.aside import aside
from poorwill.hosts.processes.process import EngineProcesses
from poorwill.remote.ray.calls import Beat, Call, CallAnswer, Marked, Op, failed, line, read_call
from poorwill.remote.ray.devices import GivenDevices, place_of
from poorwill.remote.ray.offers import Equip, HostDisks, Kit

MOST_CALL_BYTES = 16 * 2**20
KEPT = 256
"""How many ends of engines are told again with each beat, and how many calls can still be undone."""
WATCH_AGAIN_S = 5.0
T = TypeVar("T")


def nobody() -> None:
    """Call nobody: there is no relay now."""


@dataclass(slots=True, kw_only=True, eq=False)
class HostService:
    """A host's drivers, behind a socket of its own."""

    name: str
    socket: Path
    """Where it takes calls: a Unix socket."""
    equip: Equip
    processes: EngineProcesses
    images: Callable[[Tier], Sequence[Found]]
    """Lists the images on disk of a tier."""
    clock: Clock
    log: Log
    tasks: asyncio.TaskGroup
    devices: GivenDevices
    disks: HostDisks
    kits: Mapping[ModelName, Kit] = field(default_factory=dict)
    engines: dict[tuple[int, int], Running] = field(default_factory=dict)
    """What lives here, by pid and start time, as the drivers know it."""
    ended: dict[str, str] = field(default_factory=dict)
    launches: dict[ReplicaId, Launch] = field(default_factory=dict)
    marks: deque[Marked] = field(default_factory=deque)
    session: int = 0
    beats: int = 0
    news: Callable[[], object] = nobody
    """Called when the next beat should not be waited for."""
    _watching: set[asyncio.Task[None]] = field(default_factory=set)
    _equipped: FleetSettings | None = None
    _equipping: asyncio.Lock = field(default_factory=asyncio.Lock)
    _woken: dict[str, Running] = field(default_factory=dict)
    """What calls have started, by their ids."""
    _unwanted: dict[str, None] = field(default_factory=dict)
    """Calls that were undone: one that comes late is not begun."""
    _under_way: dict[object, ReplicaId | None] = field(default_factory=dict)
    """The replica of each call; None while the call is still to be read."""
    _moved: asyncio.Event = field(default_factory=asyncio.Event)
    """Set, and replaced, as a call is read or is over."""

    def find(self) -> None:
        """Watch the engines that an earlier service of this host has left, and the disks."""
        self._watching.add(self.tasks.create_task(self.disks.follow()))
        for found in self.processes.found():
            if (running := found.running) is not None:
                self.watch(replace(running, place=place_of(running.pid)))

    def watch(self, running: Running) -> None:
        """Tell of an engine from now on, and of its end."""
        key = running.pid, running.pid_started
        if key not in self.engines:
            self.engines[key] = running
            task = self.tasks.create_task(self._until_ended(key))
            self._watching.add(task)
            task.add_done_callback(self._watching.discard)

    async def _until_ended(self, key: tuple[int, int]) -> None:
        running, why = self.engines[key], ""
        while not why:
            try:
                why = await self.processes.exited(running)
            except Exception as error:
                self.log.error("cannot watch an engine", replica=running.replica, why=repr(error))
                await asyncio.sleep(WATCH_AGAIN_S)
        self.engines.pop(key, None)
        _keep(self.ended, "{}:{}".format(*key), why)
        self.news()

    def close(self) -> None:
        """Watch nothing any more; the engines run on."""
        for task in self._watching:
            task.cancel()

    def beat(self) -> Beat:
        """Return the next sign of life. One listener at a time gets the marks.

        The relay's thread calls it: every copy is one step of the interpreter, and the number comes first,
        so that an answer that has it has an engine which the next beat knows.
        """
        self.beats += 1
        marks = [self.marks.popleft() for _ in range(len(self.marks))]
        return Beat(
            number=self.beats,
            now_us=self.clock.now_us(),
            session=self.session,
            engines=tuple(self.engines),
            ended=dict(self.ended),
            marks=tuple(marks),
            disks=self.disks.now,
        )

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the one call of a connection. It is cancelled if the other end closes first."""
        me = object()
        self._under_way[me] = None
        try:
            call = read_call(await reader.readline())
            self._move({me: call.replica if call.op is not Op.UNDO else ReplicaId("")})
            answer = await self._while_wanted(call, reader)
            writer.write(line(answer))
            await writer.drain()
        except (OSError, ValueError, msgspec.DecodeError) as error:
            self.log.warning("a call was not understood", why=str(error))
        finally:
            del self._under_way[me]
            self._move({})
            writer.close()

    def _move(self, news: Mapping[object, ReplicaId]) -> None:
        self._under_way |= news
        self._moved.set()
        self._moved = asyncio.Event()

    async def _while_wanted(self, call: Call, reader: asyncio.StreamReader) -> CallAnswer:
        async with asyncio.TaskGroup() as group:
            work = group.create_task(self.answer(call))
            left = group.create_task(_ended(reader))
            await asyncio.wait([work, left], return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                self.log.info("the caller left: its call is undone", op=call.op.value, replica=call.replica)
            left.cancel()
            if not work.done():
                work.cancel()
                await asyncio.wait([work])
        return CallAnswer(error="the caller left") if work.cancelled() else work.result()

    async def answer(self, call: Call) -> CallAnswer:
        """Do what a call asks. Cancelled: as the port says of what it asks. Never raises otherwise."""
        try:
            if call.op is Op.UNDO:
                await self._undo(call)
                return CallAnswer()
            if call.id in self._unwanted:
                return CallAnswer(error="the caller left")
            answer = await self._do(call)
            return msgspec.structs.replace(answer, beat=self.beats)
        except DriverError as error:
            running = self.outward(error.running) if error.running is not None else None
            return failed(error, running=running)
        except (PoorwillError, OSError) as error:
            return failed(error)
        except Exception as error:
            self.log.error("a call failed with an unexpected error", op=call.op.value, error=repr(error))
            return failed(DriverError(f"internal error: {error!r}"))

    async def _do(self, call: Call) -> CallAnswer:
        match call.op:
            case Op.EQUIP:
                assert call.fleet is not None
                return await self._equip(call.fleet)
            case Op.INVENTORY:
                return CallAnswer(found=tuple(await self._inventory(call.tier)))
            case Op.DISCARD:
                assert call.parked is not None
                await self._discard(self.inward(call.parked))
                return CallAnswer()
            case Op.KILL:
                assert call.running is not None
                await self.processes.kill(self.local(call.running))
                return CallAnswer()
            case Op.WAKE:
                return await self._wake(call)
            case Op.PARK | Op.DESCEND:
                return await self._park(call)
            case _:
                return await self._ask(call)

    async def _equip(self, fleet: FleetSettings) -> CallAnswer:
        async with self._equipping:
            if fleet != self._equipped:
                self.kits = await self.equip(fleet)
                self._equipped = fleet
        offers = {}
        for model, kit in self.kits.items():
            there = await aside(kit.weights)
            offers[model] = msgspec.structs.replace(kit.offer, weights_bytes=there)
        return CallAnswer(offers=offers)

    async def _inventory(self, tier: Tier) -> list[Found]:
        drivers = {
            id(kit.drivers[tier]): kit.drivers[tier] for kit in self.kits.values() if tier in kit.drivers
        }
        found = [each for driver in drivers.values() for each in await driver.inventory()]
        if not self.kits:  # nobody has said yet which models there are
            found = list(self.processes.found() if tier is Tier.COLD else self.images(tier))
        return [
            replace(
                each,
                what=f"{each.what} on {self.name}",
                running=self.outward(each.running) if each.running else None,
                parked=self.outward_parked(each.parked) if each.parked else None,
                unfinished=True,
            )
            for each in found
        ]

    async def _discard(self, parked: Parked) -> None:
        for kit in self.kits.values():
            if (driver := kit.drivers.get(parked.tier)) is not None:
                await driver.discard(parked)
                return

    async def _wake(self, call: Call) -> CallAnswer:
        kit, engine = self._kit(call.model)
        driver, parked = self._driver(kit, call.tier), call.parked
        assert parked is not None
        report = self._reporter(call)
        if call.tier is Tier.COLD and kit.fetch is not None:
            await kit.fetch(report)
        parked = self.inward(parked)
        with self._place(kit, call.replica, parked) as place:
            launch = await self._launch(engine, call, anew=call.tier is Tier.COLD, place=place)
            async with self._followed(engine, launch, report):
                running = await driver.wake(parked, launch, generation=call.generation, report=report)
            running = replace(running, place=place)
            self.launches[call.replica] = launch
            self.watch(running)
        _keep(self._woken, call.id, running)
        return CallAnswer(running=self.outward(running))

    def _place(self, kit: Kit, replica: ReplicaId, parked: Parked) -> AbstractContextManager[Place | None]:
        """Hold what a wake's engine may see; None: everything. Raises NoCapacity."""
        if not kit.needs.gpus:
            return nullcontext()
        others = [each.place for each in self.engines.values() if each is not parked.running]
        before = parked.running or (self.launches.get(replica) if parked.tier is not Tier.COLD else None)
        return self.devices.given(kit.needs, others=others, kept=before.place if before else None)

    async def _park(self, call: Call) -> CallAnswer:
        kit, engine = self._kit(call.model)
        driver = self._driver(kit, call.tier)
        launch = await self._launched(engine, call)
        if call.op is Op.PARK:
            assert call.running is not None
            parked = await driver.park(self.local(call.running), launch, generation=call.generation)
        else:
            assert call.parked is not None
            parked = await driver.descend(self.inward(call.parked), launch, generation=call.generation)
        return CallAnswer(parked=self.outward_parked(parked))

    async def _ask(self, call: Call) -> CallAnswer:
        _, engine = self._kit(call.model)
        assert call.running is not None
        running, launch = self.local(call.running), await self._launched(engine, call)
        if call.op is Op.VITAL_SIGNS:
            return CallAnswer(text=await engine.vital_signs(running, launch))
        if call.op is Op.PROBE:
            return CallAnswer(text=await engine.probe(running, launch))
        async with self._followed(engine, launch, self._reporter(call)):
            await engine.ready(running, launch)
        return CallAnswer()

    async def _launched(self, engine: Engine, call: Call) -> Launch:
        """Return how the replica was started, or would be, if an earlier service did it."""
        held = self.local(call.running) if call.running is not None else call.parked
        place = held.place if held is not None else None
        return self.launches.get(call.replica) or await self._launch(engine, call, anew=False, place=place)

    async def _launch(self, engine: Engine, call: Call, *, anew: bool, place: Place | None) -> Launch:
        return await asyncio.to_thread(
            engine.launch, replica=call.replica, generation=call.generation, anew=anew, place=place
        )

    def _kit(self, model: ModelName) -> tuple[Kit, Engine]:
        kit = self.kits.get(model)
        if kit is None or kit.engine is None:
            raise DriverError(kit.offer.fault if kit else f"the model {model} was not set up here")
        return kit, kit.engine

    def _driver(self, kit: Kit, tier: Tier) -> Driver:
        driver = kit.drivers.get(tier)
        if driver is None:
            why, _ = kit.offer.broken.get(tier, ("there is no driver for it", ""))
            raise DriverError(f"not {tier} here: {why}")
        return driver

    def _reporter(self, call: Call) -> Report:
        def report(mark: PhaseMark) -> None:
            self.marks.append(Marked(replica=call.replica, generation=call.generation, mark=mark))
            self.news()

        return report

    @asynccontextmanager
    async def _followed(self, engine: Engine, launch: Launch, report: Report) -> AsyncIterator[None]:
        """Follow the engine's log meanwhile, from its end on."""

        async def follow() -> None:
            try:
                await engine.follow(launch, report)
            except Exception as error:
                self.log.warning("cannot follow an engine's log", replica=launch.replica, why=repr(error))

        follower = self.tasks.create_task(follow())
        try:
            await asyncio.sleep(0)  # it takes the log's end before the engine writes to it
            yield
        finally:
            follower.cancel()

    def outward(self, running: Running) -> Running:
        """Return an engine as others see it: at this host, which the gateway knows by name."""
        return replace(running, machine=self.name, host=self.name)

    def outward_parked(self, parked: Parked) -> Parked:
        """Return what is parked here as others see it."""
        running = self.outward(parked.running) if parked.running is not None else None
        return replace(parked, machine=self.name, running=running)

    def local(self, running: Running) -> Running:
        """Return an engine as the drivers here know it."""
        known = self.engines.get((running.pid, running.pid_started))
        return known or replace(running, machine="", host="127.0.0.1")

    def inward(self, parked: Parked) -> Parked:
        """Return what is parked here as the drivers here know it."""
        running = self.local(parked.running) if parked.running is not None else None
        return replace(parked, machine="", running=running)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Take calls at the socket. Its directory is this user's alone."""
        server = await asyncio.start_unix_server(self.converse, self.socket, limit=MOST_CALL_BYTES)
        try:
            yield
        finally:
            server.close()

    async def _undo(self, call: Call) -> None:
        """Return when the call is not under way (one to be read may be), and end what it has started."""
        _keep(self._unwanted, call.id, None)
        while {call.replica, None} & set(self._under_way.values()):
            await self._moved.wait()
        if (running := self._woken.pop(call.id, None)) is not None:
            await self.processes.kill(running)


def _keep(kept: dict[str, T], name: str, what: T) -> None:
    while len(kept) >= KEPT:
        kept.pop(next(iter(kept)))
    kept[name] = what


async def _ended(reader: asyncio.StreamReader) -> None:
    """Return when the other end says no more."""
    with suppress(OSError):
        await reader.read(1)
