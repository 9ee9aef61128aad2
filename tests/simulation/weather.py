"""Fakes of drivers and engines that break in every way the real ones may, each call by its own dice.

The dice of a call are thrown from the seed, the name of the place and the number of the call there, so that
leaving an event out of a history does not change the weather elsewhere.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum

from tests.fleet.fakes import Door, FakeDriver, FakeEngine, World

from poorwill.core.launch import Launch, Parked, Running
from poorwill.core.ports.driver import DriverError, Found, SnapshotRefused
from poorwill.core.ports.silence import HostSilent
from poorwill.core.words import Tier
from poorwill.policies.placement.devices import DeviceState, Holder
from poorwill.policies.placement.places import WHOLE_SHARE

NEVER_S = 10.0**7


class Fault(StrEnum):
    """How one call goes."""

    NONE = "as it should"
    SLOW = "slow"
    FAILS = "fails at once"
    FAILS_LATE = "fails late"
    HANGS = "hangs"


Odds = Sequence[tuple[Fault, int]]
ODDS: Odds = ((Fault.NONE, 80), (Fault.SLOW, 8), (Fault.FAILS, 4), (Fault.FAILS_LATE, 4), (Fault.HANGS, 2))
KILL_ODDS: Odds = ((Fault.NONE, 95), (Fault.SLOW, 3), (Fault.FAILS_LATE, 2))
"""Ending a process is bounded: it is asked, then killed, and at last it is said that it does not go."""


@dataclass
class Weather:
    """The dice of one history, and what has come of them."""

    seed: int
    calm: bool = False
    met: Counter[tuple[str, Fault]] = field(default_factory=Counter)
    _calls: Counter[str] = field(default_factory=Counter)

    def dice(self, place: str) -> random.Random:
        """Return fresh dice for one call at a place."""
        self._calls[place] += 1
        return random.Random(f"{self.seed} {place} {self._calls[place]}")

    def fault(self, place: str, odds: Odds, dice: random.Random | None = None) -> Fault:
        """Return how one call at a place goes."""
        if self.calm:
            fault = Fault.NONE
        else:
            names, weights = zip(*odds, strict=True)
            fault = (dice or self.dice(place)).choices(names, weights)[0]
        self.met[place.rsplit("/", 1)[-1], fault] += 1
        return fault

    async def pass_through(self, place: str, usual_s: float, odds: Odds = ODDS) -> None:
        """Take the time that a call takes, and fail or hang where the dice say so."""
        dice = self.dice(place)
        fault = self.fault(place, odds, dice)
        took_s = usual_s * dice.uniform(0.5, 1.5)
        if fault is Fault.FAILS:
            raise DriverError(f"{place} {fault}")
        await asyncio.sleep({Fault.SLOW: took_s * 20, Fault.HANGS: NEVER_S}.get(fault, took_s))
        if fault is Fault.FAILS_LATE:
            raise DriverError(f"{place} {fault}")


@dataclass
class WeatherDoor(Door):
    """A door of a fake at which the weather decides."""

    weather: Weather
    place: str
    usual_s: float

    async def go_through(self) -> None:
        await self.weather.pass_through(self.place, self.usual_s)


@dataclass
class SimulatedWorld(World):
    """What exists on the simulated machine, with the laws that hold for it at every instant."""

    rotten: set[str] = field(default_factory=set)
    """Snapshots whose damage the driver finds."""
    garbled: set[str] = field(default_factory=set)
    """Snapshots whose damage shows in the engine's answers alone."""
    talking_nonsense: set[int] = field(default_factory=set)
    """Engines that were woken from such a snapshot."""
    may_spawn: Callable[[str, int], None] = lambda replica, generation: None
    broken: list[BaseException] = field(default_factory=list)
    """Laws broken within calls of the fleet, which might take them for trouble of a driver."""
    stubborn: set[int] = field(default_factory=set)
    """Processes that did not end when they were killed: a sweep tries again."""
    hang_up: Callable[[int], None] = lambda pid: None
    """Resets the connections to a process: what the kernel does when it ends."""
    silences: dict[int, tuple[int, int]] = field(default_factory=dict)
    """From when until when the host of a process answered nobody, the last time."""
    strays: set[int] = field(default_factory=set)
    """Processes on a silent host whose replica has been started on another one since."""
    now_us: Callable[[], int] = lambda: 0
    ended_us: dict[str, int] = field(default_factory=dict)
    """When the last process of each replica ended."""
    weather: Weather = field(default_factory=lambda: Weather(0))
    gpus: tuple[int, ...] = ()
    keeps_bytes: int = 0
    foreign: dict[str, int] = field(default_factory=dict)
    """What other programs hold of each device."""

    # the port Devices

    @property
    def trouble(self) -> str:
        return ""

    async def look(self) -> Sequence[DeviceState]:
        await asyncio.sleep(0.01)
        return [self._seen(number, size) for number, size in enumerate(self.gpus)]

    def _seen(self, number: int, size: int) -> DeviceState:
        device = f"GPU-{number}"
        holders = [
            Holder(pid=pid, bytes=n, program="engine", replica=self.processes[pid].replica)
            for pid, n in self.held(device, size).items()
        ]
        if foreign := self.foreign.get(device):
            holders.append(Holder(pid=1, bytes=foreign, program="train.py"))
        used = sum(holder.bytes or 0 for holder in holders)
        return DeviceState(id=device, index=number, bytes=size, used_bytes=used, holders=tuple(holders))

    def held(self, device: str, size: int) -> dict[int, int]:
        """Return what each process holds of a device."""
        on = {pid: place for pid in self.processes if device in (place := self.places[pid]).devices}
        given = {pid: place.share_bytes or int(WHOLE_SHARE * size) for pid, place in on.items()}
        return {pid: min(self.keeps_bytes, n) if pid in self.asleep else n for pid, n in given.items()}

    def check_devices(self) -> None:
        """Law: no device is overcommitted."""
        for number, size in enumerate(self.gpus):
            held = self.held(f"GPU-{number}", size)
            assert sum(held.values()) <= size, f"GPU-{number} has {size} and must hold {held}"

    def spawn(self, launch: Launch, generation: int, driver: str) -> Running:
        with self.judged():
            before = [each for each in self.of(launch.replica) if each.pid not in self.stubborn]
            self.strays.update(each.pid for each in before if self.is_silent(each.pid))
            others = [each for each in before if each.pid not in self.strays]
            assert not others, f"{launch.replica} has a process already: {others}"
            self.may_spawn(launch.replica, generation)
        here = {pid: each for pid, each in self.processes.items() if pid not in self.strays}
        if launch.port in {each.port for each in here.values()}:
            raise DriverError(f"port {launch.port} is taken")
        elsewhere = {pid: each for pid, each in self.processes.items() if pid in self.strays}
        self.processes = here
        running = super().spawn(launch, generation, driver)
        self.processes |= elsewhere
        with self.judged():
            self.check_devices()
        return running

    def end(self, pid: int, why: str = "signal 9") -> None:
        running = self.processes.get(pid)
        super().end(pid, why)
        if running is not None:
            self.ended_us[running.replica] = self.now_us()
            self.strays.discard(pid)
            self.hang_up(pid)

    # hosts that fall silent

    def is_silent(self, pid: int) -> bool:
        """Return whether nobody can see this process now."""
        return self.now_us() < self.silences.get(pid, (0, 0))[1]

    def fall_silent_until(self, running: Running, until_us: int) -> None:
        """Have the host of a process answer nobody until an instant; the process goes on."""
        self.silences[running.pid] = self.now_us(), until_us
        end = self.ends.pop(running.pid, None)
        if end is not None and not end.done():
            end.set_exception(self._silence(running.pid))
            end.exception()  # who watched may have left

    def see(self, running: Running) -> None:
        if self.is_silent(running.pid):
            raise self._silence(running.pid)

    def _silence(self, pid: int) -> HostSilent:
        async def back() -> None:
            while self.is_silent(pid):  # noqa: ASYNC110 - it may fall silent again meanwhile
                await asyncio.sleep((self.silences[pid][1] - self.now_us()) / 1e6)

        return HostSilent("the host x is silent", back=back)

    @contextmanager
    def judged(self) -> Iterator[None]:
        """Remember a law that is broken in here."""
        try:
            yield
        except AssertionError as error:
            self.broken.append(error)
            raise

    async def kill(self, running: Running) -> None:
        self.see(running)
        try:
            await self.weather.pass_through("kill", 0.2, KILL_ODDS)
        except DriverError:
            self.stubborn.add(running.pid)
            raise
        self.end(running.pid, "killed")

    def copy(self) -> "SimulatedWorld":
        """Return what outlives a poorwill that is killed."""
        left = SimulatedWorld(pids=self.pids, weather=self.weather, rotten=self.rotten)
        left.processes, left.snapshots = dict(self.processes), dict(self.snapshots)
        left.gpus, left.keeps_bytes, left.places = self.gpus, self.keeps_bytes, dict(self.places)
        left.foreign = self.foreign
        left.stubborn = self.stubborn
        left.asleep, left.garbled = set(self.asleep), self.garbled
        left.talking_nonsense = set(self.talking_nonsense)
        left.silences, left.strays = dict(self.silences), set(self.strays)
        return left


@dataclass
class SimulatedDriver(FakeDriver):
    """A tier in the weather. `may_park` holds the law about leases at the moment of a park."""

    may_park: Callable[[str], None] = lambda replica: None

    async def park(self, running: Running, launch: Launch, *, generation: int) -> Parked:
        with self.world.judged():
            self.may_park(running.replica)
        return await super().park(running, launch, generation=generation)

    async def discard(self, parked: Parked) -> None:
        if parked.running is not None:
            self.world.see(parked.running)
        await super().discard(parked)

    async def inventory(self) -> list[Found]:
        found = await super().inventory()
        return [each for each in found if not each.running or not self.world.is_silent(each.running.pid)]

    async def wake(self, parked, launch, *, generation, report):
        if parked.path in self.world.rotten:
            raise SnapshotRefused("a checksum does not match")
        running = await super().wake(parked, launch, generation=generation, report=report)
        if parked.path in self.world.garbled:
            self.world.talking_nonsense.add(running.pid)
        with self.world.judged():
            self.world.check_devices()
        return running


@dataclass
class SimulatedEngine(FakeEngine):
    """An engine in the weather; woken from a garbled snapshot it answers another thing than before."""

    weather: Weather = field(default_factory=lambda: Weather(0))

    def launch(self, *, replica, generation, anew=False, place=None):
        launch = super().launch(replica=replica, generation=generation, anew=anew, place=place)
        return replace(launch, port=self.port + 1000 * int(replica.rsplit("-", 1)[1]))

    async def probe(self, running, launch):
        answer = await super().probe(running, launch)
        return "nonsense" if running.pid in self.world.talking_nonsense else answer


def new_drivers(
    world: SimulatedWorld, clock, name: str, ladder: Sequence[Tier], may_park: Callable[[str], None]
) -> dict[Tier, SimulatedDriver]:
    """Return the drivers of one model, each with its own doors."""
    usual = {Tier.COLD: (8.0, 0.3), Tier.FROZEN: (0.6, 1.0), Tier.ASLEEP: (0.3, 0.2)}
    weather = world.weather

    def door(tier: Tier, what: str, usual_s: float) -> WeatherDoor:
        return WeatherDoor(weather=weather, place=f"{name}/{tier} {what}", usual_s=usual_s)

    return {
        tier: SimulatedDriver(
            world=world,
            tier=tier,
            clock=clock,
            wake_door=door(tier, "wake", usual[tier][0]),
            park_door=door(tier, "park", usual[tier][1]),
            may_park=may_park,
        )
        for tier in dict.fromkeys((*ladder, Tier.COLD))
    }
